//! Judging and planning: verdicts become outages in the book, plans become intents and orders, and questions are put when they are due.

use super::{Action, Monitor, Order, Question, Tracked};
use crate::availability::Outage;
use crate::book::Page;
use crate::evidence::guest::Life;
use crate::evidence::{Evidence, Signs};
use crate::limits::{ACTIONS_AT_ONCE_MAX, PROBES_AT_ONCE_MAX, SUSPICION_LOG_EVERY};
use crate::plan::{History, Plan, Remains, lived_long};
use crate::record::{Deed, End, Record};
use crate::time::{Mono, Now};
use crate::verdict::{Around, Cause, Doubt, Verdict, describe, membership};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::Handle;

impl Monitor {
    pub(super) fn judge_all(&mut self, now: Now) {
        self.around = Around::default();
        for tracked in self.guests.values() {
            let (beats, probes) = membership(&tracked.evidence, &tracked.policy, now.mono);
            self.around.heartbeats = self.around.heartbeats.with(beats);
            self.around.probes = self.around.probes.with(probes);
        }
        let handles: Vec<Handle> = self.guests.keys().copied().collect();
        for handle in handles {
            self.judge(handle, now);
        }
        self.ask_due_questions(now);
    }

    pub(super) fn judge(&mut self, handle: Handle, now: Now) {
        let Some(tracked) = self.guests.get_mut(&handle) else {
            return;
        };
        let (beats, probes) = membership(&tracked.evidence, &tracked.policy, now.mono);
        let around = Around {
            heartbeats: self.around.heartbeats.without(beats),
            probes: self.around.probes.without(probes),
        };
        if common_cause_is_over(&tracked.verdict, around) {
            // What everybody failed by, somebody survived: what was counted meanwhile proves nothing about this one.
            tracked.evidence.start_over(now.mono);
        }
        let verdict = (self.rules.verdict)(&tracked.evidence, &tracked.policy, around, now.mono);
        let before = std::mem::replace(&mut tracked.verdict, verdict.clone());
        match verdict {
            Verdict::Healthy => drop(tracked.healthy_since.get_or_insert(now.mono)),
            _ => tracked.healthy_since = None,
        }
        self.note_suspicion(handle, &before, now);
        self.keep_outage(handle, &verdict, now);
        self.pardon(handle, now);
        self.carry_out(handle, &verdict, now);
    }

    /// Suspicion comes and goes; it is written down now and then.
    fn note_suspicion(&mut self, handle: Handle, before: &Verdict, now: Now) {
        let Some(tracked) = self.guests.get_mut(&handle) else {
            return;
        };
        let new = matches!(tracked.verdict, Verdict::Suspect { .. })
            && !matches!(before, Verdict::Suspect { .. });
        let lately = tracked
            .suspicion_noted
            .is_some_and(|at| now.mono.since(at) < SUSPICION_LOG_EVERY);
        if !new || lately {
            return;
        }
        tracked.suspicion_noted = Some(now.mono);
        let text = describe(&tracked.verdict, &tracked.policy, now.mono);
        self.remark(handle, &text, now);
    }

    /// Begins and ends the outage of a guest.
    fn keep_outage(&mut self, handle: Handle, verdict: &Verdict, now: Now) {
        let (Some(tracked), Some(page)) = (self.guests.get(&handle), self.book.pages.get(&handle))
        else {
            return;
        };
        let fault = match verdict {
            Verdict::Failed { cause, since } => Some((*cause, *since)),
            Verdict::Stopped(ShutdownReason::Reboot) => match tracked.evidence.life {
                Life::Down { at, .. } => Some((Cause::Reboot, at)),
                _ => None,
            },
            _ => None,
        };
        match (fault, &page.outage) {
            (Some((cause, since)), None) if page.given_up.is_none() => {
                let record = Record::OutageBegan {
                    guest: handle,
                    cause,
                    began: now.back_at(since),
                    expected: page.signs,
                };
                self.record(record, now);
            }
            (None, Some(outage)) => {
                let end = match verdict {
                    Verdict::Stopped(ShutdownReason::Poweroff) => End::Removed,
                    Verdict::Healthy if serves(&tracked.evidence, outage) => End::Restored,
                    _ => return,
                };
                self.record(Record::OutageEnded { guest: handle, end }, now);
            }
            _ => {}
        }
    }

    /// A guest that was given up and is well for long enough is taken care of again.
    fn pardon(&mut self, handle: Handle, now: Now) {
        let Some(tracked) = self.guests.get(&handle) else {
            return;
        };
        let given_up = self
            .book
            .pages
            .get(&handle)
            .is_some_and(|page| page.given_up.is_some());
        let stable = tracked.policy.times.stable_after;
        if given_up
            && tracked
                .healthy_since
                .is_some_and(|since| now.mono.since(since) >= stable)
        {
            self.record(Record::Pardoned { guest: handle }, now);
        }
    }

