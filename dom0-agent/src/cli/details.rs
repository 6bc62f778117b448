//! `list -l`: what is stored about each guest, brought up to date by what Xen and xenstore know now.

use super::Call;
use super::domain::read_each;
use super::reach::{Failure, Reach};
use crate::device::userdata;
use crate::format::json::{self, Json, Live, Scheduler};
use std::collections::BTreeSet;
use uuid::Uuid;
use xen_abi::domain::DomainInfo;
use xen_abi::domctl::scheduler_name;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreOp, StoreReply, TxId};

/// KiB in a page.
const PAGE_KIB: u64 = 4;

/// The `-l` form. A domain without a stored form is left out, as stock does.
///
/// # Errors
/// Xen or xenstored does not answer.
pub fn long(call: &Call<'_>, domains: &[DomainInfo]) -> Result<String, Failure> {
    let mut guests = Vec::new();
    for info in domains {
        if let Some(stored) = stored(call.reach, info) {
            guests.push((stored, live(call.reach, info)?));
        }
    }
    Ok(json::long_list(guests))
}

fn stored(reach: &dyn Reach, info: &DomainInfo) -> Option<Json> {
    let uuid = Uuid::from_bytes(info.handle.0);
    let bytes = userdata::read(&reach.userdata(), info.domid, uuid).ok()??;
    json::parse_userdata(&bytes).ok()
}

fn live(reach: &dyn Reach, info: &DomainInfo) -> Result<Live, Failure> {
    let root = format!("/local/domain/{}", info.domid);
    let texts = ["name", "memory/static-max", "memory/target"].map(|node| format!("{root}/{node}"));
    let cpus = (0..=info.max_vcpu_id).map(|vcpu| format!("{root}/cpu/{vcpu}/availability"));
    let mut read = read_each(reach, texts.into_iter().chain(cpus))?.into_iter();
    let mut next = || read.next().flatten();
    let name = next();
    let mut number = || next().and_then(|text| text.parse().ok());
    let (max_kib, target_kib) = (number(), number());
    // Nobody writes dom0's until stock xl first asks for them: then it writes what Xen says.
    let of_dom0 = |pages: u64| (info.domid == DomId::DOM0).then_some(pages * PAGE_KIB);
    Ok(Live {
        domid: u32::from(info.domid.0),
        name,
        max_kib: max_kib.or_else(|| of_dom0(info.max_pages)),
        target_kib: target_kib.or_else(|| of_dom0(info.tot_pages)),
        uuid: Some(Uuid::from_bytes(info.handle.0)),
        online_vcpus: Some(online(read)),
        scheduler: scheduler(reach, info.domid)?,
        disks: Some(devices(reach, info.domid, "vbd")?),
        vifs: Some(devices(reach, info.domid, "vif")?),
    })
}

/// Numbers of the entries that say `online`.
fn online(availability: impl Iterator<Item = Option<String>>) -> BTreeSet<u32> {
    (0..)
        .zip(availability)
        .filter(|(_, word)| word.as_deref() == Some("online"))
        .map(|(vcpu, _)| vcpu)
        .collect()
}

/// `None` for a domain that went meanwhile, and for a scheduler without a name.
fn scheduler(reach: &dyn Reach, domid: DomId) -> Result<Option<Scheduler>, Failure> {
    let Ok(now) = reach.domains()?.scheduling(domid) else {
        return Ok(None);
    };
    Ok(scheduler_name(now.scheduler).map(|name| Scheduler {
        name: name.to_owned(),
        share: now
            .share
            .map(|share| (u32::from(share.weight), u32::from(share.cap))),
    }))
}

/// Numbers of a guest's devices of one class, from libxl's own list of them.
fn devices(reach: &dyn Reach, domid: DomId, class: &str) -> Result<BTreeSet<u32>, Failure> {
    let list = StoreOp::List(format!("/libxl/{domid}/device/{class}"));
    let reply = reach.store()?.call(TxId::NONE, &[list])?.pop();
    let names = match reply {
        Some(Ok(StoreReply::Children(names))) => names,
        _ => Vec::new(),
    };
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::online;

    #[test]
    fn only_vcpus_that_say_so_are_online() {
        let words = ["online", "offline", "", "online"].map(|word| Some(word.to_owned()));
        assert_eq!(online(words.into_iter().chain([None])), [0, 3].into());
    }
}
