//! Raw signals with time stamps, and no judgement: what was heard about one guest, from whom, and when.
//!
//! ```text
//!   dom0-agent ── start, shutdown, domain gone ──▶ guest.rs ┐
//!   parapet-guest ── counter in xenstore, by the agent ──▶ guest.rs ├─▶ Evidence ─▶ verdict
//!   this program ── tcp, http, ping ──▶ probe.rs            │
//!   the connection to the agent ──▶ agent.rs                ┘
//! ```
//!
//! A missing sample is not a sample: silence is only ever computed in `verdict`, from the last thing heard and from how long anybody was listening.

pub mod agent;
pub mod guest;
pub mod probe;

use crate::evidence::guest::{Beats, Life};
use crate::evidence::probe::{Series, Target};
use crate::time::Mono;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;

/// Which signs of service a domain has shown. A restarted guest counts as restored when it shows again what it showed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signs {
    /// A heartbeat was seen.
    pub heartbeat: bool,
    /// Bit `n`: probe `n` was answered once.
    pub probes: u8,
}

impl Signs {
    /// Whether these are at least `wanted`.
    #[must_use]
    pub fn cover(self, wanted: Signs) -> bool {
        (self.heartbeat || !wanted.heartbeat) && self.probes & wanted.probes == wanted.probes
    }

    /// Whether there is any.
    #[must_use]
    pub fn any(self) -> bool {
        self.heartbeat || self.probes != 0
    }
}

/// Whether anybody listens to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// The agent is connected and this program has run without a gap since then.
    Listening {
        /// Since when.
        since: Mono,
    },
    /// The agent is away.
    Deaf {
        /// Since when.
        since: Mono,
    },
}

/// Everything heard about one guest's present domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The domain that all of this is about.
    pub domid: Option<DomId>,
    /// What the agent last said about its life.
    pub life: Life,
    /// When this domain was first known to run.
    pub started: Mono,
    /// Whether anybody listens.
    pub hearing: Hearing,
    /// From when silence can count at all, if nothing was heard since.
    pub opened: Mono,
    /// Time since the last sign of life in which nobody listened: it is no silence.
    pub deaf: Duration,
    /// Heartbeats.
    pub beats: Beats,
    /// Answers to questions from outside, in the order of the policy.
    pub probes: Vec<Series>,
}

impl Evidence {
    /// About a domain of which nothing was heard yet.
    #[must_use]
    pub fn new(domid: Option<DomId>, life: Life, targets: &[Target], at: Mono) -> Self {
        Self {
            domid,
            life,
            started: at,
            hearing: Hearing::Listening { since: at },
            opened: at,
            deaf: Duration::ZERO,
            beats: Beats::default(),
            probes: targets.iter().cloned().map(Series::new).collect(),
        }
    }

    /// What the domain has shown so far, to this or an earlier run of this program.
    #[must_use]
    pub fn signs(&self) -> Signs {
        self.gather(self.beats.armed, |series| series.armed)
    }

    /// What it has shown to this run after `since`. A goodbye stands for the heartbeat: there will be none.
    #[must_use]
    pub fn signs_since(&self, since: Mono) -> Signs {
        let later = |moment: Option<Mono>| moment.is_some_and(|moment| moment > since);
        self.gather(self.beats.stopped || later(self.beats.last), |s| {
            later(s.last_success)
        })
    }

    fn gather(&self, heartbeat: bool, counts: impl Fn(&Series) -> bool) -> Signs {
        let mut probes = 0;
        for (index, series) in self.probes.iter().enumerate().take(u8::BITS as usize) {
            probes |= u8::from(counts(series)) << index;
        }
        Signs { heartbeat, probes }
    }

    /// What an earlier run of this program knows that the domain has shown.
    pub fn recall(&mut self, signs: Signs) {
        self.beats.armed |= signs.heartbeat;
        for (index, series) in self.probes.iter_mut().enumerate().take(u8::BITS as usize) {
            series.armed |= signs.probes & (1 << index) != 0;
        }
    }

    /// The domain shut down. Answers whether that is news.
    pub fn shut_down(&mut self, reason: ShutdownReason, at: Mono) -> bool {
        let news = !matches!(self.life, Life::Down { reason: known, .. } if known == reason);
        if news {
            self.life = Life::Down { reason, at };
        }
        news
    }

