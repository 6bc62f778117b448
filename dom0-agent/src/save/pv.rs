//! What a PV guest has that a PVH guest has not: its list of frames, shared info, and the state of each vcpu in parts.
//!
//! ```text
//!   shared info ─▶ where the list is ─▶ the guest's page tables ─▶ frames of the list ─▶ the list
//!                  (or the old three-level tree)
//! ```
//!
//! Everything is read once, after the guest has suspended. Source: Xen `tools/libs/guest/xg_sr_save_x86_pv.c`.

use super::error::{SaveError, Step};
use super::image::Saver;
use super::limits::{MAX_PV_PAGES, PV_PAGES_FACTOR, PV_PAGES_SLACK};
use super::p2m::P2m;
use crate::build::Hypervisor;
use std::collections::HashMap;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_abi::pv::page_table::{ENTRIES, LEVELS, PRESENT, frame, index};
use xen_abi::pv::shared_info::{ArchSharedInfo, SharedInfo};
use xen_abi::pv::vcpu_context::{VcpuGuestContext, frame_of_cr3};
use xen_host::seam::VcpuPart as Part;
use xen_stream::libxc::{P2mFrames, Record, VcpuPart, VcpuRecord};
use zerocopy::{FromBytes, IntoBytes};

/// Entries of the list in one page.
const PER_PAGE: u64 = ENTRIES as u64;

/// What a guest says of its memory.
#[derive(Debug)]
pub(crate) struct PvState {
    pub(crate) p2m: P2m,
    pub(crate) shared_info: Box<[u8; PAGE_SIZE]>,
}

fn unfit(why: impl Into<String>) -> SaveError {
    SaveError::Unfit(why.into())
}

/// Reads frames of the guest by their machine numbers.
struct Frames<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    /// Page tables and tree nodes already read.
    known: HashMap<u64, Vec<u64>>,
}

impl Frames<'_> {
    fn read(&self, mfns: &[u64]) -> Result<Vec<u8>, SaveError> {
        let region = self
            .host
            .map_foreign(self.domid, mfns, false)
            .step("reading the guest's list of frames")?;
        Ok(region.read_vec(0, region.len()))
    }

    /// The 512 words of a frame.
    fn words(&mut self, mfn: u64) -> Result<&[u64], SaveError> {
        if !self.known.contains_key(&mfn) {
            let bytes = self.read(&[mfn])?;
            self.known.insert(mfn, words(&bytes));
        }
        Ok(self.known.get(&mfn).map_or(&[], Vec::as_slice))
    }

    /// The frame at a virtual address of the guest.
    fn walk(&mut self, top: u64, address: u64) -> Result<u64, SaveError> {
        let mut table = top;
        for level in (1..=LEVELS).rev() {
            let entries = self.words(table)?;
            let entry = entries.get(index(level, address)).copied().unwrap_or(0);
            if entry & PRESENT == 0 {
                let why = format!("its list of frames is not mapped at {address:#x}");
                return Err(unfit(why));
            }
            table = frame(entry);
        }
        Ok(table)
    }

    /// Frames that hold the list: mapped in one piece.
    fn linear(&mut self, arch: &ArchSharedInfo, pages: u64) -> Result<Vec<u64>, SaveError> {
        let top = frame_of_cr3(arch.p2m_cr3).0;
        (0..pages)
            .map(|page| {
                let address = arch.p2m_vaddr.wrapping_add(page * PAGE_SIZE as u64);
                self.walk(top, address)
            })
            .collect()
    }

    /// Frames that hold the list: the leaves of a tree.
    fn tree(&mut self, arch: &ArchSharedInfo, pages: u64) -> Result<Vec<u64>, SaveError> {
        let root = arch.pfn_to_mfn_frame_list_list;
        if root == 0 {
            return Err(unfit("its kernel does not say where its list of frames is"));
        }
        let at = |words: &[u64], index: u64| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            words
                .get(index)
                .copied()
                .ok_or_else(|| unfit("its list of frames is too long for its tree"))
        };
        let mut frames = Vec::new();
        for page in 0..pages {
            let node = at(self.words(root)?, page / PER_PAGE)?;
            frames.push(at(self.words(node)?, page % PER_PAGE)?);
        }
        Ok(frames)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| u64::from_le_bytes(*word)).collect()
}

