//! block-attach, block-list, block-detach.

use super::Call;
use super::domain::{read_each, resolve};
use super::reach::Failure;
use crate::agent::hotplug::disk_number;
use crate::config::disk::parse_disk;
use crate::config::unserved;
use crate::format::{devices, json};
use parapet_wire::agent::Request;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, TxId};

/// `block-attach`.
///
/// # Errors
/// A bad specification, no such domain, or the agent's refusal.
pub fn attach(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let parts: Vec<&str> = call.parsed.operands[1..]
        .iter()
        .map(String::as_str)
        .collect();
    let spec =
        parse_disk("command line", &parts).map_err(|error| Failure::new(error.to_string()))?;
    if call.globals.dry_run {
        write!(call.out, "{}", json::disk_dry_run(&spec))?;
        return Ok(0);
    }
    if let Some(warning) = unserved::warning("command line", unserved::of_disk(&spec)) {
        writeln!(call.err, "{warning}")?;
    }
    let spec = serde_json::to_string(&spec).map_err(|error| Failure::new(error.to_string()))?;
    call.reach
        .agent()?
        .ask(&Request::AttachDisk { domid, spec })
        .map_err(|error| Failure::new(format!("block-attach failed: {error}")))?;
    Ok(0)
}

/// `block-detach`.
///
/// # Errors
/// No such domain or device, or a guest that does not let go.
pub fn detach(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let name = call.operand(1).to_owned();
    let Ok(devid) = disk_number(&name) else {
        return Err(Failure::new(format!("Error: Device {name} not connected.")));
    };
    let force = call.parsed.has('f');
    call.reach
        .agent()?
        .ask(&Request::DetachDisk {
            domid,
            devid,
            force,
        })
        .map_err(|error| Failure::new(format!("Error: Device {name} not disconnected: {error}")))?;
    Ok(0)
}

/// `block-list`. As in stock xl, an unknown domain is said and is no failure.
///
/// # Errors
/// xenstored does not answer.
pub fn list(call: &mut Call<'_>) -> Result<u8, Failure> {
    let mut rows = Vec::new();
    for operand in call.parsed.operands.clone() {
        match resolve(call.reach, &operand) {
            Ok(domid) => rows.extend(disks(call, domid)?),
            Err(error) => writeln!(call.err, "{error}")?,
        }
    }
    write!(call.out, "{}", devices::block_list(&rows))?;
    Ok(0)
}

fn disks(call: &Call<'_>, domid: DomId) -> Result<Vec<devices::BlockRow>, Failure> {
    let root = format!("/libxl/{domid}/device/vbd");
    let mut rows = Vec::new();
    for devid in call.reach.store()?.list(TxId::NONE, &root)? {
        let front = format!("/local/domain/{domid}/device/vbd/{devid}");
        let read = read_each(
            call.reach,
            [
                format!("{root}/{devid}/backend"),
                format!("{front}/state"),
                format!("{front}/event-channel"),
                format!("{front}/ring-ref"),
            ],
        )?;
        let number = |at: usize| {
            read.get(at)
                .and_then(Option::as_deref)
                .and_then(|text| text.parse().ok())
                .unwrap_or(-1)
        };
        let back = read.first().cloned().flatten().unwrap_or_default();
        rows.push(devices::BlockRow {
            vdev: devid.parse().unwrap_or(-1),
            backend_domid: backend_domain(&back),
            handle: i64::from(domid.0),
            state: number(1),
            event_channel: number(2),
            ring_ref: number(3),
            backend_path: back,
        });
    }
    Ok(rows)
}

/// Domain in a backend path `/local/domain/B/backend/...`.
#[must_use]
pub fn backend_domain(path: &str) -> i64 {
    path.split('/')
        .nth(3)
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1)
}
