//! All heartbeats, looked at together.
//!
//! ```text
//!   every pause() ──▶ guests that run ── nodes() ──▶ one pipelined read of all of them ── hear() ──▶ what moved ──▶ one event
//! ```
//!
//! A watch on each node would wake xenstored, the agent and the monitor once for every guest and beat; a look costs the same for one guest and for
//! fifty. A guest whose lock is taken, because something is being done to it, is looked at as it was known before.
//!
//! While no guest is protected or watched, nothing follows from a beat, and looking now and then is enough.
//!
//! Who begins to listen is told everything again: the monitor's simulation counts on hearing goodbyes again.

use super::guest::SharedGuest;
use super::handle;
use super::record::Stage;
use crate::layout::paths;
use parapet_wire::agent::{self as wire_agent, Event, Heartbeat};
use parapet_wire::heartbeat::{self as wire, Beat};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_host::xenstore::error::StoreError;

/// Longest pause between two looks: one beat of `parapet-guest`.
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// Pause while beats are only shown.
pub const PAUSE_UNWATCHED: Duration = Duration::from_secs(10);
/// Shortest pause.
const PAUSE_LEAST: Duration = Duration::from_millis(250);
/// Looks within the shortest silence after which a guest counts as hung.
const LOOKS_WITHIN_TIMEOUT: u32 = 8;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Heartbeats {
    known: BTreeMap<Uuid, Known>,
    telling: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    domid: DomId,
    /// Something follows from its beats.
    matters: bool,
    timeout: Option<Duration>,
    last: Option<Beat>,
}

impl Heartbeats {
    /// The nodes to read, for [`hear`](Self::hear). `telling` is [`Agent::telling`](super::Agent::telling): when it is another than before, everything is
    /// told again.
    pub fn nodes(&mut self, guests: &[(Uuid, SharedGuest)], telling: usize) -> Vec<String> {
        self.refresh(guests);
        if std::mem::replace(&mut self.telling, telling) != telling {
            self.known.values_mut().for_each(|known| known.last = None);
        }
        let domids = self.known.values().map(|known| known.domid);
        domids
            .map(|domid| format!("{}/{}", paths::domain(domid), wire::NODE))
            .collect()
    }

    /// What there is to tell, by the values of [`nodes`](Self::nodes). What a single guest has done to its node is no error: it is not told.
    pub fn hear(&mut self, values: Vec<Result<Vec<u8>, StoreError>>) -> Vec<Event> {
        let mut beats = Vec::new();
        let mut events = Vec::new();
        for ((uuid, known), value) in self.known.iter_mut().zip(values) {
            let beat = value.ok().and_then(|value| wire::parse(&value));
            if beat.is_none() || beat == known.last {
                continue;
            }
            known.last = beat;
            let uuid = handle(*uuid);
            match beat {
                Some(Beat::Counter(counter)) => beats.push(Heartbeat { uuid, counter }),
                Some(Beat::Stopped) => events.push(Event::HeartbeatStopped { uuid }),
                None => {}
            }
        }
        if !beats.is_empty() {
            events.push(Event::Heartbeats(beats));
        }
        events
    }

    /// How long to wait until the next look.
    #[must_use]
    pub fn pause(&self) -> Duration {
        if !self.known.is_empty() && !self.known.values().any(|known| known.matters) {
            return PAUSE_UNWATCHED;
        }
        let shortest = self.known.values().filter_map(|known| known.timeout).min();
        shortest.map_or(PAUSE_MOST, |timeout| {
            (timeout / LOOKS_WITHIN_TIMEOUT).clamp(PAUSE_LEAST, PAUSE_MOST)
        })
    }

    /// Takes over which guests there are, and in which domains. In another domain every beat is new.
    fn refresh(&mut self, guests: &[(Uuid, SharedGuest)]) {
        let before = std::mem::take(&mut self.known);
        for (uuid, guest) in guests {
            let old = before.get(uuid).copied();
            let now = match guest.try_lock() {
                // It says its last word before it suspends, and that would count.
                Ok(guest) if guest.record.stage == Stage::Saving => None,
                Ok(guest) => guest.record.domid.map(|domid| Known {
                    domid,
                    matters: matters(&guest.public()),
                    timeout: guest.heartbeat_timeout(),
                    last: old
                        .filter(|old| old.domid == domid)
                        .and_then(|old| old.last),
                }),
                Err(_) => old,
            };
            if let Some(now) = now {
                self.known.insert(*uuid, now);
            }
        }
    }
}

/// Whether something follows from the beats of this guest.
#[must_use]
pub fn matters(guest: &wire_agent::Guest) -> bool {
    guest.protection != wire_agent::Protection::None
        || guest.watching.heartbeat_timeout_ms.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_timeout_says_how_often() {
        let with = |timeouts: &[Option<u64>], matters: bool| {
            let known = timeouts.iter().enumerate().map(|(n, timeout)| {
                let known = Known {
                    domid: DomId(1),
                    matters,
                    timeout: timeout.map(Duration::from_secs),
                    last: None,
                };
                (Uuid::from_u128(n as u128), known)
            });
            let known = known.collect();
            let telling = 0;
            Heartbeats { known, telling }.pause().as_millis()
        };
        assert_eq!(with(&[], true), 1000);
        assert_eq!(with(&[None, None], true), 1000);
        assert_eq!(with(&[Some(60), Some(4), None], true), 500);
        assert_eq!(with(&[Some(1)], true), 250);
        assert_eq!(
            with(&[None, None], false),
            10_000,
            "nothing follows from them"
        );
    }
}
