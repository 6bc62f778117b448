//! A guest whose true state is known.

use ft_monitor::monitor::Order;
use ft_monitor::record::Deed;
use ft_monitor::time::Mono;
use parapet_wire::agent::{Guest, GuestState, Protection, Watching};
use std::time::Duration;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

/// How a guest really is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Truth {
    /// Boots until then, then serves.
    Up { ready: Mono },
    /// The domain runs and the guest does not.
    Hung { since: Mono },
    /// Shut down; the domain is still there.
    Down { reason: ShutdownReason, since: Mono },
    /// Its domain is destroyed and no new one could be built.
    Waiting { since: Mono },
    /// Removed.
    Gone,
}

#[derive(Debug)]
pub struct SimGuest {
    pub uuid: Handle,
    pub name: String,
    pub protected: bool,
    heartbeat: bool,
    probe: bool,
    limit: u32,
    pub domid: Option<DomId>,
    pub truth: Truth,
    /// `parapet-guest` was stopped on purpose.
    pub silenced: bool,
    pub beats: u64,
    last_beat: Mono,
    pub answered_last: bool,
    /// When orders restarted it.
    pub restarted: Vec<Mono>,
    /// When somebody starts it again after a poweroff.
    pub operator_starts: Option<Mono>,
    /// A flapping guest's next crash.
    pub dies: Option<Mono>,
}

impl SimGuest {
    /// One of each kind.
    pub fn zoo(limit: u32) -> Vec<SimGuest> {
        [
            ("both", true, true, true),
            ("beats", true, true, false),
            ("probed", true, false, true),
            ("plain", true, false, false),
            ("free", false, true, true),
        ]
        .into_iter()
        .zip(1..)
        .map(|((name, protected, heartbeat, probe), number)| SimGuest {
            uuid: Handle([number; 16]),
            name: name.into(),
            protected,
            heartbeat,
            probe,
            limit,
            domid: None,
            truth: Truth::Gone,
            silenced: false,
            beats: 0,
            last_beat: Mono(0),
            answered_last: false,
            restarted: Vec::new(),
            operator_starts: None,
            dies: None,
        })
        .collect()
    }

    pub fn boot(&mut self, domid: u16, now: Mono, ready: Mono) {
        self.domid = Some(DomId(domid));
        self.truth = Truth::Up { ready };
        self.silenced = false;
        self.beats = 0;
        self.last_beat = now;
        self.operator_starts = None;
    }

    pub fn waits(&mut self, since: Mono) {
        self.domid = None;
        self.truth = Truth::Waiting { since };
    }

    /// What the agent tells.
    pub fn told(&self) -> Guest {
        let watching = Watching {
            heartbeat_timeout_ms: self.heartbeat.then_some(8000),
            probes: if self.probe {
                vec!["tcp:10.0.0.1:80".into()]
            } else {
                Vec::new()
            },
            max_restarts: Some(self.limit),
        };
        Guest {
            uuid: self.uuid,
            name: self.name.clone(),
            domid: self.domid,
            state: match self.truth {
                Truth::Up { .. } | Truth::Hung { .. } => GuestState::Running,
                Truth::Down { reason, .. } => GuestState::Down(reason),
                Truth::Waiting { .. } => GuestState::Waiting,
                Truth::Gone => GuestState::Dying,
            },
            protection: if self.protected {
                Protection::Restart
            } else {
                Protection::None
            },
            watching,
            driver_pid: None,
        }
    }

    pub fn exists(&self) -> bool {
        self.truth != Truth::Gone
    }

    pub fn is_well(&self) -> bool {
        matches!(self.truth, Truth::Up { .. })
    }

    /// Whether anybody could notice a hang: what watches it must have seen it alive first.
    pub fn visible_hang(&self) -> bool {
        self.heartbeat && !self.silenced && self.beats > 1
    }

    /// A second passed: the next counter, if the guest is alive enough.
    pub fn beat(&mut self, now: Mono) -> Option<u64> {
        let Truth::Up { ready } = self.truth else {
            return None;
        };
        let due = now.since(self.last_beat) >= Duration::from_secs(1);
        if !self.heartbeat || self.silenced || now < ready || !due {
            return None;
        }
        self.beats += 1;
        self.last_beat = now;
        Some(self.beats)
    }

    pub fn answers(&self, now: Mono) -> bool {
        matches!(self.truth, Truth::Up { ready } if now >= ready)
    }

    /// Whether the order is right, seen from the truth.
    pub fn deserves(&self, order: &Order) -> bool {
        match self.truth {
            Truth::Hung { .. } => order.deed == Deed::Restart,
            Truth::Waiting { .. } => true,
            Truth::Down { reason, .. } => {
                matches!(reason, ShutdownReason::Crash | ShutdownReason::Watchdog)
            }
            Truth::Up { .. } | Truth::Gone => false,
        }
    }

    /// Since when it would need help.
    pub fn failed_since(&self) -> Option<Mono> {
        match self.truth {
            Truth::Hung { since } | Truth::Waiting { since } => Some(since),
            Truth::Down {
                reason: ShutdownReason::Crash | ShutdownReason::Watchdog,
                since,
            } => Some(since),
            _ => None,
        }
    }
}
