//! Agent, guests and monitor together: the monitor's pure machine decides, the agent acts, and either may die in between.

use crate::support::Host;
use ft_monitor::book::Book;
use ft_monitor::monitor::{Action, Input, Monitor, Order, Performed, Rules};
use ft_monitor::policy::Defaults;
use ft_monitor::record::{Deed, Entry, Record};
use ft_monitor::time::{Mono, Now, Wall};
use nix::errno::Errno;
use parapet_wire::agent::{Event, GuestState, Heartbeat};
use std::time::Duration;
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_sim::{Fault, FaultKind, Filter, exhaust};

/// Turns of half a second after which nothing may be left to do: longer than the monitor's back-off.
const PATIENCE: usize = 400;
const TURN: Duration = Duration::from_millis(500);

/// The monitor's shell, in small: a journal, a connection to the agent, and a clock.
pub struct Watchman {
    monitor: Monitor,
    journal: Vec<Entry>,
    now: Now,
    /// What it asked the agent to do.
    pub orders: Vec<Order>,
}

impl Watchman {
    pub fn new(host: &mut Host) -> Self {
        let now = Now {
            mono: Mono(1_000_000),
            wall: Wall(1_700_000_000_000),
        };
        let mut watchman = Self {
            monitor: Monitor::restore(
                Book::default(),
                Defaults::default(),
                Rules::default(),
                "boot",
                now,
            )
            .0,
            journal: Vec::new(),
            now,
            orders: Vec::new(),
        };
        watchman.greet(host);
        watchman
    }

    /// `kill -9` and a new one, which knows what was written down.
    pub fn replace(&mut self, host: &mut Host) {
        let mut book = Book::default();
        self.journal.iter().for_each(|entry| book.apply(entry));
        let (monitor, actions) = Monitor::restore(
            book,
            Defaults::default(),
            Rules::default(),
            "boot",
            self.now,
        );
        self.monitor = monitor;
        self.carry_out(host, actions);
        self.greet(host);
    }

    fn greet(&mut self, host: &mut Host) {
        host.watch(true);
        let greeting = Input::AgentUp {
            release: "sim".into(),
            xen: "4.20".into(),
        };
        self.hear(host, greeting);
        self.hear(host, Input::Event(Event::Snapshot(host.agent.guests())));
    }

    pub fn hear(&mut self, host: &Host, input: Input) {
        let actions = self.monitor.step(input, self.now);
        self.carry_out(host, actions);
    }

    fn carry_out(&mut self, host: &Host, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Journal(entry) => self.journal.push(entry),
                Action::Ask(_) => {}
                Action::Perform(order) => {
                    self.orders.push(order.clone());
                    let result = perform(host, &order);
                    self.hear(host, Input::Performed { order, result });
                }
            }
        }
    }

    /// Half a second of everybody's life.
    pub fn turn(&mut self, host: &mut Host) {
        host.pass(TURN);
        host.settle();
        self.now.mono = self.now.mono.after(TURN);
        self.now.wall = Wall(self.now.wall.0 + 500);
        for event in host.events() {
            self.hear(host, Input::Event(event));
        }
        self.hear(host, Input::Tick);
    }

    pub fn turns(&mut self, host: &mut Host, count: usize) {
        (0..count).for_each(|_| self.turn(host));
    }

    /// Turns until the guest runs in a domain with its devices.
    pub fn until_it_runs(&mut self, host: &mut Host) -> DomId {
        for _ in 0..PATIENCE {
            self.turn(host);
            let guests = host.agent.guests();
            assert_eq!(guests.len(), 1, "the guest is lost");
            if let (GuestState::Running, Some(domid)) = (guests[0].state, guests[0].domid)
                && host
                    .machines
                    .get(&domid)
                    .is_some_and(|machine| machine.is_connected())
                && self
                    .orders
                    .last()
                    .is_none_or(|order| order.domid != Some(domid))
            {
                return domid;
            }
        }
        panic!("nobody brought the guest back");
    }

    fn written(&self, wanted: impl Fn(&Record) -> bool) -> usize {
        self.journal
            .iter()
            .filter(|entry| wanted(&entry.record))
            .count()
    }
}

/// What the agent's API makes of an order.
fn perform(host: &Host, order: &Order) -> Performed {
    let uuid = Uuid::from_bytes(order.guest.0);
    let look = || {
        host.agent
            .guests()
            .into_iter()
            .find(|guest| guest.uuid == order.guest)
    };
    match order.deed {
        Deed::Restart => match host.agent.restart(uuid, order.domid, &order.why) {
            Ok(Some(domid)) => Performed::Done(Some(domid)),
            Ok(None) => Performed::FoundDone(look()),
            Err(error) => Performed::Failed(error.to_string()),
        },
        Deed::GiveUp => match host.agent.by_uuid(uuid) {
            None => Performed::FoundDone(None),
            Some(shared) => {
                let guest = dom0_agent::agent::lock(&shared);
                match host.agent.give_up(guest) {
                    Ok(()) => Performed::Done(None),
                    Err(error) => Performed::Failed(error.to_string()),
                }
            }
        },
    }
}

/// A protected guest that has run for a while, and its monitor.
fn protected(lines: &str) -> (Host, Watchman) {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", &format!("protect=\"restart\"\n{lines}"));
    host.start(config);
    let mut watchman = Watchman::new(&mut host);
    watchman.turns(&mut host, 4);
    assert!(watchman.orders.is_empty());
    (host, watchman)
}

fn end(mut host: Host) {
    for guest in host.guests() {
        host.agent.give_up(dom0_agent::agent::lock(&guest)).unwrap();
    }
    host.settle();
    host.assert_clean();
}

