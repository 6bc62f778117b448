//! The backend half of the xenbus handshake, as a pure, level-triggered state machine.
//!
//! ```text
//!              front 3|4 (net: 4)        driver took the rings
//!   InitWait ───────────────▶ [Connect] ─────────────────────▶ Connected
//!      ▲                          │ refused                        │ front 5|6|gone
//!      │ front 1, online          ▼                                ▼
//!      └──────────────────────── Closed ◀───────────────────── [Disconnect]
//!                                   │ offline
//!                                   ▼
//!                                 Gone
//! ```
//!
//! [`step`] takes what is true now (not what changed) and answers with what to do; whoever performs it calls again with the result. It never
//! reads a clock, a file or xenstore. Source: `xen/io/xenbus.h` and the behaviour of Linux' frontends and of GRUB's.

/// Where a backend stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Features are published; waiting for the frontend. Node says 2.
    InitWait,
    /// Rings are served. Node says 4.
    Connected,
    /// Quiet and unmapped, ready for a frontend that comes back. Node says 6.
    Closed,
    /// To be removed.
    Gone,
}

/// Which handshake the frontend's driver follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Goes through 3 (Initialised): block, extra consoles.
    Initialised,
    /// Goes straight to 4 (Connected): network.
    Connected,
}

/// What is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The frontend's state node; 0 when it is gone or unreadable.
    pub front: u32,
    /// The backend's `online` node; false when a toolstack wants the device removed.
    pub online: bool,
    /// The backend's directory still exists.
    pub present: bool,
}

/// What to do next. Each is performed before the machine is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read the frontend's keys and let the driver serve the rings; then [`connected`] or [`refused`].
    Connect,
    /// Let the driver finish and unmap.
    Disconnect,
    /// Write the backend's state node.
    Publish(u32),
    /// Remove the device.
    Remove,
}

/// The state nodes.
pub mod state {
    /// Frontend may begin.
    pub const INITIALISING: u32 = 1;
    /// Backend has published its features.
    pub const INIT_WAIT: u32 = 2;
    /// Frontend has published its rings.
    pub const INITIALISED: u32 = 3;
    /// Both serve.
    pub const CONNECTED: u32 = 4;
    /// Going away.
    pub const CLOSING: u32 = 5;
    /// Gone quiet.
    pub const CLOSED: u32 = 6;
}

/// What to do now.
#[must_use]
pub fn step(phase: Phase, dialect: Dialect, now: Observation) -> (Phase, Vec<Action>) {
    if !now.present {
        return leave(phase);
    }
    match (phase, front(now.front)) {
        (Phase::Gone, _) => (Phase::Gone, vec![]),
        (Phase::InitWait, Front::Ready(three)) => {
            if three && dialect == Dialect::Connected {
                (Phase::InitWait, vec![])
            } else {
                (Phase::InitWait, vec![Action::Connect])
            }
        }
        (Phase::InitWait, Front::Starting) if now.online => (Phase::InitWait, vec![]),
        (Phase::InitWait, Front::Closing) => (Phase::Closed, vec![Action::Publish(state::CLOSED)]),
        (Phase::InitWait, Front::Starting | Front::Away) if !now.online => (
            Phase::Gone,
            vec![Action::Publish(state::CLOSED), Action::Remove],
        ),
        (Phase::InitWait, Front::Starting | Front::Away) => (Phase::InitWait, vec![]),
        (Phase::Connected, Front::Ready(_)) => (Phase::Connected, vec![]),
        (Phase::Connected, Front::Closing) => (
            Phase::Closed,
            vec![
                Action::Publish(state::CLOSING),
                Action::Disconnect,
                Action::Publish(state::CLOSED),
            ],
        ),
        (Phase::Connected, Front::Away | Front::Starting) => (
            Phase::Closed,
            vec![Action::Disconnect, Action::Publish(state::CLOSED)],
        ),
        (Phase::Closed, Front::Starting) if now.online => {
            (Phase::InitWait, vec![Action::Publish(state::INIT_WAIT)])
        }
        (Phase::Closed, Front::Starting | Front::Away) if !now.online => {
            (Phase::Gone, vec![Action::Remove])
        }
        (Phase::Closed, _) => (Phase::Closed, vec![]),
    }
}

/// After a [`Action::Connect`] that the driver took.
#[must_use]
pub fn connected() -> (Phase, Vec<Action>) {
    (Phase::Connected, vec![Action::Publish(state::CONNECTED)])
}

/// After a [`Action::Connect`] that failed, or a rule the guest broke on a connected ring: the device is closed, the guest lives on.
#[must_use]
pub fn refused() -> (Phase, Vec<Action>) {
    (Phase::Closed, vec![Action::Publish(state::CLOSED)])
}

/// The directory was removed under us: let go of everything.
fn leave(phase: Phase) -> (Phase, Vec<Action>) {
    let actions = match phase {
        Phase::Connected => vec![Action::Disconnect, Action::Remove],
        Phase::InitWait | Phase::Closed => vec![Action::Remove],
        Phase::Gone => vec![],
    };
    (Phase::Gone, actions)
}

/// The frontend's state, sorted by what it means to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// 1 or 2: it begins, or begins again. Also everything unknown.
    Starting,
    /// 3 (true) or 4, and the 7 and 8 of a reconfiguration.
    Ready(bool),
    /// 5.
    Closing,
    /// 6, or gone.
    Away,
}

