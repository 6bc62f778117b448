//! What is heard from the guest itself and from the hypervisor about it, always by way of the agent.

use crate::time::Mono;
use parapet_wire::agent::GuestState;
use xen_abi::domain::ShutdownReason;

/// The life of a domain, as the agent last told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Being built.
    Building,
    /// Running.
    Running,
    /// Shut down.
    Down {
        /// Why.
        reason: ShutdownReason,
        /// When that was heard.
        at: Mono,
    },
    /// There is no domain; the guest waits for a restart.
    Waiting {
        /// When that was first heard.
        since: Mono,
    },
    /// Being destroyed.
    Dying,
    /// Suspended, on its way to another host.
    Leaving,
}

impl Life {
    /// The agent's word, heard at `at`. A state that was known before keeps its time.
    #[must_use]
    pub fn hear(self, state: GuestState, at: Mono) -> Life {
        match (state, self) {
            (GuestState::Building, _) => Life::Building,
            (GuestState::Running, _) => Life::Running,
            (GuestState::Dying, _) => Life::Dying,
            (GuestState::Leaving, _) => Life::Leaving,
            (GuestState::Down(told), Life::Down { reason, at }) if told == reason => {
                Life::Down { reason, at }
            }
            (GuestState::Down(reason), _) => Life::Down { reason, at },
            (GuestState::Waiting, Life::Waiting { since }) => Life::Waiting { since },
            (GuestState::Waiting, _) => Life::Waiting { since: at },
        }
    }
}

/// Heartbeats of one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beats {
    /// The last counter.
    pub counter: Option<u64>,
    /// When this program last saw the counter change.
    pub last: Option<Mono>,
    /// The domain has beaten at some time, perhaps heard by an earlier run of this program.
    pub armed: bool,
    /// The program said goodbye; silence means nothing until it beats again.
    pub stopped: bool,
}

impl Beats {
    /// A counter was seen. The same counter again is no beat: xenstore repeats itself, a dead guest's node too. Nor is the first counter that a restarted
    /// monitor sees of a guest known to have beaten before: it may be as old as the guest's death.
    pub fn note(&mut self, counter: u64, at: Mono) {
        let before = self.counter.replace(counter);
        let old_news = match before {
            Some(known) => known == counter,
            None => self.armed,
        };
        if !old_news {
            self.last = Some(at);
            self.armed = true;
            self.stopped = false;
        }
    }

    /// The program said goodbye.
    pub fn stop(&mut self) {
        self.stopped = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_counter_again_is_no_beat() {
        let mut beats = Beats::default();
        beats.note(7, Mono(10));
        beats.note(7, Mono(20));
        assert_eq!(beats.last, Some(Mono(10)));
        beats.note(8, Mono(30));
        assert_eq!(beats.last, Some(Mono(30)));
    }

    #[test]
    fn the_first_counter_after_a_restart_of_ours_may_be_old() {
        let mut beats = Beats {
            armed: true,
            ..Beats::default()
        };
        beats.note(7, Mono(10));
        assert_eq!(beats.last, None);
        beats.note(8, Mono(11));
        assert_eq!(beats.last, Some(Mono(11)));
    }

    #[test]
    fn a_goodbye_holds_until_the_next_beat() {
        let mut beats = Beats::default();
        beats.note(7, Mono(10));
        beats.stop();
        beats.note(7, Mono(20));
        assert!(beats.stopped);
        beats.note(8, Mono(30));
        assert!(!beats.stopped);
    }

    #[test]
    fn hearing_the_same_twice_keeps_the_first_time() {
        let down = Life::Running.hear(GuestState::Down(ShutdownReason::Crash), Mono(5));
        assert_eq!(
            down.hear(GuestState::Down(ShutdownReason::Crash), Mono(9)),
            down
        );
        let waiting = down.hear(GuestState::Waiting, Mono(9));
        assert_eq!(
            waiting.hear(GuestState::Waiting, Mono(20)),
            Life::Waiting { since: Mono(9) }
        );
        assert_eq!(waiting.hear(GuestState::Running, Mono(30)), Life::Running);
    }
}
