//! list, vcpu-list, vm-list, uptime: what is running.

use super::Call;
use super::details;
use super::domain::{names, read_each, resolve};
use super::reach::Failure;
use crate::format::bitmap::ranges;
use crate::format::list::{self as text, Columns, ListRow, RunState, ShutdownCode};
use crate::format::uptime::{self, UptimeRow};
use crate::format::vcpus::{self, VcpuRow, VcpuState};
use crate::format::vms::{self, VmRow};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;
use xen_abi::domain::{CpuMap, DomainInfo};
use xen_abi::ids::{DomId, VcpuId};

/// KiB in a page.
const PAGE_KIB: u64 = 4;

/// `list`.
///
/// # Errors
/// An unknown domain.
pub fn list(call: &mut Call<'_>) -> Result<u8, Failure> {
    if call.parsed.operands.len() > 1 {
        if let Some(command) = super::table::lookup("list") {
            write!(call.out, "{}", super::help::of(command))?;
        }
        return Ok(1);
    }
    let domains = match call.parsed.operands.first().cloned() {
        None => call.reach.domains()?.domain_list(DomId::DOM0)?,
        Some(operand) => {
            let domid = resolve(call.reach, &operand)?;
            let info = call.reach.domains()?.domain_info(domid)?;
            vec![info.ok_or_else(|| {
                Failure::new(format!("Error: Domain '{operand}' does not exist."))
            })?]
        }
    };
    if call.parsed.has('l') {
        let text = details::long(call, &domains)?;
        write!(call.out, "{text}")?;
        return Ok(0);
    }
    let ids: Vec<DomId> = domains.iter().map(|info| info.domid).collect();
    let names = names(call.reach, &ids)?;
    let columns = Columns {
        verbose: call.parsed.has('v'),
        label: call.parsed.has('Z'),
        claims: false,
        pool: call.parsed.has('c'),
        nodes: call.parsed.has('n'),
    };
    let mut rows = Vec::with_capacity(domains.len());
    for (info, name) in domains.iter().zip(names) {
        rows.push(row(call, info, name, columns)?);
    }
    write!(call.out, "{}", text::list(&rows, columns))?;
    Ok(0)
}

fn row(
    call: &Call<'_>,
    info: &DomainInfo,
    name: Option<String>,
    columns: Columns,
) -> Result<ListRow, Failure> {
    let pool = if columns.pool {
        Some(pool_name(call, info.cpupool)?)
    } else {
        None
    };
    let nodes = if columns.nodes {
        node_affinity(call, info)?
    } else {
        String::new()
    };
    Ok(ListRow {
        name,
        domid: u32::from(info.domid.0),
        current_kib: info.tot_pages * PAGE_KIB,
        outstanding_kib: info.outstanding_pages * PAGE_KIB,
        vcpus_online: info.online_vcpus,
        state: RunState {
            running: info.running,
            blocked: info.blocked,
            paused: info.paused,
            shutdown: info
                .shutdown
                .map(|reason| ShutdownCode(u32::from(reason.code()))),
            dying: info.dying,
        },
        cpu_time_ns: info.cpu_time_ns,
        uuid: Uuid::from_bytes(info.handle.0),
        security_label: None,
        pool,
        nodes,
    })
}

fn pool_name(call: &Call<'_>, id: u32) -> Result<String, Failure> {
    let name = read_each(call.reach, [format!("/local/pool/{id}/name")])?
        .pop()
        .flatten();
    Ok(name.unwrap_or_else(|| format!("Pool-{id}")))
}

/// Nodes on which a domain's vcpus may run: `all` unless its hard affinity says otherwise.
fn node_affinity(call: &Call<'_>, info: &DomainInfo) -> Result<String, Failure> {
    let topology = call.reach.host()?.cpu_topology()?;
    let nodes = u32::try_from(call.reach.host()?.numa()?.len()).unwrap_or(u32::MAX);
    let mut found = CpuMap::default();
    for vcpu in 0..=info.max_vcpu_id {
        let (hard, _) = call
            .reach
            .domains()?
            .vcpu_affinity(info.domid, VcpuId(vcpu))?;
        for (cpu, place) in topology.iter().enumerate() {
            if let Some(place) = place
                && hard.contains(cpu)
            {
                found.insert(place.node as usize);
            }
        }
    }
    Ok(cpu_text(&found, nodes))
}

