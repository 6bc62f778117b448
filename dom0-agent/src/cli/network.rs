//! network-attach, network-list, network-detach.

use super::Call;
use super::block::backend_domain;
use super::config_file::xl_conf;
use super::domain::{read_each, resolve};
use super::reach::Failure;
use crate::config::unserved;
use crate::config::vif::{Mac, VifSpec, apply, parameters};
use crate::format::{devices, json};
use parapet_wire::agent::Request;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, TxId};

/// `network-attach`.
///
/// # Errors
/// A bad parameter, no such domain, or the agent's refusal.
pub fn attach(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let mut spec: VifSpec = xl_conf(call)?.vif.interface();
    for operand in &call.parsed.operands[1..] {
        for parameter in parameters(operand) {
            if let Some(line) = apply(&mut spec, parameter, "command line")
                .map_err(|error| Failure::new(error.to_string()))?
            {
                writeln!(call.err, "{line}")?;
            }
        }
    }
    if call.globals.dry_run {
        write!(call.out, "{}", json::vif_dry_run(&spec))?;
        return Ok(0);
    }
    if let Some(warning) = unserved::warning("command line", unserved::of_vif(&spec)) {
        writeln!(call.err, "{warning}")?;
    }
    let spec = serde_json::to_string(&spec).map_err(|error| Failure::new(error.to_string()))?;
    call.reach
        .agent()?
        .ask(&Request::AttachNet { domid, spec })
        .map_err(|error| Failure::new(format!("network-attach failed: {error}")))?;
    Ok(0)
}

/// `network-detach`, by device number or MAC address.
///
/// # Errors
/// No such domain or device, or a guest that does not let go.
pub fn detach(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let name = call.operand(1).to_owned();
    let devid = match Mac::parse(&name) {
        None => name.parse().ok(),
        Some(mac) => interfaces(call, domid)?
            .into_iter()
            .find(|row| Mac::parse(&row.mac) == Some(mac))
            .and_then(|row| u32::try_from(row.index).ok()),
    };
    let Some(devid) = devid else {
        return Err(Failure::new(format!("Unknown device {name}.")));
    };
    call.reach
        .agent()?
        .ask(&Request::DetachNet { domid, devid })
        .map_err(|error| Failure::new(format!("network-detach failed: {error}")))?;
    Ok(0)
}

/// `network-list`.
///
/// # Errors
/// An unknown domain, or xenstored does not answer.
pub fn list(call: &mut Call<'_>) -> Result<u8, Failure> {
    let mut rows = Vec::new();
    let mut code = 0;
    for operand in call.parsed.operands.clone() {
        match resolve(call.reach, &operand) {
            Ok(domid) => rows.extend(interfaces(call, domid)?),
            Err(error) => {
                writeln!(call.err, "{error}")?;
                code = 1;
            }
        }
    }
    write!(call.out, "{}", devices::network_list(&rows))?;
    Ok(code)
}

fn interfaces(call: &Call<'_>, domid: DomId) -> Result<Vec<devices::NetworkRow>, Failure> {
    let root = format!("/libxl/{domid}/device/vif");
    let mut rows = Vec::new();
    for devid in call.reach.store()?.list(TxId::NONE, &root)? {
        let front = format!("/local/domain/{domid}/device/vif/{devid}");
        let read = read_each(
            call.reach,
            [
                format!("{root}/{devid}/backend"),
                format!("{front}/mac"),
                format!("{front}/handle"),
                format!("{front}/state"),
                format!("{front}/event-channel"),
                format!("{front}/tx-ring-ref"),
                format!("{front}/rx-ring-ref"),
            ],
        )?;
        let text = |at: usize| read.get(at).cloned().flatten().unwrap_or_default();
        let number = |at: usize| text(at).parse().unwrap_or(-1);
        rows.push(devices::NetworkRow {
            index: devid.parse().unwrap_or(-1),
            backend_domid: backend_domain(&text(0)),
            mac: text(1),
            handle: number(2),
            state: number(3),
            event_channel: number(4),
            tx_ring_ref: number(5),
            rx_ring_ref: number(6),
            backend_path: text(0),
        });
    }
    Ok(rows)
}
