//! The real hypervisor behind the seam.
//!
//! ```text
//!   HostControl    DomainControl    MemoryControl
//!   host.rs        domain.rs        memory.rs, foreign.rs
//!        \             |               /
//!         sysctl      domctl     memory_op, hvm_op, ...     bytes by xen-abi
//!               \      |      /
//!                privcmd.rs + buffers.rs
//! ```
//!
//! `extras.rs` are the calls of a patched hypervisor, found by trying.
//!
//! Opening costs one device and one hypercall, so that a command which lists domains can afford it. Structures are made and read by `xen-abi`; here
//! they only travel: into a hypercall buffer, through the call, and out again.

mod buffers;
mod dirty;
mod domain;
mod extras;
mod foreign;
mod host;
mod memory;
mod policy;
mod privcmd;
pub(crate) mod probe;
mod vcpu;

use crate::error::Error;
use buffers::{Buffer, BufferPool};
use nix::errno::Errno;
use privcmd::Privcmd;
use std::path::{Path, PathBuf};
use xen_abi::ids::DomId;
use xen_abi::version::{Abi, XenVersion};
use xen_abi::{domctl, hypercall, sysctl, xen_version};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The hypervisor this process runs on. Shared by threads.
#[derive(Debug)]
pub struct Xen {
    privcmd: Privcmd,
    pool: BufferPool,
    version: XenVersion,
    abi: Abi,
    extras: extras::Known,
    mover: Option<PathBuf>,
}

impl Xen {
    /// Opens the hypervisor's interface and asks for its release.
    ///
    /// # Errors
    /// Not on Xen, not root, not the control domain ([`Error::Host`]), or a release that is not supported ([`Error::Unsupported`]).
    pub fn open() -> Result<Self, Error> {
        let privcmd = Privcmd::open()?;
        // SAFETY: XENVER_version takes no address.
        let word = unsafe {
            privcmd.hypercall(hypercall::XEN_VERSION, [xen_version::VERSION, 0, 0, 0, 0])
        }
        .map_err(|errno| Error::refused("version", errno))?;
        let version = XenVersion::from_word(u32::try_from(word).unwrap_or(u32::MAX));
        let abi = Abi::for_version(version)?;
        Ok(Self {
            privcmd,
            pool: BufferPool::default(),
            version,
            abi,
            extras: extras::Known::default(),
            mover: None,
        })
    }

    /// The same with `program` as its mover of pages, see [`crate::mover`].
    #[must_use]
    pub fn with_mover(mut self, program: &Path) -> Self {
        self.mover = Some(program.to_owned());
        self
    }

    /// The interface spoken.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Hypercalls made by this process so far, by any handle; benchmarks print it.
    #[must_use]
    pub fn hypercalls() -> u64 {
        privcmd::hypercalls()
    }

    /// Makes a domctl.
    ///
    /// # Safety
    /// Addresses in the call are of buffers that are large enough and live through it.
    unsafe fn domctl(&self, call: domctl::Call) -> Result<domctl::Call, Refusal<domctl::Call>> {
        // SAFETY: the caller's promise; the structure itself is in a buffer of its own.
        let (call, result) =
            unsafe { self.exchange(hypercall::DOMCTL, call, |at| [at, 0, 0, 0, 0]) }?;
        result
            .map(|_| call)
            .map_err(|errno| Refusal::Xen(errno, Box::new(call)))
    }

    /// Makes a sysctl.
    ///
    /// # Safety
    /// As [`Xen::domctl`].
    unsafe fn sysctl(&self, call: sysctl::Call) -> Result<sysctl::Call, Refusal<sysctl::Call>> {
        // SAFETY: the caller's promise; the structure itself is in a buffer of its own.
        let (call, result) =
            unsafe { self.exchange(hypercall::SYSCTL, call, |at| [at, 0, 0, 0, 0]) }?;
        result
            .map(|_| call)
            .map_err(|errno| Refusal::Xen(errno, Box::new(call)))
    }

    /// Makes a hypercall of the kind `op(command, pointer to structure)`; gives the structure back and the result.
    ///
    /// # Safety
    /// As [`Xen::domctl`].
    unsafe fn command<T: IntoBytes + FromBytes + Immutable>(
        &self,
        op: u64,
        command: u64,
        argument: T,
    ) -> Result<(T, u64), Refusal<T>> {
        // SAFETY: the caller's promise; the structure itself is in a buffer of its own.
        let (argument, result) =
            unsafe { self.exchange(op, argument, |at| [command, at, 0, 0, 0]) }?;
        match result {
            Ok(value) => Ok((argument, value)),
            Err(errno) => Err(Refusal::Xen(errno, Box::new(argument))),
        }
    }

    /// Carries a structure through a hypercall whose arguments `place` makes from the structure's address.
    ///
    /// # Safety
    /// As [`Xen::domctl`], for the arguments and the structure.
    unsafe fn exchange<T: IntoBytes + FromBytes + Immutable>(
        &self,
        op: u64,
        argument: T,
        place: impl FnOnce(u64) -> [u64; 5],
    ) -> Result<(T, Result<u64, Errno>), Error> {
        let buffer = self.pool.take(size_of::<T>())?;
        buffer.write(0, argument.as_bytes());
        // SAFETY: the caller's promise for nested addresses; the buffer holds the structure and lives to the end of this function.
        let result = unsafe { self.privcmd.hypercall(op, place(buffer.address().0)) };
        let bytes = buffer.to_vec(size_of::<T>());
        Ok((T::read_from_bytes(&bytes).unwrap_or(argument), result))
    }

    fn buffer(&self, bytes: usize) -> Result<Buffer<'_>, Error> {
        self.pool.take(bytes)
    }

    /// A buffer with this content.
    fn buffer_of(&self, bytes: &[u8]) -> Result<Buffer<'_>, Error> {
        let buffer = self.pool.take(bytes.len())?;
        buffer.write(0, bytes);
        Ok(buffer)
    }
}

/// A call that did not succeed.
#[derive(Debug)]
enum Refusal<T> {
    /// Xen refused, and left this in the structure.
    Xen(Errno, Box<T>),
    /// The call was not made.
    Here(Error),
}

impl<T> From<Error> for Refusal<T> {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl<T> Refusal<T> {
    /// As an error of the seam.
    fn about(self, op: &'static str, domid: Option<DomId>) -> Error {
        match self {
            Self::Xen(errno, _) => Error::Refused { op, domid, errno },
            Self::Here(error) => error,
        }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Xen(errno, _) => Some(*errno),
            Self::Here(error) => error.errno(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::HostProblem;

    #[test]
    fn a_machine_without_xen_is_told_so() {
        match Xen::open() {
            Ok(xen) => assert_eq!(xen.abi().version(), xen.version),
            Err(error) => assert!(
                matches!(
                    error,
                    Error::Host(HostProblem::NotXen | HostProblem::NotRoot { .. })
                ),
                "{error}"
            ),
        }
    }
}
