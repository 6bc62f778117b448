//! Every bound of the drivers, with its unit and its reason. A number that a guest, a file or the agent can drive is here or it is a mistake.

use parapet_wire::driver::offer;
use std::time::Duration;
use xen_abi::ids::PAGE_SIZE;
use xen_abi::io::netif;

/// Rings (block queues, network queues and consoles together) that one driver serves: handles are opened before the sandbox closes.
pub const MAX_RINGS: usize = 64;
/// Disks of one guest.
pub const MAX_DISKS: usize = 32;
/// Network interfaces of one guest.
pub const MAX_NETS: usize = 16;
/// Consoles of one guest.
pub const MAX_CONSOLES: usize = 16;

/// A guest's driver runs as this user plus the guest's domain id, unless the agent says otherwise.
pub const UID_BASE: u32 = 0x5000_0000;
/// Descriptors of one driver: two per ring, the devices' own, and room for an order's.
pub const MAX_DESCRIPTORS_OPEN: u64 = 1024;
/// Locked memory of one driver, in bytes: the registered buffers of all rings (those of block rings are the larger ones).
pub const MAX_LOCKED_BYTES: u64 = (MAX_RINGS * (BLK_BUFFER_PAGES + 64) * PAGE_SIZE) as u64;

/// Block requests taken from one ring in one pass.
pub const BLK_REQUESTS_PER_PASS: u32 = 64;
/// Segments of an indirect request, as offered.
pub const BLK_INDIRECT_SEGMENTS: usize = offer::DISK_MAX_INDIRECT_SEGMENTS as usize;
/// Pages of segment descriptors that those need (512 descriptors of 8 bytes fit a page).
pub const BLK_INDIRECT_PAGES: usize = BLK_INDIRECT_SEGMENTS.div_ceil(PAGE_SIZE / 8);
/// Pages of private buffer per ring: what can be in flight at the medium at once. 4 MiB hold a whole stock ring (32 requests of 128 KiB).
pub const BLK_BUFFER_PAGES: usize = 1024;
/// Guest pages kept mapped per ring with persistent grants; the longest unused ones go first. A stock ring uses at most 32 x 33.
pub const BLK_PERSISTENT_PAGES: usize = 2048;
/// Times a request may be started, by this driver and its predecessors, before it is answered with an error: it kills us.
pub const BLK_POISON_STARTS: u32 = 5;
/// A request started more often than this runs alone, so that its companions do not share the blame.
pub const BLK_SUSPECT_STARTS: u32 = 2;
/// Refused requests that one queue writes to the log; later ones are only counted.
pub const BLK_REFUSALS_LOGGED: u32 = 8;
/// How long a ring thread looks at an empty ring before it sleeps, at most.
pub const BLK_POLL: Duration = Duration::from_micros(20);
/// Pauses between two tries for the lock of a disk.
pub const LOCK_RETRY: Duration = Duration::from_millis(5);
/// Longest wait for the lock of a disk that an order may ask for.
pub const LOCK_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Longest that a disk may take to become quiet when it is frozen. The guest is suspended meanwhile, as a rule.
pub const FREEZE_MAX: Duration = Duration::from_secs(30);
/// How long a ring's thread may take to heed an ask, beside what the ask itself takes: a pass at most.
pub const ASK_GRACE: Duration = Duration::from_secs(5);

/// Events of a console per [`CONSOLE_PERIOD`]; the port stays masked for the rest of it. The figures are xenconsoled's.
pub const CONSOLE_EVENTS_PER_PERIOD: u32 = 30;
/// See [`CONSOLE_EVENTS_PER_PERIOD`].
pub const CONSOLE_PERIOD: Duration = Duration::from_millis(200);
/// Printed bytes kept for a reader who is slow or not there; the oldest go first.
pub const CONSOLE_BACKLOG_BYTES: usize = 256 << 10;
/// Bytes read from a terminal at once.
pub const CONSOLE_INPUT_BYTES: usize = 1024;
/// Bytes of a console's log file.
pub const CONSOLE_LOG_BYTES: u64 = 1 << 20;
/// Bytes of a driver's own log.
pub const DRIVER_LOG_BYTES: u64 = 1 << 20;
/// How long to leave a terminal alone that nobody has open.
pub const CONSOLE_HANGUP_RETRY: Duration = Duration::from_millis(200);

/// Slots of a packet from the guest that are served (`XEN_NETIF_NR_SLOTS_MIN`); a packet of more is dropped.
pub const NET_SLOTS: usize = netif::NR_SLOTS_MIN;
/// Slots of a packet from the guest at which the interface stops. The figure is netback's.
pub const NET_SLOTS_FATAL: usize = 20;
/// Extras of one packet: as many as there are kinds.
pub const NET_EXTRAS: usize = 4;
/// VLAN tags before the IP header.
pub const NET_VLAN_TAGS: usize = 2;
/// Extension headers of IPv6 before the transport.
pub const NET_IPV6_EXTENSIONS: usize = 6;
/// Packets taken from a transmit ring in one pass.
pub const NET_TX_PACKETS_PER_PASS: usize = 64;
/// Buffer for the packets of one pass, in bytes: a whole ring of full slots, with headers and alignment.
pub const NET_TX_BUFFER_BYTES: usize =
    netif::RING_SLOTS as usize * PAGE_SIZE + NET_TX_PACKETS_PER_PASS * 128;
/// Frames read from a tap at once: what is queued here for a guest that takes nothing.
pub const NET_RX_BATCH: usize = 32;
/// Reads in a call to a tap that had little lately: one that finds a frame, one that finds the end.
pub const NET_RX_LEAST_READS: usize = 2;
/// Room for one frame with the tap's header, in bytes.
pub const NET_RX_FRAME_BYTES: usize = 17 * PAGE_SIZE;
/// Frames in one call to the tap.
pub const NET_BATCH: u32 = 64;
/// When to look again whether a frontend has room that does not tell.
pub const NET_LOOK_AGAIN: Duration = Duration::from_millis(30);

/// How long the agent may take over a message that it has begun.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of a ring thread that nothing wakes: a safety net, never needed for progress.
pub const THREAD_WAIT: Duration = Duration::from_secs(600);
/// How long draining a device may take before it is given up (a medium that never answers).
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

const _: () = assert!(
    BLK_INDIRECT_PAGES <= 8,
    "blkif has room for 8 indirect pages"
);
const _: () = assert!(
    BLK_BUFFER_PAGES >= BLK_INDIRECT_SEGMENTS,
    "the largest request must fit"
);
const _: () = assert!(BLK_PERSISTENT_PAGES >= 2 * (BLK_INDIRECT_SEGMENTS + BLK_INDIRECT_PAGES));
const _: () = assert!(BLK_SUSPECT_STARTS < BLK_POISON_STARTS);
const _: () = assert!(NET_RX_FRAME_BYTES > netif::MAX_TX_SIZE + 12);
const _: () = assert!(NET_BATCH as usize >= NET_TX_PACKETS_PER_PASS);
const _: () = assert!(NET_BATCH as usize >= NET_RX_BATCH);
