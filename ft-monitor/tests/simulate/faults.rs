//! What goes wrong in the simulated host, and what comes back by itself.

use crate::guest::{SimGuest, Truth};
use crate::world::World;
use ft_monitor::time::Mono;
use parapet_wire::agent::{Event, Heartbeat};
use std::time::Duration;
use xen_abi::domain::ShutdownReason;

/// Which faults a run injects, as chances per turn in ten thousand.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub guest: u64,
    pub agent_loss: u64,
    pub agent_refusal: u64,
    pub monitor_kill: u64,
    pub monitor_stall: u64,
    pub probe_loss: u64,
    pub network_loss: u64,
    pub flapping: bool,
}

impl Faults {
    pub const ALL: Faults = Faults {
        guest: 60,
        agent_loss: 40,
        agent_refusal: 1500,
        monitor_kill: 60,
        monitor_stall: 30,
        probe_loss: 100,
        network_loss: 20,
        flapping: false,
    };

    /// Only the guests break.
    pub const GUESTS: Faults = Faults {
        agent_loss: 0,
        agent_refusal: 0,
        monitor_kill: 0,
        monitor_stall: 0,
        probe_loss: 0,
        network_loss: 0,
        ..Faults::ALL
    };
}

impl World {
    pub fn inject(&mut self) {
        if self.chance(self.faults.guest) {
            let index = self.rng.index(self.guests.len());
            self.break_guest(index);
        }
        if self.chance(self.faults.agent_loss) && self.agent_back.is_none() {
            self.agent_back = Some(self.soon(1, 40));
            self.connected = false;
            self.events.clear();
            self.hung_up = true;
        }
        if self.chance(self.faults.monitor_stall) && self.monitor_back.is_none() {
            self.monitor_stalled = Some(self.soon(4, 30));
        }
        if self.chance(self.faults.monitor_kill) {
            self.kill_monitor();
        }
        if self.chance(self.faults.network_loss) && self.network_quiet_until < self.now.mono {
            // Shorter than the hold that a fault on our own side is given, and not again at once.
            let back = self.soon(1, 30);
            self.network_back = Some(back);
            self.network_quiet_until = back.after(Duration::from_secs(30));
        }
    }

    pub fn kill_monitor(&mut self) {
        self.kills += 1;
        self.monitor = None;
        self.hung_up = false;
        self.monitor_stalled = None;
        self.connected = false;
        self.events.clear();
        self.questions.clear();
        self.monitor_back = Some(self.soon(0, 15));
    }

    pub fn break_guest(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        if !guest.is_well() {
            return;
        }
        match self.rng.below(8) {
            0 | 1 => self.down(index, ShutdownReason::Crash),
            2 => self.down(index, ShutdownReason::Watchdog),
            3 | 4 if guest.visible_hang() => {
                guest.truth = Truth::Hung {
                    since: self.now.mono,
                }
            }
            5 => self.down(index, ShutdownReason::Reboot),
            6 if self.rng.below(4) == 0 => self.down(index, ShutdownReason::Poweroff),
            7 => {
                guest.silenced = !guest.silenced;
                if guest.silenced && guest.beats > 0 {
                    let uuid = guest.uuid;
                    self.tell(Event::HeartbeatStopped { uuid });
                }
            }
            _ => {}
        }
    }

    pub fn down(&mut self, index: usize, reason: ShutdownReason) {
        let guest = &mut self.guests[index];
        let Some(domid) = guest.domid else { return };
        guest.truth = Truth::Down {
            reason,
            since: self.now.mono,
        };
        let uuid = guest.uuid;
        self.tell(Event::ShutDown {
            uuid,
            domid,
            reason,
        });
        match reason {
            // The agent's own business, also for protected guests.
            ShutdownReason::Reboot => self.boot(index),
            ShutdownReason::Poweroff => {
                self.guests[index].operator_starts = Some(self.soon(5, 300));
            }
            _ if !self.guests[index].protected => self.boot(index),
            _ => {}
        }
    }

    pub fn heal(&mut self) {
        let now = self.now.mono;
        let over = |until: &mut Option<Mono>| {
            let over = until.is_some_and(|until| until <= now);
            if over {
                *until = None;
            }
            over
        };
        over(&mut self.network_back);
        over(&mut self.agent_back);
        over(&mut self.monitor_stalled);
        if over(&mut self.monitor_back) || (self.monitor.is_none() && self.monitor_back.is_none()) {
            self.start_monitor();
        }
        let listening = self.monitor_back.is_none() && self.monitor_stalled.is_none();
        if !self.connected && self.agent_back.is_none() && listening {
            self.connected = true;
            let guests = self
                .guests
                .iter()
                .filter(|g| g.exists())
                .map(SimGuest::told)
                .collect();
            self.events.push_back(Event::Snapshot(guests));
            // xenstore tells the value of each watched node at once, also that of a dead guest.
            for guest in self
                .guests
                .iter()
                .filter(|g| g.beats > 0 && g.domid.is_some())
            {
                let event = match guest.silenced {
                    true => Event::HeartbeatStopped { uuid: guest.uuid },
                    false => Event::Heartbeats(vec![Heartbeat {
                        uuid: guest.uuid,
                        counter: guest.beats,
                    }]),
                };
                self.events.push_back(event);
            }
        }
    }

    /// No more faults.
    pub fn calm(&mut self) {
        self.faults = Faults {
            guest: 0,
            ..Faults::GUESTS
        };
    }
}
