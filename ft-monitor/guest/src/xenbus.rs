//! Just enough of the xenstore protocol to write a node of one's own domain.
//!
//! ```text
//!   type u32 │ request id u32 │ transaction u32 │ length u32 │ payload: path NUL value     (little-endian, `xs_wire.h`)
//! ```
//!
//! The kernel's device carries one message at a time in each direction. Every wait has a deadline and ends early when the
//! program is asked to stop: xenstored may be away for as long as it likes.

use crate::signals::{Signals, Woken};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the kernel puts the device: now, and before Linux 3.3 or where only xenfs is mounted.
pub const USUAL_PATHS: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];
/// Longest payload of one message in bytes (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX_BYTES: usize = 4096;
/// Messages that are not ours which one exchange skips before it takes the channel for broken.
pub const SKIPPED_MAX: usize = 64;

const HEADER_BYTES: usize = 16;
/// `XS_READ`.
const READ: u32 = 2;
/// `XS_WRITE`.
const WRITE: u32 = 11;
/// `XS_ERROR`.
const ERROR: u32 = 16;

/// Why a node could not be read or written.
#[derive(Debug)]
pub enum XenbusError {
    /// No device: not a Xen guest, or the device nodes are missing.
    Missing(Vec<PathBuf>),
    /// The device refused.
    Device(PathBuf, io::Error),
    /// xenstored refused, with its word for it (`EACCES`, `ENOENT` ...).
    Refused(String, String),
    /// xenstored did not answer in time.
    Silent(String),
    /// The other side does not speak the protocol.
    Garbled(&'static str),
    /// Asked to stop while waiting.
    Stopped,
}

impl fmt::Display for XenbusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(tried) => {
                write!(f, "no xenstore device (tried")?;
                for path in tried {
                    write!(f, " {}", path.display())?;
                }
                f.write_str("): is this a Xen guest, and are devtmpfs or xenfs mounted?")
            }
            Self::Device(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Refused(node, word) => write!(f, "xenstore node {node}: refused with {word}"),
            Self::Silent(node) => write!(
                f,
                "xenstore node {node}: no answer in time; is xenstored alive in the control domain?"
            ),
            Self::Garbled(what) => write!(f, "xenstore answered nonsense: {what}"),
            Self::Stopped => f.write_str("asked to stop"),
        }
    }
}

/// An open connection to xenstore.
#[derive(Debug)]
pub struct Xenbus {
    device: File,
    path: PathBuf,
    request: u32,
}

