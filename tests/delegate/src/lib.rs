//! What the rig and its delegate in dom0 say to each other.
//!
//! ```text
//!   rig ── HELLO nonce ─▶ delegate        repeated until the delegate echoes the nonce
//!   rig ◀─ HELLO nonce ── delegate
//!   rig ── Request ─────▶                 one request per conversation
//!   rig ── Data … Eof ──▶                 standard input, or the file being put
//!   rig ◀─ Stdout|Stderr|Data … Eof|Exit|Failed
//!   rig ── Bye ─────────▶                 or simply a hang-up: the delegate then kills what still runs
//! ```
//!
//! A virtio-serial port may lose the fact that one client left and another came, so every conversation starts with a
//! [`HELLO`] that no frame can contain at its start, and a delegate that meets anything it does not understand
//! drops the conversation and looks for the next HELLO. This module never opens a port or runs a process.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Starts every conversation; followed by eight bytes of nonce, echoed by the delegate.
pub const HELLO: [u8; 8] = *b"PRPTLAB1";
/// Bytes of a whole greeting: [`HELLO`] and the nonce.
pub const GREETING_LEN: usize = 16;
/// Largest body of one frame, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How much of a file or stream goes in one frame, in bytes: what virtio-console takes in one write.
pub const CHUNK: usize = 32 * 1024 - HEADER_LEN;
/// Where the ports appear in dom0, `{}` being the port's number.
pub const PORT_DIR: &str = "/dev/virtio-ports";
/// Names of the ports start with this; the number follows.
pub const PORT_PREFIX: &str = "lab.";
/// How many ports a host has: conversations that can go on at the same time.
pub const PORTS: usize = 8;

const HEADER_LEN: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`Request`] as JSON; rig to delegate.
    Request = 1,
    /// Bytes of standard input, or of a file.
    Data = 2,
    /// No more [`Kind::Data`].
    Eof = 3,
    /// Bytes of the command's standard output.
    Stdout = 4,
    /// Bytes of the command's standard error.
    Stderr = 5,
    /// The command ended: its exit code as four little-endian bytes, 128 + signal when it was killed.
    Exit = 6,
    /// The request could not be done; the body says why.
    Failed = 7,
    /// The rig has all it wanted.
    Bye = 8,
    /// The terminal's size, rows then columns, two little-endian bytes each; rig to delegate.
    Resize = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Data,
            3 => Self::Eof,
            4 => Self::Stdout,
            5 => Self::Stderr,
            6 => Self::Exit,
            7 => Self::Failed,
            8 => Self::Bye,
            9 => Self::Resize,
            _ => return None,
        })
    }
}

/// What the rig asks for, once per conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a program with these arguments (no shell in between), standard input following as [`Kind::Data`].
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// Added to the delegate's own environment.
        env: Vec<(String, String)>,
        /// Give it a terminal of its own instead of three pipes.
        tty: bool,
    },
    /// Write a file, its bytes following as [`Kind::Data`]; appears under its name only when complete.
    Put {
        /// Absolute path in dom0.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Read a file.
    Get {
        /// Absolute path in dom0.
        path: String,
    },
}

/// What `lab-delegate time` does: every step in order, `rounds` times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// How often.
    pub rounds: u32,
    /// Programs and their arguments.
    pub steps: Vec<Vec<String>>,
}

/// One command's time; a command that failed is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Round, from 0.
    pub round: u32,
    /// Step, from 0.
    pub step: usize,
    /// From before it was started until it was gone, by dom0's monotonic clock.
    pub nanoseconds: u64,
    /// Exit code.
    pub code: i32,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its bytes, at most [`MAX_BODY`].
    pub body: Vec<u8>,
}

/// Writes one frame with a single `write_all`.
///
/// # Errors
/// Those of the writer, or `InvalidInput` for a body longer than [`MAX_BODY`].
pub fn write_frame(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY);
    let Some(length) = length else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "frame body too long",
        ));
    };
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(body);
    to.write_all(&bytes)
}

