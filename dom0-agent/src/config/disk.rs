//! Disks as xl-disk-configuration(5) describes them.

use serde::{Deserialize, Serialize};

/// Format of a disk image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    /// Plain bytes: a file or a block device.
    #[default]
    Raw,
    /// QEMU copy-on-write, first version.
    Qcow,
    /// QEMU copy-on-write, second version.
    Qcow2,
    /// Microsoft virtual hard disk.
    Vhd,
    /// QEMU enhanced disk.
    Qed,
    /// No medium (CD drives).
    Empty,
}

/// Which kind of backend serves a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBackend {
    /// Not said: the agent chooses.
    #[default]
    Auto,
    /// The kernel's blkback on a block device.
    Phy,
    /// blktap, which no longer exists in Xen.
    Tap,
    /// QEMU's disk backend.
    Qdisk,
    /// Someone else serves it, from xenstore alone.
    Standalone,
}

/// Protocol between the guest and its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskSpecification {
    /// Not said: the Xen block protocol.
    #[default]
    Unknown,
    /// The Xen block protocol.
    Xen,
    /// virtio-blk.
    Virtio,
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Path in the backend's domain; `None` for an empty drive.
    pub target: Option<String>,
    /// Name of the virtual device as written: `xvda`, `hda1`, `sdc`, `d0p1`.
    pub vdev: String,
    /// Image format.
    pub format: DiskFormat,
    /// Whether the guest may write.
    pub writable: bool,
    /// Whether the guest sees a CD drive.
    pub cdrom: bool,
    /// Whether the guest sees a removable medium.
    pub removable: bool,
    /// Backend chosen by the configuration.
    pub backend: DiskBackend,
    /// Name or number of the domain that serves the disk (`backend=`); `None` is dom0.
    pub backend_domain: Option<String>,
    /// Block script (`script=`), relative to the scripts directory.
    pub script: Option<String>,
    /// Whether direct I/O is safe for the image file (`direct-io-safe`).
    pub direct_io_safe: bool,
    /// Whether the guest is offered discard (`discard`, `no-discard`).
    pub discard: Option<bool>,
    /// Protocol offered to the guest.
    pub specification: DiskSpecification,
    /// Whether the guest trusts the backend (`trusted`, `untrusted`).
    pub trusted: Option<bool>,
    /// Whether grants are used for virtio (`grant_usage=`).
    pub grant_usage: Option<bool>,
}
