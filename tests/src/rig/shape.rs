//! Kinds of host: what differs between one machine of the lab and another.

use super::key::Key;

/// Room of the product disk in bytes; fixed, because a snapshot remembers the size of every disk.
pub const PRODUCT_DISK_BYTES: u64 = 192 * 1024 * 1024;

/// An instruction takes two nanoseconds of the machine's time.
const TICK: &str = "shift=1";

/// What starts dom0's user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// The lab's own few lines: xenstored, xenconsoled, a bridge, the delegate.
    Lab,
    /// systemd and Debian's own units, plus the delegate.
    Systemd,
}

/// What the machine's clock does while all its CPUs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It goes on with the real one.
    Waits,
    /// It jumps to the next event, so that nothing depends on the real one. Whoever waits for a disk of the machine finds that much time has passed.
    Jumps,
}

/// Which hypervisor is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// Debian's, out of the image.
    Debian,
    /// Debian's with the patches of `xen-patches/`, as `cargo xtask xen` left it.
    Patched,
}

/// A kind of host. Two hosts of one shape are forks of one snapshot.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Short name, part of file names.
    pub name: String,
    /// Debian suite of dom0.
    pub suite: String,
    /// Memory of the whole machine.
    pub memory_mib: u32,
    /// Memory of dom0.
    pub dom0_mib: u32,
    /// Physical CPUs; dom0 always has one vCPU.
    pub cpus: u32,
    /// dom0's user space.
    pub init: Init,
    /// Its clock when nothing happens.
    pub idle: Idle,
    /// What runs below dom0.
    pub hypervisor: Hypervisor,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            name: "plain".into(),
            suite: "trixie".into(),
            memory_mib: 2048,
            dom0_mib: 1024,
            cpus: 1,
            init: Init::Lab,
            idle: Idle::Waits,
            hypervisor: Hypervisor::Debian,
        }
    }
}

impl Shape {
    /// The host of the benchmarks.
    #[must_use]
    pub fn measured() -> Self {
        Self {
            name: "measured".into(),
            idle: Idle::Jumps,
            ..Self::default()
        }
    }

    /// A dom0 as Debian starts it.
    #[must_use]
    pub fn systemd() -> Self {
        Self {
            name: "systemd".into(),
            init: Init::Systemd,
            ..Self::default()
        }
    }

    /// Debian 12: Xen 4.17 and a 6.1 kernel.
    #[must_use]
    pub fn debian12() -> Self {
        Self {
            name: "debian12".into(),
            suite: "bookworm".into(),
            ..Self::default()
        }
    }

    /// The patched hypervisor below the usual dom0.
    #[must_use]
    pub fn patched() -> Self {
        Self {
            name: "patched".into(),
            hypervisor: Hypervisor::Patched,
            ..Self::default()
        }
    }

    /// The patched hypervisor, for benchmarks.
    #[must_use]
    pub fn timed_patched() -> Self {
        Self {
            name: "timed-patched".into(),
            hypervisor: Hypervisor::Patched,
            ..Self::measured()
        }
    }

    /// The shape of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::default(),
            Self::measured(),
            Self::systemd(),
            Self::debian12(),
            Self::patched(),
            Self::timed_patched(),
        ]
        .into_iter()
        .find(|shape| shape.name == name)
    }

    /// Xen's command line. Without `eager-fpu` SSE registers are lost between domains under emulation.
    #[must_use]
    pub fn xen_line(&self) -> String {
        format!(
            "console=com1 com1=115200,8n1 dom0_mem={0}M,max:{0}M dom0_max_vcpus=1 spec-ctrl=eager-fpu loglvl=all guest_loglvl=all",
            self.dom0_mib
        )
    }

    /// dom0's kernel command line.
    #[must_use]
    pub fn dom0_line(&self) -> String {
        let init = match self.init {
            Init::Lab => "",
            Init::Systemd => " lab.init=systemd",
        };
        format!("console=hvc0 net.ifnames=0 quiet{init}")
    }

    /// Machine and CPU.
    ///
    /// `rdtscp` would kill PVH guests under emulation; with `monitor` Xen can panic in its idle loop; with an HPET, or as `-cpu max`, the emulator can stop
    /// with "Bad icount read".
    #[must_use]
    pub fn machine(&self) -> Vec<String> {
        let words = ["-machine", "q35,hpet=off", "-cpu", "EPYC,-rdtscp,-monitor"];
        let mut line: Vec<String> = words.iter().map(ToString::to_string).collect();
        line.extend([
            "-smp".into(),
            self.cpus.to_string(),
            "-m".into(),
            self.memory_mib.to_string(),
        ]);
        line
    }

    /// Its clock counts instructions, two nanoseconds each, whatever the real machine does meanwhile: figures repeat, and a busy machine only takes longer.
    ///
    /// By a real clock an emulated CPU is hardly fast enough for the timer interrupts of three kernels; one that lost a part of its core did nothing else,
    /// and guests that were up did not answer for minutes.
    #[must_use]
    pub fn clock(&self) -> [String; 4] {
        let sleep = match self.idle {
            Idle::Waits => "on",
            Idle::Jumps => "off",
        };
        let icount = format!("{TICK},sleep={sleep}");
        ["-accel", "tcg,thread=single", "-icount", &icount].map(str::to_owned)
    }

    /// Adds everything that a snapshot of this shape depends on.
    #[must_use]
    pub fn key(&self, key: Key) -> Key {
        let size = PRODUCT_DISK_BYTES.to_string();
        key.with(self.machine().join(" "))
            .with(self.clock().join(" "))
            .with(self.xen_line())
            .with(self.dom0_line())
            .with(size)
    }
}
