//! Taking in what was heard: each fact changes the evidence of one guest, and the book where it must be remembered.

use super::{Monitor, Order, Performed, Question, Tracked};
use crate::evidence::Evidence;
use crate::evidence::agent::Link;
use crate::evidence::guest::Life;
use crate::limits::{GUESTS_MAX, TEXT_MAX_BYTES};
use crate::policy::Policy;
use crate::record::{Deed, Outcome, Record};
use crate::time::Now;
use crate::verdict::Verdict;
use parapet_wire::agent::{Event, Guest, GuestState, Heartbeat};
use std::collections::BTreeSet;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

impl Monitor {
    pub(super) fn agent_down(&mut self, why: String, now: Now) {
        let was_up = self.link.is_up();
        let why = clip(why);
        for tracked in self.guests.values_mut() {
            tracked.evidence.go_deaf(now.mono);
        }
        self.link = match std::mem::replace(&mut self.link, Link::Never) {
            Link::Down { since, .. } => Link::Down {
                since,
                why: why.clone(),
            },
            _ => Link::Down {
                since: now.mono,
                why: why.clone(),
            },
        };
        if was_up {
            self.record(Record::AgentDown { why }, now);
        }
    }

    pub(super) fn hear(&mut self, event: Event, now: Now) {
        match event {
            Event::Snapshot(guests) => self.snapshot(guests, now),
            Event::Started(guest) | Event::Changed(guest) => self.observe(guest, now),
            Event::ShutDown {
                uuid,
                domid,
                reason,
            } => self.shut_down(uuid, domid, reason, now),
            Event::Heartbeats(beats) => {
                for Heartbeat { uuid, counter } in beats {
                    if let Some(tracked) = self.guests.get_mut(&uuid) {
                        tracked.evidence.beat(counter, now.mono);
                    }
                    self.note_signs(uuid, now);
                }
            }
            Event::HeartbeatStopped { uuid } => {
                if let Some(tracked) = self.guests.get_mut(&uuid)
                    && !tracked.evidence.beats.stopped
                {
                    tracked.evidence.beats.stop();
                    self.remark(
                        uuid,
                        "parapet-guest ended on purpose; heartbeats are not expected",
                        now,
                    );
                }
            }
            Event::DriverReplaced { uuid, micros } => {
                let text = format!(
                    "driver died and was replaced; {} ms without service",
                    micros / 1000
                );
                self.remark(uuid, &text, now);
            }
            Event::Gone { uuid } => self.gone(uuid, now),
        }
    }

    /// Everything as the agent sees it: what is not in it is gone.
    fn snapshot(&mut self, guests: Vec<Guest>, now: Now) {
        let was_up = self.link.is_up();
        self.link = std::mem::replace(&mut self.link, Link::Never).snapshot(now.mono);
        if !was_up && let Link::Up { release, xen, .. } = &self.link {
            let record = Record::AgentUp {
                release: release.clone(),
                xen: xen.clone(),
            };
            self.record(record, now);
        }
        let present: BTreeSet<Handle> = guests.iter().map(|guest| guest.uuid).collect();
        for guest in guests {
            self.observe(guest, now);
        }
        for tracked in self.guests.values_mut() {
            tracked.evidence.hear_again(now.mono);
        }
        let missing = |handle: &&Handle| !present.contains(handle);
        let gone: BTreeSet<Handle> = self
            .guests
            .keys()
            .filter(missing)
            .chain(
                self.book
                    .pages
                    .iter()
                    .filter(|(_, page)| page.wanted || page.open.is_some())
                    .map(|(h, _)| h)
                    .filter(missing),
            )
            .copied()
            .collect();
        for guest in gone {
            self.gone(guest, now);
        }
    }

