//! What the evidence about one guest means now. Pure; every threshold is here.
//!
//! ```text
//!                         ┌────────────── sign of life ──────────────┐
//!                         ▼                                          │
//!   Starting ──▶ Healthy ──── silence, failing probes ────▶ Suspect ─┤
//!                  │                                          │ past the threshold, and not everybody at once
//!                  │ crash, watchdog, no domain               ▼
//!                  ├──────────────────────────────────────▶ Failed
//!                  └── poweroff, reboot, suspend ──▶ Stopped (on purpose)
//! ```
//!
//! Silence of a heartbeat counts only after a first beat, a failing probe only after a first answer, both only from when somebody
//! listened and not during the grace after a start. When all guests fall silent together the fault is more likely on this side, and
//! the verdict waits. This module never reads a clock and remembers nothing: same evidence, policy and time, same verdict.

use crate::evidence::Evidence;
use crate::evidence::guest::Life;
use crate::limits::SETTLE;
use crate::policy::Policy;
use crate::time::{Mono, human};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use xen_abi::domain::ShutdownReason;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The guest's kernel crashed.
    Crash,
    /// The guest did not pet its watchdog; Xen shut it down.
    Watchdog,
    /// The heartbeat stopped.
    Hang,
    /// A probe from outside is not answered any more.
    Unreachable,
    /// There is no domain: an earlier restart got this far and no further.
    NoDomain,
    /// The guest restarts on purpose. Never a failure, but an outage all the same, counted apart.
    Reboot,
}

impl Cause {
    /// Whether somebody wanted it.
    #[must_use]
    pub fn planned(self) -> bool {
        self == Cause::Reboot
    }

    /// Whether the domain still runs, and might be of use to somebody.
    #[must_use]
    pub fn leaves_a_running_domain(self) -> bool {
        matches!(self, Cause::Hang | Cause::Unreachable)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cause::Crash => "crash",
            Cause::Watchdog => "watchdog",
            Cause::Hang => "hang",
            Cause::Unreachable => "unreachable",
            Cause::NoDomain => "no domain",
            Cause::Reboot => "reboot",
        })
    }
}

/// Why a guest is suspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The heartbeat is late.
    HeartbeatLate,
    /// The probe with this number was not answered this many times in a row.
    ProbeFails {
        /// Place in the policy.
        index: usize,
        /// Failures in a row.
        times: u32,
    },
    /// It would have failed, but so would every other guest.
    CommonCause(Cause),
}

/// What the evidence means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The agent is not heard: nothing is known now.
    Unseen,
    /// Being built.
    Starting,
    /// Nothing speaks against it.
    Healthy,
    /// Something speaks against it, not enough.
    Suspect {
        /// The last sign of life.
        since: Mono,
        /// What speaks against it.
        why: Doubt,
    },
    /// It failed and would be better off restarted.
    Failed {
        /// How.
        cause: Cause,
        /// The last moment at which it may have been well.
        since: Mono,
    },
    /// It ended on purpose; what follows is not the monitor's business.
    Stopped(ShutdownReason),
    /// It is being taken apart.
    Ending,
    /// It stands still, on its way to another host: nothing about it is a failure.
    Leaving,
}

/// The other guests of the host that are watched in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crowd {
    /// Others that run and have shown this kind of sign.
    pub watched: u32,
    /// Those of them that fall silent as well.
    pub failing: u32,
}

impl Crowd {
    /// Whether everybody else fails in the same way at the same time.
    #[must_use]
    pub fn all_fail(self) -> bool {
        self.watched > 0 && self.failing == self.watched
    }

    /// The crowd without one of its members.
    #[must_use]
    pub fn without(self, member: Member) -> Crowd {
        Crowd {
            watched: self.watched.saturating_sub(u32::from(member.watched)),
            failing: self.failing.saturating_sub(u32::from(member.failing)),
        }
    }

    /// The crowd with one member more.
    #[must_use]
    pub fn with(self, member: Member) -> Crowd {
        Crowd {
            watched: self.watched + u32::from(member.watched),
            failing: self.failing + u32::from(member.failing),
        }
    }
}

