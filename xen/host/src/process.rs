//! Giving rights away, for good: what a driver does before it looks at its guest.
//!
//! Only the plain process attributes live here; seccomp and landlock are the driver's own. Each function affects the whole process and
//! must run before it starts threads.

use crate::error::Error;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

/// Becomes `uid`/`gid` without supplementary groups, and proves that there is no way back.
///
/// # Errors
/// Not root, or the kernel let something of the old identity stand (`EPERM`).
pub fn become_user(uid: u32, gid: u32) -> Result<(), Error> {
    let refused = |errno| Error::refused("change of user", errno);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).map_err(refused)?;
    setresgid(gid, gid, gid).map_err(refused)?;
    setresuid(uid, uid, uid).map_err(refused)?;
    let (users, groups) = (getresuid().map_err(refused)?, getresgid().map_err(refused)?);
    let changed = [users.real, users.effective, users.saved]
        .iter()
        .all(|id| *id == uid)
        && [groups.real, groups.effective, groups.saved]
            .iter()
            .all(|id| *id == gid);
    let way_back = !uid.is_root() && setresuid(Uid::from_raw(0), uid, uid).is_ok();
    if changed && !way_back {
        Ok(())
    } else {
        Err(refused(Errno::EPERM))
    }
}

/// No program started from here on can gain rights, nobody but root can look into this process, and it does not die with its parent
/// (a driver serves its guest on while the agent restarts).
///
/// # Errors
/// The kernel refuses; none is known to.
pub fn harden() -> Result<(), Error> {
    let refused = |errno| Error::refused("hardening of the process", errno);
    prctl::set_no_new_privs().map_err(refused)?;
    prctl::set_dumpable(false).map_err(refused)?;
    prctl::set_pdeathsig(None).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each test is a process of its own under nextest; under plain `cargo test` this would change its neighbours, so it forks by
    /// running itself again.
    #[test]
    fn there_is_no_way_back_to_root() {
        const CHILD: &str = "XEN_HOST_TEST_BECOME_USER";
        if std::env::var_os(CHILD).is_some() {
            become_user(65_534, 65_534).unwrap();
            harden().unwrap();
            assert!(prctl::get_no_new_privs().unwrap());
            assert!(!prctl::get_dumpable().unwrap());
            assert_eq!(nix::unistd::getgroups().unwrap(), []);
            assert!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err());
            assert!(become_user(0, 0).is_err());
            return;
        }
        if !nix::unistd::geteuid().is_root() {
            return test_skips::skipped("there_is_no_way_back_to_root", "this needs root");
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::there_is_no_way_back_to_root"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
    }
}
