//! What the agent orders of a guest's split driver, and what the driver answers.
//!
//! The agent speaks xenbus and opens everything; the driver gets ring references, ports and descriptors, and serves them. An order and its
//! descriptors travel in one message (`SCM_RIGHTS`), descriptors in the order that the variant's documentation gives. Orders are
//! idempotent: an agent that was restarted may say everything again, and a driver that already serves a device as ordered answers the same.

use serde::{Deserialize, Serialize};
use xen_abi::ids::{DomId, GrantRef, Port};

/// Most descriptors in one order.
pub const MAX_FDS: usize = 16;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the agent, repeated in the answer.
    pub id: u64,
    /// What to do.
    pub body: OrderBody,
}

/// The orders. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderBody {
    /// First message of a connection.
    Hello,
    /// Opens the medium of a disk and takes its lock (the fence against a predecessor's I/O). Descriptor: the image or device, whose open file description nobody else keeps.
    OpenDisk(OpenDisk),
    /// Maps the rings of a disk and serves them. Descriptor: the in-flight journal (a file in memory-backed storage that outlives the driver).
    ConnectDisk(ConnectDisk),
    /// Finishes what is in flight, unmaps the rings; the disk stays open.
    DisconnectDisk {
        /// Which.
        devid: u32,
    },
    /// Closes the disk, after [`OrderBody::DisconnectDisk`].
    CloseDisk {
        /// Which.
        devid: u32,
    },
    /// Serves a network interface. Descriptors: one tap queue per entry of `queues`.
    ConnectNet(ConnectNet),
    /// Stops serving a network interface.
    DisconnectNet {
        /// Which.
        devid: u32,
    },
    /// Serves a console. Descriptors: the pty's master, then the log file if `log` is set.
    ConnectConsole(ConnectConsole),
    /// Counters.
    Stats,
    /// Finishes what is in flight on every device, leaves journals clean and exits: a planned replacement.
    Quiesce,
    /// Notes from now on which extents of a disk the guest writes or discards; what is in flight now counts. Descriptor: the map
    /// ([`crate::dirty`]), a sealed memfd of the agent's. A successor gets the same map before its rings are connected, and goes on with it.
    /// Ends with [`OrderBody::UntrackDisk`], and when the agent's connection ends.
    TrackDisk(TrackDisk),
    /// Moves what was noted into the half of the map that the agent reads. Whatever is still in flight is noted again when it ends.
    TakeDirty {
        /// Which.
        devid: u32,
    },
    /// Notes no more, and lets go of the map.
    UntrackDisk {
        /// Which.
        devid: u32,
    },
    /// Takes no more requests of a tracked disk, ends those in flight and flushes the medium; answered when all is quiet. Ends with
    /// [`OrderBody::ThawDisk`] or [`OrderBody::UntrackDisk`], and when the agent's connection ends.
    FreezeDisk {
        /// Which.
        devid: u32,
        /// How long that may take, in milliseconds. Afterwards the order has failed and the disk is served.
        within_ms: u64,
    },
    /// Takes requests again.
    ThawDisk {
        /// Which.
        devid: u32,
    },
    /// As [`OrderBody::OpenDisk`], of a disk that somebody else may still use: it is measured and not locked, and not served before it was opened too.
    PrepareDisk(OpenDisk),
}

impl OrderBody {
    /// What it is, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::OpenDisk(_) => "open disk",
            Self::ConnectDisk(_) => "connect disk",
            Self::DisconnectDisk { .. } => "disconnect disk",
            Self::CloseDisk { .. } => "close disk",
            Self::ConnectNet(_) => "connect net",
            Self::DisconnectNet { .. } => "disconnect net",
            Self::ConnectConsole(_) => "connect console",
            Self::Stats => "stats",
            Self::Quiesce => "quiesce",
            Self::TrackDisk(_) => "track disk",
            Self::TakeDirty { .. } => "take dirty",
            Self::UntrackDisk { .. } => "untrack disk",
            Self::FreezeDisk { .. } => "freeze disk",
            Self::ThawDisk { .. } => "thaw disk",
            Self::PrepareDisk(_) => "prepare disk",
        }
    }
}

/// See [`OrderBody::OpenDisk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDisk {
    /// Device number (51712 = xvda).
    pub devid: u32,
    /// Refuse every write, whatever the guest asks.
    pub read_only: bool,
    /// Offer discard, where the medium can.
    pub discard: bool,
    /// Use the page cache instead of `O_DIRECT`; set by the agent when the medium cannot do direct I/O (tmpfs).
    pub buffered: bool,
    /// How long to wait for the lock, in milliseconds.
    pub lock_timeout_ms: u64,
}

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Size in units of 512 bytes.
    pub sectors: u64,
    /// Smallest I/O in bytes.
    pub sector_size: u32,
    /// Size of a physical sector in bytes.
    pub physical_sector_size: u32,
    /// `Some(granularity)` in bytes when discard works.
    pub discard_granularity: Option<u32>,
}