/// One guest's part in a [`Crowd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// Runs, and has shown this kind of sign.
    pub watched: bool,
    /// Falls silent.
    pub failing: bool,
}

/// What happens to the others, by kind of sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Around {
    /// Heartbeats.
    pub heartbeats: Crowd,
    /// Probes.
    pub probes: Crowd,
}

/// A guest's part in the crowds of heartbeats and of probes.
#[must_use]
pub fn membership(evidence: &Evidence, policy: &Policy, now: Mono) -> (Member, Member) {
    if evidence.life != Life::Running {
        return (Member::default(), Member::default());
    }
    let beats = Member {
        watched: heard_from(evidence, policy).is_some(),
        failing: silence(evidence, policy, now).is_some_and(|(silent, limit)| silent >= limit / 2),
    };
    let armed = || evidence.probes.iter().filter(|series| series.armed);
    let probes = Member {
        watched: armed().count() > 0,
        failing: armed().any(|series| series.failures > 0),
    };
    (beats, probes)
}

/// What the evidence means. Total and deterministic.
#[must_use]
pub fn verdict(evidence: &Evidence, policy: &Policy, around: Around, now: Mono) -> Verdict {
    if evidence.listening().is_none() {
        return Verdict::Unseen;
    }
    match evidence.life {
        Life::Building => Verdict::Starting,
        Life::Dying => Verdict::Ending,
        Life::Leaving => Verdict::Leaving,
        Life::Waiting { since } => Verdict::Failed {
            cause: Cause::NoDomain,
            since,
        },
        Life::Down { reason, at } => match reason {
            ShutdownReason::Crash => Verdict::Failed { cause: Cause::Crash, since: at },
            ShutdownReason::Watchdog => Verdict::Failed { cause: Cause::Watchdog, since: at },
            ShutdownReason::Poweroff
            | ShutdownReason::Reboot
            | ShutdownReason::Suspend
            | ShutdownReason::SoftReset
            // Codes that Xen does not define come from the guest's own hand: it wanted to go.
            | ShutdownReason::Other(_) => Verdict::Stopped(reason),
        },
        Life::Running => running(evidence, policy, around, now),
    }
}

fn running(evidence: &Evidence, policy: &Policy, around: Around, now: Mono) -> Verdict {
    if now.since(evidence.started) < policy.times.grace {
        return Verdict::Healthy;
    }
    let hold = policy.times.common_cause_hold;
    let mut doubt = None;
    if let Some((silent, limit)) = silence(evidence, policy, now) {
        let since = evidence.beats.last.unwrap_or(evidence.opened);
        let common = around.heartbeats.all_fail() && silent < limit + hold;
        if silent >= limit && !common && settled(evidence, now) {
            return Verdict::Failed {
                cause: Cause::Hang,
                since,
            };
        }
        if silent >= limit && common {
            doubt = Some(Verdict::Suspect {
                since,
                why: Doubt::CommonCause(Cause::Hang),
            });
        } else if silent >= limit / 2 {
            doubt = Some(Verdict::Suspect {
                since,
                why: Doubt::HeartbeatLate,
            });
        }
    }
    for (index, series) in evidence.probes.iter().enumerate() {
        // From the first question that failed, not from the last answer: between them nobody may have asked.
        let (true, Some(since)) = (series.armed, series.failing_since) else {
            continue;
        };
        let enough = series.failures >= policy.times.probe_failures;
        let failing = now.since(since).saturating_sub(series.deaf);
        let common = around.probes.all_fail() && failing < long_enough(policy) + hold;
        if enough && !common {
            return Verdict::Failed {
                cause: Cause::Unreachable,
                since,
            };
        }
        let why = match enough {
            true => Doubt::CommonCause(Cause::Unreachable),
            false => Doubt::ProbeFails {
                index,
                times: series.failures,
            },
        };
        doubt.get_or_insert(Verdict::Suspect { since, why });
    }
    doubt.unwrap_or(Verdict::Healthy)
}