    /// A guest as the agent sees it now.
    pub(super) fn observe(&mut self, guest: Guest, now: Now) {
        let guest = Guest {
            name: clip(guest.name),
            ..guest
        };
        let handle = guest.uuid;
        if !self.guests.contains_key(&handle) && self.guests.len() >= GUESTS_MAX {
            return self.alarm(format!(
                "more than {GUESTS_MAX} guests: {} is not watched",
                guest.name
            ));
        }
        let (policy, complaints) = Policy::of(guest.protection, &guest.watching, &self.defaults);
        for complaint in complaints {
            self.alarm(format!("{}: {complaint}", guest.name));
        }
        let page = self.book.pages.get(&handle);
        let known = page.is_some_and(|page| {
            page.name == guest.name
                && page.protection == guest.protection
                && page.domid == guest.domid
        });
        let same_domain = page.is_some_and(|page| page.domid == guest.domid);
        if !known {
            let record = Record::Known {
                guest: handle,
                name: guest.name.clone(),
                domid: guest.domid,
                protection: guest.protection,
            };
            self.record(record, now);
        }
        self.track(guest, policy, same_domain, now);
        self.settle_open_intent(handle, now);
        if let Some(Tracked {
            evidence:
                Evidence {
                    life: Life::Down { reason, .. },
                    ..
                },
            ..
        }) = self.guests.get(&handle)
        {
            self.note_shut_down(handle, *reason, now);
        }
    }

    /// Brings the evidence of a guest in line with what the agent says about its domain.
    fn track(&mut self, guest: Guest, policy: Policy, same_domain: bool, now: Now) {
        let handle = guest.uuid;
        let state = guest.state;
        if let Some(tracked) = self.guests.get_mut(&handle)
            && tracked.evidence.domid == guest.domid
        {
            let evidence = &mut tracked.evidence;
            evidence.life = evidence.life.hear(state, now.mono);
            evidence.hear_again(now.mono);
            if tracked.policy.probes != policy.probes {
                evidence.retarget(&policy.probes);
            }
            tracked.guest = guest;
            tracked.policy = policy;
            return self.note_signs(handle, now);
        }
        let life = Life::Building.hear(state, now.mono);
        let mut evidence = Evidence::new(guest.domid, life, &policy.probes, now.mono);
        if same_domain && let Some(page) = self.book.pages.get(&handle) {
            // This program was restarted, the domain was not: what it showed before is not forgotten.
            evidence.started = page.domid_since;
            evidence.recall(page.signs);
        }
        let tracked = Tracked {
            guest,
            policy,
            evidence,
            verdict: Verdict::Healthy,
            healthy_since: None,
            suspicion_noted: None,
        };
        self.guests.insert(handle, tracked);
    }

    /// An intent of an earlier life of this program, or one whose answer was lost: the guest as it is now tells what became of it.
    fn settle_open_intent(&mut self, handle: Handle, now: Now) {
        let Some(open) = self
            .book
            .pages
            .get(&handle)
            .and_then(|page| page.open.clone())
        else {
            return;
        };
        if self.is_performing(open.id) {
            return;
        }
        let Some(tracked) = self.guests.get(&handle) else {
            return;
        };
        let outcome = match (open.deed, tracked.evidence.life) {
            // Still being worked on, perhaps for this very intent.
            (_, Life::Building | Life::Dying | Life::Leaving) => return,
            (Deed::Restart, _)
                if tracked.evidence.domid.is_some() && tracked.evidence.domid != open.domid =>
            {
                Outcome::FoundDone {
                    domid: tracked.evidence.domid,
                }
            }
            _ => Outcome::Unknown {
                why: "not done when it was looked at again".to_owned(),
            },
        };
        self.record(
            Record::Outcome {
                id: open.id,
                guest: handle,
                outcome,
            },
            now,
        );
    }

    fn shut_down(&mut self, handle: Handle, domid: DomId, reason: ShutdownReason, now: Now) {
        let Some(tracked) = self.guests.get_mut(&handle) else {
            return;
        };
        // A late word about a domain that was replaced meanwhile.
        if tracked.evidence.domid != Some(domid) {
            return;
        }
        if tracked.evidence.shut_down(reason, now.mono) {
            tracked.guest.state = GuestState::Down(reason);
            self.note_shut_down(handle, reason, now);
        }
    }

    /// Writes a shutdown down once.
    fn note_shut_down(&mut self, handle: Handle, reason: ShutdownReason, now: Now) {
        let Some(page) = self.book.pages.get(&handle) else {
            return;
        };
        if page.down == Some(reason) {
            return;
        }
        self.record(
            Record::ShutDown {
                guest: handle,
                reason,
            },
            now,
        );
    }

