//! What the unpacking worker gives up before it looks at the first byte of a kernel.
//!
//! In this order: memory, CPU, file size and process limits; the root identity; the chance of ever regaining privilege;
//! and every system call but the dozen that unpacking needs. A forbidden call kills the process.

use super::limits::{MAX_UNPACKED, WORKER_ADDRESS_SPACE, WORKER_CPU_SECONDS};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The `nobody` of every Linux system.
const NOBODY: u32 = 65_534;

/// System calls left: reading, writing, memory, and what the runtime does by itself.
const ALLOWED: [libc::c_long; 24] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_close,
    libc::SYS_ftruncate,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Why the sandbox could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit or an identity was refused.
    #[error("{step}: {errno}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The system call filter was refused.
    #[error("system call filter: {0}")]
    Filter(String),
}

/// Gives everything up, for good.
///
/// # Errors
/// The first step that was refused; the caller must then not go on.
pub fn enter() -> Result<(), SandboxError> {
    let limits = [
        (Resource::RLIMIT_AS, WORKER_ADDRESS_SPACE),
        (Resource::RLIMIT_CPU, WORKER_CPU_SECONDS),
        (Resource::RLIMIT_FSIZE, MAX_UNPACKED),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit, limit).map_err(|errno| refused("setrlimit", errno))?;
    }
    if geteuid().is_root() {
        setgroups(&[]).map_err(|errno| refused("setgroups", errno))?;
        let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
        setresgid(gid, gid, gid).map_err(|errno| refused("setresgid", errno))?;
        setresuid(uid, uid, uid).map_err(|errno| refused("setresuid", errno))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(|errno| refused("no_new_privs", errno))?;
    let filter = filter().map_err(|error| SandboxError::Filter(error.to_string()))?;
    seccompiler::apply_filter(&filter).map_err(|error| SandboxError::Filter(error.to_string()))
}

fn refused(step: &'static str, errno: Errno) -> SandboxError {
    SandboxError::Refused { step, errno }
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<_, _> = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
    // Sealing the output; and debug builds of the standard library ask whether a descriptor is open before they close it.
    let allowed = [libc::F_ADD_SEALS, libc::F_GETFD].map(|command| {
        let command = u64::from(command.unsigned_abs());
        let is_command =
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)?;
        SeccompRule::new(vec![is_command])
    });
    rules.insert(
        libc::SYS_fcntl,
        allowed.into_iter().collect::<Result<_, _>>()?,
    );
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?
    .try_into()
}