    /// Turns a plan into an intent and an order.
    fn carry_out(&mut self, handle: Handle, verdict: &Verdict, now: Now) {
        let Verdict::Failed { cause, since } = verdict else {
            return;
        };
        let (Some(tracked), Some(page)) = (self.guests.get(&handle), self.book.pages.get(&handle))
        else {
            return;
        };
        let mut page_restarts = page.restarts.clone();
        let history = history(page, page_restarts.make_contiguous());
        let plan = (self.rules.plan)(verdict, history, &tracked.policy, now.mono);
        let fresh = lived_long(history, &tracked.policy, *since);
        let (deed, why) = match plan {
            Plan::Nothing => return,
            Plan::Restart { after } if !after.is_zero() => return,
            Plan::Restart { .. } => (Deed::Restart, cause.to_string()),
            Plan::GiveUp {
                why,
                remains: Remains::Destroy,
            } => (Deed::GiveUp, why),
            Plan::GiveUp {
                why,
                remains: Remains::Leave,
            } => {
                return self.record(Record::GaveUp { guest: handle, why }, now);
            }
        };
        if self.performing.len() >= ACTIONS_AT_ONCE_MAX {
            return;
        }
        let order = Order {
            id: self.book.next_intent,
            guest: handle,
            domid: tracked.evidence.domid,
            deed,
            why,
            by_silence: cause.leaves_a_running_domain(),
            timeout: tracked.policy.times.action_timeout,
        };
        let intent = Record::Intent {
            id: order.id,
            guest: handle,
            domid: order.domid,
            deed,
            why: order.why.clone(),
            fresh,
        };
        self.record(intent, now);
        self.performing.insert(order.id);
        self.out.push(Action::Perform(order));
    }

    /// Puts the questions whose time has come.
    fn ask_due_questions(&mut self, now: Now) {
        for tracked in self.guests.values_mut() {
            if tracked.evidence.life != Life::Running {
                continue;
            }
            let times = &tracked.policy.times;
            for series in &mut tracked.evidence.probes {
                let due = series
                    .asked
                    .is_none_or(|asked| now.mono.since(asked) >= times.probe_every);
                if !due || series.in_flight || self.asking >= PROBES_AT_ONCE_MAX {
                    continue;
                }
                series.asked = Some(now.mono);
                series.in_flight = true;
                self.asking += 1;
                self.out.push(Action::Ask(Question {
                    guest: tracked.guest.uuid,
                    domid: tracked.evidence.domid,
                    target: series.target.clone(),
                    asked: now.mono,
                    timeout: times.probe_timeout,
                }));
            }
        }
    }

    /// When the next question to a guest is due.
    pub(super) fn next_question(&self, tracked: &Tracked) -> Option<Mono> {
        if tracked.evidence.life != Life::Running {
            return None;
        }
        let every = tracked.policy.times.probe_every;
        let waiting = tracked
            .evidence
            .probes
            .iter()
            .filter(|series| !series.in_flight);
        waiting
            .map(|series| series.asked.map_or(Mono(0), |asked| asked.after(every)))
            .min()
    }

    /// When the back-off of a failed guest ends.
    pub(super) fn next_attempt(&self, tracked: &Tracked, now: Mono) -> Option<Mono> {
        if !matches!(tracked.verdict, Verdict::Failed { .. }) {
            return None;
        }
        let page = self.book.pages.get(&tracked.guest.uuid)?;
        let mut restarts = page.restarts.clone();
        let history = history(page, restarts.make_contiguous());
        match (self.rules.plan)(&tracked.verdict, history, &tracked.policy, now) {
            Plan::Restart { after } => Some(now.after(after)),
            Plan::Nothing | Plan::GiveUp { .. } => None,
        }
    }
}

fn history<'a>(page: &Page, restarts: &'a [Mono]) -> History<'a> {
    History {
        restarts,
        in_a_row: page.in_a_row,
        last_attempt: page.last_attempt,
        busy: page.open.is_some(),
        given_up: page.given_up.is_some(),
    }
}

/// Whether a guest was only held for what befell all, and now it does not befall all any more.
fn common_cause_is_over(verdict: &Verdict, around: Around) -> bool {
    match verdict {
        Verdict::Suspect {
            why: Doubt::CommonCause(Cause::Hang),
            ..
        } => !around.heartbeats.all_fail(),
        Verdict::Suspect {
            why: Doubt::CommonCause(_),
            ..
        } => !around.probes.all_fail(),
        _ => false,
    }
}

/// Whether the guest shows what it showed before its outage, as far as it is still asked.
fn serves(evidence: &Evidence, outage: &Outage) -> bool {
    let asked = evidence
        .probes
        .iter()
        .enumerate()
        .fold(0, |mask, (index, _)| mask | 1 << index);
    let expected = Signs {
        probes: outage.expected.probes & asked,
        ..outage.expected
    };
    evidence.signs_since(outage.detected.mono).cover(expected)
}
