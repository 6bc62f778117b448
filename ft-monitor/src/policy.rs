//! What is promised for one guest, and after which times: the guest's own settings over the host's defaults.

use crate::evidence::probe::Target;
use crate::limits::{
    ACTION_TIMEOUT_DEFAULT, BACKOFF_CAP_DEFAULT, BACKOFF_FIRST_DEFAULT, COMMON_CAUSE_HOLD_DEFAULT,
    GRACE_DEFAULT, HEARTBEAT_TIMEOUT_MIN, PROBE_EVERY_DEFAULT, PROBE_FAILURES_DEFAULT,
    PROBE_TIMEOUT_DEFAULT, PROBES_PER_GUEST_MAX, RESTARTS_PER_HOUR_DEFAULT, RESTARTS_PER_HOUR_MAX,
    STABLE_AFTER_DEFAULT,
};
use parapet_wire::agent::{Protection, Watching};
use std::time::Duration;

/// Times and counts that hold for every guest of this host. Meanings: `limits.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// See [`GRACE_DEFAULT`].
    pub grace: Duration,
    /// See [`PROBE_EVERY_DEFAULT`].
    pub probe_every: Duration,
    /// See [`PROBE_TIMEOUT_DEFAULT`].
    pub probe_timeout: Duration,
    /// See [`PROBE_FAILURES_DEFAULT`].
    pub probe_failures: u32,
    /// See [`COMMON_CAUSE_HOLD_DEFAULT`].
    pub common_cause_hold: Duration,
    /// See [`BACKOFF_FIRST_DEFAULT`].
    pub backoff_first: Duration,
    /// See [`BACKOFF_CAP_DEFAULT`].
    pub backoff_cap: Duration,
    /// See [`STABLE_AFTER_DEFAULT`].
    pub stable_after: Duration,
    /// See [`RESTARTS_PER_HOUR_DEFAULT`].
    pub restarts_per_hour: u32,
    /// See [`ACTION_TIMEOUT_DEFAULT`].
    pub action_timeout: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            grace: GRACE_DEFAULT,
            probe_every: PROBE_EVERY_DEFAULT,
            probe_timeout: PROBE_TIMEOUT_DEFAULT,
            probe_failures: PROBE_FAILURES_DEFAULT,
            common_cause_hold: COMMON_CAUSE_HOLD_DEFAULT,
            backoff_first: BACKOFF_FIRST_DEFAULT,
            backoff_cap: BACKOFF_CAP_DEFAULT,
            stable_after: STABLE_AFTER_DEFAULT,
            restarts_per_hour: RESTARTS_PER_HOUR_DEFAULT,
            action_timeout: ACTION_TIMEOUT_DEFAULT,
        }
    }
}

/// Everything that verdict and plan need to know about what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The class. With `None` the guest is watched and accounted for, and nothing is done.
    pub protection: Protection,
    /// Silence after which the guest counts as hung; `None`: heartbeats are not judged.
    pub heartbeat_timeout: Option<Duration>,
    /// Questions put from outside, at most [`PROBES_PER_GUEST_MAX`].
    pub probes: Vec<Target>,
    /// Restarts within an hour before the monitor gives up.
    pub restarts_per_hour: u32,
    /// The rest.
    pub times: Defaults,
}

impl Policy {
    /// The guest's settings over the host's defaults, and a complaint for each setting that could not be followed as written.
    #[must_use]
    pub fn of(
        protection: Protection,
        watching: &Watching,
        defaults: &Defaults,
    ) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let heartbeat_timeout = watching.heartbeat_timeout_ms.map(|ms| {
            let asked = Duration::from_millis(ms);
            if asked < HEARTBEAT_TIMEOUT_MIN {
                complaints.push(format!(
                    "heartbeat timeout of {ms} ms raised to {} ms: a beat comes once a second",
                    HEARTBEAT_TIMEOUT_MIN.as_millis()
                ));
            }
            asked.max(HEARTBEAT_TIMEOUT_MIN)
        });
        let mut probes = Vec::new();
        for text in &watching.probes {
            match text.parse::<Target>() {
                Ok(_) if probes.len() == PROBES_PER_GUEST_MAX => complaints.push(format!(
                    "probe {text} ignored: at most {PROBES_PER_GUEST_MAX} per guest"
                )),
                Ok(target) => probes.push(target),
                Err(error) => complaints.push(format!("probe ignored: {error}")),
            }
        }
        let asked = watching.max_restarts.unwrap_or(defaults.restarts_per_hour);
        if asked > RESTARTS_PER_HOUR_MAX {
            complaints.push(format!(
                "{asked} restarts per hour lowered to {RESTARTS_PER_HOUR_MAX}"
            ));
        }
        let policy = Self {
            protection,
            heartbeat_timeout,
            probes,
            restarts_per_hour: asked.min(RESTARTS_PER_HOUR_MAX),
            times: defaults.clone(),
        };
        (policy, complaints)
    }

    /// Whether the monitor acts for this guest at all.
    #[must_use]
    pub fn protects(&self) -> bool {
        self.protection != Protection::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_followed_are_named_not_dropped_in_silence() {
        let watching = Watching {
            heartbeat_timeout_ms: Some(10),
            probes: vec!["tcp:10.0.0.1:80".into(), "smoke:signals".into()],
            max_restarts: Some(1000),
        };
        let (policy, complaints) = Policy::of(Protection::Restart, &watching, &Defaults::default());
        assert_eq!(policy.heartbeat_timeout, Some(HEARTBEAT_TIMEOUT_MIN));
        assert_eq!(policy.probes.len(), 1);
        assert_eq!(policy.restarts_per_hour, RESTARTS_PER_HOUR_MAX);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[1].contains("smoke"), "{complaints:?}");
    }
}
