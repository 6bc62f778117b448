//! A socket that systemd opened for this program (`sd_listen_fds(3)`): callers wait in it while the program is being replaced.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage};
use nix::sys::socket::{getsockname, getsockopt, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

/// Number of the first descriptor that is passed.
const FIRST: i32 = 3;

/// The listening unix socket that was passed to this process; `None` if none was meant for it. Only the first call, of this and the next one, answers with
/// one.
///
/// Must be called before anything else of the program opens descriptors.
///
/// # Errors
/// More than one was passed, or something else than a listening unix socket.
pub fn take_listener() -> io::Result<Option<UnixListener>> {
    Ok(take(&[AddressFamily::Unix], "unix")?.map(UnixListener::from))
}

/// As [`take_listener`], for a TCP socket.
///
/// # Errors
/// More than one was passed, or something else than a listening TCP socket.
pub fn take_tcp_listener() -> io::Result<Option<TcpListener>> {
    Ok(take(&TCP, "TCP")?.map(TcpListener::from))
}

/// Families of TCP.
const TCP: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

fn take(families: &[AddressFamily], what: &str) -> io::Result<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let said = |name: &str| std::env::var(name).ok()?.parse().ok();
    let (pid, count) = (said("LISTEN_PID"), said("LISTEN_FDS"));
    match passed(pid, count, std::process::id())? {
        true if !TAKEN.swap(true, Ordering::Relaxed) => {}
        _ => return Ok(None),
    }
    // SAFETY: systemd left this descriptor to this process (LISTEN_PID is ours), and only the first call gets here.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    // Passed without close-on-exec; no program started from here may have it.
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    listening(&fd, families, what)?;
    Ok(Some(fd))
}

/// Whether exactly one descriptor was passed, to `own`.
fn passed(pid: Option<u32>, count: Option<u32>, own: u32) -> io::Result<bool> {
    match (pid, count) {
        (Some(pid), Some(1)) if pid == own => Ok(true),
        (Some(pid), Some(count)) if pid == own && count > 1 => Err(io::Error::other(format!(
            "systemd passed {count} sockets; one is expected"
        ))),
        _ => Ok(false),
    }
}

fn listening(fd: &OwnedFd, families: &[AddressFamily], what: &str) -> io::Result<()> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let fits = |family| families.contains(&family);
    let stream = getsockopt(fd, sockopt::SockType)? == SockType::Stream;
    if address.family().is_some_and(fits) && stream && getsockopt(fd, sockopt::AcceptConn)? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "what systemd passed is not a listening {what} socket"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_socket_for_this_very_process_is_taken() {
        assert!(passed(Some(7), Some(1), 7).unwrap());
        for (pid, count) in [
            (None, None),
            (Some(8), Some(1)),
            (Some(7), Some(0)),
            (None, Some(1)),
        ] {
            assert!(!passed(pid, count, 7).unwrap(), "{pid:?} {count:?}");
        }
        assert!(passed(Some(7), Some(2), 7).is_err());
    }

    #[test]
    fn nothing_but_a_listening_socket_of_the_kind_is_accepted() {
        let unix = |fd: OwnedFd| listening(&fd, &[AddressFamily::Unix], "unix");
        let inet = |fd: OwnedFd| listening(&fd, &TCP, "TCP");
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        inet(listener.try_clone().unwrap().into()).unwrap_err();
        unix(listener.into()).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        unix(tcp.try_clone().unwrap().into()).unwrap_err();
        inet(tcp.into()).unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        unix(one.into()).unwrap_err();
        inet(other.into()).unwrap_err();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        inet(udp.into()).unwrap_err();
        unix(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err();
    }
}
