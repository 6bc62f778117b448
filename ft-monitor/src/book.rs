//! Everything the monitor remembers over a restart of itself: the journal, folded.
//!
//! [`Book::apply`] is the only way anything in here changes, and the live monitor goes through it as well: what a restarted monitor reads back
//! is by construction what the old one knew. This module never decides anything.

use crate::availability::{Account, Outage};
use crate::evidence::Signs;
use crate::limits::{GUESTS_MAX, OUTAGES_KEPT_MAX, RESTARTS_KEPT_MAX};
use crate::record::{Deed, End, Entry, IntentId, Record, uuid_text};
use crate::time::{Mono, Now, millis};
use parapet_wire::agent::Protection;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

/// An intent without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its number.
    pub id: IntentId,
    /// What is meant to be done.
    pub deed: Deed,
    /// About which domain.
    pub domid: Option<DomId>,
    /// When it was written down.
    pub since: Mono,
    /// Why.
    pub why: String,
}

/// Everything remembered about one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Its uuid.
    #[serde(with = "uuid_text")]
    pub guest: Handle,
    /// Its name.
    pub name: String,
    /// Its class.
    pub protection: Protection,
    /// It should be running: it was started, and neither stopped on purpose nor removed nor given up.
    pub wanted: bool,
    /// Its present domain.
    pub domid: Option<DomId>,
    /// Since when that domain is known.
    pub domid_since: Mono,
    /// It shut down with this reason.
    pub down: Option<ShutdownReason>,
    /// What that domain has shown.
    pub signs: Signs,
    /// When new domains came after a failure, oldest first, whoever made them.
    pub restarts: VecDeque<Mono>,
    /// Attempts without a stable life in between.
    pub in_a_row: u32,
    /// When the last attempt ended.
    pub last_attempt: Option<Mono>,
    /// The monitor gave up, for this reason.
    pub given_up: Option<String>,
    /// What is under way.
    pub open: Option<Open>,
    /// Time observed and lost.
    pub account: Account,
    /// The outage that goes on.
    pub outage: Option<Outage>,
    /// Outages that ended, oldest first.
    pub past: VecDeque<Outage>,
}

impl Page {
    fn new(guest: Handle, at: Mono) -> Self {
        Self {
            guest,
            name: String::new(),
            protection: Protection::None,
            wanted: true,
            domid: None,
            domid_since: at,
            down: None,
            signs: Signs::default(),
            restarts: VecDeque::new(),
            in_a_row: 0,
            last_attempt: None,
            given_up: None,
            open: None,
            account: Account::new(at),
            outage: None,
            past: VecDeque::new(),
        }
    }

    fn end_outage(&mut self, end: End, at: Now) {
        let Some(mut outage) = self.outage.take() else {
            return;
        };
        outage.ended = Some((at, end));
        if self.past.len() == OUTAGES_KEPT_MAX
            && let Some(old) = self.past.pop_front()
        {
            self.account.archive(&old);
        }
        self.past.push_back(outage);
    }

    fn new_domain(&mut self, domid: Option<DomId>, at: Now) {
        self.domid = domid;
        self.domid_since = at.mono;
        self.down = None;
        self.signs = Signs::default();
        if domid.is_some() {
            self.wanted = true;
            let Some(outage) = &mut self.outage else {
                return;
            };
            outage.restarted = Some(at);
            if !outage.cause.planned() {
                if self.restarts.len() == RESTARTS_KEPT_MAX {
                    self.restarts.pop_front();
                }
                self.restarts.push_back(at.mono);
            }
        }
    }

    fn shut_down(&mut self, reason: ShutdownReason) {
        self.down = Some(reason);
        self.wanted = reason != ShutdownReason::Poweroff;
    }

    fn gone(&mut self, at: Now) {
        let given_up = self
            .open
            .as_ref()
            .is_some_and(|open| open.deed == Deed::GiveUp);
        self.end_outage(if given_up { End::GivenUp } else { End::Removed }, at);
        self.wanted = false;
        self.domid = None;
    }

    fn attempt_ended(&mut self, at: Mono) {
        if self.open.take().is_some() {
            self.last_attempt = Some(at);
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
    }

    /// Monotonic times of another boot mean nothing, and its domains are gone.
    fn host_rebooted(&mut self, at: Now) {
        self.end_outage(End::HostRebooted, at);
        self.domid = None;
        self.domid_since = at.mono;
        self.signs = Signs::default();
        self.restarts.clear();
        self.in_a_row = 0;
        self.last_attempt = None;
        self.open = None;
        self.wanted = false;
        self.account.accounted_to = at.mono;
    }
}

/// All pages, and where the journal stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    /// The host's boot that all `Mono` times belong to.
    pub boot: String,
    /// Number of the last entry.
    pub seq: u64,
    /// Number that the next intent gets.
    pub next_intent: IntentId,
    /// Whether the agent was heard at the last entry.
    pub listening: bool,
    /// By uuid.
    pub pages: BTreeMap<Handle, Page>,
}

