//! What a PV domain gets before and after its memory.
//!
//! ```text
//!   start_info, shared info, list of frames ─▶ no mapping left ─▶ registers ─▶ tables pinned ─▶ grants
//! ```
//!
//! Xen makes no page a table while somebody may write it, so everything is written before the first register is set. Source: Xen
//! `tools/libs/guest/xg_sr_restore_x86_pv.c`.

use super::collect::Collected;
use super::error::RestoreError;
use super::memory::Filled;
use super::step;
use crate::build::newborn::Newborn;
use crate::build::{Built, Channel};
use crate::save::p2m::localise_vcpu;
use std::mem::offset_of;
use xen_abi::domain::{MemoryKind, MemoryRange};
use xen_abi::ids::{PAGE_SIZE, Port, VcpuId};
use xen_abi::pv::shared_info::{SharedInfo, VcpuInfoLayout};
use xen_abi::pv::start_info::StartInfo;
use xen_abi::pv::vcpu_context::VcpuGuestContext;
use xen_host::region::SharedRegion;
use zerocopy::{FromBytes, IntoBytes};

/// Entries of the list of frames in one page.
const PER_PAGE: usize = PAGE_SIZE / size_of::<u64>();

/// Before memory: what the guest is told of it, and its width.
pub(super) fn prepare(newborn: &Newborn<'_>) -> Result<(), RestoreError> {
    let (host, domid) = (newborn.host, newborn.domid);
    let map = [MemoryRange {
        address: 0,
        size: newborn.request.max_memory_kib * 1024,
        kind: MemoryKind::Ram,
    }];
    step(host.set_memory_map(domid, &map), "setting the memory map")?;
    let set = host.set_address_size(domid, 64);
    step(set, "making it a 64-bit guest")
}

/// The parts of a guest that name frames, on their way in.
struct Completion<'a> {
    newborn: &'a Newborn<'a>,
    memory: &'a Filled,
    collected: &'a Collected,
}

/// After memory: everything else.
pub(super) fn complete(
    newborn: &Newborn<'_>,
    memory: &Filled,
    collected: &Collected,
    ports: (Port, Port),
) -> Result<Built, RestoreError> {
    let completion = Completion {
        newborn,
        memory,
        collected,
    };
    if let Some(info) = collected.tsc() {
        let set = newborn.host.set_tsc_info(newborn.domid, info);
        step(set, "setting the guest's clock")?;
    }
    let contexts = completion.contexts()?;
    let shared_info = completion.shared_info()?;
    let (store, console) = completion.start_info(&contexts, shared_info, ports)?;
    completion.list()?;
    completion.vcpus(&contexts)?;
    let pin = newborn.host.pin_tables(newborn.domid, &memory.pinned());
    step(pin, "pinning the guest's page tables")?;
    newborn.seed_grants(store, console)?;
    let channel = |frame, port| Channel { frame, port };
    Ok(Built {
        domid: newborn.domid,
        store: channel(store, ports.0),
        console: channel(console, ports.1),
    })
}

