//! Domains by name or id, and the two commands that translate.

use super::Call;
use super::reach::{Failure, Reach};
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, StoreOp, StoreReply, TxId};

/// libxl's error for a domain that cannot be found, as xl prints it.
const INVALID: i32 = -6;

/// The domain an operand names: all digits are an id (not checked), anything else a name.
///
/// # Errors
/// No domain of that name.
pub fn resolve(reach: &dyn Reach, operand: &str) -> Result<DomId, Failure> {
    if operand.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = if operand.is_empty() {
            Some(0)
        } else {
            operand.parse::<u16>().ok()
        };
        return number.map(DomId).ok_or_else(|| unknown(operand));
    }
    by_name(reach, operand)?.ok_or_else(|| unknown(operand))
}

fn unknown(operand: &str) -> Failure {
    Failure::new(format!(
        "{operand} is an invalid domain identifier (rc={INVALID})"
    ))
}

/// The domain of this name.
///
/// # Errors
/// Xen or xenstored does not answer.
pub fn by_name(reach: &dyn Reach, name: &str) -> Result<Option<DomId>, Failure> {
    let all = reach.domains()?.domain_list(DomId::DOM0)?;
    let ids: Vec<DomId> = all.iter().map(|info| info.domid).collect();
    let names = names(reach, &ids)?;
    Ok(ids
        .into_iter()
        .zip(names)
        .find(|(_, found)| found.as_deref() == Some(name))
        .map(|(domid, _)| domid))
}

/// Names of domains, in one round trip. `None` where xenstore has none.
///
/// # Errors
/// xenstored does not answer.
pub fn names(reach: &dyn Reach, domids: &[DomId]) -> Result<Vec<Option<String>>, Failure> {
    read_each(
        reach,
        domids
            .iter()
            .map(|domid| format!("/local/domain/{domid}/name")),
    )
}

/// Reads many nodes in one round trip.
///
/// # Errors
/// xenstored does not answer.
pub fn read_each(
    reach: &dyn Reach,
    paths: impl IntoIterator<Item = String>,
) -> Result<Vec<Option<String>>, Failure> {
    let ops: Vec<StoreOp> = paths.into_iter().map(StoreOp::Read).collect();
    let replies = reach.store()?.call(TxId::NONE, &ops)?;
    Ok(replies
        .into_iter()
        .map(|reply| match reply {
            Ok(StoreReply::Value(value)) => String::from_utf8(value).ok(),
            _ => None,
        })
        .collect())
}

/// `domid`.
///
/// # Errors
/// No domain of that name.
pub fn domid(call: &mut Call<'_>) -> Result<u8, Failure> {
    let name = call.operand(0).to_owned();
    match by_name(call.reach, &name)? {
        Some(domid) => {
            writeln!(call.out, "{domid}")?;
            Ok(0)
        }
        None => Err(Failure::new(format!(
            "Can't get domid of domain name '{name}', maybe this domain does not exist."
        ))),
    }
}

/// `domname`.
///
/// # Errors
/// Not an id, or no such domain.
pub fn domname(call: &mut Call<'_>) -> Result<u8, Failure> {
    let text = call.operand(0).to_owned();
    let Ok(number) = text.parse::<u16>() else {
        return Err(Failure::new("Invalid domain id."));
    };
    let name = call
        .reach
        .store()?
        .read_text(TxId::NONE, &format!("/local/domain/{number}/name"))?;
    match name {
        Some(name) => {
            writeln!(call.out, "{name}")?;
            Ok(0)
        }
        None => Err(Failure::new(format!(
            "Can't get domain name of domain id '{number}', maybe this domain does not exist."
        ))),
    }
}
