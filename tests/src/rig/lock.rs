//! Locks between processes: one builder per cache entry, and a few machines at a time on this machine.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::deadline;

/// How often a taken lock is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// Held until dropped, also when the process dies.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "the lock lives as long as this")] Flock<File>);

/// Takes the lock at `path` if nobody has it.
///
/// # Errors
/// When the file cannot be made.
pub fn try_lock(path: &Path) -> Result<Option<Held>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = file.with_context(|| format!("cannot open the lock {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(Held(lock))),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Takes the first free one of `paths`, waiting up to [`deadline::TURN`].
///
/// # Errors
/// When none became free in that time; `what` says what they are for.
pub fn lock_any(paths: &[&Path], what: &str) -> Result<Held> {
    let give_up = Instant::now() + deadline::scaled(deadline::TURN);
    let mut told = false;
    loop {
        for path in paths {
            if let Some(held) = try_lock(path)? {
                return Ok(held);
            }
        }
        if Instant::now() > give_up {
            bail!(
                "waited {:?} for {what}; is a forgotten process holding {}?",
                deadline::TURN,
                paths[0].display()
            );
        }
        if !told {
            eprintln!("lab: waiting for {what}");
            told = true;
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes the one lock at `path`.
///
/// # Errors
/// As [`lock_any`].
pub fn lock(path: &Path, what: &str) -> Result<Held> {
    lock_any(&[path], what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_and_a_dropped_one_is_not() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let first = try_lock(&path)?;
        assert!(first.is_some());
        assert!(try_lock(&path)?.is_none());
        drop(first);
        assert!(try_lock(&path)?.is_some());
        Ok(())
    }
}