impl Completion<'_> {
    fn frame(&self, pfn: u64, what: &'static str) -> Result<u64, RestoreError> {
        let frame = self.memory.frame(pfn);
        frame.ok_or(RestoreError::Page { pfn, why: what })
    }

    fn map(&self, frame: u64, what: &'static str) -> Result<SharedRegion, RestoreError> {
        let (host, domid) = (self.newborn.host, self.newborn.domid);
        step(host.map_foreign(domid, &[frame], true), what)
    }

    /// Registers as they are in the stream: with page numbers.
    fn contexts(&self) -> Result<Vec<(VcpuId, VcpuGuestContext)>, RestoreError> {
        let most = self.newborn.request.max_vcpus;
        let mut contexts = Vec::new();
        for (vcpu, state) in self.collected.vcpus() {
            if vcpu.0 >= most {
                let why = format!("it has a vcpu {}, and may have {most}", vcpu.0);
                return Err(RestoreError::Unfit(why));
            }
            let context = VcpuGuestContext::read_from_bytes(&state.basic)
                .map_err(|_| RestoreError::Missing("the registers of a vcpu"))?;
            contexts.push((*vcpu, context));
        }
        Ok(contexts)
    }

    /// Writes shared info, with no event waiting and all of them masked; answers its frame.
    fn shared_info(&self) -> Result<u64, RestoreError> {
        const STEP: &str = "writing the guest's shared info";
        let saved = self.collected.shared_info()?;
        let (mut info, _) = SharedInfo::read_from_prefix(&saved[..])
            .map_err(|_| RestoreError::Missing("the guest's shared info"))?;
        let domain = step(self.newborn.host.domain_info(self.newborn.domid), STEP)?;
        let domain = domain.ok_or(RestoreError::Missing("its domain, which is gone"))?;
        for vcpu in &mut info.vcpu_info {
            let VcpuInfoLayout {
                evtchn_pending_sel, ..
            } = vcpu;
            *evtchn_pending_sel = 0;
        }
        info.evtchn_pending.fill(0);
        info.evtchn_mask.fill(u64::MAX);
        info.arch.pfn_to_mfn_frame_list_list = 0;
        let page = self.map(domain.shared_info_frame, STEP)?;
        // The wall clock is Xen's; what stands before and behind it is the guest's.
        let clock = offset_of!(SharedInfo, wc_version);
        page.write(0, &info.as_bytes()[..clock]);
        let arch = offset_of!(SharedInfo, arch);
        page.write(arch, &info.as_bytes()[arch..]);
        Ok(domain.shared_info_frame)
    }

    /// Tells the guest's kernel its new connections; answers the frames of the xenstore and the console page.
    fn start_info(
        &self,
        contexts: &[(VcpuId, VcpuGuestContext)],
        shared_info: u64,
        (store_port, console_port): (Port, Port),
    ) -> Result<(u64, u64), RestoreError> {
        const STEP: &str = "writing start_info";
        let first = contexts.iter().find(|(vcpu, _)| vcpu.0 == 0);
        let (_, first) = first.ok_or(RestoreError::Missing("its first vcpu"))?;
        let what = "holds start_info, and which the file does not hold";
        let page = self.map(self.frame(first.user_regs.rdx, what)?, STEP)?;
        let word = |offset| page.load_u64(offset);
        let what = "is to be a ring, and which the file does not hold";
        let store = self.frame(word(offset_of!(StartInfo, store_mfn)), what)?;
        let console = self.frame(word(offset_of!(StartInfo, console_mfn)), what)?;
        let pages = u64::from(self.collected.list()?.last) + 1;
        page.store_u64(offset_of!(StartInfo, nr_pages), pages);
        page.store_u64(offset_of!(StartInfo, shared_info), shared_info << 12);
        page.store_u32(offset_of!(StartInfo, flags), 0);
        page.store_u64(offset_of!(StartInfo, store_mfn), store);
        page.store_u32(offset_of!(StartInfo, store_evtchn), store_port.0);
        page.store_u64(offset_of!(StartInfo, console_mfn), console);
        page.store_u32(offset_of!(StartInfo, console_evtchn), console_port.0);
        Ok((store, console))
    }

    /// Writes the list of frames into the pages that hold it.
    fn list(&self) -> Result<(), RestoreError> {
        let list = self.collected.list()?;
        let what = "holds the list of frames, and which the file does not hold";
        let mut pfn = 0;
        for holder in &list.frames {
            let bytes: Vec<u8> = (pfn..pfn + PER_PAGE as u64)
                .map(|pfn| self.memory.frame(pfn).unwrap_or(u64::MAX))
                .flat_map(u64::to_le_bytes)
                .collect();
            let page = self.map(
                self.frame(*holder, what)?,
                "writing the guest's list of frames",
            )?;
            page.write(0, &bytes);
            pfn += PER_PAGE as u64;
        }
        Ok(())
    }

    fn vcpus(&self, contexts: &[(VcpuId, VcpuGuestContext)]) -> Result<(), RestoreError> {
        const STEP: &str = "setting the guest's vcpus";
        let (host, domid) = (self.newborn.host, self.newborn.domid);
        for (vcpu, context) in contexts {
            let mut context = *context;
            localise_vcpu(&mut context, vcpu.0 == 0, |pfn| self.memory.frame(pfn)).map_err(
                |stranger| {
                    RestoreError::Unfit(format!(
                        "{} of vcpu {} names page {:#x}, which the file does not hold",
                        stranger.holder, vcpu.0, stranger.mfn
                    ))
                },
            )?;
            step(
                host.set_vcpu_context(domid, *vcpu, context.as_bytes()),
                STEP,
            )?;
            let parts = self.collected.vcpus().get(vcpu).map(|state| &state.parts);
            for (part, state) in parts.into_iter().flatten() {
                step(host.set_vcpu_part(domid, *vcpu, *part, state), STEP)?;
            }
        }
        Ok(())
    }
}
