//! Event channels of this domain through `/dev/xen/evtchn`.
//!
//! A port that fired is masked until it is written back, so a guest that signals in a storm costs one wake-up per piece of work. Closing the
//! descriptor unbinds every port.

use crate::error::Error;
use crate::eventfd::{set_nonblocking, wait_readable};
use crate::seam::{Events, Loopback, Result};
use crate::xen::probe;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use xen_abi::evtchn::{BindInterdomain, BindUnboundPort, EVTCHN_PATH, LocalPort};
use xen_abi::ids::{DomId, Port};

/// Ports taken by one read.
const PORTS_PER_READ: usize = 64;
/// Reads of one [`Events::pending`]: what is left waits for the next.
const READS_PER_PASS: usize = 16;

/// An open event channel device.
#[derive(Debug)]
pub struct EvtChn {
    fd: OwnedFd,
}

impl EvtChn {
    /// Opens the device.
    ///
    /// # Errors
    /// Not on Xen, or not root.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        open(EVTCHN_PATH, flags, Mode::empty())
            .map(|fd| Self { fd })
            .map_err(|errno| probe::explain(EVTCHN_PATH, errno))
    }

    /// Takes over a descriptor that was opened elsewhere (passed in by a parent).
    ///
    /// # Errors
    /// It is not valid.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        set_nonblocking(fd.as_fd())?;
        Ok(Self { fd })
    }

    /// The descriptor, to be passed on.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// From now on only one remote domain can be bound; there is no way back.
    ///
    /// # Errors
    /// It is restricted to another one already.
    pub fn restrict(&self, domid: DomId) -> Result<()> {
        let only = domid.0;
        // SAFETY: the driver reads a u16 through the pointer, which lives through the call.
        let result = unsafe { ioctl::restrict(self.fd.as_raw_fd(), &raw const only) };
        result
            .map(drop)
            .map_err(|errno| Error::refused_for("restrict event channels", domid, errno))
    }

    /// A new local port that `domid` may bind.
    ///
    /// # Errors
    /// No port is free.
    pub fn bind_unbound(&self, domid: DomId) -> Result<Port> {
        let argument = BindUnboundPort {
            remote_domain: domid.0.into(),
        };
        // SAFETY: the driver reads the structure through the pointer, which lives through the call.
        let result = unsafe { ioctl::bind_unbound(self.fd.as_raw_fd(), &raw const argument) };
        port("bind_unbound_port", Some(domid), result)
    }
}

fn port(op: &'static str, domid: Option<DomId>, result: nix::Result<i32>) -> Result<Port> {
    let result = result.and_then(|port| u32::try_from(port).map_err(|_| Errno::EIO));
    result
        .map(Port)
        .map_err(|errno| Error::Refused { op, domid, errno })
}

impl AsFd for EvtChn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Events for EvtChn {
    fn loopback(&self) -> Result<Loopback> {
        let at = self.bind_unbound(DomId::SELF)?;
        let bound = self.bind_interdomain(DomId::SELF, at);
        let through = bound.inspect_err(|_| drop(self.unbind(at)))?;
        Ok(Loopback { through, at })
    }

    fn bind_interdomain(&self, domid: DomId, remote: Port) -> Result<Port> {
        let argument = BindInterdomain {
            remote_domain: domid.0.into(),
            remote_port: remote.0,
        };
        // SAFETY: the driver reads the structure through the pointer, which lives through the call.
        let result = unsafe { ioctl::bind_interdomain(self.fd.as_raw_fd(), &raw const argument) };
        port("bind_interdomain", Some(domid), result)
    }

    fn unbind(&self, port: Port) -> Result<()> {
        let argument = LocalPort { port: port.0 };
        // SAFETY: the driver reads the structure through the pointer, which lives through the call.
        let result = unsafe { ioctl::unbind(self.fd.as_raw_fd(), &raw const argument) };
        result
            .map(drop)
            .map_err(|errno| Error::refused("unbind of a port", errno))
    }