impl Xenbus {
    /// Opens `wanted`, or the first of [`USUAL_PATHS`] that exists.
    ///
    /// # Errors
    /// [`XenbusError::Missing`] when there is none, [`XenbusError::Device`] when it cannot be opened.
    pub fn open(wanted: Option<&Path>) -> Result<Self, XenbusError> {
        let candidates: Vec<PathBuf> = match wanted {
            Some(path) => vec![path.to_owned()],
            None => USUAL_PATHS.iter().map(PathBuf::from).collect(),
        };
        for path in &candidates {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nix::libc::O_NONBLOCK)
                .open(path);
            match opened {
                Ok(device) => {
                    return Ok(Self {
                        device,
                        path: path.clone(),
                        request: 0,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(XenbusError::Device(path.clone(), error)),
            }
        }
        Err(XenbusError::Missing(candidates))
    }

    /// Writes `node` (relative to this domain's directory), making it when it is not there. Waits until `deadline` for the answer.
    ///
    /// # Errors
    /// See [`XenbusError`]. After an error the connection is in an unknown state: open a new one.
    pub fn write(
        &mut self,
        node: &str,
        value: &str,
        deadline: Instant,
        signals: Option<&Signals>,
    ) -> Result<(), XenbusError> {
        let payload = [node.as_bytes(), b"\0", value.as_bytes()].concat();
        self.exchange(WRITE, node, &payload, deadline, signals)
            .map(|_| ())
    }

    /// Reads `node`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn read(
        &mut self,
        node: &str,
        deadline: Instant,
        signals: Option<&Signals>,
    ) -> Result<Vec<u8>, XenbusError> {
        let payload = [node.as_bytes(), b"\0"].concat();
        self.exchange(READ, node, &payload, deadline, signals)
    }

    fn exchange(
        &mut self,
        kind: u32,
        node: &str,
        payload: &[u8],
        deadline: Instant,
        signals: Option<&Signals>,
    ) -> Result<Vec<u8>, XenbusError> {
        self.request = self.request.wrapping_add(1);
        let message = frame(kind, self.request, payload)?;
        self.device
            .write_all(&message)
            .map_err(|error| XenbusError::Device(self.path.clone(), error))?;
        for _ in 0..SKIPPED_MAX {
            let mut head = [0; HEADER_BYTES];
            self.fill(&mut head, node, deadline, signals)?;
            let (answered, request, length) = parse_header(&head)?;
            let mut body = vec![0; length];
            self.fill(&mut body, node, deadline, signals)?;
            if request != self.request {
                continue;
            }
            return match answered {
                ERROR => {
                    let word = body.split(|byte| *byte == 0).next().unwrap_or_default();
                    let word = String::from_utf8_lossy(word).into_owned();
                    Err(XenbusError::Refused(node.to_owned(), word))
                }
                same if same == kind => Ok(body),
                _ => Err(XenbusError::Garbled(
                    "the answer has another type than the question",
                )),
            };
        }
        Err(XenbusError::Garbled(
            "too many messages that answer nothing we asked",
        ))
    }

    fn fill(
        &mut self,
        buffer: &mut [u8],
        node: &str,
        deadline: Instant,
        signals: Option<&Signals>,
    ) -> Result<(), XenbusError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.device.read(&mut buffer[filled..]) {
                Ok(0) => return Err(XenbusError::Garbled("end of file")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(node, deadline, signals)?;
                }
                Err(error) => return Err(XenbusError::Device(self.path.clone(), error)),
            }
        }
        Ok(())
    }

    fn wait(
        &self,
        node: &str,
        deadline: Instant,
        signals: Option<&Signals>,
    ) -> Result<(), XenbusError> {
        let Some(signals) = signals else {
            // Only on the way out, when the signal has come already: short naps until the deadline.
            if Instant::now() >= deadline {
                return Err(XenbusError::Silent(node.to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
            return Ok(());
        };
        match signals.wait(deadline, Some(self.device.as_fd())) {
            Ok(Woken::Readable) => Ok(()),
            Ok(Woken::Time) => Err(XenbusError::Silent(node.to_owned())),
            Ok(Woken::Stop) => Err(XenbusError::Stopped),
            Err(error) => Err(XenbusError::Device(self.path.clone(), error)),
        }
    }
}

/// A whole message.
fn frame(kind: u32, request: u32, payload: &[u8]) -> Result<Vec<u8>, XenbusError> {
    let too_long = XenbusError::Garbled("a message of more than 4096 bytes");
    let Ok(length) = u32::try_from(payload.len()) else {
        return Err(too_long);
    };
    if payload.len() > PAYLOAD_MAX_BYTES {
        return Err(too_long);
    }
    let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
    for word in [kind, request, 0, length] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(payload);
    Ok(message)
}

/// Type, request id and payload length of a header.
fn parse_header(head: &[u8; HEADER_BYTES]) -> Result<(u32, u32, usize), XenbusError> {
    let [k0, k1, k2, k3, r0, r1, r2, r3, _, _, _, _, l0, l1, l2, l3] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > PAYLOAD_MAX_BYTES {
        return Err(XenbusError::Garbled("a payload longer than 4096 bytes"));
    }
    Ok((
        u32::from_le_bytes([k0, k1, k2, k3]),
        u32::from_le_bytes([r0, r1, r2, r3]),
        length,
    ))
}

#[cfg(test)]
#[path = "xenbus_tests.rs"]
mod tests;
