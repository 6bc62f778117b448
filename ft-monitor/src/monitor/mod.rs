//! The whole monitor as one pure machine: what happened goes in, what to do comes out.
//!
//! ```text
//!   agent events ┐                 ┌──────────── Monitor ───────────┐    ┌▶ Journal(entry)      first, and durable
//!   probe answers ├─▶ Input, Now ─▶ evidence ─▶ verdict ─▶ plan      ├──▶ ├▶ Perform(order)     restart, give up
//!   outcomes      │                │      └────▶ record ─▶ book      │    └▶ Ask(question)       a probe
//!   ticks        ┘                 └─────────────────────────────────┘
//! ```
//!
//! [`Monitor::step`] never reads a clock, a file or a socket; `crate::shell` does that, and the simulation in `tests/` does it with a virtual clock and faults. Actions are carried out in the
//! order given. Whatever must outlive the process goes through a [`Record`] into the [`Book`], so that a monitor restored from any prefix of the
//! journal goes on where the old one stood.

mod judge;
mod listen;

use crate::book::Book;
use crate::evidence::Evidence;
use crate::evidence::agent::Link;
use crate::evidence::probe::Target;
use crate::limits::{ACCOUNT_EVERY, ALARMS_MAX, STALL, STALL_LOG_EVERY, TICK_MAX, TICK_MIN};
use crate::plan::{History, Plan};
use crate::policy::{Defaults, Policy};
use crate::record::{Deed, Entry, IntentId, Record};
use crate::time::{Mono, Now, millis};
use crate::verdict::{Around, Verdict};
use parapet_wire::agent::{Event, Guest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xen_abi::ids::{DomId, Handle};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Time passed. Comes at least every [`TICK_MAX`].
    Tick,
    /// The agent greeted; a snapshot of all guests follows.
    AgentUp {
        /// Its release.
        release: String,
        /// Xen's release.
        xen: String,
    },
    /// The connection to the agent is lost, or could not be made.
    AgentDown {
        /// Why, in one line.
        why: String,
    },
    /// The agent told something.
    Event(Event),
    /// A probe was answered, or not.
    Answer {
        /// The question.
        question: Question,
        /// The answer.
        answer: Result<(), String>,
    },
    /// An order was carried out, or not.
    Performed {
        /// The order.
        order: Order,
        /// What came of it.
        result: Performed,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write this down before doing anything that comes after it.
    Journal(Entry),
    /// Ask the agent to do this.
    Perform(Order),
    /// Put this question.
    Ask(Question),
}

/// Something for the agent to do. Asking twice does it once: the agent compares the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The intent it carries out.
    pub id: IntentId,
    /// To whom.
    pub guest: Handle,
    /// The domain it was decided about.
    pub domid: Option<DomId>,
    /// What.
    pub deed: Deed,
    /// Why.
    pub why: String,
    /// It was decided by what was not heard, and is only right while that is fresh.
    pub by_silence: bool,
    /// Longest wait for it.
    pub timeout: Duration,
}

/// What came of an [`Order`].
#[derive(Debug, Clone, PartialEq)]
pub enum Performed {
    /// The agent did it; the new domain after a restart.
    Done(Option<DomId>),
    /// There was nothing to do any more; the guest as it is now, `None` when it is gone.
    FoundDone(Option<Guest>),
    /// The agent refused or failed.
    Failed(String),
    /// No answer came.
    Unknown(String),
}

/// A question for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// For whom.
    pub guest: Handle,
    /// For which domain of it: a late answer of the last one says nothing about this one.
    pub domid: Option<DomId>,
    /// The question.
    pub target: Target,
    /// When it is asked.
    pub asked: Mono,
    /// Longest wait for the answer.
    pub timeout: Duration,
}

/// The two decisions, exchangeable so that tests can break them and see the checks trip.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What the evidence means.
    pub verdict: fn(&Evidence, &Policy, Around, Mono) -> Verdict,
    /// What to do about it.
    pub plan: fn(&Verdict, History<'_>, &Policy, Mono) -> Plan,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            verdict: crate::verdict::verdict,
            plan: crate::plan::plan,
        }
    }
}

