//! info, dmesg, debug-keys: the host.

use super::Call;
use super::reach::Failure;
use crate::format::info::{
    self as text, Capabilities, CpuPlace, HostInfo, Hypervisor, Kernel, Machine, NodeMemory,
    Topology,
};
use xen_host::seam::HostControl;

/// Pages in a MiB.
const PAGES_PER_MIB: u64 = 256;

/// `info`.
///
/// # Errors
/// Not a Xen control domain. A part that cannot be found out is said on stderr and left out.
pub fn info(call: &mut Call<'_>) -> Result<u8, Failure> {
    let host = call.reach.host()?;
    let facts = HostInfo {
        kernel: kernel(),
        machine: said(call.err, "physinfo", machine(host))?,
        hypervisor: said(call.err, "version", hypervisor(host))?,
    };
    let numa = call.parsed.has('n');
    let text = match call.parsed.operands.first() {
        Some(key) if !numa => text::info_key(&facts, key),
        _ if numa => text::info(&facts, Some(&topology(host)?)),
        _ => text::info(&facts, None),
    };
    write!(call.out, "{text}")?;
    Ok(0)
}

fn said<T>(
    err: &mut dyn std::io::Write,
    what: &str,
    found: Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            writeln!(err, "{what}: {error}")?;
            Ok(None)
        }
    }
}

fn kernel() -> Option<Kernel> {
    let name = nix::sys::utsname::uname().ok()?;
    let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    Some(Kernel {
        host: text(name.nodename()),
        release: text(name.release()),
        version: text(name.version()),
        machine: text(name.machine()),
    })
}

fn machine(host: &dyn HostControl) -> Result<Machine, Failure> {
    let physical = host.physinfo()?;
    let can = physical.capabilities;
    let pools = host.cpupools()?;
    let in_pools = (0..physical.nr_cpus)
        .filter(|cpu| pools.iter().any(|pool| pool.cpus.contains(*cpu as usize)));
    let used = u32::try_from(in_pools.count()).unwrap_or(u32::MAX);
    Ok(Machine {
        nr_cpus: physical.nr_cpus,
        max_cpu_id: physical.max_cpu_id,
        nr_nodes: physical.nr_nodes,
        cores_per_socket: physical.cores_per_socket,
        threads_per_core: physical.threads_per_core,
        cpu_khz: physical.cpu_khz,
        hw_caps: physical.hw_cap,
        capabilities: Capabilities {
            pv: can.pv,
            hvm: can.hvm,
            directio: can.directio,
            hap: can.hap,
            shadow: can.shadow,
            iommu_hap_pt_share: can.iommu_hap_pt_share,
            vmtrace: can.vmtrace,
            vpmu: can.vpmu,
            gnttab_v1: can.gnttab_v1,
            gnttab_v2: can.gnttab_v2,
        },
        total_mib: physical.total_pages / PAGES_PER_MIB,
        free_mib: physical
            .free_pages
            .saturating_sub(physical.outstanding_pages)
            / PAGES_PER_MIB,
        sharing_freed_mib: 0,
        sharing_used_mib: 0,
        outstanding_mib: physical.outstanding_pages / PAGES_PER_MIB,
        free_cpus: physical.nr_cpus.saturating_sub(used),
    })
}

fn hypervisor(host: &dyn HostControl) -> Result<Hypervisor, Failure> {
    let strings = host.strings()?;
    Ok(Hypervisor {
        major: strings.major,
        minor: strings.minor,
        extra: strings.extra_version,
        capabilities: strings.capabilities,
        scheduler: scheduler_name(host.scheduler_id()?).to_owned(),
        page_size: strings.page_size,
        virt_start: strings.virt_start,
        changeset: strings.changeset,
        command_line: strings.command_line,
        compiler: strings.compiler,
        compile_by: strings.compile_by,
        compile_domain: strings.compile_domain,
        compile_date: strings.compile_date,
        build_id: strings.build_id,
    })
}

/// Name of a scheduler (`XEN_SCHEDULER_*`).
fn scheduler_name(id: u32) -> &'static str {
    match id {
        4 => "sedf",
        5 => "credit",
        6 => "credit2",
        7 => "arinc653",
        8 => "rtds",
        9 => "null",
        _ => "unknown",
    }
}

fn topology(host: &dyn HostControl) -> Result<Topology, Failure> {
    let cpus = host
        .cpu_topology()?
        .into_iter()
        .zip(0..)
        .filter_map(|(place, cpu)| {
            place.map(|place| CpuPlace {
                cpu,
                core: place.core,
                socket: place.socket,
                node: place.node,
            })
        });
    let nodes = host
        .numa()?
        .into_iter()
        .zip(0..)
        .map(|(node, number)| NodeMemory {
            node: number,
            size: node.memory_bytes,
            free: node.free_bytes,
            distances: node.distances,
        });
    Ok(Topology {
        cpus: cpus.collect(),
        devices: Vec::new(),
        nodes: nodes.collect(),
    })
}

/// `dmesg`.
///
/// # Errors
/// The log cannot be read.
pub fn dmesg(call: &mut Call<'_>) -> Result<u8, Failure> {
    let log = call.reach.host()?.console_log(call.parsed.has('c'))?;
    call.out.write_all(&log)?;
    Ok(0)
}

/// `debug-keys`.
///
/// # Errors
/// Xen refuses.
pub fn debug_keys(call: &mut Call<'_>) -> Result<u8, Failure> {
    let keys = call.operand(0).to_owned();
    call.reach.host()?.debug_keys(&keys)?;
    Ok(0)
}