/// Reads one frame.
///
/// # Errors
/// `UnexpectedEof` when the other side is gone, `InvalidData` when these bytes are no frame.
pub fn read_frame(from: &mut impl Read) -> io::Result<Frame> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header)?;
    let [kind, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    let kind = Kind::from_byte(kind).filter(|_| length <= MAX_BODY);
    let Some(kind) = kind else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame"));
    };
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Frame { kind, body })
}

/// Reads up to and including the next greeting and returns its nonce.
///
/// # Errors
/// Those of the reader; `UnexpectedEof` at its end.
pub fn find_greeting(from: &mut impl Read) -> io::Result<[u8; 8]> {
    let mut window = [0u8; HELLO.len()];
    while window != HELLO {
        let mut next = [0];
        from.read_exact(&mut next)?;
        window.rotate_left(1);
        window[HELLO.len() - 1] = next[0];
    }
    let mut nonce = [0; 8];
    from.read_exact(&mut nonce)?;
    Ok(nonce)
}

/// What may come where a conversation begins or goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The other side greeted again before it saw the answer.
    Greeting([u8; 8]),
    /// A frame.
    Frame(Frame),
}

/// Reads a frame or a repeated greeting.
///
/// # Errors
/// As [`read_frame`].
pub fn read_opening(from: &mut impl Read) -> io::Result<Opening> {
    let mut first = [0; 1];
    from.read_exact(&mut first)?;
    if first[0] != HELLO[0] {
        return read_frame(&mut first.as_slice().chain(from)).map(Opening::Frame);
    }
    let mut rest = [0; GREETING_LEN - 1];
    from.read_exact(&mut rest)?;
    let (hello, nonce) = rest.split_at(HELLO.len() - 1);
    match nonce.try_into() {
        Ok(nonce) if *hello == HELLO[1..] => Ok(Opening::Greeting(nonce)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "neither a frame nor a greeting",
        )),
    }
}

/// The bytes of a greeting.
#[must_use]
pub fn greeting(nonce: [u8; 8]) -> [u8; GREETING_LEN] {
    let mut bytes = [0; GREETING_LEN];
    bytes[..HELLO.len()].copy_from_slice(&HELLO);
    bytes[HELLO.len()..].copy_from_slice(&nonce);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_frame_starts_like_a_greeting() {
        assert!(Kind::from_byte(HELLO[0]).is_none());
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_it_is_read() {
        let mut bytes = vec![Kind::Data as u8];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let error = read_frame(&mut bytes.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_went(kind in 1u8..=9, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let kind = Kind::from_byte(kind).unwrap();
            let mut bytes = Vec::new();
            write_frame(&mut bytes, kind, &body).unwrap();
            prop_assert_eq!(read_frame(&mut bytes.as_slice()).unwrap(), Frame { kind, body });
        }

        #[test]
        fn the_greeting_is_found_behind_any_rubbish(
            rubbish in prop::collection::vec(any::<u8>(), 0..64), nonce in any::<[u8; 8]>()
        ) {
            let mut bytes = rubbish;
            bytes.extend_from_slice(&greeting(nonce));
            prop_assert_eq!(find_greeting(&mut bytes.as_slice()).unwrap(), nonce);
        }

        #[test]
        fn repeated_greetings_do_not_hide_the_request(count in 0usize..20, body in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = greeting([7; 8]).repeat(count);
            write_frame(&mut bytes, Kind::Request, &body).unwrap();
            let mut from = bytes.as_slice();
            for _ in 0..count {
                prop_assert_eq!(read_opening(&mut from).unwrap(), Opening::Greeting([7; 8]));
            }
            prop_assert_eq!(read_opening(&mut from).unwrap(), Opening::Frame(Frame { kind: Kind::Request, body }));
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_frame(&mut bytes.as_slice());
            let _ = find_greeting(&mut bytes.as_slice());
            let _ = read_opening(&mut bytes.as_slice());
        }
    }
}
