//! The words that stock `xl migrate` and `xl migrate-receive` say to each other around the stream.
//!
//! ```text
//!   receiver                                   sender
//!     banner ───────────────────────────────▶
//!            ◀─────────────────────────────── xl file header, libxl stream
//!     ready ────────────────────────────────▶
//!            ◀─────────────────────────────── go: from here on the receiver may run it
//!     report, status ───────────────────────▶  status 0: destroys its copy
//!     go, after any other status ───────────▶  runs its copy again
//! ```
//!
//! Source: `tools/xl/xl_migrate.c`. The receiver's output holds nothing else. This module waits for no one: deadlines are the
//! caller's.

use std::io::{self, Read};

/// One of the fixed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// The receiver is there.
    Banner,
    /// The receiver has built the domain, and left it paused.
    Ready,
    /// Whoever gets this owns the domain.
    Go,
    /// The byte that follows says how it went.
    Report,
}

impl Message {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Banner, Self::Ready, Self::Go, Self::Report];

    /// The bytes on the wire: the banner ends in a line feed, the others in a NUL.
    #[must_use]
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Banner => b"xl migration receiver ready, send binary domain data.\n",
            Self::Ready => b"domain received, ready to unpause\0",
            Self::Go => b"domain is yours, you are cleared to unpause\0",
            Self::Report => b"my copy unpause results are as follows\0",
        }
    }

    /// What stock xl calls it in its own messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Banner => "banner",
            Self::Ready => "ready message",
            Self::Go => "GO message",
            Self::Report => "success/failure report",
        }
    }
}

/// Longest of the messages, in bytes.
pub const MESSAGE_BYTES: usize = 54;
const _: () = {
    assert!(Message::Banner.bytes().len() == 54);
    assert!(Message::Ready.bytes().len() == 34);
    assert!(Message::Go.bytes().len() == 44);
    assert!(Message::Report.bytes().len() == 39);
};

/// How the receiver got on after [`Message::Go`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The domain runs there.
    Started,
    /// It does not; the receiver destroys its copy and says [`Message::Go`].
    Failed {
        /// libxl's error, negative as a rule, such as -3.
        rc: i8,
    },
}

impl Status {
    /// From the byte after [`Message::Report`]. Every byte means something.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte.cast_signed().wrapping_neg() {
            0 => Self::Started,
            rc => Self::Failed { rc },
        }
    }

    /// The byte after [`Message::Report`].
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Started => 0,
            Self::Failed { rc } => rc.wrapping_neg().cast_unsigned(),
        }
    }
}

/// Why a message did not come.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection refused.
    #[error("waiting for the other side's {wanted}: cannot read")]
    Read {
        /// Which message.
        wanted: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended.
    #[error("waiting for the other side's {wanted}: it went away after {got} of {need} bytes")]
    Gone {
        /// Which message.
        wanted: &'static str,
        /// Bytes of it.
        got: usize,
        /// Bytes it has.
        need: usize,
    },
    /// Something else came.
    #[error("instead of the {wanted}, the other side said {found:?}")]
    Unexpected {
        /// Which message.
        wanted: &'static str,
        /// The bytes that came, as text: the beginning of some complaint, mostly.
        found: String,
    },
}

/// Reads one fixed message, and not a byte more.
///
/// # Errors
/// Something else came, nothing more came, or the read failed.
pub fn expect(source: &mut impl Read, message: Message) -> Result<(), HandshakeError> {
    let (wanted, bytes) = (message.name(), message.bytes());
    let mut buffer = [0; MESSAGE_BYTES];
    let buffer = &mut buffer[..bytes.len()];
    let mut got = 0;
    while got < bytes.len() {
        match source.read(&mut buffer[got..]) {
            Ok(0) if bytes.starts_with(&buffer[..got]) => {
                let need = bytes.len();
                return Err(HandshakeError::Gone { wanted, got, need });
            }
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(HandshakeError::Read { wanted, source }),
        }
    }
    if buffer == bytes {
        return Ok(());
    }
    Err(HandshakeError::Unexpected {
        wanted,
        found: String::from_utf8_lossy(&buffer[..got]).into_owned(),
    })
}

/// Reads the byte after [`Message::Report`].
///
/// # Errors
/// Nothing came, or the read failed.
pub fn status(source: &mut impl Read) -> Result<Status, HandshakeError> {
    let wanted = "success/failure code";
    let mut byte = [0];
    match source.read_exact(&mut byte) {
        Ok(()) => Ok(Status::from_byte(byte[0])),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(HandshakeError::Gone {
            wanted,
            got: 0,
            need: 1,
        }),
        Err(source) => Err(HandshakeError::Read { wanted, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_to_its_last_byte_and_no_further() {
        for message in Message::ALL {
            let mut wire = message.bytes().to_vec();
            wire.push(b'x');
            let mut source = &wire[..];
            expect(&mut source, message).unwrap();
            assert_eq!(source, b"x", "{}", message.name());
            let mut short = &message.bytes()[..7];
            let error = expect(&mut short, message).unwrap_err().to_string();
            assert!(error.contains("went away after 7 of"), "{error}");
        }
    }

    #[test]
    fn a_complaint_instead_of_the_banner_is_shown() {
        let mut shell = &b"sh: 1: xl: not found\n"[..];
        let error = expect(&mut shell, Message::Banner).unwrap_err().to_string();
        assert!(error.contains("sh: 1: xl: not found"), "{error}");
    }

    #[test]
    fn every_status_byte_comes_back_as_it_went() {
        for byte in 0..=255 {
            assert_eq!(Status::from_byte(byte).byte(), byte);
        }
        assert_eq!(Status::from_byte(0), Status::Started);
        assert_eq!(Status::from_byte(3), Status::Failed { rc: -3 });
        assert_eq!(status(&mut &[3u8][..]).unwrap(), Status::Failed { rc: -3 });
        assert!(status(&mut &[][..]).is_err());
    }
}
