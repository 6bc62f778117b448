//! A domain between `createdomain` and completion: whatever ends its building early destroys it.
//!
//! ```text
//!   check, physinfo ─▶ createdomain ─▶ max_vcpus, affinity, scheduler, max_mem, tsc, ports ─▶ pv | pvh ─▶ finish
//!                            └──────────────── any error, a panic ──────────────▶ destroydomain
//! ```

use super::error::{BuildError, Step};
use super::limits::{
    DOMAIN_OVERHEAD_KIB, MAXMEM_SLACK_KIB, PAGE, POOL_PER_MIB_KIB, POOL_PER_VCPU_KIB,
    VCPU_OVERHEAD_KIB,
};
use super::populate::{self, Extents, Short};
use super::request::BuildRequest;
use super::{Hypervisor, cpu_policy};
use nix::errno::Errno;
use xen_abi::domain::{CreateDomain, DomainKind, TscMode};
use xen_abi::grant_table::{EntryV1, RESERVED_CONSOLE, RESERVED_XENSTORE};
use xen_abi::host::PhysInfo;
use xen_abi::ids::{DomId, Port, VcpuId};
use xen_host::error::Error;
use zerocopy::IntoBytes;

/// KiB of the paging pool of a PVH guest, by xl's rule.
#[must_use]
pub fn paging_pool_kib(request: &BuildRequest) -> u64 {
    u64::from(request.max_vcpus) * POOL_PER_VCPU_KIB
        + request.max_memory_kib.div_ceil(1024) * POOL_PER_MIB_KIB
}

/// KiB of host memory the guest takes: its own, the paging pool, the hypervisor's bookkeeping.
#[must_use]
pub fn needed_kib(request: &BuildRequest) -> u64 {
    let overhead = DOMAIN_OVERHEAD_KIB + u64::from(request.max_vcpus) * VCPU_OVERHEAD_KIB;
    match request.kind {
        DomainKind::Pv => request.memory_kib + overhead,
        DomainKind::Pvh | DomainKind::Hvm => {
            request.max_memory_kib + MAXMEM_SLACK_KIB + paging_pool_kib(request) + overhead
        }
    }
}

/// KiB of host memory that nobody has or has claimed.
#[must_use]
pub fn free_kib(physinfo: &PhysInfo) -> u64 {
    let free = physinfo.free_pages + physinfo.scrub_pages;
    free.saturating_sub(physinfo.outstanding_pages) * (PAGE / 1024)
}

fn no_memory(request: &BuildRequest, free_kib: u64) -> BuildError {
    BuildError::NoMemory {
        need_mib: needed_kib(request).div_ceil(1024),
        free_mib: free_kib / 1024,
    }
}

/// A domain under construction.
#[derive(Debug)]
pub(crate) struct Newborn<'a> {
    pub(crate) host: &'a dyn Hypervisor,
    pub(crate) request: &'a BuildRequest,
    pub(crate) domid: DomId,
    finished: bool,
}

impl<'a> Newborn<'a> {
    /// Checks what can be checked, and creates the domain with its vcpus and limits.
    pub(crate) fn create(
        host: &'a dyn Hypervisor,
        request: &'a BuildRequest,
    ) -> Result<Self, BuildError> {
        request.check()?;
        let physinfo = host.physinfo().step("asking for the host's memory")?;
        check_host(&physinfo, request.kind)?;
        let free = free_kib(&physinfo);
        if needed_kib(request) > free {
            return Err(no_memory(request, free));
        }
        let offered = if physinfo.capabilities.gnttab_v2 {
            2
        } else {
            1
        };
        let domid = host
            .create_domain(&CreateDomain {
                kind: request.kind,
                handle: request.handle,
                max_vcpus: request.max_vcpus,
                max_event_port: request.max_event_port,
                max_grant_frames: request.max_grant_frames,
                max_maptrack_frames: request.max_maptrack_frames,
                grant_version: request.grant_version.unwrap_or(offered),
                cpupool: request.cpupool,
                ssidref: request.ssidref,
            })
            .step("creating the domain")?;
        let newborn = Self {
            host,
            request,
            domid,
            finished: false,
        };
        match newborn.settle() {
            Ok(()) => Ok(newborn),
            Err(cause) => Err(newborn.undo(cause)),
        }
    }

    fn settle(&self) -> Result<(), BuildError> {
        let (host, request, domid) = (self.host, self.request, self.domid);
        host.max_vcpus(domid, request.max_vcpus)
            .step("allocating vcpus")?;
        for (vcpu, affinity) in (0..request.max_vcpus).zip(&request.affinity) {
            if affinity.hard.is_some() || affinity.soft.is_some() {
                host.set_vcpu_affinity(
                    domid,
                    VcpuId(vcpu),
                    affinity.hard.as_ref(),
                    affinity.soft.as_ref(),
                )
                .step("pinning a vcpu")?;
            }
        }
        if request.weight.is_some() || request.cap.is_some() {
            host.set_sched_credit(domid, request.weight, request.cap)
                .step("setting scheduler weight and cap")?;
        }
        host.set_max_mem(domid, request.max_memory_kib + MAXMEM_SLACK_KIB)
            .step("setting the memory limit")?;
        // A new domain is in the default mode already.
        if request.tsc_mode != TscMode::Default {
            host.set_tsc_mode(domid, request.tsc_mode)
                .step("setting the time stamp counter mode")?;
        }
        Ok(())
    }

