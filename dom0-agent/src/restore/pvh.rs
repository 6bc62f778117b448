//! What a PVH domain gets before and after its memory.
//!
//! The register state comes last, because loading it decides which vcpus run. Pages that the platform shares with backends are cleared:
//! the other side of each ring is a new one. Source: Xen `tools/libs/guest/xg_sr_restore_x86_hvm.c`.

use super::collect::Collected;
use super::error::RestoreError;
use super::step;
use crate::build::limits::PAGE;
use crate::build::newborn::Newborn;
use crate::build::plan_pvh::{self, Shape};
use crate::build::{Built, Channel, pvh};
use xen_abi::hvm::params::{
    BUFIOREQ_PFN, CONSOLE_EVTCHN, CONSOLE_PFN, IOREQ_PFN, STORE_EVTCHN, STORE_PFN,
};
use xen_abi::ids::Port;

/// Parameters that name a page which both sides start anew with.
const CLEARED: [u32; 4] = [STORE_PFN, CONSOLE_PFN, IOREQ_PFN, BUFIOREQ_PFN];

/// Before memory: pool, clock of timers, memory map.
pub(super) fn prepare(newborn: &Newborn<'_>) -> Result<(), RestoreError> {
    pvh::prepare(newborn)?;
    let request = newborn.request;
    let map = plan_pvh::memory_map_of(Shape {
        nr_pages: request.max_memory_kib * 1024 / PAGE,
        vcpus: request.vcpus,
        max_vcpus: request.max_vcpus,
    });
    let set = newborn.host.set_memory_map(newborn.domid, &map);
    step(set, "setting the memory map")
}

/// After memory: everything else.
pub(super) fn complete(
    newborn: &Newborn<'_>,
    collected: &Collected,
    (store_port, console_port): (Port, Port),
) -> Result<Built, RestoreError> {
    let (host, domid) = (newborn.host, newborn.domid);
    let context = collected.context()?;
    let (store, console) = collected.rings()?;
    if let Some(info) = collected.tsc() {
        step(host.set_tsc_info(domid, info), "setting the guest's clock")?;
    }
    for (index, gfn) in collected.params() {
        if CLEARED.contains(index) {
            clear(newborn, *gfn)?;
        }
    }
    pvh::set_params(newborn, collected.params())?;
    pvh::set_params(
        newborn,
        &[
            (STORE_EVTCHN, store_port.0.into()),
            (CONSOLE_EVTCHN, console_port.0.into()),
        ],
    )?;
    newborn.seed_grants(store, console)?;
    let set = host.set_hvm_context(domid, context);
    step(set, "setting the guest's vcpus")?;
    let channel = |frame, port| Channel { frame, port };
    Ok(Built {
        domid,
        store: channel(store, store_port),
        console: channel(console, console_port),
    })
}

fn clear(newborn: &Newborn<'_>, gfn: u64) -> Result<(), RestoreError> {
    let page = newborn.host.map_foreign(newborn.domid, &[gfn], true);
    let page = step(page, "clearing a page shared with a backend")?;
    page.fill(0, page.len(), 0);
    Ok(())
}
