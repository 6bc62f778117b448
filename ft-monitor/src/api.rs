//! The monitor's own API: what `parapet status`, `events` and `availability` ask, and what they get.
//!
//! Same frames as the agent's API, kinds [`Kind::MonitorRequest`] and [`Kind::MonitorReply`](parapet_wire::frame::Kind). One request per connection, one reply; a follower gets
//! [`Reply::Event`] again and again. The same structures are the `--json` output: times are milliseconds, wall times since 1970.
//!
//! [`Kind::MonitorRequest`]: parapet_wire::frame::Kind

use serde::{Deserialize, Serialize};

/// From a client. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How everything is now.
    Status,
    /// What happened.
    Events {
        /// At most this many of the last ones first.
        last: u32,
        /// Only this guest's (name or uuid).
        guest: Option<String>,
        /// And everything that happens from now on.
        follow: bool,
    },
    /// Outages and availability.
    Availability {
        /// Only this guest's (name or uuid).
        guest: Option<String>,
    },
}

/// From the monitor. Append only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Status`.
    Status(Status),
    /// To `Events`, first.
    Events(Vec<EventLine>),
    /// To a follower.
    Event(EventLine),
    /// To `Availability`.
    Availability(Vec<Availability>),
    /// One line saying why not.
    Failed(String),
}

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The monitor's release.
    pub release: String,
    /// How long this monitor has run.
    pub running_ms: u64,
    /// The agent.
    pub agent: AgentLine,
    /// Every guest the agent knows.
    pub guests: Vec<GuestLine>,
    /// Troubles that an operator should look at.
    pub alarms: Vec<String>,
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLine {
    /// Whether it is heard.
    pub connected: bool,
    /// One line.
    pub text: String,
    /// Its release.
    pub release: Option<String>,
    /// Xen's release.
    pub xen: Option<String>,
}

/// How a guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLine {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub uuid: String,
    /// Its domain.
    pub domid: Option<u16>,
    /// `none`, `restart`, `failover` or `continuous`.
    pub protection: String,
    /// `unknown`, `starting`, `healthy`, `suspect`, `failed`, `stopped`, `ending` or `given-up`.
    pub state: String,
    /// The same in a sentence.
    pub detail: String,
    /// How long ago the last heartbeat was heard.
    pub heartbeat_ago_ms: Option<u64>,
    /// Probes.
    pub probes: Vec<ProbeLine>,
    /// Restarts within the last hour.
    pub restarts: u32,
    /// Restarts within an hour before the monitor gives up.
    pub restarts_max: u32,
    /// What is being done about it.
    pub action: Option<String>,
    /// How long the present outage lasts.
    pub outage_ms: Option<u64>,
}

/// How a probe is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeLine {
    /// The question.
    pub target: String,
    /// How long ago it was last answered.
    pub answered_ago_ms: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub error: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Place in the order of all events.
    pub seq: u64,
    /// When.
    pub wall_ms: u64,
    /// To which guest, by name.
    pub guest: Option<String>,
    /// To which guest, by uuid.
    pub uuid: Option<String>,
    /// Kind, for scripts; the names of the journal.
    pub kind: String,
    /// One line, for people.
    pub text: String,
}

/// One guest's outages and what may honestly be said about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub uuid: String,
    /// Time in which the guest should have run and was heard, or was known to be down.
    pub observed_ms: u64,
    /// Time in which it should have run and nobody was listening.
    pub unobserved_ms: u64,
    /// Time lost to failures.
    pub down_ms: u64,
    /// Time lost to restarts asked for in the guest.
    pub planned_ms: u64,
    /// Failures.
    pub failures: u64,
    /// Share of the observed time in millionths, rounded down; none when nothing failed yet.
    pub parts_per_million: Option<u32>,
    /// The same in a sentence.
    pub text: String,
    /// The last outages, oldest first.
    pub outages: Vec<OutageLine>,
}

/// One outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageLine {
    /// `crash`, `watchdog`, `hang`, `unreachable`, `no domain` or `reboot`.
    pub cause: String,
    /// Asked for in the guest.
    pub planned: bool,
    /// The last moment at which the guest may have been well.
    pub began_wall_ms: u64,
    /// How long it lasted, or lasts.
    pub length_ms: u64,
    /// From `began` until the monitor was sure.
    pub detect_ms: u64,
    /// From there until a new domain ran.
    pub restart_ms: Option<u64>,
    /// From there (detection) until the guest showed again what it showed before.
    pub restore_ms: Option<u64>,
    /// `restored`, `removed`, `given up`, `host rebooted`; none: it goes on.
    pub end: Option<String>,
}
