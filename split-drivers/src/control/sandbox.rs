//! The sandbox: what this process can still do once it looks at its guest. Entered once, before there is a second thread.
//!
//! | wall | what is left inside |
//! |---|---|
//! | own user, no groups, no capabilities, no new privileges | what the opened descriptors allow |
//! | landlock | no path of any filesystem, no TCP, no signals and no abstract sockets of others |
//! | seccomp | the system calls of `ALLOWED`; memory is never executable; `ioctl` only the numbers of `IOCTLS`; no processes |
//! | io_uring restrictions (`xen_host::uring`) | reads, writes, flushes and polls on registered files |
//! | resource limits | no core, descriptors and locked memory bounded |
//!
//! A system call that is not allowed fails with EPERM: the driver does none, and one that a new libc tries by itself has a fallback. What no wall here
//! stops: a grant handle maps what any guest granted to this domain ([`super::pool`]).

use crate::limits::{MAX_DESCRIPTORS_OPEN, MAX_LOCKED_BYTES};
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;
use xen_abi::{evtchn, gntdev};
use xen_host::process;

/// Why the sandbox cannot be entered. The driver must not run outside of it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// User, groups or process attributes.
    #[error(transparent)]
    Process(#[from] xen_host::error::Error),
    /// Capabilities.
    #[error("capabilities cannot be given up: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Change of directory.
    #[error("cannot go to /: {0}")]
    Directory(Errno),
    /// Limits.
    #[error("resource limit {0}: {1}")]
    Limit(&'static str, Errno),
    /// Filesystem.
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// System calls.
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// System calls.
    #[error("seccomp filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// Raises the limits that serving rings needs, and lowers all others. Needs root.
///
/// # Errors
/// Not permitted.
pub fn set_limits() -> Result<(), SandboxError> {
    let set = |name, resource, value: u64| {
        let refused = |errno| SandboxError::Limit(name, errno);
        match setrlimit(resource, value, value) {
            // Where even root may not raise it (a container), as much as there is.
            Err(Errno::EPERM) => {
                let (_, most) = getrlimit(resource).map_err(refused)?;
                tracing::warn!(name, wanted = value, most, "limit cannot be raised");
                setrlimit(resource, value.min(most), most).map_err(refused)
            }
            result => result.map_err(refused),
        }
    };
    set("locked memory", Resource::RLIMIT_MEMLOCK, MAX_LOCKED_BYTES)?;
    set("open files", Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS_OPEN)?;
    set("core", Resource::RLIMIT_CORE, 0)
}

/// Becomes `uid` and closes every wall. There is no way back.
///
/// # Errors
/// A wall cannot be closed. (A kernel without landlock is only warned about: the other walls stand.)
pub fn enter(uid: u32) -> Result<(), SandboxError> {
    // The directory of whoever started the agent must not be held.
    nix::unistd::chdir("/").map_err(SandboxError::Directory)?;
    caps::clear(None, caps::CapSet::Ambient)?;
    for capability in caps::all() {
        // Fails for one that this kernel does not know.
        let _ = caps::drop(None, caps::CapSet::Bounding, capability);
    }
    process::become_user(uid, uid)?;
    for set in [
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
        caps::CapSet::Inheritable,
    ] {
        caps::clear(None, set)?;
    }
    process::harden()?;
    close_paths()?;
    for program in filters()? {
        apply_filter(&program)?;
    }
    Ok(())
}

fn close_paths() -> Result<(), SandboxError> {
    if restrict_paths()? == RulesetStatus::NotEnforced {
        tracing::warn!("this kernel has no landlock; paths are closed by user id only");
    }
    Ok(())
}

/// As much as this kernel can, of this thread.
fn restrict_paths() -> Result<RulesetStatus, SandboxError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// System calls that are allowed whatever their arguments.
const ALLOWED: &[libc::c_long] = &[
    // Bytes and descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_eventfd2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The control socket.
    libc::SYS_accept4,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // Memory and threads.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_prlimit64,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
];

/// Numbers of `ioctl` that are allowed: gntdev, evtchn, sizes of block devices, offloads of a tap, discard.
const IOCTLS: &[u64] = &[
    gntdev::IOCTL_MAP_GRANT_REF,
    gntdev::IOCTL_UNMAP_GRANT_REF,
    gntdev::IOCTL_GRANT_COPY,
    evtchn::IOCTL_BIND_INTERDOMAIN,
    evtchn::IOCTL_UNBIND,
    evtchn::IOCTL_NOTIFY,
    evtchn::IOCTL_RESET,
    BLKROGET,
    BLKSSZGET,
    BLKPBSZGET,
    BLKGETSIZE64,
    BLKDISCARD,
    TUNSETOFFLOAD,
    FIONBIO,
];
// `linux/fs.h`, `linux/if_tun.h`, `asm-generic/ioctls.h`.
const BLKROGET: u64 = 0x125e;
const BLKSSZGET: u64 = 0x1268;
const BLKPBSZGET: u64 = 0x127b;
const BLKGETSIZE64: u64 = 0x8008_1272;
const BLKDISCARD: u64 = 0x1277;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const FIONBIO: u64 = 0x5421;
/// `prctl` operations that a thread needs: its name.
const PR_SET_NAME: u64 = 15;

/// Two filters, of which the stricter answer counts: `clone3` hides its flags from a filter, so it does not exist here (ENOSYS) and libc falls back to `clone`;
/// everything that is not named fails.
fn filters() -> Result<[BpfProgram; 2], SandboxError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(Errno::ENOSYS)),
        arch,
    )?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(2, SeccompCmpOp::MaskedEq(exec), 0)?]);
    }
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    rules.insert(
        libc::SYS_clone,
        vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?],
    );
    // The other filter's answer is to count.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(
        libc::SYS_prctl,
        vec![rule(0, SeccompCmpOp::Eq, PR_SET_NAME)?],
    );
    let ioctls = IOCTLS
        .iter()
        .map(|number| rule(1, SeccompCmpOp::Eq, *number))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    let allowed = SeccompFilter::new(
        rules,
        SeccompAction::Errno(errno(Errno::EPERM)),
        SeccompAction::Allow,
        arch,
    )?;
    Ok([no_clone3.try_into()?, allowed.try_into()?])
}

fn rule(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}

fn errno(errno: Errno) -> u32 {
    (errno as i32).unsigned_abs()
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
