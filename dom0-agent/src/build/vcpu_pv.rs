//! The first vcpu of a PV guest and the `start_info` page it is given. Pure.

use super::limits::PAGE;
use super::plan_pv::PvPlan;
use xen_abi::ids::{Mfn, Port};
use xen_abi::pv::start_info::{MAGIC, SIF_MOD_START_PFN, SIF_VIRT_P2M_4TOOLS, StartInfo};
use xen_abi::pv::vcpu_context::{
    FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext, cr3_of,
};
use zerocopy::{FromZeros, IntoBytes};

/// Interrupt flag.
const RFLAGS_IF: u64 = 0x200;
/// Debug registers 6 and 7 after reset.
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;

/// Registers of vcpu 0: at the kernel's entry, on the boot stack, `start_info` in rsi.
#[must_use]
pub fn context(plan: &PvPlan, l4: Mfn) -> Vec<u8> {
    let stack_top = plan.address_of(plan.stack) + PAGE;
    let mut context = VcpuGuestContext::new_zeroed();
    context.flags = VGCF_IN_KERNEL | VGCF_ONLINE;
    context.user_regs.rip = plan.entry;
    context.user_regs.rsp = stack_top;
    context.user_regs.rsi = plan.address_of(plan.start_info);
    context.user_regs.rflags = RFLAGS_IF;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = stack_top;
    context.ctrlreg[3] = cr3_of(l4);
    context.debugreg[6] = DR6;
    context.debugreg[7] = DR7;
    context.as_bytes().to_vec()
}

/// What `start_info` holds beside the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Machine frame of the shared info page.
    pub shared_info: u64,
    /// Xenstore ring: machine frame and port.
    pub store: (u64, Port),
    /// Console ring: machine frame and port.
    pub console: (u64, Port),
}

/// The bytes of `start_info`.
#[must_use]
pub fn start_info(plan: &PvPlan, connections: &Connections) -> Vec<u8> {
    let mut info = StartInfo::new_zeroed();
    info.magic[..MAGIC.len()].copy_from_slice(MAGIC);
    info.nr_pages = plan.nr_pages;
    info.shared_info = connections.shared_info << 12;
    // Tools can find the list of machine frames through the guest's own tables when they save it.
    info.flags = SIF_VIRT_P2M_4TOOLS;
    (info.store_mfn, info.store_evtchn) = (connections.store.0, connections.store.1.0);
    (info.console_mfn, info.console_evtchn) = (connections.console.0, connections.console.1.0);
    info.pt_base = plan.address_of(plan.tables.run().pfn);
    info.nr_pt_frames = plan.tables.run().pages;
    info.mfn_list = plan.p2m_address;
    if let Some(initrd) = plan.initrd {
        info.mod_len = initrd.size;
        info.mod_start = if plan.mod_start_pfn {
            info.flags |= SIF_MOD_START_PFN;
            initrd.run.pfn
        } else {
            plan.address_of(initrd.run.pfn)
        };
    }
    // The plan has checked that it fits with its terminating zero.
    for (to, from) in info.cmd_line.iter_mut().zip(plan.command_line.bytes()) {
        *to = from;
    }
    if let Some(tables) = &plan.p2m_tables {
        info.first_p2m_pfn = plan.p2m.pfn;
        info.nr_p2m_frames = plan.p2m.pages + tables.run().pages;
    }
    info.as_bytes().to_vec()
}