#[test]
fn a_guest_that_crashes_or_bites_its_watchdog_is_back_at_once() {
    for bite in [false, true] {
        let (mut host, mut watchman) = protected("");
        let kernel = &mut host.machine(DomId(1)).kernel;
        if bite {
            kernel.watchdog()
        } else {
            kernel.crash()
        }
        let domid = watchman.until_it_runs(&mut host);
        assert_eq!(domid, DomId(2));
        assert_eq!(watchman.orders.len(), 1);
        assert!(watchman.written(|record| matches!(record, Record::Intent { .. })) == 1);
        watchman.turns(&mut host, 60);
        assert_eq!(watchman.orders.len(), 1, "once is enough");
        end(host);
    }
}

#[test]
fn a_guest_whose_heartbeat_stops_is_restarted_and_one_that_says_goodbye_is_not() {
    for goodbye in [false, true] {
        let (mut host, mut watchman) = protected("protect_heartbeat_timeout=5");
        let uuid = host.agent.guests()[0].uuid;
        for counter in 1..100 {
            watchman.hear(
                &host,
                Input::Event(Event::Heartbeats(vec![Heartbeat { uuid, counter }])),
            );
            watchman.turn(&mut host);
        }
        if goodbye {
            watchman.hear(&host, Input::Event(Event::HeartbeatStopped { uuid }));
        }
        host.machine(DomId(1)).silent = true;
        watchman.turns(&mut host, 60);
        assert_eq!(watchman.orders.len(), usize::from(!goodbye));
        assert_eq!(
            host.agent.guests()[0].domid,
            Some(DomId(if goodbye { 1 } else { 2 }))
        );
        end(host);
    }
}

#[test]
fn a_guest_that_crashes_for_ever_is_given_a_rest() {
    let (mut host, mut watchman) = protected("protect_max_restarts=3");
    for _ in 0..PATIENCE {
        watchman.turn(&mut host);
        for machine in host.machines.values_mut() {
            machine.kernel.crash();
        }
        if host.agent.guests().is_empty() {
            break;
        }
    }
    let restarts = watchman
        .orders
        .iter()
        .filter(|order| order.deed == Deed::Restart)
        .count();
    assert_eq!(restarts, 3);
    assert!(
        host.world.domains().len() <= 3,
        "dom0 and at most what is kept to be looked at"
    );
    end(host);
}

/// The monitor's pause between two restarts grows beyond what the agent waits for a monitor: as long as one is there, the pause is kept.
#[test]
fn the_agent_does_not_undercut_the_monitors_pauses() {
    let (mut host, mut watchman) = protected("protect_max_restarts=8");
    let uuid = host.uuid(DomId(1));
    for _ in 0..PATIENCE {
        watchman.turn(&mut host);
        for machine in host.machines.values_mut() {
            machine.kernel.crash();
        }
        let Some(shared) = host.agent.by_uuid(uuid) else {
            break;
        };
        let starts = dom0_agent::agent::lock(&shared).record.starts as usize;
        let ordered = watchman
            .orders
            .iter()
            .filter(|order| order.deed == Deed::Restart)
            .count();
        assert_eq!(starts, 1 + ordered, "somebody else restarted it");
    }
    assert!(watchman.orders.len() > 6);
    end(host);
}

#[test]
fn a_monitor_that_dies_at_any_moment_brings_the_guest_back_once() {
    // It dies before it hears, after it has heard, and while the agent works: each prefix of its journal.
    for turns_before in 0..6 {
        let (mut host, mut watchman) = protected("");
        host.machine(DomId(1)).kernel.crash();
        watchman.turns(&mut host, turns_before);
        watchman.replace(&mut host);
        watchman.until_it_runs(&mut host);
        watchman.turns(&mut host, 40);
        assert_eq!(
            host.agent.guests()[0].domid,
            Some(DomId(2)),
            "restarted once, not twice"
        );
        end(host);
    }
}

#[test]
fn whatever_fails_in_a_restart_the_monitor_gets_its_guest_back() {
    for kind in [
        FaultKind::Fail(Errno::EIO),
        FaultKind::FailAfter(Errno::EIO),
    ] {
        exhaust(kind, &Filter::process("agent"), |fault| {
            let (mut host, mut watchman) = protected("");
            host.machine(DomId(1)).kernel.crash();
            // The agent's way from here to a running guest, one failure in it.
            let way = fault.at;
            host.world.inject(fault);
            watchman.turns(&mut host, 2);
            host.world.clear_faults();
            let domid = watchman.until_it_runs(&mut host);
            assert_ne!(domid, DomId(1), "failure {way}");
            let world = host.world.clone();
            end(host);
            world
        });
    }
}

#[test]
fn an_agent_that_dies_in_a_restart_is_no_second_failure_of_the_guest() {
    for at in (0..90).step_by(3) {
        let (mut host, mut watchman) = protected("");
        host.machine(DomId(1)).kernel.crash();
        host.mortal_agent();
        host.world
            .inject(Fault::at(at, FaultKind::Crash).of(Filter::process("agent")));
        let survived = host.unless_it_dies(|host| watchman.turns(host, 2));
        host.world.clear_faults();
        if survived.is_none() {
            watchman.hear(
                &host,
                Input::AgentDown {
                    why: "it died".into(),
                },
            );
            host.next_agent();
            watchman.replace(&mut host);
        }
        let domid = watchman.until_it_runs(&mut host);
        assert_ne!(domid, DomId(1), "death {at}");
        end(host);
    }
}
