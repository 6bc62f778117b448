//! Making a ring: the best set-up the kernel offers, then nothing but what a driver needs.

use crate::error::Error;
use crate::eventfd::errno_of;
use crate::region::SharedRegion;
use io_uring::{IoUring, Probe, opcode, register::Restriction, squeue};
use nix::errno::Errno;

/// The best ring the kernel offers, not yet enabled. Twice as many completions as requests, so that none overflows.
pub(super) fn build(entries: u32) -> Result<IoUring, Error> {
    let base = || {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_r_disabled()
            .setup_clamp()
            .setup_cqsize(entries * 2);
        builder
    };
    let mut attempts = [base(), base(), base()];
    attempts[0]
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    attempts[1].setup_coop_taskrun().setup_taskrun_flag();
    let mut last = Errno::ENOSYS;
    for builder in &attempts {
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) => last = errno_of(&error),
        }
        if last != Errno::EINVAL {
            break;
        }
    }
    Err(Error::refused("io_uring_setup", last))
}

const OPERATIONS: [u8; 7] = [
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::PollAdd::CODE,
];

/// Refuses a kernel that lacks something a driver will need.
pub(super) fn check_operations(ring: &IoUring) -> Result<(), Error> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| Error::refused("io_uring probe", errno_of(&error)))?;
    let known = OPERATIONS.iter().all(|code| probe.is_supported(*code));
    if known && ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        return Ok(());
    }
    Err(Error::refused(
        "io_uring operations (Linux 5.11 or later is needed)",
        Errno::ENOSYS,
    ))
}

/// Only the operations above, only on registered files, no further registration.
pub(super) fn restrict(ring: &IoUring) -> Result<(), Error> {
    let fixed_file = squeue::Flags::FIXED_FILE.bits();
    let mut rules: Vec<Restriction> = OPERATIONS
        .iter()
        .map(|code| Restriction::sqe_op(*code))
        .collect();
    rules.push(Restriction::sqe_flags_allowed(fixed_file));
    rules.push(Restriction::sqe_flags_required(fixed_file));
    ring.submitter()
        .register_restrictions(&mut rules)
        .map_err(|error| Error::refused("io_uring restrictions", errno_of(&error)))
}

/// Lets the kernel pin the pool once instead of at each transfer; false where it may not.
pub(super) fn register_pool(ring: &IoUring, pool: &SharedRegion) -> bool {
    let buffer = libc::iovec {
        iov_base: pool.as_ptr().cast(),
        iov_len: pool.len(),
    };
    // SAFETY: the buffer is the pool, which stays mapped at least as long as the ring has transfers in flight.
    let result = unsafe { ring.submitter().register_buffers(&[buffer]) };
    if let Err(error) = &result {
        tracing::warn!(%error, "pool of the ring is not registered; I/O costs more");
    }
    result.is_ok()
}
