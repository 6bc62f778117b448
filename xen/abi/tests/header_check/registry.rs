//! Everything there is to compare.
//!
//! The structures and constants carry their C names themselves; here they are only gathered.

use xen_abi::io::{blkif, console, netif, ring, xenbus, xenstore};
use xen_abi::layout::Layout;
use xen_abi::version::Abi;
use xen_abi::{
    cpuid, domctl, elfnote, event, evtchn, extras, gntalloc, gntdev, grant_table, hvm, hypercall,
    memory, mmu, privcmd, pv, sched, sysctl, xen_version, xs_wire,
};

/// A structure with its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Structure {
    /// Its name here.
    pub name: &'static str,
    /// Its name in C.
    pub c_type: &'static str,
    /// Its size.
    pub size: usize,
    /// Whether the size is that of the C structure; not for one that ends in an array of any length.
    pub whole: bool,
    /// Its fields.
    pub fields: &'static [(&'static str, usize)],
}

/// What to compare with the headers of one release.
#[derive(Debug)]
pub struct Table {
    /// Structures.
    pub structures: Vec<Structure>,
    /// C expressions with their values.
    pub constants: Vec<(&'static str, u64)>,
}

/// Structures of releases that no Debian suite has: asserted where they are declared, and in the tables of 4.21 and 4.22.
pub const NEWER_THAN_DEBIAN: [&str; 2] = ["CreateDomainV17x421", "GetDomainState"];

/// Constants that the headers of older releases do not have, with the first that does.
const SINCE: [(Abi, &str); 14] = [
    (Abi::V4_18, "XEN_CPUID_TSC_MODE_DEFAULT"),
    (Abi::V4_18, "XEN_CPUID_TSC_MODE_ALWAYS_EMULATE"),
    (Abi::V4_18, "XEN_CPUID_TSC_MODE_NEVER_EMULATE"),
    (Abi::V4_18, "XEN_CPUID_TSC_MODE_PVRDTSCP"),
    (Abi::V4_19, "XEN_ELFNOTE_PHYS32_RELOC"),
    (Abi::V4_21, "XEN_DOMCTL_get_domain_state"),
    (Abi::V4_21, "XEN_DOMCTL_GETDOMSTATE_STATE_EXIST"),
    (Abi::V4_21, "XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN"),
    (Abi::V4_21, "XEN_DOMCTL_GETDOMSTATE_STATE_DYING"),
    (Abi::V4_21, "XEN_DOMCTL_GETDOMSTATE_STATE_DEAD"),
    (Abi::V4_21, "offsetof(struct xencons_interface, connection)"),
    (Abi::V4_21, "XENCONSOLE_CONNECTED"),
    (Abi::V4_21, "XENCONSOLE_DISCONNECTED"),
    (Abi::V4_22, "DOMID_ANY"),
];

const fn whole<T: Layout>() -> Structure {
    Structure {
        name: T::NAME,
        c_type: T::C_TYPE,
        size: T::SIZE,
        whole: true,
        fields: T::FIELDS,
    }
}

const fn head<T: Layout>() -> Structure {
    Structure {
        whole: false,
        ..whole::<T>()
    }
}

/// Everything, for one release.
pub fn table(abi: Abi) -> Table {
    let mut structures = vec![match abi {
        Abi::V4_17 | Abi::V4_18 => whole::<domctl::v15::CreateDomainV15>(),
        Abi::V4_19 | Abi::V4_20 => whole::<domctl::v17::CreateDomainV17>(),
        Abi::V4_21 | Abi::V4_22 => whole::<domctl::v17_421::CreateDomainV17x421>(),
    }];
    if abi >= Abi::V4_21 {
        structures.push(whole::<domctl::GetDomainState>());
    }
    structures.extend(domctl_structures());
    structures.extend(sysctl_structures());
    structures.extend(hypercall_structures());
    structures.extend(guest_structures());
    structures.extend(driver_structures());
    structures.extend(ring_structures());
    Table {
        structures,
        constants: constants(abi),
    }
}

/// What only a hypervisor with our patches knows.
pub fn table_of_patches() -> Table {
    Table {
        structures: vec![
            whole::<extras::ForeignCopy>(),
            whole::<extras::NotifyShutdown>(),
        ],
        constants: vec![
            ("XENMEM_foreign_copy", extras::FOREIGN_COPY),
            (
                "XENMEM_FOREIGN_COPY_to_domain",
                extras::FOREIGN_COPY_TO_DOMAIN.into(),
            ),
            (
                "XENMEM_FOREIGN_COPY_find_zero",
                extras::FOREIGN_COPY_FIND_ZERO.into(),
            ),
            (
                "XENMEM_FOREIGN_COPY_copied",
                extras::FOREIGN_COPY_COPIED.unsigned_abs().into(),
            ),
            (
                "XENMEM_FOREIGN_COPY_zero",
                extras::FOREIGN_COPY_ZERO.unsigned_abs().into(),
            ),
            ("XEN_DOMCTL_notify_shutdown", extras::NOTIFY_SHUTDOWN.into()),
            (
                "XEN_DOMCTL_NOTIFY_SHUTDOWN_stop",
                extras::NOTIFY_SHUTDOWN_STOP.into(),
            ),
        ],
    }
}

/// What a 32-bit guest lays out: block requests differ, network requests do not.
pub fn table_32_bit() -> Table {
    let structures = vec![
        whole::<blkif::SegmentLayout>(),
        whole::<blkif::Direct32>(),
        whole::<blkif::Discard32>(),
        whole::<blkif::Indirect32>(),
        whole::<netif::TxRequest>(),
        whole::<netif::TxResponse>(),
        whole::<netif::RxRequest>(),
        whole::<netif::RxResponse>(),
        whole::<netif::ExtraInfo>(),
    ];
    let mut constants = vec![(
        "sizeof(struct blkif_response)",
        blkif::RESPONSE32_BYTES as u64,
    )];
    constants.extend(ring::C_CONSTANTS);
    Table {
        structures,
        constants,
    }
}

fn constants(abi: Abi) -> Vec<(&'static str, u64)> {
    let modules = [
        cpuid::C_CONSTANTS,
        elfnote::C_CONSTANTS,
        elfnote::features::C_CONSTANTS,
        event::C_CONSTANTS,
        evtchn::C_CONSTANTS,
        gntalloc::C_CONSTANTS,
        gntdev::C_CONSTANTS,
        grant_table::C_CONSTANTS,
        grant_table::C_STATUSES,
        hvm::params::C_CONSTANTS,
        hvm::save::C_CONSTANTS,
        hvm::start_info::C_CONSTANTS,
        hypercall::C_CONSTANTS,
        blkif::C_CONSTANTS,
        console::C_CONSTANTS,
        netif::C_CONSTANTS,
        ring::C_CONSTANTS,
        xenbus::C_STATES,
        xenstore::C_CONSTANTS,
        memory::C_CONSTANTS,
        mmu::C_CONSTANTS,
        privcmd::C_CONSTANTS,
        pv::page_table::C_CONSTANTS,
        pv::start_info::C_CONSTANTS,
        pv::vcpu_context::C_CONSTANTS,
        sched::C_CONSTANTS,
        xen_version::C_CONSTANTS,
        xs_wire::C_CONSTANTS,
        xs_wire::message::C_OPS,
    ];
    let tables = modules
        .iter()
        .chain(domctl::C_TABLES)
        .chain(sysctl::C_TABLES);
    let mut constants: Vec<_> = tables.flat_map(|table| table.iter().copied()).collect();
    constants.push(("XEN_DOMCTL_INTERFACE_VERSION", abi.domctl_version().into()));
    constants.push(("XEN_SYSCTL_INTERFACE_VERSION", abi.sysctl_version().into()));
    constants.push(("DOMID_SELF", xen_abi::ids::DomId::SELF.0.into()));
    constants.push((
        "DOMID_FIRST_RESERVED",
        xen_abi::ids::DomId::FIRST_RESERVED.0.into(),
    ));
    constants.push(("DOMID_ANY", domctl::DOMID_ANY.0.into()));
    constants.push(("DOMID_INVALID", xen_abi::ids::DomId::INVALID.0.into()));
    constants.push((
        "GNTTAB_RESERVED_CONSOLE",
        grant_table::RESERVED_CONSOLE.0.into(),
    ));
    constants.push((
        "GNTTAB_RESERVED_XENSTORE",
        grant_table::RESERVED_XENSTORE.0.into(),
    ));
    constants.push((
        "XEN_LEGACY_MAX_VCPUS",
        pv::shared_info::LEGACY_MAX_VCPUS as u64,
    ));
    constants.extend(store_errors());
    let newer = |name: &str| {
        SINCE
            .iter()
            .any(|(since, new)| *new == name && abi < *since)
    };
    constants.retain(|(name, _)| !newer(name));
    constants
}

/// The errors of xenstored are the C library's names; their wire names are compared with those of the header in C.
fn store_errors() -> Vec<(&'static str, u64)> {
    let known = xs_wire::StoreErrno::KNOWN;
    let mut numbers: Vec<_> = known
        .iter()
        .map(|error| (error.name(), u64::from(error.errno().unsigned_abs())))
        .collect();
    numbers.push((
        "sizeof(xsd_errors) / sizeof(xsd_errors[0])",
        known.len() as u64,
    ));
    numbers
}

fn domctl_structures() -> Vec<Structure> {
    vec![
        whole::<domctl::Call>(),
        whole::<domctl::BitmapLayout>(),
        whole::<domctl::SetDomainHandle>(),
        whole::<domctl::HypercallInit>(),
        whole::<domctl::SetTimeOffset>(),
        whole::<domctl::SendTrigger>(),
        whole::<domctl::Subscribe>(),
        whole::<domctl::GetDomainInfo>(),
        whole::<domctl::MaxVcpus>(),
        whole::<domctl::GetVcpuInfo>(),
        whole::<domctl::VcpuAffinity>(),
        whole::<domctl::VcpuContext>(),
        whole::<domctl::ExtVcpuContext>(),
        whole::<domctl::VcpuExtState>(),
        whole::<domctl::VcpuMsrs>(),
        whole::<domctl::VcpuMsr>(),
        whole::<domctl::SchedulerOp>(),
        whole::<domctl::MaxMem>(),
        whole::<domctl::PagingMempool>(),
        whole::<domctl::AddressSize>(),
        whole::<domctl::GetPageFrameInfo3>(),
        whole::<domctl::ShadowOp>(),
        whole::<domctl::HvmContext>(),
        whole::<domctl::HvmContextPartial>(),
        whole::<domctl::TscInfo>(),
        whole::<domctl::CpuPolicy>(),
    ]
}

fn sysctl_structures() -> Vec<Structure> {
    vec![
        whole::<sysctl::Call>(),
        whole::<sysctl::ReadConsole>(),
        whole::<sysctl::DebugKeys>(),
        whole::<sysctl::GetDomainInfoList>(),
        whole::<sysctl::PhysInfoLayout>(),
        whole::<sysctl::CpuTopoInfo>(),
        whole::<sysctl::CpuTopo>(),
        whole::<sysctl::NumaInfo>(),
        whole::<sysctl::MemInfo>(),
        whole::<sysctl::GetCpuInfo>(),
        whole::<sysctl::AvailHeap>(),
        whole::<sysctl::CpupoolOpLayout>(),
        whole::<sysctl::SchedId>(),
        whole::<sysctl::HostSchedulerOp>(),
        whole::<sysctl::GetCpuFeatureset>(),
        whole::<sysctl::GetCpuPolicy>(),
    ]
}

fn hypercall_structures() -> Vec<Structure> {
    vec![
        whole::<event::AllocUnbound>(),
        whole::<event::Close>(),
        whole::<event::Status>(),
        whole::<event::Reset>(),
        whole::<grant_table::EntryV1>(),
        whole::<grant_table::SetupTable>(),
        whole::<grant_table::QuerySize>(),
        whole::<grant_table::GetVersion>(),
        whole::<memory::Reservation>(),
        whole::<memory::OfDomain>(),
        whole::<memory::MachphysMfnList>(),
        whole::<memory::AddToPhysmap>(),
        whole::<memory::RemoveFromPhysmap>(),
        whole::<memory::MemoryMap>(),
        whole::<memory::ForeignMemoryMap>(),
        whole::<memory::PodTarget>(),
        whole::<memory::AcquireResource>(),
        whole::<mmu::MmuextOp>(),
        whole::<sched::RemoteShutdown>(),
        whole::<sched::Watchdog>(),
        whole::<xen_version::CompileInfo>(),
        whole::<xen_version::PlatformParameters>(),
        whole::<xen_version::FeatureInfo>(),
        whole::<xen_version::VarBufHeader>(),
        whole::<cpuid::Leaf>(),
        whole::<cpuid::Msr>(),
    ]
}

fn guest_structures() -> Vec<Structure> {
    vec![
        whole::<hvm::params::Param>(),
        whole::<hvm::save::Descriptor>(),
        whole::<hvm::save::SaveHeader>(),
        whole::<hvm::save::HwCpu>(),
        whole::<hvm::save::HwMtrr>(),
        whole::<hvm::start_info::StartInfo>(),
        whole::<hvm::start_info::ModlistEntry>(),
        whole::<hvm::start_info::MemmapEntry>(),
        whole::<pv::start_info::StartInfo>(),
        whole::<pv::shared_info::VcpuInfoLayout>(),
        whole::<pv::shared_info::ArchSharedInfo>(),
        whole::<pv::shared_info::SharedInfo>(),
        whole::<pv::vcpu_context::UserRegs>(),
        whole::<pv::vcpu_context::TrapInfo>(),
        whole::<pv::vcpu_context::VcpuGuestContext>(),
    ]
}

fn driver_structures() -> Vec<Structure> {
    vec![
        whole::<privcmd::Hypercall>(),
        whole::<privcmd::MmapBatchV2>(),
        whole::<privcmd::DmOpBuf>(),
        whole::<privcmd::DmOp>(),
        whole::<privcmd::MmapResource>(),
        whole::<evtchn::BindVirq>(),
        whole::<evtchn::BindInterdomain>(),
        whole::<evtchn::BindUnboundPort>(),
        whole::<evtchn::LocalPort>(),
        head::<gntdev::MapGrantRefHeader>(),
        whole::<gntdev::GrantRefEntry>(),
        whole::<gntdev::UnmapGrantRef>(),
        whole::<gntdev::GetOffsetForVaddr>(),
        whole::<gntdev::UnmapNotify>(),
        whole::<gntdev::GrantCopy>(),
        whole::<gntdev::GrantCopySegment>(),
        head::<gntalloc::AllocGrefHeader>(),
        whole::<gntalloc::DeallocGref>(),
    ]
}

fn ring_structures() -> Vec<Structure> {
    vec![
        whole::<xs_wire::Header>(),
        whole::<blkif::SegmentLayout>(),
        whole::<blkif::Direct64>(),
        whole::<blkif::Discard64>(),
        whole::<blkif::Indirect64>(),
        whole::<blkif::Response64>(),
        whole::<netif::TxRequest>(),
        whole::<netif::TxResponse>(),
        whole::<netif::RxRequest>(),
        whole::<netif::RxResponse>(),
        whole::<netif::ExtraInfo>(),
        whole::<netif::CtrlRequest>(),
        whole::<netif::CtrlResponse>(),
        head::<console::Interface>(),
        head::<xenstore::Interface>(),
    ]
}
