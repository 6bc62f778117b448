//! Where xenstored is, and a connection to it.
//!
//! The socket takes many requests in one write. The kernel's device takes one request per write, and only once the one before was
//! answered: until then it may still send that one from the buffer the next would overwrite (measured on Linux 6.12: of 300 writes sent without waiting,
//! all answered OK, 12 arrived). It is for hosts whose xenstored is a domain of its own.

use super::error::StoreError;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xen_abi::xs_wire::message::HEADER_BYTES;
use xen_abi::xs_wire::{DEVICE_PATHS, SOCKET_PATHS};

/// Names another socket, as with the stock tools.
pub const PATH_VARIABLE: &str = "XENSTORED_PATH";

/// Places to look for xenstored, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    paths: Vec<PathBuf>,
}

impl Endpoints {
    /// `$XENSTORED_PATH` alone if it is set, else the usual sockets and devices.
    #[must_use]
    pub fn usual() -> Self {
        Self::from_variable(std::env::var_os(PATH_VARIABLE))
    }

    fn from_variable(value: Option<OsString>) -> Self {
        match value {
            Some(path) if !path.is_empty() => Self::only(path),
            _ => Self {
                paths: SOCKET_PATHS
                    .iter()
                    .chain(&DEVICE_PATHS)
                    .map(PathBuf::from)
                    .collect(),
            },
        }
    }

    /// One place.
    #[must_use]
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self {
            paths: vec![path.into()],
        }
    }

    /// Connects to the first that answers.
    pub(super) fn connect(&self) -> Result<Link, StoreError> {
        let mut last = None;
        for path in &self.paths {
            match Link::open(path) {
                Ok(link) => return Ok(link),
                // A place that does not exist says less than one that refuses.
                Err(error) if last.is_some() && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => last = Some((path, error)),
            }
        }
        let (endpoint, reason) = match last {
            Some((path, error)) => (path.display().to_string(), error.to_string()),
            None => ("nowhere".to_owned(), "no place to look".to_owned()),
        };
        Err(StoreError::Unreachable { endpoint, reason })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Link {
    Socket(UnixStream),
    Device(File),
}

impl Link {
    fn open(path: &Path) -> io::Result<Self> {
        if path.starts_with("/dev") || path.starts_with("/proc") {
            if !std::fs::metadata(path)?.file_type().is_char_device() {
                return Err(io::Error::other("not a device"));
            }
            return OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map(Self::Device);
        }
        UnixStream::connect(path).map(Self::Socket)
    }

    /// Bounds writes, for a connection that sends more than a socket holds.
    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Device(_) => Ok(()),
        }
    }

    /// Bounds reads, for a connection without a reader thread.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Device(_) => Ok(()),
        }
    }

    /// Reads and writes never wait; for a socket.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.set_nonblocking(true),
            Self::Device(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether a request may only be sent once the one before was answered.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Device(_))
    }

    /// Sends whole requests; to a device, exactly one.
    pub fn send(&self, requests: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(stream) => (&mut &*stream).write_all(requests),
            Self::Device(file) => (&mut &*file).write_all(requests),
        }
    }

    /// Ends the connection for whoever reads from it.
    pub fn shut_down(&self) {
        if let Self::Socket(stream) = self {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Read for &Link {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Socket(stream) => (&mut &*stream).read(into),
            Link::Device(file) => (&mut &*file).read(into),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(stream) => stream.as_fd(),
            Self::Device(file) => file.as_fd(),
        }
    }
}

/// Splits encoded requests at their lengths.
pub(super) fn each_request(mut requests: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = requests.get(HEADER_BYTES - 4..HEADER_BYTES)?;
        let length = length
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (request, rest) = requests.split_at((HEADER_BYTES + length).min(requests.len()));
        requests = rest;
        Some(request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::ids::DomId;
    use xen_abi::xs_wire::Request;

    #[test]
    fn the_variable_names_the_only_place() {
        let usual = Endpoints::from_variable(None);
        assert_eq!(usual.paths[0], Path::new("/run/xenstored/socket"));
        assert_eq!(usual, Endpoints::from_variable(Some(OsString::new())));
        let only = Endpoints::from_variable(Some("/tmp/xs".into()));
        assert_eq!(only.paths, [Path::new("/tmp/xs")]);
    }

    #[test]
    fn a_missing_xenstored_is_named_with_its_place() {
        let error = Endpoints::only("/nowhere/socket").connect().unwrap_err();
        assert!(error.to_string().contains("/nowhere/socket"), "{error}");
    }

    #[test]
    fn encoded_requests_are_split_at_their_ends() {
        let mut bytes = Vec::new();
        let requests = [Request::Read("/a".into()), Request::Release(DomId(300))];
        for (request, id) in requests.iter().zip(0..) {
            request
                .to_message(id, 0)
                .unwrap()
                .encode_into(&mut bytes)
                .unwrap();
        }
        let sizes: Vec<usize> = each_request(&bytes).map(<[u8]>::len).collect();
        assert_eq!(sizes, [16 + 3, 16 + 4]);
    }
}
