//! A host in memory: an agent with guests, a network, and the monitor under test, driven by one seed.
//!
//! The guests' true state is known here and nowhere else. The monitor sees only what the agent and the probes would tell it, late or never.
//! Each step checks that what the monitor does was right in truth; see [`World::check`].

use crate::faults::Faults;
use crate::guest::SimGuest;
use crate::rng::Rng;
use ft_monitor::book::Book;
use ft_monitor::monitor::{Action, Input, Monitor, Order, Performed, Question, Rules};
use ft_monitor::policy::Defaults;
use ft_monitor::record::{Entry, Record};
use ft_monitor::time::{Mono, Now, Wall};
use parapet_wire::agent::{Event, GuestState, Heartbeat};
use std::collections::VecDeque;
use std::time::Duration;
use xen_abi::domain::ShutdownReason;

/// Virtual time between two turns of the world.
pub const TURN: Duration = Duration::from_millis(500);
/// Restarts per hour that the guests allow.
pub const LIMIT: u32 = 5;

/// A promise that was broken.
#[derive(Debug)]
pub struct Violation(pub String);

/// An order the agent works on.
pub struct Work {
    pub order: Order,
    pub ends: Mono,
    /// The monitor that gave it, to tell an answer to a dead one.
    pub by: u64,
}

pub struct World {
    pub rng: Rng,
    pub faults: Faults,
    pub rules: Rules,
    pub now: Now,
    pub guests: Vec<SimGuest>,
    pub next_domid: u16,
    pub monitor: Option<Monitor>,
    /// Which life of the monitor this is.
    pub life: u64,
    pub journal: Vec<Entry>,
    /// The fold of the journal, kept beside the monitor's own.
    pub shadow: Book,
    pub agent_back: Option<Mono>,
    pub monitor_back: Option<Mono>,
    pub monitor_stalled: Option<Mono>,
    pub network_back: Option<Mono>,
    pub network_quiet_until: Mono,
    pub connected: bool,
    /// The monitor has not noticed yet that its connection is gone.
    pub hung_up: bool,
    pub events: VecDeque<Event>,
    pub work: Vec<Work>,
    pub questions: Vec<Question>,
    /// Since when nothing but the guests was broken.
    pub calm_since: Mono,
    pub restarts: u32,
    pub kills: u32,
}

