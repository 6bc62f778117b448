//! Builds a PVH guest by its plan.
//!
//! The paging pool comes before memory, which is mapped from it; the register state comes last, because every load of it
//! takes all vcpus down. Source: Xen `tools/libs/guest/xg_dom_x86.c`, `docs/misc/pvh`.

use super::error::{BuildError, Step};
use super::fill::GuestMemory;
use super::limits::PAGE;
use super::newborn::{Newborn, paging_pool_kib};
use super::plan_pv::Run;
use super::plan_pvh::{HOLE_START, PvhPlan, SPECIAL_PAGES, SPECIAL_PFN, Special};
use super::populate::Extents;
use super::request::{Built, Channel};
use super::vcpu_hvm;
use crate::image::{Initrd, LoadedKernel};
use nix::errno::Errno;
use xen_abi::hvm::params::{
    BUFIOREQ_PFN, CONSOLE_EVTCHN, CONSOLE_PFN, IDENT_PT, IOREQ_PFN, MONITOR_RING_PFN,
    PAGING_RING_PFN, SHARING_RING_PFN, STORE_EVTCHN, STORE_PFN, TIMER_MODE,
    TIMER_NO_DELAY_FOR_MISSED_TICKS,
};

/// Entries of the identity page table and their bits: 4 MiB pages, all rights.
const IDENTITY_ENTRIES: u32 = 1024;
const IDENTITY_BITS: u32 = 0xe7;

/// Fills a new domain.
pub(super) fn build(
    newborn: &Newborn<'_>,
    plan: &PvhPlan,
    kernel: &LoadedKernel,
    initrd: Option<&Initrd>,
) -> Result<Built, BuildError> {
    let (store_port, console_port) = newborn.ports()?;
    let store = Channel {
        frame: Special::Xenstore.gfn(),
        port: store_port,
    };
    let console = Channel {
        frame: Special::Console.gfn(),
        port: console_port,
    };
    prepare(newborn)?;
    newborn.apply_cpu_policy()?;
    populate(newborn, plan)?;
    load(newborn, plan, kernel, initrd)?;
    connect(newborn, &store, &console)?;
    start_vcpu(newborn, plan)?;
    Ok(Built {
        domid: newborn.domid,
        store,
        console,
    })
}

/// What every PVH domain needs before it has memory, whether it is built or restored.
pub(crate) fn prepare(newborn: &Newborn<'_>) -> Result<(), BuildError> {
    set_params(newborn, &[(TIMER_MODE, TIMER_NO_DELAY_FOR_MISSED_TICKS)])?;
    let pool = paging_pool_kib(newborn.request) * 1024;
    match newborn.host.set_paging_pool(newborn.domid, pool) {
        Err(error) if error.errno() == Some(Errno::ENOMEM) => Err(newborn.out_of_memory()),
        answer => answer.step("setting up the paging pool"),
    }
}

fn acpi_run(plan: &PvhPlan) -> Run {
    Run {
        pfn: HOLE_START / PAGE,
        pages: plan.acpi_pages(),
    }
}

const SPECIAL: Run = Run {
    pfn: SPECIAL_PFN,
    pages: SPECIAL_PAGES,
};

fn populate(newborn: &Newborn<'_>, plan: &PvhPlan) -> Result<(), BuildError> {
    let mut extents = plan.extents.clone();
    for run in [acpi_run(plan), SPECIAL] {
        extents.push(Extents {
            gfn: run.pfn,
            order: 0,
            count: run.pages,
        });
    }
    newborn.populate(&extents, |_, _, _| {})?;
    newborn
        .host
        .set_memory_map(newborn.domid, &plan.memory_map)
        .step("setting the memory map")
}

fn load(
    newborn: &Newborn<'_>,
    plan: &PvhPlan,
    kernel: &LoadedKernel,
    initrd: Option<&Initrd>,
) -> Result<(), BuildError> {
    let guest = GuestMemory {
        memory: newborn.host,
        domid: newborn.domid,
        p2m: None,
    };
    guest.load_kernel(plan.kernel, &plan.segments, kernel)?;
    if let (Some(placed), Some(initrd)) = (plan.initrd, initrd) {
        guest.load_initrd(placed, initrd)?;
    }
    guest.write(
        plan.start_info_run(),
        &plan.start_info_bytes,
        "writing start_info",
    )?;
    let acpi = acpi_run(plan);
    guest.write(acpi, &plan.acpi, "writing the ACPI tables")?;
    if plan.rsdp_address < HOLE_START {
        let mut bytes = vec![0; usize::try_from(plan.rsdp_address % PAGE).unwrap_or(0)];
        bytes.extend_from_slice(&plan.rsdp);
        let page = Run {
            pfn: plan.rsdp_address / PAGE,
            pages: 1,
        };
        guest.write(page, &bytes, "writing the ACPI root")?;
    }
    guest.write(SPECIAL, &special_pages(), "clearing the special pages")
}

/// Tells Xen and the guest where the special pages are, and grants two of them.
fn connect(newborn: &Newborn<'_>, store: &Channel, console: &Channel) -> Result<(), BuildError> {
    let params = [
        (STORE_PFN, store.frame),
        (STORE_EVTCHN, store.port.0.into()),
        (CONSOLE_PFN, console.frame),
        (CONSOLE_EVTCHN, console.port.0.into()),
        (IOREQ_PFN, Special::Io.gfn()),
        (BUFIOREQ_PFN, Special::BufferedIo.gfn()),
        (PAGING_RING_PFN, Special::Paging.gfn()),
        (MONITOR_RING_PFN, Special::Access.gfn()),
        (SHARING_RING_PFN, Special::Sharing.gfn()),
        (IDENT_PT, Special::Identity.gfn() * PAGE),
    ];
    set_params(newborn, &params)?;
    newborn.seed_grants(store.frame, console.frame)
}

pub(crate) fn set_params(newborn: &Newborn<'_>, params: &[(u32, u64)]) -> Result<(), BuildError> {
    for (index, value) in params {
        newborn
            .host
            .set_hvm_param(newborn.domid, *index, *value)
            .step("setting a platform parameter")?;
    }
    Ok(())
}

/// All zero but the identity page table.
fn special_pages() -> Vec<u8> {
    let page = usize::try_from(PAGE).unwrap_or(0);
    let mut bytes = vec![0; page * usize::try_from(SPECIAL_PAGES).unwrap_or(0)];
    let identity =
        (0..IDENTITY_ENTRIES).flat_map(|entry| (entry << 22 | IDENTITY_BITS).to_le_bytes());
    for (byte, value) in bytes
        .iter_mut()
        .skip(Special::Identity as usize * page)
        .zip(identity)
    {
        *byte = value;
    }
    bytes
}

fn start_vcpu(newborn: &Newborn<'_>, plan: &PvhPlan) -> Result<(), BuildError> {
    const STEP: &str = "setting the first vcpu's registers";
    let fresh = newborn.host.hvm_context(newborn.domid).step(STEP)?;
    let blob =
        vcpu_hvm::blob(&fresh, plan.entry, plan.start_info).map_err(|what| BuildError::Answer {
            step: STEP,
            what: format!("its save blob is no good: {what}"),
        })?;
    newborn
        .host
        .set_hvm_context(newborn.domid, &blob)
        .step(STEP)
}
