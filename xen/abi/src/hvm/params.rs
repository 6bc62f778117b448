//! Parameters of a PVH or HVM domain, set and read with `hvm_op`. Source: `xen/hvm/params.h`, `xen/hvm/hvm_op.h`.

use crate::ids::DomId;
use crate::layout;

crate::constants! {
    /// `hvm_op` command: set a parameter ([`Param`]).
    pub const OP_SET_PARAM: u64 = 0 => "HVMOP_set_param";
    /// `hvm_op` command: read a parameter ([`Param`]).
    pub const OP_GET_PARAM: u64 = 1 => "HVMOP_get_param";

    /// How the guest wants its events; 0 means it has no PV drivers.
    pub const CALLBACK_IRQ: u32 = 0 => "HVM_PARAM_CALLBACK_IRQ";
    /// Gfn of the xenstore page.
    pub const STORE_PFN: u32 = 1 => "HVM_PARAM_STORE_PFN";
    /// Guest's xenstore port.
    pub const STORE_EVTCHN: u32 = 2 => "HVM_PARAM_STORE_EVTCHN";
    /// Gfn of the default device model's request page.
    pub const IOREQ_PFN: u32 = 5 => "HVM_PARAM_IOREQ_PFN";
    /// Gfn of its buffered request page.
    pub const BUFIOREQ_PFN: u32 = 6 => "HVM_PARAM_BUFIOREQ_PFN";
    /// Hyper-V interface.
    pub const VIRIDIAN: u32 = 9 => "HVM_PARAM_VIRIDIAN";
    /// What happens to missed ticks.
    pub const TIMER_MODE: u32 = 10 => "HVM_PARAM_TIMER_MODE";
    /// An HPET is emulated.
    pub const HPET_ENABLED: u32 = 11 => "HVM_PARAM_HPET_ENABLED";
    /// Address of the identity page table.
    pub const IDENT_PT: u32 = 12 => "HVM_PARAM_IDENT_PT";
    /// ACPI sleep state.
    pub const ACPI_S_STATE: u32 = 14 => "HVM_PARAM_ACPI_S_STATE";
    /// Periodic timers fire together.
    pub const VPT_ALIGN: u32 = 16 => "HVM_PARAM_VPT_ALIGN";
    /// Gfn of the console page.
    pub const CONSOLE_PFN: u32 = 17 => "HVM_PARAM_CONSOLE_PFN";
    /// Guest's console port.
    pub const CONSOLE_EVTCHN: u32 = 18 => "HVM_PARAM_CONSOLE_EVTCHN";
    /// Which ACPI ports.
    pub const ACPI_IOPORTS_LOCATION: u32 = 19 => "HVM_PARAM_ACPI_IOPORTS_LOCATION";
    /// Gfn of the paging ring.
    pub const PAGING_RING_PFN: u32 = 27 => "HVM_PARAM_PAGING_RING_PFN";
    /// Gfn of the monitor ring.
    pub const MONITOR_RING_PFN: u32 = 28 => "HVM_PARAM_MONITOR_RING_PFN";
    /// Gfn of the sharing ring.
    pub const SHARING_RING_PFN: u32 = 29 => "HVM_PARAM_SHARING_RING_PFN";
    /// Shutdown code of a triple fault.
    pub const TRIPLE_FAULT_REASON: u32 = 31 => "HVM_PARAM_TRIPLE_FAULT_REASON";
    /// First gfn for device model servers.
    pub const IOREQ_SERVER_PFN: u32 = 32 => "HVM_PARAM_IOREQ_SERVER_PFN";
    /// Pages for device model servers.
    pub const NR_IOREQ_SERVER_PAGES: u32 = 33 => "HVM_PARAM_NR_IOREQ_SERVER_PAGES";
    /// Address of the generation id.
    pub const VM_GENERATION_ID_ADDR: u32 = 34 => "HVM_PARAM_VM_GENERATION_ID_ADDR";
    /// Width of the FPU's instruction pointer.
    pub const X87_FIP_WIDTH: u32 = 36 => "HVM_PARAM_X87_FIP_WIDTH";
    /// Place and size of the real mode task segment.
    pub const VM86_TSS_SIZED: u32 = 37 => "HVM_PARAM_VM86_TSS_SIZED";
    /// Machine check capabilities.
    pub const MCA_CAP: u32 = 38 => "HVM_PARAM_MCA_CAP";
    /// Parameters there are.
    pub const COUNT: u32 = 39 => "HVM_NR_PARAMS";

    /// [`TIMER_MODE`]: a missed tick is not made up for; what xl sets.
    pub const TIMER_NO_DELAY_FOR_MISSED_TICKS: u64 = 1 => "HVMPTM_no_delay_for_missed_ticks";
}

layout! {
    /// Argument of [`OP_SET_PARAM`] and [`OP_GET_PARAM`].
    pub struct Param: "struct xen_hvm_param", 16 {
        /// Whose.
        pub domid: u16 = 0 => "domid",
        /// Padding, zero.
        pub pad: u16 = 2 => "pad",
        /// Which.
        pub index: u32 = 4 => "index",
        /// What it is or shall be.
        pub value: u64 = 8 => "value",
    }
}

impl Param {
    /// A parameter to set, or with any value to read.
    #[must_use]
    pub const fn new(domain: DomId, index: u32, value: u64) -> Self {
        Self {
            domid: domain.0,
            pad: 0,
            index,
            value,
        }
    }
}

/// Those that are saved with a domain, if they are not 0, in the order stock tools write them.
pub const SAVED: [u32; 16] = [
    STORE_PFN,
    IOREQ_PFN,
    BUFIOREQ_PFN,
    PAGING_RING_PFN,
    MONITOR_RING_PFN,
    SHARING_RING_PFN,
    VM86_TSS_SIZED,
    CONSOLE_PFN,
    ACPI_IOPORTS_LOCATION,
    VIRIDIAN,
    IDENT_PT,
    VM_GENERATION_ID_ADDR,
    IOREQ_SERVER_PFN,
    NR_IOREQ_SERVER_PAGES,
    X87_FIP_WIDTH,
    MCA_CAP,
];