fn front(state: u32) -> Front {
    match state {
        state::INITIALISED => Front::Ready(true),
        state::CONNECTED | 7 | 8 => Front::Ready(false),
        state::CLOSING => Front::Closing,
        0 | state::CLOSED => Front::Away,
        _ => Front::Starting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(front: u32) -> Observation {
        Observation {
            front,
            online: true,
            present: true,
        }
    }

    const PHASES: [Phase; 4] = [
        Phase::InitWait,
        Phase::Connected,
        Phase::Closed,
        Phase::Gone,
    ];

    #[test]
    fn every_pair_has_an_answer() {
        use Action::{Connect, Disconnect, Publish};
        let table: &[(Phase, u32, Phase, &[Action])] = &[
            (Phase::InitWait, 1, Phase::InitWait, &[]),
            (Phase::InitWait, 3, Phase::InitWait, &[Connect]),
            (Phase::InitWait, 4, Phase::InitWait, &[Connect]),
            (Phase::InitWait, 5, Phase::Closed, &[Publish(6)]),
            (Phase::InitWait, 6, Phase::InitWait, &[]),
            (Phase::InitWait, 0, Phase::InitWait, &[]),
            (Phase::Connected, 3, Phase::Connected, &[]),
            (Phase::Connected, 4, Phase::Connected, &[]),
            (
                Phase::Connected,
                5,
                Phase::Closed,
                &[Publish(5), Disconnect, Publish(6)],
            ),
            (
                Phase::Connected,
                6,
                Phase::Closed,
                &[Disconnect, Publish(6)],
            ),
            (
                Phase::Connected,
                0,
                Phase::Closed,
                &[Disconnect, Publish(6)],
            ),
            (
                Phase::Connected,
                1,
                Phase::Closed,
                &[Disconnect, Publish(6)],
            ),
            (Phase::Closed, 1, Phase::InitWait, &[Publish(2)]),
            (Phase::Closed, 3, Phase::Closed, &[]),
            (Phase::Closed, 6, Phase::Closed, &[]),
            (Phase::Gone, 4, Phase::Gone, &[]),
        ];
        for &(phase, front, next, actions) in table {
            assert_eq!(
                step(phase, Dialect::Initialised, at(front)),
                (next, actions.to_vec()),
                "{phase:?} {front}"
            );
        }
    }

    #[test]
    fn netfront_in_state_3_is_not_ready_yet() {
        assert_eq!(step(Phase::InitWait, Dialect::Connected, at(3)).1, vec![]);
        assert_eq!(
            step(Phase::InitWait, Dialect::Connected, at(4)).1,
            vec![Action::Connect]
        );
    }

    #[test]
    fn grub_hands_over_to_the_kernel_on_the_same_device() {
        let (phase, _) = connected();
        let (phase, actions) = step(phase, Dialect::Initialised, at(6));
        assert_eq!(actions, [Action::Disconnect, Action::Publish(6)]);
        let (phase, actions) = step(phase, Dialect::Initialised, at(1));
        assert_eq!(actions, [Action::Publish(2)]);
        assert_eq!(
            step(phase, Dialect::Initialised, at(3)).1,
            [Action::Connect]
        );
    }

    #[test]
    fn a_removed_frontend_of_an_offline_device_ends_it() {
        let gone = Observation {
            front: 0,
            online: false,
            present: true,
        };
        let (phase, actions) = step(Phase::Connected, Dialect::Initialised, gone);
        assert_eq!(actions, [Action::Disconnect, Action::Publish(6)]);
        assert_eq!(
            step(phase, Dialect::Initialised, gone),
            (Phase::Gone, vec![Action::Remove])
        );
    }

    proptest! {
        /// However a guest and a toolstack write their nodes, rings are let go exactly as often as they were taken, and never served in a closed state.
        #[test]
        fn rings_are_let_go_as_often_as_taken(
            inputs in prop::collection::vec((0_u32..12, any::<bool>(), prop::bool::weighted(0.97), any::<bool>()), 1..60)
        ) {
            let mut phase = Phase::InitWait;
            let mut held = 0_i32;
            for (front, online, present, driver_takes) in inputs {
                let now = Observation { front, online, present };
                for _ in 0..4 {
                    let (next, actions) = step(phase, Dialect::Initialised, now);
                    phase = next;
                    let quiet = actions.is_empty();
                    for action in actions {
                        match action {
                            Action::Connect => {
                                let (next, _) = if driver_takes { held += 1; connected() } else { refused() };
                                phase = next;
                            }
                            Action::Disconnect => held -= 1,
                            Action::Publish(_) | Action::Remove => {}
                        }
                        prop_assert!((0..=1).contains(&held));
                    }
                    prop_assert_eq!(held == 1, phase == Phase::Connected);
                    if quiet { break; }
                }
            }
        }

        #[test]
        fn a_settled_machine_stays_settled(front in 0_u32..12, online: bool, which in 0_usize..4) {
            let now = Observation { front, online, present: true };
            let mut phase = PHASES[which];
            for round in 0..5 {
                let (next, actions) = step(phase, Dialect::Initialised, now);
                phase = next;
                if actions.is_empty() { return Ok(()); }
                if actions.contains(&Action::Connect) { phase = refused().0; }
                prop_assert!(round < 4, "never settles in {:?} at {}", phase, front);
            }
        }
    }
}