    fn notify(&self, port: Port) -> Result<()> {
        let argument = LocalPort { port: port.0 };
        // SAFETY: the driver reads the structure through the pointer, which lives through the call.
        let result = unsafe { ioctl::notify(self.fd.as_raw_fd(), &raw const argument) };
        result
            .map(drop)
            .map_err(|errno| Error::refused("notify of a port", errno))
    }

    fn pending(&self) -> Result<Vec<Port>> {
        let mut ports = Vec::new();
        for _ in 0..READS_PER_PASS {
            let mut bytes = [0; PORTS_PER_READ * size_of::<u32>()];
            let count = match nix::unistd::read(&self.fd, &mut bytes) {
                Ok(count) => count,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::refused("read of pending ports", errno)),
            };
            let words = bytes
                .get(..count)
                .unwrap_or_default()
                .chunks_exact(size_of::<u32>());
            ports.extend(words.filter_map(xen_abi::layout::copy_out).map(Port));
            if count < bytes.len() {
                break;
            }
        }
        Ok(ports)
    }

    fn unmask(&self, port: Port) -> Result<()> {
        nix::unistd::write(&self.fd, &port.0.to_ne_bytes())
            .map(drop)
            .map_err(|errno| Error::refused("unmask of a port", errno))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        wait_readable(self.fd.as_fd(), timeout)
    }
}

mod ioctl {
    //! The calls as the kernel takes them.
    use xen_abi::evtchn::{
        BindInterdomain, BindUnboundPort, IOCTL_BIND_INTERDOMAIN, IOCTL_BIND_UNBOUND_PORT,
        IOCTL_NOTIFY, IOCTL_RESTRICT_DOMID, IOCTL_UNBIND, LocalPort,
    };
    nix::ioctl_write_ptr_bad!(bind_interdomain, IOCTL_BIND_INTERDOMAIN, BindInterdomain);
    nix::ioctl_write_ptr_bad!(bind_unbound, IOCTL_BIND_UNBOUND_PORT, BindUnboundPort);
    nix::ioctl_write_ptr_bad!(unbind, IOCTL_UNBIND, LocalPort);
    nix::ioctl_write_ptr_bad!(notify, IOCTL_NOTIFY, LocalPort);
    nix::ioctl_write_ptr_bad!(restrict, IOCTL_RESTRICT_DOMID, u16);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A socket stands for the device: reads give ports, writes unmask.
    fn device() -> (EvtChn, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (EvtChn::from_fd(ours.into()).unwrap(), theirs)
    }

    #[test]
    fn pending_takes_what_is_there_and_never_blocks() {
        let (events, mut kernel) = device();
        assert_eq!(events.pending().unwrap(), []);
        assert!(!events.wait(Some(Duration::ZERO)).unwrap());
        let ports: Vec<u8> = (1..=100_u32).flat_map(u32::to_ne_bytes).collect();
        kernel.write_all(&ports).unwrap();
        assert!(events.wait(None).unwrap());
        let expected: Vec<Port> = (1..=100).map(Port).collect();
        assert_eq!(events.pending().unwrap(), expected);
    }

    #[test]
    fn one_pass_has_a_bound_and_the_rest_stays() {
        let (events, mut kernel) = device();
        let bound = PORTS_PER_READ * READS_PER_PASS;
        kernel
            .write_all(&9_u32.to_ne_bytes().repeat(bound + 1))
            .unwrap();
        assert_eq!(events.pending().unwrap().len(), bound);
        assert_eq!(events.pending().unwrap().len(), 1);
    }

    #[test]
    fn a_port_is_unmasked_by_writing_it_back() {
        let (events, mut kernel) = device();
        events.unmask(Port(0x0102)).unwrap();
        let mut word = [0; 4];
        kernel.read_exact(&mut word).unwrap();
        assert_eq!(u32::from_ne_bytes(word), 0x0102);
        assert!(
            events.notify(Port(1)).is_err(),
            "a socket knows no event channels"
        );
    }
}