/// `vcpu-list`.
///
/// # Errors
/// An unknown domain.
pub fn vcpu_list(call: &mut Call<'_>) -> Result<u8, Failure> {
    let cpus = call.reach.host()?.physinfo()?.nr_cpus;
    write!(call.out, "{}", vcpus::header())?;
    let domains = match call.parsed.operands.clone() {
        all if all.is_empty() => call.reach.domains()?.domain_list(DomId::DOM0)?,
        named => {
            let mut domains = Vec::new();
            for operand in named {
                let domid = resolve(call.reach, &operand)?;
                let info = call.reach.domains()?.domain_info(domid)?;
                domains.push(info.ok_or_else(|| {
                    Failure::new(format!("{operand} is an invalid domain identifier (rc=-6)"))
                })?);
            }
            domains
        }
    };
    let ids: Vec<DomId> = domains.iter().map(|info| info.domid).collect();
    for (info, name) in domains.iter().zip(names(call.reach, &ids)?) {
        let mut rows = Vec::new();
        for vcpu in 0..=info.max_vcpu_id {
            let facts = call.reach.domains()?.vcpu_info(info.domid, VcpuId(vcpu))?;
            let (hard, soft) = call
                .reach
                .domains()?
                .vcpu_affinity(info.domid, VcpuId(vcpu))?;
            let state = if facts.online {
                VcpuState::Online {
                    cpu: facts.cpu.0,
                    running: facts.running,
                    blocked: facts.blocked,
                }
            } else {
                VcpuState::Offline
            };
            rows.push(VcpuRow {
                name: name.clone(),
                domid: u32::from(info.domid.0),
                vcpu,
                state,
                cpu_time_ns: facts.cpu_time_ns,
                hard: cpu_text(&hard, cpus),
                soft: cpu_text(&soft, cpus),
            });
        }
        write!(call.out, "{}", vcpus::rows(&rows))?;
    }
    Ok(0)
}

/// A CPU or node set as xl prints it, of `count` there are.
fn cpu_text(map: &CpuMap, count: u32) -> String {
    ranges((0..count).filter(|cpu| map.contains(*cpu as usize)), count)
}

/// `vm-list`.
///
/// # Errors
/// Xen or xenstored does not answer.
pub fn vm_list(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domains = call.reach.domains()?.domain_list(DomId::DOM0)?;
    let ids: Vec<DomId> = domains.iter().map(|info| info.domid).collect();
    let rows: Vec<VmRow> = domains
        .iter()
        .zip(names(call.reach, &ids)?)
        .map(|(info, name)| VmRow {
            uuid: Uuid::from_bytes(info.handle.0),
            domid: u32::from(info.domid.0),
            name,
        })
        .collect();
    write!(call.out, "{}", vms::vm_list(&rows))?;
    Ok(0)
}

/// `uptime`.
///
/// # Errors
/// An unknown domain.
pub fn uptime(call: &mut Call<'_>) -> Result<u8, Failure> {
    let ids: Vec<DomId> = if call.parsed.operands.is_empty() {
        call.reach
            .domains()?
            .domain_list(DomId::DOM0)?
            .into_iter()
            .map(|info| info.domid)
            .collect()
    } else {
        let operands = call.parsed.operands.clone();
        operands
            .iter()
            .map(|operand| resolve(call.reach, operand))
            .collect::<Result<_, _>>()?
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut rows = Vec::new();
    for (domid, name) in ids.iter().zip(names(call.reach, &ids)?) {
        let seconds = if *domid == DomId::DOM0 {
            host_uptime()
        } else {
            started(call, *domid)?.map(|at| now.saturating_sub(at))
        };
        if let Some(seconds) = seconds {
            rows.push(UptimeRow {
                name,
                domid: u32::from(domid.0),
                seconds,
            });
        }
    }
    let text = if call.parsed.has('s') {
        uptime::short(&rows, &time_of_day(now))
    } else {
        uptime::table(&rows)
    };
    write!(call.out, "{text}")?;
    Ok(0)
}

/// When a domain was started, in seconds since the epoch.
fn started(call: &Call<'_>, domid: DomId) -> Result<Option<u64>, Failure> {
    let Some(vm) = read_each(call.reach, [format!("/local/domain/{domid}/vm")])?
        .pop()
        .flatten()
    else {
        return Ok(None);
    };
    let text = read_each(call.reach, [format!("{vm}/start_time")])?
        .pop()
        .flatten();
    Ok(text.and_then(|text| text.split('.').next()?.parse().ok()))
}

fn host_uptime() -> Option<u64> {
    std::fs::read_to_string("/proc/uptime")
        .ok()?
        .split(['.', ' '])
        .next()?
        .parse()
        .ok()
}

/// The local time of day, as stock.
fn time_of_day(now: u64) -> String {
    let (hour, minute, second) = xen_host::localtime::time_of_day(now);
    format!("{hour:02}:{minute:02}:{second:02}")
}