    /// Ports for xenstore and console.
    pub(crate) fn ports(&self) -> Result<(Port, Port), BuildError> {
        let allocate = |remote, step| self.host.alloc_unbound(self.domid, remote).step(step);
        let store = allocate(self.request.store_backend, "allocating the xenstore port")?;
        let console = allocate(self.request.console_backend, "allocating the console port")?;
        Ok((store, console))
    }

    /// Gives the guest the CPU that stock tools would give it.
    pub(crate) fn apply_cpu_policy(&self) -> Result<(), BuildError> {
        const READ: &str = "reading the CPU policy";
        let policy = match self.request.kind {
            DomainKind::Pv => cpu_policy::pv(
                self.host.cpu_policy(cpu_policy::PV_DEFAULT).step(READ)?,
                &self.host.cpu_policy(cpu_policy::HOST).step(READ)?,
            ),
            DomainKind::Pvh | DomainKind::Hvm => {
                cpu_policy::pvh(self.host.cpu_policy(cpu_policy::HVM_DEFAULT).step(READ)?)
            }
        };
        self.host
            .set_cpu_policy(self.domid, &policy)
            .step("setting the CPU policy")
    }

    /// Claims and allocates memory. The claim makes a host that is too full fail at once, not after minutes of filling.
    pub(crate) fn populate(
        &self,
        extents: &[Extents],
        got: impl FnMut(u64, u64, u64),
    ) -> Result<(), BuildError> {
        let pages = extents.iter().map(Extents::pages).sum();
        match self.host.claim(self.domid, pages) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(Errno::ENOMEM) => return Err(self.out_of_memory()),
            Err(error) => return Err(error).step("claiming memory"),
        }
        match populate::populate(self.host, self.domid, extents, got) {
            Ok(()) => {}
            Err(Short::Refused(error)) => return Err(error),
            Err(Short::Memory) => return Err(self.out_of_memory()),
        }
        self.host
            .claim(self.domid, 0)
            .step("giving back the rest of the claim")
    }

    pub(crate) fn out_of_memory(&self) -> BuildError {
        let free = self
            .host
            .physinfo()
            .map_or(0, |physinfo| free_kib(&physinfo));
        no_memory(self.request, free)
    }

    /// Grants console and xenstore page to their backends, so that these need no foreign mapping.
    pub(crate) fn seed_grants(&self, store: u64, console: u64) -> Result<(), BuildError> {
        const STEP: &str = "granting the console and xenstore pages";
        let table = self.host.map_grant_table(self.domid, 1).step(STEP)?;
        for (grant, backend, frame) in [
            (RESERVED_CONSOLE, self.request.console_backend, console),
            (RESERVED_XENSTORE, self.request.store_backend, store),
        ] {
            let Some(entry) = EntryV1::permit(backend, frame) else {
                let what = format!("frame {frame:#x} is beyond 16 TiB");
                return Err(BuildError::Answer { step: STEP, what });
            };
            table.write(grant.0 as usize * size_of::<EntryV1>(), entry.as_bytes());
        }
        Ok(())
    }

    /// The domain is complete and no longer ours to destroy.
    pub(crate) fn finish(mut self) {
        self.finished = true;
    }

    /// Destroys the domain because of `cause`.
    pub(crate) fn undo(self, cause: BuildError) -> BuildError {
        let domid = self.domid;
        match self.destroy() {
            Ok(()) => cause,
            Err(destroy) => BuildError::LeftBehind {
                domid,
                cause: Box::new(cause),
                destroy,
            },
        }
    }

    /// Destroys the domain.
    pub(crate) fn destroy(mut self) -> Result<(), Error> {
        self.finished = true;
        self.host.destroy_domain(self.domid)
    }
}

impl Drop for Newborn<'_> {
    fn drop(&mut self) {
        // Only a panic comes here.
        if !self.finished
            && let Err(error) = self.host.destroy_domain(self.domid)
        {
            tracing::error!(domid = self.domid.0, %error, "a half-built domain could not be destroyed");
        }
    }
}

fn check_host(physinfo: &PhysInfo, kind: DomainKind) -> Result<(), BuildError> {
    let capabilities = physinfo.capabilities;
    let why = match kind {
        DomainKind::Pv if !capabilities.pv => "its hypervisor is built without PV support",
        DomainKind::Pvh | DomainKind::Hvm if !capabilities.hvm => {
            "it has no hardware virtualisation (VT-x or AMD-V), or it is switched off in the firmware"
        }
        DomainKind::Pvh | DomainKind::Hvm if !capabilities.hap && !capabilities.shadow => {
            "it has neither nested paging nor a hypervisor with shadow paging"
        }
        DomainKind::Hvm => {
            "guests with a device model are not supported yet; use type=\"pvh\" or \"pv\""
        }
        DomainKind::Pv | DomainKind::Pvh => return Ok(()),
    };
    Err(BuildError::Host {
        kind: kind.as_str(),
        why,
    })
}