    fn gone(&mut self, handle: Handle, now: Now) {
        self.guests.remove(&handle);
        let Some(page) = self.book.pages.get(&handle) else {
            return;
        };
        let open = page.open.as_ref().map(|open| (open.id, open.deed));
        if let Some((id, deed)) = open
            && !self.is_performing(id)
        {
            let outcome = match deed {
                Deed::GiveUp => Outcome::FoundDone { domid: None },
                Deed::Restart => Outcome::Gone,
            };
            self.record(
                Record::Outcome {
                    id,
                    guest: handle,
                    outcome,
                },
                now,
            );
        }
        self.record(Record::Gone { guest: handle }, now);
    }

    pub(super) fn answered(&mut self, question: &Question, answer: Result<(), String>, now: Now) {
        self.asking = self.asking.saturating_sub(1);
        let Some(tracked) = self.guests.get_mut(&question.guest) else {
            return;
        };
        let evidence = &mut tracked.evidence;
        let same_domain = evidence.domid == question.domid;
        let listening = evidence.listening().unwrap_or(now.mono);
        let series = evidence
            .probes
            .iter_mut()
            .find(|series| series.target == question.target);
        let Some(series) = series else { return };
        if !same_domain {
            return;
        }
        series.answered(answer.map_err(clip), question.asked, now.mono, listening);
        self.note_signs(question.guest, now);
    }

    pub(super) fn performed(&mut self, order: &Order, result: Performed, now: Now) {
        self.performing.remove(&order.id);
        let outcome = match &result {
            Performed::Done(domid) => Outcome::Done { domid: *domid },
            Performed::FoundDone(Some(guest)) if order.deed == Deed::Restart => {
                Outcome::FoundDone { domid: guest.domid }
            }
            Performed::FoundDone(_) if order.deed == Deed::GiveUp => {
                Outcome::FoundDone { domid: None }
            }
            Performed::FoundDone(_) => Outcome::Gone,
            Performed::Failed(why) => Outcome::Failed {
                why: clip(why.clone()),
            },
            Performed::Unknown(why) => Outcome::Unknown {
                why: clip(why.clone()),
            },
        };
        let is_open = self
            .book
            .pages
            .get(&order.guest)
            .is_some_and(|page| page.open.as_ref().is_some_and(|open| open.id == order.id));
        if is_open {
            self.record(
                Record::Outcome {
                    id: order.id,
                    guest: order.guest,
                    outcome,
                },
                now,
            );
        }
        match result {
            Performed::Done(domid) => self.done(order, domid, now),
            Performed::FoundDone(Some(guest)) => self.observe(guest, now),
            Performed::FoundDone(None) => self.gone(order.guest, now),
            Performed::Failed(_) | Performed::Unknown(_) => {}
        }
    }

    /// The agent's answer may come before its event about the same thing.
    fn done(&mut self, order: &Order, domid: Option<DomId>, now: Now) {
        if order.deed == Deed::GiveUp {
            return self.record(
                Record::GaveUp {
                    guest: order.guest,
                    why: order.why.clone(),
                },
                now,
            );
        }
        let Some(tracked) = self.guests.get(&order.guest) else {
            return;
        };
        if domid.is_some() && tracked.evidence.domid == order.domid {
            let guest = Guest {
                domid,
                state: GuestState::Running,
                ..tracked.guest.clone()
            };
            self.observe(guest, now);
        }
    }

    /// Remembers that the present domain shows more than before.
    fn note_signs(&mut self, handle: Handle, now: Now) {
        let (Some(tracked), Some(page)) = (self.guests.get(&handle), self.book.pages.get(&handle))
        else {
            return;
        };
        let signs = tracked.evidence.signs();
        if signs != page.signs {
            self.record(
                Record::Signs {
                    guest: handle,
                    signs,
                },
                now,
            );
        }
    }

    pub(super) fn remark(&mut self, guest: Handle, text: &str, now: Now) {
        self.record(
            Record::Remark {
                guest,
                text: clip(text.to_owned()),
            },
            now,
        );
    }
}

/// What a peer said, cut to a bounded length and to one line.
pub(super) fn clip(text: String) -> String {
    let mut text: String = text.replace(|c: char| c.is_control(), " ");
    if text.len() > TEXT_MAX_BYTES {
        let mut end = TEXT_MAX_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