/// How long the probes of a dead guest take to say so.
fn long_enough(policy: &Policy) -> Duration {
    policy.times.probe_every * policy.times.probe_failures
}

/// From when silence counts: the last beat, or when somebody began to listen, later by what nobody heard. `None`: heartbeats are not judged.
fn heard_from(evidence: &Evidence, policy: &Policy) -> Option<Mono> {
    policy.heartbeat_timeout?;
    if evidence.beats.stopped || !evidence.beats.armed {
        return None;
    }
    let last = evidence.beats.last.unwrap_or_default();
    Some(last.max(evidence.opened).after(evidence.deaf))
}

/// Whether what was missed during the last gap has had the time to arrive.
fn settled(evidence: &Evidence, now: Mono) -> bool {
    evidence
        .listening()
        .is_some_and(|since| now.since(since) >= SETTLE)
}

/// How long the heartbeat has been silent, and how long it may be.
fn silence(evidence: &Evidence, policy: &Policy, now: Mono) -> Option<(Duration, Duration)> {
    Some((
        now.since(heard_from(evidence, policy)?),
        policy.heartbeat_timeout?,
    ))
}

/// The next moment at which the verdict could change although nothing is heard. `None`: never.
#[must_use]
pub fn next_change(evidence: &Evidence, policy: &Policy, now: Mono) -> Option<Mono> {
    if evidence.life != Life::Running {
        return None;
    }
    let grace = evidence.started.after(policy.times.grace);
    let mut moments = vec![grace];
    moments.extend(
        evidence
            .listening()
            .map(|since| since.after(SETTLE).max(grace)),
    );
    if let (Some(from), Some(limit)) = (heard_from(evidence, policy), policy.heartbeat_timeout) {
        for span in [limit / 2, limit, limit + policy.times.common_cause_hold] {
            moments.push(from.after(span).max(grace));
        }
    }
    for series in &evidence.probes {
        let held = long_enough(policy) + policy.times.common_cause_hold + series.deaf;
        moments.extend(
            series
                .failing_since
                .map(|since| since.after(held).max(grace)),
        );
    }
    moments.into_iter().filter(|moment| *moment > now).min()
}

/// One line for people.
#[must_use]
pub fn describe(verdict: &Verdict, policy: &Policy, now: Mono) -> String {
    match verdict {
        Verdict::Unseen => "unknown: the agent is not heard".to_owned(),
        Verdict::Starting => "starting".to_owned(),
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::Ending => "being destroyed".to_owned(),
        Verdict::Leaving => "being moved to another host".to_owned(),
        Verdict::Stopped(reason) => format!("stopped on purpose ({})", reason_word(*reason)),
        Verdict::Failed { cause, since } => {
            format!("failed: {cause}, {} ago", human(now.since(*since)))
        }
        Verdict::Suspect { since, why } => {
            let ago = human(now.since(*since));
            match why {
                Doubt::HeartbeatLate => format!("suspect: no heartbeat for {ago}"),
                Doubt::ProbeFails { index, times } => match policy.probes.get(*index) {
                    Some(target) => format!("suspect: {target} failed {times} times, for {ago}"),
                    None => format!("suspect: a probe failed {times} times, for {ago}"),
                },
                Doubt::CommonCause(cause) => format!(
                    "suspect: {cause} for {ago}, but every other guest as well: \
                     the fault is more likely on this host"
                ),
            }
        }
    }
}

/// xl's word for a shutdown reason.
#[must_use]
pub fn reason_word(reason: ShutdownReason) -> String {
    match reason {
        ShutdownReason::Poweroff => "poweroff".to_owned(),
        ShutdownReason::Reboot => "reboot".to_owned(),
        ShutdownReason::Suspend => "suspend".to_owned(),
        ShutdownReason::Crash => "crash".to_owned(),
        ShutdownReason::Watchdog => "watchdog".to_owned(),
        ShutdownReason::SoftReset => "soft-reset".to_owned(),
        ShutdownReason::Other(code) => format!("code {code}"),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