/// Reads what a suspended guest says of its memory, and writes where its list is.
pub(super) fn read(saver: &mut Saver<'_>) -> Result<PvState, SaveError> {
    let (state, list) = look(saver.host, saver.subject.domid)?;
    saver.writer.record(&Record::P2mFrames(list))?;
    Ok(state)
}

/// Reads what a guest says of its memory, and in which pages it does.
pub(crate) fn look(host: &dyn Hypervisor, domid: DomId) -> Result<(PvState, P2mFrames), SaveError> {
    const STEP: &str = "reading the guest's shared info";
    let info = host.domain_info(domid).step(STEP)?;
    let info = info.ok_or_else(|| unfit("it is gone"))?;
    let page = host
        .map_foreign(domid, &[info.shared_info_frame], false)
        .step(STEP)?;
    let mut shared_info = Box::new([0; PAGE_SIZE]);
    page.read(0, &mut shared_info[..]);
    drop(page);
    let (parsed, _) = SharedInfo::read_from_prefix(&shared_info[..])
        .map_err(|_| unfit("its shared info is no page"))?;
    let arch = parsed.arch;
    // The guest's own word: it may have holes, not whatever it likes.
    let most = info
        .max_pages
        .saturating_mul(PV_PAGES_FACTOR)
        .saturating_add(PV_PAGES_SLACK)
        .min(MAX_PV_PAGES);
    if arch.max_pfn == 0 || arch.max_pfn > most {
        let why = format!("its kernel says that it has {} pages", arch.max_pfn);
        return Err(unfit(why));
    }
    let pages = arch.max_pfn.div_ceil(PER_PAGE);
    let mut frames = Frames {
        host,
        domid,
        known: HashMap::new(),
    };
    let list = if arch.p2m_cr3 == 0 {
        frames.tree(&arch, pages)?
    } else {
        frames.linear(&arch, pages)?
    };
    let mut mfns = words(&frames.read(&list)?);
    mfns.truncate(usize::try_from(arch.max_pfn).unwrap_or(usize::MAX));
    let p2m = P2m::new(mfns);
    let of_list = |mfn: &u64| {
        p2m.pfn(*mfn)
            .ok_or_else(|| unfit("its list of frames does not hold its own pages"))
    };
    let frames = list.iter().map(of_list).collect::<Result<Vec<_>, _>>()?;
    let last = u32::try_from(arch.max_pfn - 1).map_err(|_| unfit("it has too many pages"))?;
    let list = P2mFrames {
        first: 0,
        last,
        frames,
    };
    Ok((PvState { p2m, shared_info }, list))
}

/// Shared info, then every vcpu that is online.
pub(super) fn tail(saver: &mut Saver<'_>, state: PvState) -> Result<(), SaveError> {
    const STEP: &str = "reading the guest's vcpus";
    let (host, domid) = (saver.host, saver.subject.domid);
    let PvState { p2m, shared_info } = state;
    saver.writer.record(&Record::SharedInfo(shared_info))?;
    let info = host.domain_info(domid).step(STEP)?;
    let last = info.map_or(0, |info| info.max_vcpu_id);
    for vcpu in (0..=last).map(VcpuId) {
        if !host.vcpu_info(domid, vcpu).step(STEP)?.online {
            continue;
        }
        let bytes = host.vcpu_context(domid, vcpu).step(STEP)?;
        let mut context = VcpuGuestContext::read_from_bytes(&bytes)
            .map_err(|_| unfit("its vcpus have registers of another size"))?;
        p2m.normalise_vcpu(&mut context, vcpu.0 == 0)
            .map_err(|stranger| unfit(stranger.to_string()))?;
        let basic = context.as_bytes().to_vec();
        let mut put = |part, state: Vec<u8>| {
            let record = VcpuRecord { vcpu, part, state };
            saver.writer.record(&Record::Vcpu(record))
        };
        put(VcpuPart::Basic, basic)?;
        for (part, of_stream) in [
            (Part::Extended, VcpuPart::Extended),
            (Part::Xsave, VcpuPart::Xsave),
            (Part::Msrs, VcpuPart::Msrs),
        ] {
            let state = host.vcpu_part(domid, vcpu, part).step(STEP)?;
            if !state.is_empty() {
                put(of_stream, state)?;
            }
        }
    }
    Ok(())
}
