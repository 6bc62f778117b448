//! What the commands and the monitor ask of the agent, and what it answers.
//!
//! One request, then zero or more [`Reply::Progress`] or [`Reply::Event`], then one final reply. The first request of a connection is
//! [`Request::Hello`]. Who may ask is decided by the caller's uid, taken from the socket.

use serde::{Deserialize, Serialize};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

/// From a client. Append only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// First request.
    Hello {
        /// Program name, for the agent's log.
        client: String,
    },
    /// Builds and starts a guest.
    Create(Create),
    /// Destroys a domain (ours or a stock one) and all that belongs to it.
    Destroy {
        /// Which.
        domid: DomId,
    },
    /// Adds a disk, `xl` syntax already parsed into JSON of the agent's `DiskSpec`.
    AttachDisk {
        /// Which guest.
        domid: DomId,
        /// `DiskSpec` as JSON.
        spec: String,
    },
    /// Removes a disk.
    DetachDisk {
        /// Which guest.
        domid: DomId,
        /// Device number.
        devid: u32,
        /// Do not wait for the guest's consent.
        force: bool,
    },
    /// Adds a network interface, as JSON of the agent's `VifSpec`.
    AttachNet {
        /// Which guest.
        domid: DomId,
        /// `VifSpec` as JSON.
        spec: String,
    },
    /// Removes a network interface.
    DetachNet {
        /// Which guest.
        domid: DomId,
        /// Device number.
        devid: u32,
    },
    /// Changes the name.
    Rename {
        /// Which guest.
        domid: DomId,
        /// New name.
        name: String,
    },
    /// All guests the agent knows, running or waiting for a restart.
    Guests,
    /// Stops a guest (if it still runs) and starts it again from its stored configuration: what the monitor does about a failure.
    /// Idempotent: answered by `Done`, with nothing done, when the guest's domain is not `domid` any more.
    Restart {
        /// Which guest, by uuid: a domid may be gone.
        uuid: Handle,
        /// The domain that the decision was made about; `None`: the guest had none (`Waiting`).
        domid: Option<DomId>,
        /// One line for the journal and the log.
        why: String,
    },
    /// Gives a guest up: destroys what is left and forgets it. Idempotent like `Restart`.
    GiveUp {
        /// Which guest.
        uuid: Handle,
        /// The domain that the decision was made about.
        domid: Option<DomId>,
        /// One line for the journal and the log.
        why: String,
    },
    /// Events from now on, until the client hangs up. The first one is a [`Event::Snapshot`].
    Subscribe,
    /// Replaces every driver process by a new one, one after the other, without the guests noticing.
    ReplaceDrivers {
        /// Only this guest's.
        domid: Option<DomId>,
    },
    /// The agent's health and counters.
    Status,
    /// Changes protection class and watching of a guest, now and in its stored configuration. Answered by `Done`; subscribers get [`Event::Changed`].
    Protect {
        /// Which guest.
        uuid: Handle,
        /// The new class.
        protection: Protection,
        /// The new way of watching; `None` leaves it.
        watching: Option<Watching>,
    },
    /// Saves a guest: a libxl stream goes to a file of the client's. Last request of its connection; see [`Reply::SendFile`].
    Save(Save),
    /// Makes a guest as [`Request::Create`] does, from a libxl stream in a file of the client's. Last request of its connection; see [`Reply::SendFile`].
    Restore(Create),
    /// The answer to [`Reply::Written`]: the file is where it belongs. Without it the guest runs on.
    Keep,
    /// Moves a guest over a connection of the client's. Last request of its connection; see [`Reply::SendFile`].
    Migrate(Migrate),
    /// Makes a guest that is moved here over a connection of the client's. Last request of its connection; see [`Reply::SendFile`].
    Receive(Receive),
    /// Says where a guest runs that was given to another host, which then did not answer.
    SettleMove {
        /// Which guest.
        domid: DomId,
        /// It does not run there and never will: it goes on here. Otherwise what is left of it here goes.
        here: bool,
    },
    /// Asks about the pool of pre-built shells, or changes it. Answered by [`Reply::Shells`].
    Shells(ShellRequest),
}

/// See [`Request::Migrate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrate {
    /// Which guest.
    pub domid: DomId,
    /// The agent's `DomainConfig` as JSON, to go with it instead of the guest's own.
    pub config: Option<String>,
    /// It runs while its memory goes, if the host can do that.
    pub live: bool,
    /// Its memory goes a second time, to be compared there.
    pub verify: bool,
    /// How long it should stand still at most for the sake of its memory, in milliseconds; `None`: the agent's default.
    pub max_downtime_ms: Option<u64>,
    /// Its disks are copied to the other side, which was told so.
    pub with_disks: bool,
}