/// What is known about a guest beyond its page in the book; all of it is heard again after a restart.
#[derive(Debug, Clone)]
pub struct Tracked {
    /// As the agent told it last.
    pub guest: Guest,
    /// What was promised.
    pub policy: Policy,
    /// What was heard.
    pub evidence: Evidence,
    /// What that meant at the last step.
    pub verdict: Verdict,
    /// Healthy without a break since then.
    pub healthy_since: Option<Mono>,
    /// When suspicion was last written down.
    suspicion_noted: Option<Mono>,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Monitor {
    rules: Rules,
    defaults: Defaults,
    /// What outlives the process.
    pub book: Book,
    /// The connection to the agent.
    pub link: Link,
    /// Guests that the agent knows.
    pub guests: BTreeMap<Handle, Tracked>,
    /// Troubles that concern no guest in particular, for the status.
    pub alarms: Vec<String>,
    /// Orders given out by this process and not yet reported back.
    performing: BTreeSet<IntentId>,
    /// Questions put and not yet answered.
    asking: usize,
    around: Around,
    last_step: Mono,
    /// When all guests were judged and all due questions were asked.
    judged_all: Mono,
    stall_noted: Option<Mono>,
    last_entry: Mono,
    out: Vec<Action>,
}

impl Monitor {
    /// A monitor that goes on where `book` stopped, and the first entries to write down. `boot` is the kernel's id of this boot.
    #[must_use]
    pub fn restore(
        book: Book,
        defaults: Defaults,
        rules: Rules,
        boot: &str,
        now: Now,
    ) -> (Self, Vec<Action>) {
        let mut monitor = Self {
            rules,
            defaults,
            book,
            link: Link::Never,
            guests: BTreeMap::new(),
            alarms: Vec::new(),
            performing: BTreeSet::new(),
            asking: 0,
            around: Around::default(),
            last_step: now.mono,
            judged_all: now.mono,
            stall_noted: None,
            last_entry: now.mono,
            out: Vec::new(),
        };
        let release = env!("CARGO_PKG_VERSION").to_owned();
        monitor.record(
            Record::Opened {
                boot: boot.to_owned(),
                release,
            },
            now,
        );
        let first = std::mem::take(&mut monitor.out);
        (monitor, first)
    }

    /// One step: takes in what happened, judges, plans, and answers with what to do, in order.
    #[must_use]
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        self.notice_stall(now);
        // What concerns some guests only is judged for those; the crowd is counted again at the next tick.
        let scope: Option<Vec<Handle>> = match &input {
            Input::Event(Event::Heartbeats(beats)) => {
                Some(beats.iter().map(|beat| beat.uuid).collect())
            }
            _ => None,
        };
        match input {
            Input::Tick => {}
            Input::AgentUp { release, xen } => self.link = Link::Greeted { release, xen },
            Input::AgentDown { why } => self.agent_down(why, now),
            Input::Event(event) => self.hear(event, now),
            Input::Answer { question, answer } => self.answered(&question, answer, now),
            Input::Performed { order, result } => self.performed(&order, result, now),
        }
        match scope {
            Some(guests) => guests.into_iter().for_each(|guest| self.judge(guest, now)),
            None => {
                self.judge_all(now);
                self.judged_all = now.mono;
            }
        }
        if now.mono.since(self.last_entry) >= ACCOUNT_EVERY && !self.book.pages.is_empty() {
            self.record(Record::Alive, now);
        }
        self.last_step = now.mono;
        std::mem::take(&mut self.out)
    }

    /// When the next [`Input::Tick`] is due. Neither the passing of time nor what concerns some guests only puts it off: a host whose guests beat all the
    /// time, or whose state is asked for all the time, is watched as any other.
    #[must_use]
    pub fn wake_at(&self, now: Mono) -> Mono {
        let mut next = self.judged_all.after(TICK_MAX);
        for tracked in self.guests.values() {
            let change = crate::verdict::next_change(&tracked.evidence, &tracked.policy, now);
            for moment in [
                change,
                self.next_question(tracked),
                self.next_attempt(tracked, now),
            ] {
                next = moment.unwrap_or(next).min(next);
            }
        }
        next.max(self.judged_all.after(TICK_MIN))
    }

    fn notice_stall(&mut self, now: Now) {
        let gap = now.mono.since(self.last_step);
        if gap < STALL {
            return;
        }
        let lately = self
            .stall_noted
            .is_some_and(|at| now.mono.since(at) < STALL_LOG_EVERY);
        if self.link.is_up() && !lately {
            self.stall_noted = Some(now.mono);
            self.record(Record::Stalled { ms: millis(gap) }, now);
        }
        for tracked in self.guests.values_mut() {
            if tracked.evidence.listening().is_some() {
                tracked.evidence.missed(gap, now.mono);
            }
        }
    }

    /// Writes a fact down: into the book at once, onto the disk before any action that follows.
    fn record(&mut self, record: Record, now: Now) {
        let entry = Entry {
            seq: self.book.seq + 1,
            at: now,
            record,
        };
        self.book.apply(&entry);
        self.last_entry = now.mono;
        self.out.push(Action::Journal(entry));
    }

    fn is_performing(&self, id: IntentId) -> bool {
        self.performing.contains(&id)
    }

    fn alarm(&mut self, text: String) {
        if !self.alarms.contains(&text) && self.alarms.len() < ALARMS_MAX {
            self.alarms.push(text);
        }
    }
}

#[cfg(test)]
mod tests;
