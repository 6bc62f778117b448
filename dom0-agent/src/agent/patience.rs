//! How long a refusal that may pass by itself is waited out: a driver's "not yet", because a port is still held by a predecessor that dies.
//!
//! A guest can make its driver say "not yet" for ever, with a port that is wrong or taken. So the tries are counted, the pauses between them
//! are shared by all devices of one look, and whoever is refused after the last one is refused for good.

use super::error::AgentError;
use std::time::Duration;

/// First pause; each one is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(2);
/// Pauses in one look at a guest's devices: 14 ms. A port that a frontend has just published is free, unless the driver died over it.
const PAUSES_OF_A_LOOK: u32 = 3;
/// Pauses when a successor takes over all devices: 2 s. The predecessor is gone by then, and what it held follows within moments.
const PAUSES_OF_A_SUCCESSOR: u32 = 10;

/// The pauses that are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    left: u32,
    next: Duration,
}

impl Patience {
    /// For one look at a guest's devices.
    #[must_use]
    pub fn of_a_look() -> Self {
        Self::of(PAUSES_OF_A_LOOK)
    }

    /// For a successor on rings that another driver served: guests are at work on them, so it is longer.
    #[must_use]
    pub fn of_a_successor() -> Self {
        Self::of(PAUSES_OF_A_SUCCESSOR)
    }

    /// For whoever tries nothing again.
    #[must_use]
    pub fn none() -> Self {
        Self::of(0)
    }

    fn of(pauses: u32) -> Self {
        Self {
            left: pauses,
            next: FIRST,
        }
    }

    /// Tries until it is done, fails for good, or the pauses are used up; then it is the last try's failure.
    ///
    /// # Errors
    /// Those of `attempt`.
    pub fn outlast(
        &mut self,
        mut attempt: impl FnMut() -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        loop {
            let result = attempt();
            if !matches!(result, Err(AgentError::DriverBusy { .. })) {
                return result;
            }
            let Some(pause) = self.pause() else {
                return result;
            };
            std::thread::sleep(pause);
        }
    }

    /// The pause before the next try; `None` when there is none any more.
    fn pause(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.next;
        self.next *= 2;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(mut patience: Patience) -> Duration {
        std::iter::from_fn(|| patience.pause()).sum()
    }

    #[test]
    fn patience_ends() {
        assert_eq!(total(Patience::none()), Duration::ZERO);
        assert_eq!(total(Patience::of_a_look()), Duration::from_millis(14));
        assert_eq!(
            total(Patience::of_a_successor()),
            Duration::from_millis(2046)
        );
        let mut spent = Patience::of_a_look();
        while spent.pause().is_some() {}
        assert_eq!(spent.pause(), None, "it does not come back");
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let domid = xen_abi::ids::DomId(1);
        let what = String::new;
        let tries = |error: fn(xen_abi::ids::DomId, String) -> AgentError| {
            let mut tries = 0;
            let refused = Patience::of_a_look().outlast(|| {
                tries += 1;
                Err(error(domid, what()))
            });
            assert!(refused.is_err());
            tries
        };
        let busy = |domid, what| AgentError::DriverBusy { domid, what };
        assert_eq!(tries(busy), 1 + PAUSES_OF_A_LOOK);
        assert_eq!(tries(|domid, what| AgentError::Driver { domid, what }), 1);
        assert_eq!(
            tries(|domid, what| AgentError::DriverAway { domid, what }),
            1
        );
        // All devices of one look share its pauses.
        let (mut shared, mut tries) = (Patience::of_a_look(), 0);
        for _ in 0..10 {
            let _ = shared.outlast(|| {
                tries += 1;
                Err(busy(domid, what()))
            });
        }
        assert_eq!(tries, 10 + PAUSES_OF_A_LOOK);
        let mut second = false;
        let done = Patience::of_a_look().outlast(|| {
            let done = std::mem::replace(&mut second, true);
            done.then_some(()).ok_or_else(|| busy(domid, what()))
        });
        assert!(done.is_ok());
    }
}
