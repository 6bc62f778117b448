//! Kinds of host: what differs between one machine of the lab and another.

use super::key::Key;

/// Room of the product disk in bytes; fixed, because a snapshot remembers the size of every disk.
pub const PRODUCT_DISK_BYTES: u64 = 192 * 1024 * 1024;

/// What starts dom0's user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// The lab's own few lines: xenstored, xenconsoled, a bridge, the delegate.
    Lab,
    /// systemd and Debian's own units, plus the delegate.
    Systemd,
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
    /// Guest time counts instructions: figures repeat, real time does not matter.
    pub deterministic: bool,
    /// dom0's user space.
    pub init: Init,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            name: "plain".into(),
            suite: "trixie".into(),
            memory_mib: 2048,
            dom0_mib: 1024,
            cpus: 1,
            deterministic: false,
            init: Init::Lab,
        }
    }
}

impl Shape {
    /// The host of the benchmarks: time is an instruction count.
    #[must_use]
    pub fn deterministic() -> Self {
        Self {
            name: "deterministic".into(),
            deterministic: true,
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

    /// The shape of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::default(),
            Self::deterministic(),
            Self::systemd(),
            Self::debian12(),
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

    /// Machine, accelerator and CPU.
    ///
    /// `rdtscp` would kill PVH guests under emulation; without `monitor` Xen can panic in its idle loop on this CPU model.
    #[must_use]
    pub fn machine(&self) -> Vec<String> {
        let words: &[&str] = if self.deterministic {
            &[
                "-machine",
                "q35,hpet=off",
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=1,sleep=off",
                "-cpu",
                "EPYC,-rdtscp,-monitor",
            ]
        } else {
            &[
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,-rdtscp",
            ]
        };
        let mut line: Vec<String> = words.iter().map(ToString::to_string).collect();
        line.extend([
            "-smp".into(),
            self.cpus.to_string(),
            "-m".into(),
            self.memory_mib.to_string(),
        ]);
        line
    }

    /// What is still set in dom0 when it has booted.
    ///
    /// dom0 shares the one CPU with the guests. At the weight of a guest, 256, one that computes makes every command in dom0 take ten times as long.
    /// Where time is measured, the scheduler is left as Xen has it.
    #[must_use]
    pub fn settings(&self) -> &'static str {
        if self.deterministic {
            "true"
        } else {
            "xl sched-credit2 -d 0 -w 2048"
        }
    }

    /// Adds everything that a snapshot of this shape depends on.
    #[must_use]
    pub fn key(&self, key: Key) -> Key {
        let size = PRODUCT_DISK_BYTES.to_string();
        key.with(self.machine().join(" "))
            .with(self.xen_line())
            .with(self.dom0_line())
            .with(self.settings())
            .with(size)
    }
}