impl World {
    pub fn new(seed: u64, faults: Faults, rules: Rules) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            faults,
            rules,
            now: Now {
                mono: Mono(1_000_000),
                wall: Wall(1_700_000_000_000),
            },
            guests: SimGuest::zoo(LIMIT),
            next_domid: 1,
            monitor: None,
            life: 0,
            journal: Vec::new(),
            shadow: Book::default(),
            agent_back: None,
            monitor_back: None,
            monitor_stalled: None,
            network_back: None,
            // Blaming the network takes two guests that have answered before.
            network_quiet_until: Mono(1_060_000),
            connected: false,
            hung_up: false,
            events: VecDeque::new(),
            work: Vec::new(),
            questions: Vec::new(),
            calm_since: Mono(1_000_000),
            restarts: 0,
            kills: 0,
        };
        for index in 0..world.guests.len() {
            world.boot(index);
        }
        world
    }

    /// Runs `turns` turns; the first broken promise ends it.
    pub fn run(&mut self, turns: u32) -> Result<(), Violation> {
        for _ in 0..turns {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Violation> {
        self.now.mono = self.now.mono.after(TURN);
        self.now.wall = Wall(self.now.wall.0 + 500);
        self.inject();
        self.heal();
        self.guests_live();
        self.agent_works();
        if self.monitor_back.is_none() && self.monitor_stalled.is_none() {
            self.monitor_runs()?;
        }
        if self.broken() {
            self.calm_since = self.now.mono;
        }
        self.check()
    }

    fn broken(&self) -> bool {
        !self.connected
            || self.monitor_back.is_some()
            || self.monitor_stalled.is_some()
            || self.network_back.is_some()
    }

    pub fn boot(&mut self, index: usize) {
        let (domid, now) = (self.next_domid, self.now.mono);
        self.next_domid += 1;
        let boot = Duration::from_millis(self.rng.below(8000));
        self.guests[index].boot(domid, now, now.after(boot));
        if self.faults.flapping && index == 0 {
            // It will not live long, not even long enough to say so.
            let dies = Duration::from_secs(2 + self.rng.below(20));
            self.guests[index].dies = Some(now.after(dies));
        }
        let started = Event::Started(self.guests[index].told());
        self.tell(started);
    }

    pub fn tell(&mut self, event: Event) {
        if self.connected {
            self.events.push_back(event);
        }
    }

    pub fn chance(&mut self, per_ten_thousand: u64) -> bool {
        self.rng.below(10_000) < per_ten_thousand
    }

    pub fn soon(&mut self, from_s: u64, to_s: u64) -> Mono {
        self.now.mono.after(Duration::from_millis(
            self.rng.between(from_s * 1000, to_s * 1000),
        ))
    }

    pub fn start_monitor(&mut self) {
        let mut book = Book::default();
        self.journal.iter().for_each(|entry| book.apply(entry));
        self.life += 1;
        let (monitor, actions) =
            Monitor::restore(book, Defaults::default(), self.rules, "boot-1", self.now);
        self.monitor = Some(monitor);
        self.write_down(&actions);
    }

    fn guests_live(&mut self) {
        let now = self.now.mono;
        for index in 0..self.guests.len() {
            if self.guests[index]
                .operator_starts
                .is_some_and(|at| at <= now)
            {
                self.guests[index].operator_starts = None;
                self.boot(index);
            }
            if self.guests[index].dies.is_some_and(|at| at <= now) {
                self.guests[index].dies = None;
                if self.guests[index].is_well() {
                    self.down(index, ShutdownReason::Crash);
                }
            }
            if let Some(counter) = self.guests[index].beat(now) {
                let uuid = self.guests[index].uuid;
                self.tell(Event::Heartbeats(vec![Heartbeat { uuid, counter }]));
            }
        }
    }

    fn monitor_runs(&mut self) -> Result<(), Violation> {
        if std::mem::take(&mut self.hung_up) {
            self.act(Input::AgentDown {
                why: "hung up".into(),
            })?;
        }
        if self.connected && self.monitor.as_ref().is_some_and(|m| !m.link.is_up()) {
            self.act(Input::AgentUp {
                release: "sim".into(),
                xen: "sim".into(),
            })?;
        }
        while let Some(event) = self.events.pop_front() {
            self.act(Input::Event(event))?;
        }
        for question in std::mem::take(&mut self.questions) {
            let answer = match self.asked(&question) {
                true => Ok(()),
                false => Err("timed out".to_owned()),
            };
            self.act(Input::Answer { question, answer })?;
        }
        self.act(Input::Tick)
    }

    /// Whether a question is answered. A network that works loses one now and then, never two in a row and
    /// never the first one after it did not work.
    fn asked(&mut self, question: &Question) -> bool {
        let lost = self.chance(self.faults.probe_loss * 5);
        let (now, network) = (self.now.mono, self.network_back.is_none());
        let Some(guest) = self.guests.iter_mut().find(|g| g.uuid == question.guest) else {
            return false;
        };
        let well = network && guest.domid == question.domid && guest.answers(now);
        let answered = well && !(lost && guest.answered_last);
        guest.answered_last = answered;
        answered
    }

    /// One step whose actions are carried out, unless the monitor is killed between two of them.
    fn act(&mut self, input: Input) -> Result<(), Violation> {
        let Some(monitor) = &mut self.monitor else {
            return Ok(());
        };
        let actions = monitor.step(input, self.now);
        let mortal = self.faults.monitor_kill > 0 && !actions.is_empty() && self.chance(100);
        let dies_after = if mortal {
            self.rng.below(actions.len() as u64 + 1)
        } else {
            u64::MAX
        };
        for (done, action) in actions.into_iter().enumerate() {
            if done as u64 == dies_after {
                self.kill_monitor();
                return Ok(());
            }
            match action {
                Action::Journal(entry) => self.write(entry),
                Action::Ask(question) => self.questions.push(question),
                Action::Perform(order) => self.accept(order)?,
            }
        }
        Ok(())
    }

    pub fn step(&mut self, input: Input) {
        if let Some(monitor) = &mut self.monitor {
            let actions = monitor.step(input, self.now);
            self.write_down(&actions);
            for action in actions {
                match action {
                    Action::Perform(order) => self.late_orders(order),
                    Action::Ask(question) => self.questions.push(question),
                    Action::Journal(_) => {}
                }
            }
        }
    }

    fn late_orders(&mut self, order: Order) {
        // Checked like any other at the end of the turn, through the journal.
        let _ = self.accept(order);
    }

    fn write_down(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Journal(entry) = action {
                self.write(entry.clone());
            }
        }
    }

    fn write(&mut self, entry: Entry) {
        self.shadow.apply(&entry);
        self.journal.push(entry);
        if self.journal.len() > 3000 {
            self.journal = self.shadow.snapshot(self.now);
        }
    }

    /// The moment of truth: was this order right?
    fn accept(&mut self, order: Order) -> Result<(), Violation> {
        let guest = self.guests.iter().find(|guest| guest.uuid == order.guest);
        let Some(guest) = guest else {
            return Err(Violation(format!("{order:?} for a guest that never was")));
        };
        let name = &guest.name;
        if !guest.protected {
            return Err(Violation(format!(
                "{name}: acted upon although nobody asked for protection"
            )));
        }
        if guest.domid == order.domid && !guest.deserves(&order) {
            return Err(Violation(format!(
                "{name}: {order:?}, but in truth {:?}",
                guest.truth
            )));
        }
        let twice = self
            .work
            .iter()
            .any(|w| w.order.guest == order.guest && w.by == self.life);
        if twice {
            return Err(Violation(format!("{name}: two orders at the same time")));
        }
        let intent = self
            .shadow
            .pages
            .get(&order.guest)
            .and_then(|page| page.open.as_ref());
        if intent.is_none_or(|open| open.id != order.id) {
            return Err(Violation(format!(
                "{name}: {order:?} without an intent in the journal"
            )));
        }
        if self.connected {
            let ends = self.soon(1, 6);
            self.work.push(Work {
                order,
                ends,
                by: self.life,
            });
        } else {
            let result = Performed::Unknown("no agent".into());
            self.step(Input::Performed { order, result });
        }
        Ok(())
    }

    /// What must hold after each turn.
    fn check(&self) -> Result<(), Violation> {
        let turn = self.now.mono.0 / 500;
        if let Some(monitor) = &self.monitor
            && turn.is_multiple_of(16)
            && monitor.book != self.shadow
        {
            return Err(Violation(
                "the journal does not say what the monitor knows".into(),
            ));
        }
        let now = self.now.mono;
        for guest in &self.guests {
            let hour = Duration::from_secs(3600);
            let lately = guest
                .restarted
                .iter()
                .filter(|at| now.since(**at) < hour)
                .count();
            if lately > LIMIT as usize {
                return Err(Violation(format!(
                    "{}: {lately} restarts within an hour",
                    guest.name
                )));
            }
            let given_up = self
                .shadow
                .pages
                .get(&guest.uuid)
                .is_some_and(|page| page.given_up.is_some());
            let Some(since) = guest.failed_since() else {
                continue;
            };
            // Timeout, hold, back-off, refusals in between, and the work itself.
            let patience = Duration::from_secs(400);
            if guest.protected && !given_up && now.since(since.max(self.calm_since)) > patience {
                return Err(Violation(format!(
                    "{}: in truth {:?}, and nobody came for {patience:?}",
                    guest.name, guest.truth
                )));
            }
        }
        Ok(())
    }

    /// Guests that are in truth well and in the book down, or the other way round; for a quiet end of a run.
    pub fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        for guest in &self.guests {
            let Some(page) = self.shadow.pages.get(&guest.uuid) else {
                continue;
            };
            if guest.is_well() && page.outage.is_some() {
                found.push(format!("{} is well, but {:?}", guest.name, page.outage));
            }
        }
        found
    }

    /// Intents in the journal, and how many of them have no outcome.
    pub fn open_intents(&self) -> usize {
        self.shadow
            .pages
            .values()
            .filter(|page| page.open.is_some())
            .count()
    }

    /// What the journal says happened, for a failed test.
    pub fn story(&self) -> String {
        let tail = self.journal.iter().rev().take(25).rev();
        tail.filter(|entry| entry.record != Record::Alive)
            .map(|entry| format!("{:>8} {:?}\n", entry.at.mono.0, entry.record))
            .collect()
    }

    /// The state the agent would tell of each guest.
    pub fn states(&self) -> Vec<(String, GuestState)> {
        self.guests
            .iter()
            .map(|guest| (guest.name.clone(), guest.told().state))
            .collect()
    }
}
