//! pause, unpause, destroy, rename, trigger, sysrq.

use super::Call;
use super::domain::resolve;
use super::reach::Failure;
use parapet_wire::agent::Request;
use xen_abi::domain::Trigger;
use xen_abi::ids::{DomId, VcpuId};
use xen_host::xenstore::store::{StoreExt, TxId};

/// `pause`. As in stock xl, only an unknown name is a failure.
///
/// # Errors
/// No domain of that name.
pub fn pause(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    forgive(call, "pause", |call| {
        call.reach.domains()?.pause(domid).map_err(Failure::from)
    })
}

/// `unpause`.
///
/// # Errors
/// No domain of that name.
pub fn unpause(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    forgive(call, "unpause", |call| {
        call.reach.domains()?.unpause(domid).map_err(Failure::from)
    })
}

/// Fire and forget: the failure is said, the exit code stays 0.
fn forgive(
    call: &mut Call<'_>,
    what: &str,
    work: impl FnOnce(&mut Call<'_>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    if let Err(error) = work(call) {
        writeln!(call.err, "{what}: {error}")?;
    }
    Ok(0)
}

/// `destroy`.
///
/// # Errors
/// No such domain, dom0, or an agent that does not run.
pub fn destroy(call: &mut Call<'_>) -> Result<u8, Failure> {
    let operand = call.operand(0).to_owned();
    let domid = resolve(call.reach, &operand)?;
    if domid == DomId::DOM0 && !call.parsed.has('f') {
        return Err(Failure::new("Not destroying domain 0; use -f to force."));
    }
    call.reach
        .agent()?
        .ask(&Request::Destroy { domid })
        .map_err(|error| Failure::new(format!("destroy failed: {error}")))?;
    Ok(0)
}

/// `rename`.
///
/// # Errors
/// No such domain, or a name that is taken.
pub fn rename(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let name = call.operand(1).to_owned();
    call.reach
        .agent()?
        .ask(&Request::Rename {
            domid,
            name: name.clone(),
        })
        .map_err(|error| Failure::new(format!("Can't rename domain '{name}': {error}")))?;
    Ok(0)
}

/// `trigger`.
///
/// # Errors
/// No domain of that name, or an unknown trigger.
pub fn trigger(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let name = call.operand(1).to_owned();
    let trigger = match name.as_str() {
        "nmi" => Trigger::Nmi,
        "reset" => Trigger::Reset,
        "init" => Trigger::Init,
        "power" => Trigger::Power,
        "sleep" => Trigger::Sleep,
        "s3resume" => {
            return Err(Failure::new(
                "trigger s3resume: only HVM guests sleep, and these are not there yet",
            ));
        }
        _ => return Err(Failure::new(format!("Invalid trigger \"{name}\""))),
    };
    let vcpu = match call.parsed.operands.get(2) {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Failure::new(format!("{text}: not a VCPU number")))?,
    };
    forgive(call, "trigger", |call| {
        call.reach
            .domains()?
            .send_trigger(domid, trigger, VcpuId(vcpu))
            .map_err(Failure::from)
    })
}

/// `sysrq`.
///
/// # Errors
/// No domain of that name, or more than a letter.
pub fn sysrq(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    let letter = call.operand(1).to_owned();
    if letter.chars().count() != 1 {
        return Err(Failure::new("Invalid sysrq."));
    }
    forgive(call, "sysrq", |call| {
        let path = format!("/local/domain/{domid}/control/sysrq");
        call.reach
            .store()?
            .write_text(TxId::NONE, &path, &letter)
            .map_err(Failure::from)
    })
}
