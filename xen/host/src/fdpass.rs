//! Messages with descriptors attached, over a unix stream socket: how a parent hands disks, taps and event channels to a driver.
//!
//! ```text
//!   u32 length | u32 descriptors | bytes ...        little-endian; the descriptors ride on the first byte of the header
//! ```
//!
//! Both sides are ours, but a driver may have been taken over by its guest: the length and the count are bounded, what was announced
//! must be what came, and every received descriptor is owned (and closed) by the receiver, close-on-exec, from the first moment.

use crate::error::Error;
use crate::eventfd::errno_of;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Most descriptors one message carries (the kernel's own limit, `SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;
/// Most bytes one message carries.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
const HEADER_BYTES: usize = 8;

/// A message and what came with it.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, in the sender's order.
    pub fds: Vec<OwnedFd>,
}

/// Sends one message; blocks until the kernel took all of it.
///
/// # Errors
/// More than [`MAX_MESSAGE_BYTES`] or [`MAX_DESCRIPTORS`] (`E2BIG`), or the socket's error (`EPIPE`: the peer is gone).
pub fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let refused = |errno| Error::refused("send over the control socket", errno);
    if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_DESCRIPTORS {
        return Err(refused(Errno::E2BIG));
    }
    let mut header = [0; HEADER_BYTES];
    let (Ok(length), Ok(count)) = (u32::try_from(bytes.len()), u32::try_from(fds.len())) else {
        return Err(refused(Errno::E2BIG));
    };
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&count.to_le_bytes());
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
    let sent = loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(sent) => break sent,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(refused(errno)),
        }
    };
    let mut rest = socket;
    if let Some(left) = header.get(sent..) {
        rest.write_all(left)
            .map_err(|error| refused(errno_of(&error)))?;
    }
    let left = bytes
        .get(sent.saturating_sub(HEADER_BYTES)..)
        .unwrap_or_default();
    rest.write_all(left)
        .map_err(|error| refused(errno_of(&error)))
}

/// Receives one message; `None` when the peer closed the socket between two messages.
///
/// # Errors
/// A broken or oversized message ([`Error::Malformed`]), or the socket's error (`EAGAIN`: the socket's read timeout passed).
pub fn receive(socket: &UnixStream) -> Result<Option<Message>, Error> {
    let Some((header, fds)) = receive_header(socket)? else {
        return Ok(None);
    };
    let [a, b, c, d, e, f, g, h] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let announced = u32::from_le_bytes([e, f, g, h]) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(malformed(format!(
            "a message of {length} bytes, at most {MAX_MESSAGE_BYTES} are allowed"
        )));
    }
    if announced != fds.len() {
        return Err(malformed(format!(
            "{announced} descriptors announced, {} came",
            fds.len()
        )));
    }
    let mut bytes = vec![0; length];
    let mut rest = socket;
    rest.read_exact(&mut bytes)
        .map_err(|error| Error::refused("receive over the control socket", errno_of(&error)))?;
    Ok(Some(Message { bytes, fds }))
}

type Header = ([u8; HEADER_BYTES], Vec<OwnedFd>);

fn receive_header(socket: &UnixStream) -> Result<Option<Header>, Error> {
    let mut header = [0; HEADER_BYTES];
    let mut fds = Vec::new();
    let mut have = 0;
    while have < HEADER_BYTES {
        let mut control = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(&mut header[have..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Error::refused("receive over the control socket", errno)),
        };
        let count = message.bytes;
        let control = message.cmsgs().map_err(|_| {
            malformed("descriptors were lost: is the limit of open files reached?".into())
        })?;
        for part in control {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just installed these descriptors for this call; nobody else knows them.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        if fds.len() > MAX_DESCRIPTORS {
            return Err(malformed(format!(
                "more than {MAX_DESCRIPTORS} descriptors"
            )));
        }
        match count {
            0 if have == 0 => return Ok(None),
            0 => {
                return Err(malformed(
                    "the peer closed in the middle of a message".into(),
                ));
            }
            count => have += count,
        }
    }
    Ok(Some((header, fds)))
}

fn malformed(what: String) -> Error {
    Error::Malformed {
        op: "receive over the control socket",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::EventFd;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_with_their_message_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let (one, two) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        send(&a, b"first", &[one.as_fd(), two.as_fd()]).unwrap();
        send(&a, b"", &[]).unwrap();
        send(&a, b"third", &[two.as_fd()]).unwrap();
        two.signal().unwrap();

        let first = receive(&b).unwrap().unwrap();
        assert_eq!(
            (first.bytes.as_slice(), first.fds.len()),
            (b"first".as_slice(), 2)
        );
        let got: Vec<u64> = first
            .fds
            .into_iter()
            .map(|fd| EventFd::from_fd(fd).unwrap().take().unwrap())
            .collect();
        assert_eq!(got, [0, 1]);
        assert_eq!(receive(&b).unwrap().unwrap().bytes, b"");
        assert_eq!(receive(&b).unwrap().unwrap().fds.len(), 1);
        drop(a);
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn a_large_message_with_the_most_descriptors_passes_whole() {
        let (a, b) = UnixStream::pair().unwrap();
        let event = EventFd::new().unwrap();
        let payload: Vec<u8> = (0..MAX_MESSAGE_BYTES).map(|i| i.to_le_bytes()[0]).collect();
        let expected = payload.clone();
        let sender = std::thread::spawn(move || {
            let fds: Vec<_> = (0..MAX_DESCRIPTORS).map(|_| event.as_fd()).collect();
            send(&a, &payload, &fds).unwrap();
            send(&a, &[0; MAX_MESSAGE_BYTES + 1], &[])
                .unwrap_err()
                .errno()
        });
        let message = receive(&b).unwrap().unwrap();
        assert_eq!(message.bytes, expected);
        assert_eq!(message.fds.len(), MAX_DESCRIPTORS);
        assert_eq!(sender.join().unwrap(), Some(Errno::E2BIG));
    }

    #[test]
    fn a_lie_about_length_or_count_is_refused() {
        for (length, count) in [(u32::MAX, 0), (4, 1)] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(&[u32::to_le_bytes(length), u32::to_le_bytes(count)].concat())
                .unwrap();
            a.write_all(b"data").unwrap();
            assert!(
                matches!(receive(&b), Err(Error::Malformed { .. })),
                "{length} {count}"
            );
        }
    }

    #[test]
    fn received_descriptors_close_on_exec_and_a_cut_header_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let event = EventFd::new().unwrap();
        send(&a, b"x", &[event.as_fd()]).unwrap();
        let message = receive(&b).unwrap().unwrap();
        let flags = nix::fcntl::fcntl(&message.fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        (&a).write_all(&[0; 3]).unwrap();
        drop(a);
        assert!(matches!(receive(&b), Err(Error::Malformed { .. })));
    }
}