/// See [`Request::Receive`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receive {
    /// How to start it.
    pub start: Create,
    /// Its disks come along; `None`: they are here.
    pub disks: Option<ReceiveDisks>,
}

/// How disks are taken that come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiveDisks {
    /// Files that are there and not empty are replaced.
    pub replace: bool,
}

/// How a move went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// From the first byte to the other side's word that the guest runs, in microseconds.
    pub total_micros: u64,
    /// From asking the guest to suspend to that word: it stood still for at most this long.
    pub pause_micros: u64,
    /// Of that, until it had suspended.
    pub suspend_micros: u64,
    /// Rounds in which memory went, the last one included.
    pub rounds: u32,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// See [`Request::Shells`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ShellRequest {
    /// How the pool is.
    List,
    /// Keeps `count` shells for guests of a configuration like this; takes the place of a template of the same name.
    Add {
        /// The agent's `DomainConfig` as JSON.
        config: String,
        /// How many.
        count: u32,
    },
    /// Gives shells up, and keeps none of the kind any more.
    Drop {
        /// Only this template's.
        name: Option<String>,
    },
}

/// One kind of shell: what is kept, and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellTemplate {
    /// Name in the configuration that it was made from.
    pub name: String,
    /// Shells that are to be there.
    pub count: u32,
    /// Domains of those that are there.
    pub ready: Vec<DomId>,
    /// Memory of one, in KiB.
    pub memory_kib: u64,
    /// Kernel.
    pub kernel: String,
    /// Why some are missing, if the agent knows.
    pub trouble: Option<String>,
}

/// See [`Request::Save`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Save {
    /// Which guest.
    pub domid: DomId,
    /// What becomes of it.
    pub after: AfterSave,
    /// The agent's `DomainConfig` as JSON, to stand in the file instead of the guest's own.
    pub config: Option<String>,
}

/// What becomes of a guest that was saved. In all cases it goes on where it was if it could not be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterSave {
    /// It is destroyed.
    Destroy,
    /// It runs on.
    Resume,
    /// It is there, paused.
    Pause,
}

/// See [`Request::Create`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The agent's `DomainConfig` as JSON.
    pub config: String,
    /// Leave it paused.
    pub paused: bool,
    /// Nobody acts on its events: no restart, no clean-up.
    pub unmanaged: bool,
}

/// From the agent. Append only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// The agent's release.
        release: String,
        /// Xen's release.
        xen: String,
    },
    /// A long request goes on.
    Progress(String),
    /// To `Create` and `Restart`.
    Created {
        /// The new domain.
        domid: DomId,
        /// What was spent on it.
        cost: Cost,
    },
    /// To `Guests`.
    Guests(Vec<Guest>),
    /// To `Subscribe`, again and again.
    Event(Event),
    /// To `Status`, as JSON for people and scripts.
    Status(String),
    /// Everything went well.
    Done,
    /// It did not.
    Failed(Failure),
    /// To `Save` and `Restore`: the client sends the descriptor of its file, as one message of `xen_host::fdpass`, standing where the libxl stream
    /// begins. Then comes `Written` or `Created`, or a failure. To `Migrate` and `Receive`: two descriptors, to the other side and from it (`Receive`:
    /// from it and to it); then comes any number of `Progress`, and `Moved` or `Created`, or a failure.
    SendFile {
        /// To `Save` and `Migrate`: the guest's configuration as libxl's JSON, for the file's header.
        config: String,
    },
    /// To `Save`, once the file is complete and on its medium: the client puts it where it belongs and says [`Request::Keep`]. Then the final reply comes.
    Written,
    /// To `Migrate`.
    Moved(Moved),
    /// To `Shells`: the pool as it is now.
    Shells(Vec<ShellTemplate>),
}

/// Work one operation cost; carries over to hardware, unlike time in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Hypercalls made.
    pub hypercalls: u64,
    /// Round trips to xenstored.
    pub store_round_trips: u64,
    /// Wall time in microseconds.
    pub micros: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind, for the exit code.
    pub kind: FailureKind,
    /// One message naming object, cause and way out.
    pub text: String,
}

