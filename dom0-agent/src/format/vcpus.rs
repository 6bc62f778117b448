//! `xl vcpu-list`.

use super::list::{NULL, put, seconds};

/// What a virtual CPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VcpuState {
    /// Taken offline by the guest or never brought online.
    Offline,
    /// Online on a physical CPU.
    Online {
        /// The physical CPU it runs on or ran on last.
        cpu: u32,
        /// On it at this moment.
        running: bool,
        /// Waiting for an event.
        blocked: bool,
    },
}

/// One virtual CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuRow {
    /// Name of the guest.
    pub name: Option<String>,
    /// Number of the guest.
    pub domid: u32,
    /// Number of the virtual CPU.
    pub vcpu: u32,
    /// What it is doing.
    pub state: VcpuState,
    /// CPU time used so far, in nanoseconds.
    pub cpu_time_ns: u64,
    /// CPUs it may run on, as [`super::bitmap::ranges`] writes them.
    pub hard: String,
    /// CPUs it prefers.
    pub soft: String,
}

/// The header, which stock prints before it looks at its operands.
#[must_use]
pub fn header() -> String {
    format!(
        "{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} {}\n",
        "Name", "ID", "VCPU", "CPU", "State", "Time(s)", "Affinity (Hard / Soft)"
    )
}

/// The rows without the header.
#[must_use]
pub fn rows(vcpus: &[VcpuRow]) -> String {
    let mut out = String::new();
    for row in vcpus {
        put_row(&mut out, row);
    }
    out
}

fn put_row(out: &mut String, row: &VcpuRow) {
    let name = row.name.as_deref().unwrap_or(NULL);
    put(
        out,
        format_args!("{name:<32} {:>5} {:>5}", row.domid, row.vcpu),
    );
    match row.state {
        VcpuState::Offline => put(out, format_args!("{:>5}   --p", "-")),
        VcpuState::Online {
            cpu,
            running,
            blocked,
        } => {
            let running = if running { 'r' } else { '-' };
            let blocked = if blocked { 'b' } else { '-' };
            put(out, format_args!("{cpu:>5}   {running}{blocked}-"));
        }
    }
    let seconds = seconds(row.cpu_time_ns);
    put(
        out,
        format_args!(" {seconds:>9.1}  {} / {}\n", row.hard, row.soft),
    );
}