/// What a disk backend offers to a frontend. The agent writes these into xenstore.
pub mod offer {
    /// Rings of one disk.
    pub const DISK_MAX_QUEUES: u32 = 4;
    /// log2 of the pages of one disk ring.
    pub const DISK_MAX_RING_PAGE_ORDER: u32 = 4;
    /// Segments of an indirect request.
    pub const DISK_MAX_INDIRECT_SEGMENTS: u32 = 256;
    /// Queues of one network interface.
    pub const NET_MAX_QUEUES: u32 = 8;
}

/// Layout of requests in a ring: the guest's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `x86_64-abi`.
    X86_64,
    /// `x86_32-abi`.
    X86_32,
}

/// One shared ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Pages of the ring, in order; a power of two of them.
    pub refs: Vec<GrantRef>,
    /// The guest's event channel.
    pub port: Port,
}

/// See [`OrderBody::ConnectDisk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectDisk {
    /// Device number.
    pub devid: u32,
    /// Request layout.
    pub protocol: Protocol,
    /// The frontend keeps its grants mapped.
    pub persistent: bool,
    /// One per queue.
    pub rings: Vec<Ring>,
    /// A successor on rings that a dead driver served: recover from the journal. False: the journal is made new.
    pub resume: bool,
}

/// See [`OrderBody::TrackDisk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackDisk {
    /// Device number.
    pub devid: u32,
    /// Of a disk whose predecessor was frozen: its rings, once connected, run dry and stay quiet.
    pub frozen: bool,
}

/// See [`OrderBody::ConnectNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectNet {
    /// Device number (0 = the first interface).
    pub devid: u32,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// One per queue.
    pub queues: Vec<NetQueue>,
    /// What the frontend can take.
    pub features: NetFeatures,
    /// A successor on rings that a dead driver served.
    pub resume: bool,
}

/// One queue of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetQueue {
    /// Ring for packets from the guest.
    pub tx_ref: GrantRef,
    /// Ring for packets to the guest.
    pub rx_ref: GrantRef,
    /// Event channel of the transmit ring.
    pub tx_port: Port,
    /// Event channel of the receive ring; equal to `tx_port` without split event channels.
    pub rx_port: Port,
}

/// What a network frontend can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent feature nodes of netif.h, read by name"
)]
pub struct NetFeatures {
    /// Packets in several slots.
    pub sg: bool,
    /// TCPv4 segments up to 64 KiB.
    pub gso_tcpv4: bool,
    /// TCPv6 segments up to 64 KiB.
    pub gso_tcpv6: bool,
    /// IPv4 packets without a checksum.
    pub csum_ipv4: bool,
    /// IPv6 packets without a checksum.
    pub csum_ipv6: bool,
    /// The frontend wants an event when receive slots are needed (`feature-rx-notify`).
    pub rx_notify: bool,
}

/// See [`OrderBody::ConnectConsole`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectConsole {
    /// Console index, 0 is the primary one.
    pub index: u32,
    /// The ring's page.
    pub gref: GrantRef,
    /// The guest's event channel.
    pub port: Port,
    /// A log file comes along.
    pub log: bool,
}

/// From the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To the order of this id.
    Done {
        /// The order's id.
        id: u64,
        /// Outcome.
        result: Result<Outcome, DriverFault>,
    },
    /// Unasked: a device stopped by the driver because the guest broke a rule, or its medium failed for good.
    Fault(DeviceFault),
}

/// What an order achieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// To `Hello`.
    Hello {
        /// The guest served.
        domid: DomId,
        /// Process id.
        pid: u32,
        /// Disks whose rings are being served.
        disks: Vec<u32>,
        /// Network interfaces being served.
        nets: Vec<u32>,
        /// Consoles being served.
        consoles: Vec<u32>,
    },
    /// To `OpenDisk`.
    Medium(Medium),
    /// To `ConnectDisk`.
    Disk {
        /// Requests of the predecessor that were issued again.
        redone: u32,
    },
    /// To `Stats`.
    Stats(Vec<DeviceStats>),
    /// To everything else.
    Done,
    /// To `TakeDirty`.
    Dirty {
        /// Extents that were moved.
        extents: u64,
    },
    /// To `FreezeDisk`: every request that was taken is answered, and the medium is flushed.
    Frozen {
        /// Requests that the guest has put into its rings and that were not taken: none of a guest that is suspended, as a rule.
        untaken: u32,
    },
}

/// Why an order failed: text for a person, and whether the same order may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct DriverFault {
    /// One line naming object and cause.
    pub text: String,
    /// Trying again may work (the predecessor's port or lock is not free yet).
    pub retry: bool,
}

/// A device that was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFault {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Which.
    pub devid: u32,
    /// One line: which rule was broken.
    pub text: String,
}

/// The kinds of device a driver serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Block (`vbd`).
    Disk,
    /// Network (`vif`).
    Net,
    /// Console.
    Console,
}

/// Counters of one device since it was connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStats {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Which.
    pub devid: u32,
    /// Requests or packets from the guest.
    pub from_guest: u64,
    /// Reads answered or packets to the guest.
    pub to_guest: u64,
    /// Bytes from the guest.
    pub bytes_from_guest: u64,
    /// Bytes to the guest.
    pub bytes_to_guest: u64,
    /// Requests refused or packets dropped.
    pub refused: u64,
    /// Events sent.
    pub notifies: u64,
    /// Wake-ups by an event.
    pub wakeups: u64,
}
