//! Builds a PV guest by its plan.
//!
//! Order is law here: vcpus before the policy, memory before tables, and every writable mapping gone before the L4 is
//! pinned, because Xen turns no page into a table that anybody can write. Source: Xen `tools/libs/guest/xg_dom_x86.c`.

use super::error::{BuildError, Step};
use super::fill::GuestMemory;
use super::limits::{ORDER_2M, PAGE};
use super::newborn::Newborn;
use super::page_tables::Table;
use super::plan_pv::{PvPlan, Run};
use super::populate::extents;
use super::request::{Built, Channel};
use super::vcpu_pv::{self, Connections};
use crate::image::{Initrd, LoadedKernel};
use xen_abi::domain::{MemoryKind, MemoryRange};
use xen_abi::ids::{Mfn, VcpuId};
use xen_abi::pv::shared_info::{LEGACY_MAX_VCPUS, UPCALL_MASK_OFFSET, VcpuInfoLayout};

/// Fills a new domain.
pub(super) fn build(
    newborn: &Newborn<'_>,
    plan: &PvPlan,
    kernel: &LoadedKernel,
    initrd: Option<&Initrd>,
) -> Result<Built, BuildError> {
    let (host, domid) = (newborn.host, newborn.domid);
    let most = newborn.request.max_memory_kib * 1024;
    let map = [MemoryRange {
        address: 0,
        size: most,
        kind: MemoryKind::Ram,
    }];
    host.set_memory_map(domid, &map)
        .step("setting the memory map")?;
    let (store_port, console_port) = newborn.ports()?;
    newborn.apply_cpu_policy()?;
    host.set_address_size(domid, 64)
        .step("making it a 64-bit guest")?;

    let p2m = populate(newborn, plan.nr_pages)?;
    let guest = GuestMemory {
        memory: host,
        domid,
        p2m: Some(&p2m),
    };
    guest.load_kernel(plan.kernel, &plan.segments, kernel)?;
    if let (Some(placed), Some(initrd)) = (plan.initrd, initrd) {
        guest.load_initrd(placed, initrd)?;
    }
    let store = Channel {
        frame: guest.frame(plan.xenstore),
        port: store_port,
    };
    let console = Channel {
        frame: guest.frame(plan.console),
        port: console_port,
    };
    let shared_info = shared_info_frame(newborn)?;
    let start_info = vcpu_pv::start_info(
        plan,
        &Connections {
            shared_info,
            store: (store.frame, store.port),
            console: (console.frame, console.port),
        },
    );
    // The two ring pages follow start_info, and are zeroed with the same mapping.
    guest.write(
        Run {
            pfn: plan.start_info,
            pages: 3,
        },
        &start_info,
        "writing start_info",
    )?;
    guest.write(plan.p2m, &p2m_bytes(&p2m, plan), "writing the p2m list")?;
    write_tables(&guest, plan)?;
    if let Some(page) = plan.hypercall_page {
        host.init_hypercall_page(domid, guest.frame(page))
            .step("making the hypercall page")?;
    }
    let l4 = guest.frame(plan.tables.run().pfn);
    host.pin_l4(domid, l4).step("pinning the page tables")?;
    clear_shared_info(newborn, shared_info)?;
    host.set_vcpu_context(domid, VcpuId(0), &vcpu_pv::context(plan, Mfn(l4)))
        .step("setting the first vcpu's registers")?;
    newborn.seed_grants(store.frame, console.frame)?;
    Ok(Built {
        domid,
        store,
        console,
    })
}

/// Allocates the memory; answers the machine frame of each pfn.
fn populate(newborn: &Newborn<'_>, nr_pages: u64) -> Result<Vec<u64>, BuildError> {
    let mut p2m = vec![u64::MAX; usize::try_from(nr_pages).unwrap_or(0)];
    newborn.populate(&extents(0, nr_pages, ORDER_2M), |pfn, mfn, pages| {
        let start = usize::try_from(pfn).unwrap_or(usize::MAX);
        for (slot, mfn) in p2m.iter_mut().skip(start).zip(mfn..mfn + pages) {
            *slot = mfn;
        }
    })?;
    Ok(p2m)
}

fn p2m_bytes(p2m: &[u64], plan: &PvPlan) -> Vec<u8> {
    let size = usize::try_from(plan.p2m.pages * PAGE).unwrap_or(0);
    let mut bytes = Vec::with_capacity(size);
    p2m.iter()
        .for_each(|mfn| bytes.extend_from_slice(&mfn.to_le_bytes()));
    // What follows in the last page is no page of the guest.
    bytes.resize(size, 0xff);
    bytes
}

/// Writes all page tables; their mappings are gone when this returns.
fn write_tables(guest: &GuestMemory<'_>, plan: &PvPlan) -> Result<(), BuildError> {
    const STEP: &str = "writing the page tables";
    let runs = [
        Some(plan.tables.run()),
        plan.p2m_tables
            .as_ref()
            .map(super::page_tables::Tables::run),
    ];
    let is_table = |pfn: u64| {
        runs.iter()
            .flatten()
            .any(|run| (run.pfn..run.end()).contains(&pfn))
    };
    let mfn = |pfn: u64| guest.frame(pfn);
    let mut l4: Table = Box::new([0; 512]);
    plan.tables.link(&mut l4, mfn);
    if let Some(tables) = &plan.p2m_tables {
        tables.link(&mut l4, mfn);
        guest.write(
            tables.run(),
            &table_bytes(&tables.fill(mfn, is_table)),
            STEP,
        )?;
    }
    let mut all = vec![l4];
    all.extend(plan.tables.fill(mfn, is_table));
    guest.write(plan.tables.run(), &table_bytes(&all), STEP)
}

fn table_bytes(tables: &[Table]) -> Vec<u8> {
    tables
        .iter()
        .flat_map(|table| table.iter())
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

fn shared_info_frame(newborn: &Newborn<'_>) -> Result<u64, BuildError> {
    const STEP: &str = "finding the shared info page";
    match newborn.host.domain_info(newborn.domid).step(STEP)? {
        Some(info) => Ok(info.shared_info_frame),
        None => Err(BuildError::Answer {
            step: STEP,
            what: "the domain is gone".to_owned(),
        }),
    }
}

/// All zero, and events masked for every vcpu until it asks for them.
fn clear_shared_info(newborn: &Newborn<'_>, frame: u64) -> Result<(), BuildError> {
    let page = newborn
        .host
        .map_foreign(newborn.domid, &[frame], true)
        .step("clearing the shared info page")?;
    page.fill(0, page.len(), 0);
    for vcpu in 0..LEGACY_MAX_VCPUS {
        page.write(
            vcpu * size_of::<VcpuInfoLayout>() + UPCALL_MASK_OFFSET,
            &[1],
        );
    }
    Ok(())
}
