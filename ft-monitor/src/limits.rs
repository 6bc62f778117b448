//! Every bound of the monitor, with its unit and its reason. Thresholds that an operator may set have their defaults here too.

use std::time::Duration;

/// Guests that are watched; more are refused with an alarm.
pub const GUESTS_MAX: usize = 4096;
/// Probes of one guest; more are ignored with an alarm. The signs of a guest keep them in one byte.
pub const PROBES_PER_GUEST_MAX: usize = 8;
/// Probes that run at the same time, over all guests.
pub const PROBES_AT_ONCE_MAX: usize = 64;
/// Restarts that run at the same time: building guests competes for the same CPUs.
pub const ACTIONS_AT_ONCE_MAX: usize = 4;
/// Outages kept in detail for one guest; older ones stay in the totals.
pub const OUTAGES_KEPT_MAX: usize = 32;
/// Restart times kept for one guest; above every possible limit per hour.
pub const RESTARTS_KEPT_MAX: usize = 128;
/// Longest text of a peer (an error of the agent, a name) that is kept, in bytes.
pub const TEXT_MAX_BYTES: usize = 400;
/// Alarms shown in the status at the same time.
pub const ALARMS_MAX: usize = 64;
/// Entries kept in memory for `parapet events`.
pub const EVENTS_KEPT_MAX: usize = 2000;

/// Longest the pure machine may go without a step; also the resolution of every verdict.
pub const TICK_MAX: Duration = Duration::from_secs(1);
/// Shortest sleep between two steps that no event caused.
pub const TICK_MIN: Duration = Duration::from_millis(20);
/// A step that comes this late means that the monitor itself stood still: what it did not hear then proves nothing.
pub const STALL: Duration = Duration::from_secs(3);
/// After a gap in listening, silence counts again only when this much was listened without one: two beats.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Shortest time between two entries about stalls of the monitor itself.
pub const STALL_LOG_EVERY: Duration = Duration::from_secs(60);
/// Time between two entries that only bring the accounts up to date: what a killed monitor can lose of them.
pub const ACCOUNT_EVERY: Duration = Duration::from_secs(60);
/// Shortest time between two entries about suspicion of the same guest.
pub const SUSPICION_LOG_EVERY: Duration = Duration::from_secs(10);
/// The window of the crash-loop limit.
pub const RESTART_WINDOW: Duration = Duration::from_secs(3600);
/// How much later an outage may be noticed than it began, whatever the evidence: the honest resolution of "no outage seen".
pub const RESOLUTION: Duration = TICK_MAX;

/// Shortest heartbeat timeout: three beats of `parapet-guest`.
pub const HEARTBEAT_TIMEOUT_MIN: Duration = Duration::from_secs(3);
/// After a start, silence and failing probes count for nothing for this long.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// Time between two questions of one probe.
pub const PROBE_EVERY_DEFAULT: Duration = Duration::from_secs(5);
/// Longest wait for the answer to one question.
pub const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// Failures in a row after which a guest counts as unreachable.
pub const PROBE_FAILURES_DEFAULT: u32 = 3;
/// When all guests fall silent together, the verdict waits this much longer: the fault is more likely on this side.
pub const COMMON_CAUSE_HOLD_DEFAULT: Duration = Duration::from_secs(30);
/// Delay of the second restart in a row; it doubles from there.
pub const BACKOFF_FIRST_DEFAULT: Duration = Duration::from_secs(1);
/// Longest delay between two restarts.
pub const BACKOFF_CAP_DEFAULT: Duration = Duration::from_secs(60);
/// A guest that lived this long after a restart starts again from the shortest delay.
pub const STABLE_AFTER_DEFAULT: Duration = Duration::from_secs(600);
/// Restarts within an hour before the monitor gives up.
pub const RESTARTS_PER_HOUR_DEFAULT: u32 = 5;
/// Most restarts per hour that can be asked for.
pub const RESTARTS_PER_HOUR_MAX: u32 = 100;
/// Longest wait for the agent to finish a restart.
pub const ACTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(180);

/// Longest wait for the agent to accept a connection and to greet.
pub const AGENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a word of the agent after which it is greeted, to see whether it answers; a stopped agent must not look like silent guests.
pub const AGENT_PING_EVERY: Duration = Duration::from_secs(2);
/// When the agent took this long to be reached, a decision that rests on silence is not carried out any more.
pub const SILENCE_STALE_AFTER: Duration = Duration::from_secs(2);
/// Delay before the second attempt to reach the agent; it doubles from there.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// Longest delay between two attempts to reach the agent.
pub const RECONNECT_CAP: Duration = Duration::from_secs(5);
/// Connections to the monitor's own socket at the same time.
pub const CLIENTS_MAX: usize = 32;
/// Longest wait for a client's request, or for a client to take an answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Events that a slow follower may lag behind before it is cut off.
pub const FOLLOW_LAG_MAX: usize = 256;
/// Inputs waiting for the machine.
pub const INPUT_QUEUE_MAX: usize = 1024;

/// Bytes of a web server's answer that are read before its status line must have come.
pub const HTTP_HEAD_MAX_BYTES: usize = 1024;
/// Longest URL of a probe, in bytes.
pub const PROBE_TEXT_MAX_BYTES: usize = 512;
/// Largest configuration file, in bytes.
pub const CONFIG_MAX_BYTES: u64 = 256 << 10;
/// Most drop-in files.
pub const DROP_INS_MAX: usize = 64;

/// Longest line of the journal, in bytes. Everything in an entry is bounded well below.
pub const JOURNAL_LINE_MAX_BYTES: usize = 256 << 10;
/// Size at which the journal is rotated, in bytes, unless its own opening snapshot is larger.
pub const JOURNAL_ROTATE_BYTES: u64 = 1 << 20;
/// Old journals kept for `parapet events`.
pub const JOURNALS_KEPT: usize = 3;

const _: () = assert!(TICK_MIN.as_millis() < TICK_MAX.as_millis());
const _: () = assert!(TICK_MAX.as_millis() * 2 < STALL.as_millis());
const _: () = assert!(SETTLE.as_millis() < STALL.as_millis());
const _: () = assert!(STALL.as_millis() <= HEARTBEAT_TIMEOUT_MIN.as_millis());
const _: () = assert!(PROBE_TIMEOUT_DEFAULT.as_millis() <= PROBE_EVERY_DEFAULT.as_millis());
const _: () = assert!(BACKOFF_FIRST_DEFAULT.as_millis() <= BACKOFF_CAP_DEFAULT.as_millis());
const _: () = assert!(BACKOFF_CAP_DEFAULT.as_millis() < STABLE_AFTER_DEFAULT.as_millis());
const _: () = assert!(RESTARTS_PER_HOUR_MAX as usize <= RESTARTS_KEPT_MAX);
const _: () = assert!(PROBES_PER_GUEST_MAX <= u8::BITS as usize);