impl Book {
    /// One fact more. Total: an entry that does not fit (a journal with damaged lines) changes what it can and nothing else.
    pub fn apply(&mut self, entry: &Entry) {
        self.seq = self.seq.max(entry.seq);
        let at = entry.at;
        match &entry.record {
            Record::Opened { boot, .. } => return self.opened(boot, at),
            Record::Continued {
                boot,
                next_intent,
                listening,
            } => {
                self.boot.clone_from(boot);
                self.next_intent = *next_intent;
                self.listening = *listening;
                return;
            }
            Record::Page(page) => {
                self.pages.insert(page.guest, (**page).clone());
                return;
            }
            _ => self.account(at.mono),
        }
        match &entry.record {
            Record::AgentUp { .. } => self.listening = true,
            Record::AgentDown { .. } => self.listening = false,
            Record::Known {
                guest,
                name,
                domid,
                protection,
            } => {
                let page = self.page(*guest, at.mono);
                page.name.clone_from(name);
                page.protection = *protection;
                if page.domid != *domid {
                    page.new_domain(*domid, at);
                }
            }
            Record::Intent { id, .. } => {
                self.next_intent = self.next_intent.max(id.saturating_add(1));
                self.guest_fact(entry);
            }
            _ => self.guest_fact(entry),
        }
    }

    /// Facts about a guest that has a page.
    fn guest_fact(&mut self, entry: &Entry) {
        let at = entry.at;
        let Some(page) = entry
            .record
            .guest()
            .and_then(|guest| self.pages.get_mut(&guest))
        else {
            return;
        };
        match &entry.record {
            Record::Signs { signs, .. } => page.signs = *signs,
            Record::ShutDown { reason, .. } => page.shut_down(*reason),
            Record::Gone { .. } => page.gone(at),
            Record::OutageBegan {
                cause,
                began,
                expected,
                ..
            } => {
                page.outage = Some(Outage::new(*cause, *began, at, *expected));
            }
            Record::OutageEnded { end, .. } => page.end_outage(*end, at),
            Record::Intent {
                id,
                domid,
                deed,
                why,
                fresh,
                ..
            } => {
                if *fresh {
                    page.in_a_row = 0;
                }
                page.open = Some(Open {
                    id: *id,
                    deed: *deed,
                    domid: *domid,
                    since: at.mono,
                    why: why.clone(),
                });
            }
            Record::Outcome { .. } => page.attempt_ended(at.mono),
            Record::GaveUp { why, .. } => {
                page.end_outage(End::GivenUp, at);
                page.given_up = Some(why.clone());
                page.wanted = false;
            }
            Record::Pardoned { .. } => {
                page.given_up = None;
                page.in_a_row = 0;
                page.wanted = true;
            }
            Record::Opened { .. }
            | Record::AgentUp { .. }
            | Record::AgentDown { .. }
            | Record::Stalled { .. }
            | Record::Known { .. }
            | Record::Remark { .. }
            | Record::Alive
            | Record::Continued { .. }
            | Record::Page(_) => {}
        }
    }

    fn opened(&mut self, boot: &str, at: Now) {
        self.listening = false;
        if self.boot == boot {
            return self.account(at.mono);
        }
        boot.clone_into(&mut self.boot);
        for page in self.pages.values_mut() {
            page.host_rebooted(at);
        }
    }

    fn page(&mut self, guest: Handle, at: Mono) -> &mut Page {
        if !self.pages.contains_key(&guest) && self.pages.len() >= GUESTS_MAX {
            self.forget_the_oldest();
        }
        self.pages
            .entry(guest)
            .or_insert_with(|| Page::new(guest, at))
    }

    /// Makes room among the guests that are gone.
    fn forget_the_oldest(&mut self) {
        let oldest = self
            .pages
            .values()
            .filter(|page| page.domid.is_none() && page.open.is_none())
            .min_by_key(|page| page.domid_since)
            .map(|page| page.guest);
        if let Some(guest) = oldest {
            self.pages.remove(&guest);
        }
    }

    /// Books the time up to `to` as observed or not. Time in which an outage is known to go on counts as observed even when nobody listens.
    pub fn account(&mut self, to: Mono) {
        for page in self.pages.values_mut() {
            let span = millis(to.since(page.account.accounted_to));
            page.account.accounted_to = page.account.accounted_to.max(to);
            if !page.wanted {
                continue;
            }
            if self.listening || page.outage.is_some() {
                page.account.observed_ms += span;
            } else {
                page.account.unobserved_ms += span;
            }
        }
    }

    /// The entries that stand for all of this at the start of a new journal. They keep the number of the last entry.
    #[must_use]
    pub fn snapshot(&self, at: Now) -> Vec<Entry> {
        let head = Record::Continued {
            boot: self.boot.clone(),
            next_intent: self.next_intent,
            listening: self.listening,
        };
        let pages = self
            .pages
            .values()
            .map(|page| Record::Page(Box::new(page.clone())));
        std::iter::once(head)
            .chain(pages)
            .map(|record| Entry {
                seq: self.seq,
                at,
                record,
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
