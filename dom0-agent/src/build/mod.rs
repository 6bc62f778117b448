//! Domain builders: from a request, a kernel and an initrd to a paused domain that lacks only its devices.
//!
//! ```text
//!   LoadedKernel ─▶ plan_pv | plan_pvh (pure) ─▶ newborn (created, undone on error) ─▶ pv | pvh (executes) ─▶ Built
//!                    page_tables, acpi             cpu_policy                          populate, fill, vcpu_*
//! ```
//!
//! Plans are values: where everything lies and what it holds is decided before the domain exists. Xenstore, devices and
//! unpausing are the caller's. Source: Xen `tools/libs/guest/xg_dom_x86.c`, `xg_dom_boot.c`.

pub mod acpi;
pub mod cpu_policy;
pub mod error;
pub mod limits;
pub mod page_tables;
pub mod plan_pv;
pub mod plan_pvh;
pub mod populate;
pub mod request;
pub mod vcpu_hvm;
pub mod vcpu_pv;

pub(crate) mod newborn;
pub(crate) mod pvh;

mod fill;
mod pv;

pub use error::BuildError;
pub use newborn::{free_kib, needed_kib, paging_pool_kib};
pub use request::{BuildRequest, Built, Channel, VcpuAffinity};

use crate::image::error::Role;
use crate::image::{Fault, ImageError, Initrd, LoadedKernel};
use limits::PAGE;
use newborn::Newborn;
use plan_pv::PvPlan;
use plan_pvh::PvhPlan;
use xen_abi::domain::DomainKind;
use xen_host::seam::{DomainControl, Extras, HostControl, MemoryControl};

/// All of the seam that building needs.
pub trait Hypervisor: HostControl + DomainControl + MemoryControl + Extras {}

impl<T: HostControl + DomainControl + MemoryControl + Extras> Hypervisor for T {}

/// The layout of either kind.
enum Plan {
    Pv(PvPlan),
    Pvh(PvhPlan),
}

/// Builds a domain, paused, without devices.
///
/// # Errors
/// See [`BuildError`]. No domain is left then, except for [`BuildError::LeftBehind`].
pub fn build(
    host: &dyn Hypervisor,
    request: &BuildRequest,
    kernel: &LoadedKernel,
    initrd: Option<&Initrd>,
) -> Result<Built, BuildError> {
    request.check()?;
    let plan = plan(request, kernel, initrd)?;
    let newborn = Newborn::create(host, request)?;
    let built = match &plan {
        Plan::Pv(plan) => pv::build(&newborn, plan, kernel, initrd),
        Plan::Pvh(plan) => pvh::build(&newborn, plan, kernel, initrd),
    };
    match built {
        Ok(built) => {
            newborn.finish();
            Ok(built)
        }
        Err(cause) => Err(newborn.undo(cause)),
    }
}

fn plan(
    request: &BuildRequest,
    kernel: &LoadedKernel,
    initrd: Option<&Initrd>,
) -> Result<Plan, BuildError> {
    let bad = |fault: Fault| ImageError::Bad {
        role: Role::Kernel,
        path: kernel.path().to_owned(),
        fault,
    };
    let meta = kernel.meta();
    let initrd = initrd.map(Initrd::size);
    let pages = |kib: u64| kib * 1024 / PAGE;
    match request.kind {
        DomainKind::Pv => {
            let kernel = meta.pv().map_err(bad)?;
            plan_pv::plan(
                &kernel,
                meta,
                initrd,
                pages(request.memory_kib),
                &request.command_line,
            )
            .map(Plan::Pv)
        }
        DomainKind::Pvh | DomainKind::Hvm => {
            let kernel = meta.pvh().map_err(bad)?;
            let shape = plan_pvh::Shape {
                // Without populate-on-demand all memory must be there when the guest looks at its map.
                nr_pages: pages(request.max_memory_kib),
                vcpus: request.vcpus,
                max_vcpus: request.max_vcpus,
            };
            plan_pvh::plan(&kernel, meta, initrd, shape, &request.command_line).map(Plan::Pvh)
        }
    }
}

/// Refuses a command line that the guest would see cut.
fn check_command_line(command_line: &str, most: usize) -> Result<(), BuildError> {
    let refuse = |why| {
        Err(BuildError::Request {
            key: "cmdline",
            value: command_line.to_owned(),
            why,
        })
    };
    if command_line.len() > most {
        return refuse(format!(
            "it is {} bytes long, and this kind of guest takes {most}",
            command_line.len()
        ));
    }
    if command_line.contains('\0') {
        return refuse("it holds a zero byte".to_owned());
    }
    Ok(())
}
