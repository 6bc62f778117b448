//! The guest that block and network are timed in: the minimal one with fio and iperf3 in its ramdisk.

use std::fmt;

use anyhow::Result;

use crate::rig::{Host, deadline};
use crate::stock::{Kind, XL};

use super::OUR_XL;

/// Its ramdisk in dom0.
const RAMDISK: &str = "/run/initrd-bench";
/// Its disk in dom0: a file, all of it allocated.
const IMAGE: &str = "/run/medium/bench.raw";
/// Size of that file.
const IMAGE_MIB: u32 = 64;

/// Archives may follow each other in a ramdisk: programs of dom0 and their libraries go behind the minimal guest's own.
const MAKE_RAMDISK: &str = r#"
set -e
rm -rf /run/bench; mkdir /run/bench
for file in $(ldd "$@" | grep -o '/[^ ():]*' | sort -u); do
    mkdir -p /run/bench${file%/*}; cp -L $file /run/bench$file
done
(cd /run/bench; find . -mindepth 1 | busybox cpio -o -H newc) > /run/bench.cpio 2> /dev/null
cat /lab/guest/initrd /run/bench.cpio > $RAMDISK
rm -r /run/bench /run/bench.cpio
mkdir -p /run/medium
case $MEDIUM in
    tmpfs) mount -t tmpfs medium /run/medium ;;
    ext4) modprobe brd rd_nr=1 rd_size=$((IMAGE_MIB * 3 / 2 * 1024)); mke2fs -q -t ext4 -m 0 /dev/ram0; mount /dev/ram0 /run/medium ;;
esac
dd if=/dev/zero of=$IMAGE bs=1M count=$IMAGE_MIB conv=fsync 2> /dev/null
"#;

/// Where the guest's disk lies in dom0. Either is memory, because a virtio disk would be waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Medium {
    /// A file on ext4, as most raw images are, on a block device in memory.
    #[default]
    Ext4,
    /// A file on tmpfs, which can do no direct I/O.
    Tmpfs,
}

impl Medium {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// What serves a guest's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Our split driver for disk and network.
    Ours,
    /// QEMU for the disk.
    Qdisk,
    /// The kernel's blkback over a loop device, and netback.
    Kernel,
}

impl Backend {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Qdisk, Self::Kernel];

    fn disk(self, loop_device: &str) -> String {
        match self {
            Self::Ours => format!("{IMAGE},raw,xvda,rw"),
            Self::Qdisk => {
                format!("format=raw,vdev=xvda,access=rw,backendtype=qdisk,target={IMAGE}")
            }
            Self::Kernel => {
                format!("format=raw,vdev=xvda,access=rw,backendtype=phy,target={loop_device}")
            }
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Ours => OUR_XL,
            Self::Qdisk | Self::Kernel => XL,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::Qdisk => "qdisk",
            Self::Kernel => "kernel",
        })
    }
}

/// Makes ramdisk and disk, once for all guests.
///
/// # Errors
/// When dom0 lacks a program or room.
pub fn prepare(host: &Host, medium: Medium) -> Result<()> {
    let size = IMAGE_MIB.to_string();
    let medium = medium.name();
    let variables = format!("RAMDISK={RAMDISK} IMAGE={IMAGE} IMAGE_MIB={size} MEDIUM={medium}\n");
    let script = variables + MAKE_RAMDISK;
    host.ok(&[
        "sh",
        "-c",
        &script,
        "make",
        super::block::FIO,
        super::net::IPERF,
    ])?;
    Ok(())
}

/// A running guest with a disk and a network interface.
#[derive(Debug)]
pub struct BenchGuest<'h> {
    /// Where it runs.
    pub host: &'h Host,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    backend: Backend,
    loop_device: String,
}

impl<'h> BenchGuest<'h> {
    /// Creates one and waits until its shell answers.
    ///
    /// # Errors
    /// When it cannot be created or does not come up.
    pub fn start(host: &'h Host, kind: Kind, backend: Backend) -> Result<Self> {
        let loop_device = match backend {
            Backend::Kernel => host.ok(&["losetup", "-f", "--show", IMAGE])?.trim().into(),
            Backend::Ours | Backend::Qdisk => String::new(),
        };
        let guest = Self {
            host,
            name: format!("bench-{backend}"),
            address: "10.77.0.30".into(),
            backend,
            loop_device,
        };
        let path = format!("/tmp/{}.cfg", guest.name);
        host.write(&path, guest.config(kind).as_bytes(), 0o644)?;
        host.ok(&[backend.tool(), "create", "-q", &path])?;
        host.guest(&guest.name).wait_up()?;
        Ok(guest)
    }

    fn config(&self, kind: Kind) -> String {
        let kind = match kind {
            Kind::Pv => "",
            Kind::Pvh => "type=\"pvh\"\ntsc_mode=\"native\"\n",
        };
        format!(
            "name=\"{}\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"{RAMDISK}\"\nmemory=384\n{kind}\
             extra=\"console=hvc0 quiet ip={}/24\"\nvif=[\"bridge=xenbr0\"]\ndisk=[\"{}\"]\n",
            self.name,
            self.address,
            self.backend.disk(&self.loop_device)
        )
    }

    /// Runs a command in it. Nothing in dom0 looks at anything until the answer is on the console.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, command: &str) -> Result<String> {
        self.host.guest(&self.name).sh(command)
    }

    /// Destroys it and waits until nothing of it is left.
    ///
    /// # Errors
    /// When something stays.
    pub fn end(self) -> Result<()> {
        self.host
            .ok(&[self.backend.tool(), "destroy", &self.name])?;
        self.host.wait_until(
            &format!("! {XL} domid {} 2> /dev/null", self.name),
            deadline::SETTLE,
        )?;
        if !self.loop_device.is_empty() {
            self.host.ok(&["losetup", "-d", &self.loop_device])?;
        }
        Ok(())
    }
}
