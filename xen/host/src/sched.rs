//! How eagerly the kernel runs this thread.

use std::marker::PhantomData;

/// While it lives, the calling thread waits for a CPU until whatever runs there has done its work, instead of taking the CPU away the moment it is woken.
///
/// For a thread that waits for many answers of one process: on a CPU that both share, it would be woken by each of them (see `sched(7)`, `SCHED_BATCH`).
/// A thread that was given a policy of its own keeps it.
#[derive(Debug)]
pub struct Patient {
    /// The policy is the thread's.
    _of_this_thread: PhantomData<*const ()>,
}

impl Patient {
    /// `None` where nothing was changed.
    #[must_use]
    pub fn begin() -> Option<Self> {
        // SAFETY: takes no pointer; 0 is the calling thread.
        let before = unsafe { libc::sched_getscheduler(0) };
        let changed = before == libc::SCHED_OTHER && set(libc::SCHED_BATCH);
        changed.then_some(Self {
            _of_this_thread: PhantomData,
        })
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        // Both directions are always allowed between these two.
        set(libc::SCHED_OTHER);
    }
}

fn set(policy: libc::c_int) -> bool {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameter before the call returns; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const priority) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_with_its_guard_and_does_not_nest() {
        // SAFETY: takes no pointer; 0 is the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let patient = Patient::begin();
        if before == libc::SCHED_OTHER {
            assert!(patient.is_some());
            assert_eq!(policy(), libc::SCHED_BATCH);
        }
        assert!(
            Patient::begin().is_none(),
            "there is nothing to change any more"
        );
        drop(patient);
        assert_eq!(policy(), before);
    }
}
