//! How many connections may be there that have not shown a pinned certificate: over all addresses, and of each one.

use crate::limits::{MAX_STRANGERS, MAX_STRANGERS_OF_ONE};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The count of strangers.
#[derive(Debug, Default)]
pub struct Gate {
    inside: Mutex<HashMap<IpAddr, usize>>,
}

impl Gate {
    fn inside(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets somebody in, if there is room; out again when the pass is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Pass> {
        let mut inside = self.inside();
        // The table is as long as there are strangers: it has no entry for none.
        if inside.values().sum::<usize>() >= MAX_STRANGERS {
            return None;
        }
        let own = inside.entry(from).or_default();
        if *own >= MAX_STRANGERS_OF_ONE {
            return None;
        }
        *own += 1;
        Some(Pass {
            gate: Arc::clone(self),
            from,
        })
    }
}

/// One stranger's place.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    from: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        if let Some(count) = inside.get_mut(&self.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(n).unwrap()).into()
    }

    #[test]
    fn one_address_does_not_keep_the_others_out() {
        let gate = Arc::new(Gate::default());
        let mut one: Vec<_> = (0..MAX_STRANGERS_OF_ONE)
            .map(|_| gate.admit(address(1)).unwrap())
            .collect();
        assert!(gate.admit(address(1)).is_none());
        let _other = gate.admit(address(2)).unwrap();
        one.pop();
        assert!(gate.admit(address(1)).is_some());
    }

    #[test]
    fn there_is_a_bound_over_all_and_nothing_stays() {
        let gate = Arc::new(Gate::default());
        let all: Vec<_> = (0..MAX_STRANGERS)
            .map(|n| gate.admit(address(n)).unwrap())
            .collect();
        assert!(gate.admit(address(MAX_STRANGERS)).is_none());
        drop(all);
        assert!(gate.inside().is_empty());
        assert!(gate.admit(address(0)).is_some());
    }
}
