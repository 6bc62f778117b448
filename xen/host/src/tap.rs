//! A tap: the host's end of a guest's network card, with several queues and offloads.
//!
//! Every frame carries a 12-byte `virtio_net_hdr_v1` in front (checksum to be done, segmentation wanted). A tap that is not made to persist
//! vanishes with its last descriptor; a persistent one outlives a driver, so that a successor opens it by name and the bridge port
//! stays. Source: Linux `Documentation/networking/tuntap.rst`, `linux/if_tun.h`.

use crate::error::Error;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Longest name of an interface, in bytes (`IFNAMSIZ - 1`).
pub const MAX_NAME_BYTES: usize = 15;
/// Most queues of one tap.
pub const MAX_QUEUES: usize = 16;
/// Bytes in front of each frame (`virtio_net_hdr_v1`).
pub const VNET_HEADER_BYTES: usize = 12;

const DEVICE: &str = "/dev/net/tun";

/// What the guest's side can take: set bits let the host leave the work undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// Frames without a checksum.
    pub checksum: bool,
    /// Unsegmented TCP over IPv4; needs `checksum`.
    pub tso4: bool,
    /// Unsegmented TCP over IPv6; needs `checksum`.
    pub tso6: bool,
}

impl Offload {
    fn bits(self) -> libc::c_uint {
        let mut bits = 0;
        for (wanted, bit) in [
            (self.checksum, libc::TUN_F_CSUM),
            (self.tso4, libc::TUN_F_TSO4),
            (self.tso6, libc::TUN_F_TSO6),
        ] {
            if wanted {
                bits |= bit;
            }
        }
        bits
    }
}

/// An open tap.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<OwnedFd>,
}

impl Tap {
    /// Opens the tap `name`, making it if there is none, with `queues` non-blocking descriptors.
    ///
    /// # Errors
    /// A bad name or number of queues (`EINVAL`), a tap that is open elsewhere (`EBUSY`), no right to make one (`EPERM`), no `tun` module.
    pub fn open(name: &str, queues: usize) -> Result<Self, Error> {
        if !name_is_valid(name) || queues == 0 || queues > MAX_QUEUES {
            return Err(Error::named("open of tap", name, Errno::EINVAL));
        }
        let queues = (0..queues)
            .map(|_| open_queue(name))
            .collect::<Result<Vec<_>, _>>()?;
        let tap = Self {
            name: name.to_owned(),
            queues,
        };
        let header = i32::try_from(VNET_HEADER_BYTES).unwrap_or(i32::MAX);
        for queue in &tap.queues {
            // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer, which lives through the call.
            let result = unsafe { ioctl::set_header_size(queue.as_raw_fd(), &raw const header) };
            result.map_err(|errno| tap.error("header size of tap", errno))?;
        }
        Ok(tap)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its queues.
    pub fn queues(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(AsFd::as_fd)
    }

    /// Its queues, to be handed to a driver.
    #[must_use]
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }

    /// Says what the guest can take.
    ///
    /// # Errors
    /// The kernel does not know an offload (`EINVAL`).
    pub fn set_offload(&self, offload: Offload) -> Result<(), Error> {
        self.queues().try_for_each(|queue| {
            set_offload(queue, offload).map_err(|errno| self.error("offload of tap", errno))
        })
    }

    /// Lets the tap outlive its descriptors, or not.
    ///
    /// # Errors
    /// Not permitted.
    pub fn set_persistent(&self, persistent: bool) -> Result<(), Error> {
        let Some(queue) = self.queues.first() else {
            return Ok(());
        };
        // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
        unsafe { ioctl::set_persist(queue.as_raw_fd(), i32::from(persistent)) }
            .map(drop)
            .map_err(|errno| self.error("persistence of tap", errno))
    }

    fn error(&self, op: &'static str, errno: Errno) -> Error {
        Error::named(op, &self.name, errno)
    }
}

/// Says what the guest can take, on a descriptor that was passed in.
///
/// # Errors
/// The kernel does not know an offload (`EINVAL`), or this is no tap.
pub fn set_offload(queue: BorrowedFd<'_>, offload: Offload) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    unsafe { ioctl::set_offload(queue.as_raw_fd(), offload.bits().cast_signed()) }.map(drop)
}

/// Whether an interface may be called this; no template characters, so that the name asked for is the name made.
#[must_use]
pub fn name_is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%' | b':'))
        && !matches!(name, "." | "..")
}

fn open_queue(name: &str) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd = open(DEVICE, flags, Mode::empty())
        .map_err(|errno| Error::named("open of", DEVICE, errno))?;
    let request = ioctl::Request::new(name);
    // SAFETY: TUNSETIFF reads and writes one ifreq through the pointer, which lives through the call.
    unsafe { ioctl::set_interface(fd.as_raw_fd(), &raw const request) }
        .map_err(|errno| Error::named("open of tap", name, errno))?;
    Ok(fd)
}

mod ioctl {
    //! `linux/if_tun.h`: the calls and the structure they take.

    /// `struct ifreq` as `TUNSETIFF` uses it.
    #[repr(C)]
    pub struct Request {
        name: [u8; 16],
        flags: u16,
        _rest: [u8; 22],
    }
    const _: () = assert!(size_of::<Request>() == 40);

    impl Request {
        pub fn new(name: &str) -> Self {
            let mut bytes = [0; 16];
            for (to, from) in bytes
                .iter_mut()
                .zip(name.bytes().take(super::MAX_NAME_BYTES))
            {
                *to = from;
            }
            let flags =
                (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE)
                    .to_le_bytes();
            Self {
                name: bytes,
                flags: u16::from_le_bytes([flags[0], flags[1]]),
                _rest: [0; 22],
            }
        }
    }

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, Request);
    nix::ioctl_write_ptr_bad!(set_header_size, libc::TUNSETVNETHDRSZ, i32);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_make_taps() -> bool {
        nix::unistd::geteuid().is_root() && std::path::Path::new(DEVICE).exists()
    }

    #[test]
    fn names_the_kernel_would_change_or_refuse_are_refused_here() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "tap%d",
            "with space",
            "sixteen-bytes-ab",
            "vif\u{e9}",
        ] {
            assert!(!name_is_valid(bad), "{bad}");
            assert_eq!(Tap::open(bad, 1).unwrap_err().errno(), Some(Errno::EINVAL));
        }
        assert!(name_is_valid("vif12.0"));
    }

    #[test]
    fn a_tap_has_its_queues_and_vanishes_unless_persistent() {
        const CHECK: &str = "a_tap_has_its_queues_and_vanishes_unless_persistent";
        if !may_make_taps() {
            return test_skips::skipped(CHECK, &format!("this needs root and {DEVICE}"));
        }
        let name = format!("pt{}", std::process::id());
        let present = |name: &str| std::path::Path::new("/sys/class/net").join(name).exists();
        let tap = match Tap::open(&name, 3) {
            Ok(tap) => tap,
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                return test_skips::skipped(CHECK, &error.to_string());
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(tap.queues().count(), 3);
        tap.set_offload(Offload {
            checksum: true,
            tso4: true,
            tso6: true,
        })
        .unwrap();
        assert!(present(&name));
        tap.set_persistent(true).unwrap();
        drop(tap);
        assert!(present(&name), "a persistent tap outlives its driver");
        let again = Tap::open(&name, 1).unwrap();
        again.set_persistent(false).unwrap();
        drop(again);
        assert!(!present(&name));
    }
}