    /// Since when nothing would have been missed; `None`: nobody listens now.
    #[must_use]
    pub fn listening(&self) -> Option<Mono> {
        match self.hearing {
            Hearing::Listening { since } => Some(since),
            Hearing::Deaf { .. } => None,
        }
    }

    /// A heartbeat counter was seen.
    pub fn beat(&mut self, counter: u64, at: Mono) {
        let before = self.beats.last;
        self.beats.note(counter, at);
        if self.beats.last != before {
            self.deaf = Duration::ZERO;
        }
    }

    /// The connection is lost.
    pub fn go_deaf(&mut self, at: Mono) {
        if self.listening().is_some() {
            self.hearing = Hearing::Deaf { since: at };
        }
    }

    /// The connection is back: the time without it is no silence.
    pub fn hear_again(&mut self, at: Mono) {
        if let Hearing::Deaf { since } = self.hearing {
            self.missed(at.since(since), at);
        }
    }

    /// Nobody listened for `gap` up to `at`. What was silent before stays so: a host that stalls all the time must still notice a hang.
    pub fn missed(&mut self, gap: Duration, at: Mono) {
        self.deaf += gap;
        self.hearing = Hearing::Listening { since: at };
        for series in &mut self.probes {
            series.missed(gap);
        }
    }

    /// Nothing heard or not heard before `at` proves anything.
    pub fn start_over(&mut self, at: Mono) {
        self.hearing = Hearing::Listening { since: at };
        self.opened = at;
        self.deaf = Duration::ZERO;
        for series in &mut self.probes {
            series.forget_failures();
        }
    }

    /// New questions; those that stay keep their answers.
    pub fn retarget(&mut self, targets: &[Target]) {
        let mut old = std::mem::take(&mut self.probes);
        for target in targets {
            let kept = old.iter().position(|series| series.target == *target);
            self.probes.push(match kept {
                Some(index) => old.swap_remove(index),
                None => Series::new(target.clone()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(targets: &[&str]) -> Evidence {
        let targets: Vec<Target> = targets.iter().map(|text| text.parse().unwrap()).collect();
        Evidence::new(Some(DomId(3)), Life::Running, &targets, Mono(0))
    }

    #[test]
    fn a_restarted_guest_must_show_again_what_it_showed_before() {
        let mut evidence = about(&["tcp:10.0.0.1:22", "ping:10.0.0.1"]);
        assert!(!evidence.signs().any());
        let wanted = Signs {
            heartbeat: true,
            probes: 0b10,
        };
        evidence.beats.note(1, Mono(5));
        assert!(!evidence.signs().cover(wanted));
        evidence.probes[1].answered(Ok(()), Mono(5), Mono(6), Mono(0));
        assert!(evidence.signs().cover(wanted));
    }

    #[test]
    fn what_was_recalled_counts_as_shown_but_not_as_heard() {
        let mut evidence = about(&["ping:10.0.0.1"]);
        let signs = Signs {
            heartbeat: true,
            probes: 1,
        };
        evidence.recall(signs);
        assert_eq!(evidence.signs(), signs);
        assert!(!evidence.signs_since(Mono(0)).any());
    }

    #[test]
    fn time_without_ears_is_no_silence_and_a_beat_ends_it() {
        let mut evidence = about(&[]);
        evidence.beat(1, Mono(1000));
        evidence.missed(Duration::from_secs(5), Mono(7000));
        evidence.go_deaf(Mono(8000));
        evidence.go_deaf(Mono(8500));
        assert_eq!(evidence.listening(), None);
        evidence.hear_again(Mono(10_000));
        assert_eq!(
            (evidence.deaf, evidence.listening()),
            (Duration::from_secs(7), Some(Mono(10_000)))
        );
        evidence.beat(1, Mono(10_500));
        assert_eq!(
            evidence.deaf,
            Duration::from_secs(7),
            "the same counter again is no beat"
        );
        evidence.beat(2, Mono(11_000));
        assert_eq!(evidence.deaf, Duration::ZERO);
    }

    #[test]
    fn questions_that_stay_keep_their_answers() {
        let mut evidence = about(&["tcp:10.0.0.1:22", "ping:10.0.0.1"]);
        evidence.probes[1].answered(Ok(()), Mono(5), Mono(6), Mono(0));
        evidence.retarget(&[
            "ping:10.0.0.1".parse().unwrap(),
            "tcp:10.0.0.9:1".parse().unwrap(),
        ]);
        assert_eq!(
            evidence.signs(),
            Signs {
                heartbeat: false,
                probes: 0b01
            }
        );
    }
}
