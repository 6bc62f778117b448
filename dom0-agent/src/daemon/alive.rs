//! Proof of life for systemd's watchdog.
//!
//! ```text
//!   news loop ────┐ each marks its pulse whenever it comes round
//!   release loop ─┤
//!   heartbeats ───┤
//!   guest table ──┴─▶ all well? ──▶ WATCHDOG=1
//! ```
//!
//! Nothing is sent by a bare timer: an agent whose loops stand still, whose thread pool is used up or whose table of guests
//! is locked for good stops petting, and systemd starts a successor, which finds every guest again. xenstored or Xen being slow
//! is no reason: their calls end at deadlines of their own.

use super::Shared;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time in which the news loop comes round by itself.
pub const NEWS_TURN: Duration = Duration::from_secs(5);
/// Silence of the news loop after which it counts as stuck.
const NEWS_STUCK: Duration = Duration::from_secs(20);
/// Silence of the release loop after which it counts as stuck: it waits for guests that are being created or torn down.
const RELEASES_STUCK: Duration = Duration::from_secs(600);
/// Silence of the loop that looks at heartbeats after which it counts as stuck: three deadlines of xenstored.
const HEARTBEATS_STUCK: Duration = Duration::from_secs(60);

/// When a loop came round last. Clones are the same pulse.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// The loop came round.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silence(&self) -> Duration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// The pulses of the daemon's loops.
#[derive(Debug, Clone, Default)]
pub struct Pulses {
    /// Of [`super::watcher::news`].
    pub news: Pulse,
    /// Of [`super::watcher::releases`].
    pub releases: Pulse,
    /// Of the loop that looks at heartbeats.
    pub heartbeats: Pulse,
}

impl Pulses {
    /// What stands still, if anything does.
    fn stuck(&self) -> Option<&'static str> {
        stuck(
            self.news.silence(),
            self.releases.silence(),
            self.heartbeats.silence(),
        )
    }
}

fn stuck(news: Duration, releases: Duration, heartbeats: Duration) -> Option<&'static str> {
    match () {
        () if news > NEWS_STUCK => Some("the loop that hears of drivers and guests"),
        () if releases > RELEASES_STUCK => Some("the loop that hears of ended domains"),
        () if heartbeats > HEARTBEATS_STUCK => Some("the loop that looks at heartbeats"),
        () => None,
    }
}

/// Pets the watchdog every `period` for as long as the agent is seen to be alive; for ever.
pub async fn prove(shared: Shared, pulses: Pulses, period: Duration, pet: impl Fn() + Send) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        let agent = Arc::clone(&shared.agent);
        let look = tokio::task::spawn_blocking(move || agent.table_answers());
        let trouble = match tokio::time::timeout(period, look).await {
            Ok(Ok(())) => pulses.stuck(),
            _ => Some("the table of guests, or the pool of threads"),
        };
        match trouble {
            None => pet(),
            Some(what) => tracing::error!(what, "stuck; the watchdog is not petted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_units_leave_drivers_alone_and_the_loops_time() {
        let unit = include_str!("../../dist/units/dom0-agent.service");
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
        assert_eq!(value("KillMode="), Some("process"));
        let watchdog: u64 = value("WatchdogSec=").unwrap().parse().unwrap();
        assert!(Duration::from_secs(watchdog) > NEWS_STUCK + NEWS_TURN);
        let socket = include_str!("../../dist/units/dom0-agent.socket");
        let path = socket
            .lines()
            .find_map(|line| line.strip_prefix("ListenStream="));
        assert_eq!(path, Some(parapet_wire::paths::AGENT_SOCKET));
    }

    #[test]
    fn a_loop_that_stands_still_is_named() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(stuck(short, short, short), None);
        assert!(stuck(long, short, short).is_some_and(|what| what.contains("drivers")));
        assert!(stuck(short, long, short).is_some_and(|what| what.contains("ended")));
        assert!(stuck(short, short, long).is_some_and(|what| what.contains("heartbeats")));
        let patient = Duration::from_secs(60);
        let slow = stuck(short, patient, patient);
        assert_eq!(slow, None, "a slow create or xenstored is no reason");
    }
}