/// Kinds of failure, by what a caller does about them. The numbers are xl's exit codes of `create`, negated libxl errors.
///
/// libxl forgets the kind once it has made a domain: memory that is not there and a name that is taken end with 3 as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// Anything else (3).
    Failed,
    /// Memory (3).
    NoMemory,
    /// Configuration (6).
    Invalid,
    /// The guest did not answer in time (8).
    GuestTimedOut,
    /// Something of the host did not answer in time (9).
    TimedOut,
    /// Exists already (3).
    Exists,
    /// No such domain (21).
    NoDomain,
    /// The caller may not (13, no libxl equivalent).
    NotPermitted,
    /// Not there yet (4).
    NotImplemented,
    /// Nobody knows what became of it (3).
    Undefined,
}

impl FailureKind {
    /// Exit code of `xl create`.
    #[must_use]
    pub fn create_exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::NoMemory | Self::Exists | Self::Undefined => 3,
            Self::NotImplemented => 4,
            Self::Invalid => 6,
            Self::GuestTimedOut => 8,
            Self::TimedOut => 9,
            Self::NotPermitted => 13,
            Self::NoDomain => 21,
        }
    }
}

/// Protection class of a guest (`protect=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Event actions of the configuration only.
    #[default]
    None,
    /// Restarted in place by the monitor.
    Restart,
    /// Also restarted on the other host.
    Failover,
    /// Also survives the loss of a host without losing work.
    Continuous,
}

/// How the monitor watches a guest from inside and outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watching {
    /// Longest silence of `parapet-guest`'s heartbeat before the guest counts as hung, in milliseconds; `None`: not watched. Counting starts with the first beat.
    pub heartbeat_timeout_ms: Option<u64>,
    /// `tcp:ADDR:PORT`, `http://...`, `ping:ADDR`.
    pub probes: Vec<String>,
    /// Restarts within an hour before the monitor gives up; `None`: the monitor's default.
    pub max_restarts: Option<u32>,
}

/// One guest as the agent knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// Its uuid; stays through restarts.
    pub uuid: Handle,
    /// Its name.
    pub name: String,
    /// The domain, while there is one.
    pub domid: Option<DomId>,
    /// What it is doing.
    pub state: GuestState,
    /// Protection class.
    pub protection: Protection,
    /// How to watch it.
    pub watching: Watching,
    /// Process id of its driver.
    pub driver_pid: Option<u32>,
}

/// Life of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestState {
    /// Being built.
    Building,
    /// Running (or paused, or blocked).
    Running,
    /// Shut down with this reason; the domain is still there.
    Down(ShutdownReason),
    /// No domain; waits for a restart by the monitor.
    Waiting,
    /// Being destroyed.
    Dying,
    /// Suspended, on its way to another host.
    Leaving,
}

/// A heartbeat that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which guest.
    pub uuid: Handle,
    /// Its counter.
    pub counter: u64,
}

/// What happened to guests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Everything as it is now.
    Snapshot(Vec<Guest>),
    /// A guest was made or restarted and runs.
    Started(Guest),
    /// A guest shut down. For a protected guest that failed, the agent waits for the monitor's decision.
    ShutDown {
        /// Which guest.
        uuid: Handle,
        /// Its domain.
        domid: DomId,
        /// Why.
        reason: ShutdownReason,
    },
    /// The heartbeats that moved since the last look at all of them.
    Heartbeats(Vec<Heartbeat>),
    /// A driver died and was replaced.
    DriverReplaced {
        /// Which guest.
        uuid: Handle,
        /// From death to all devices served again, in microseconds.
        micros: u64,
    },
    /// A guest is gone for good.
    Gone {
        /// Which guest.
        uuid: Handle,
    },
    /// `parapet-guest` said goodbye (see [`crate::heartbeat`]): its silence from now on means nothing.
    HeartbeatStopped {
        /// Which guest.
        uuid: Handle,
    },
    /// Name, class or watching of a guest changed; it was not restarted.
    Changed(Guest),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Kind, receive, send};

    #[test]
    fn requests_and_replies_survive_the_wire() {
        let request = Request::Create(Create {
            config: "{}".into(),
            paused: true,
            unmanaged: false,
        });
        let mut wire = Vec::new();
        send(&mut wire, Kind::AgentRequest, &request).unwrap();
        assert_eq!(
            receive::<Request>(&mut wire.as_slice(), Kind::AgentRequest).unwrap(),
            request
        );
        let reply = Reply::Event(Event::ShutDown {
            uuid: Handle([7; 16]),
            domid: DomId(3),
            reason: ShutdownReason::Crash,
        });
        let mut wire = Vec::new();
        send(&mut wire, Kind::AgentReply, &reply).unwrap();
        assert_eq!(
            receive::<Reply>(&mut wire.as_slice(), Kind::AgentReply).unwrap(),
            reply
        );
    }
}
