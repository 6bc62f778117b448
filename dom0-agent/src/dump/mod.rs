//! Crash dumps: memory and registers of a domain as an ELF file, in the format that stock writes and `crash` and `gdb` read.
//!
//! ```text
//!   ELF header, sections' headers │ .note.Xen │ .xen_prstatus │ .xen_shared_info (PV) │ .xen_pages ... │ .xen_p2m or .xen_pfn │ .shstrtab
//!   └───────── elf.rs, notes.rs: pure, written last ──────────────────────────────────┘ └─ streamed ─┘ └─ which page is which ─────────┘
//! ```
//!
//! How many pages there are is known when they have been written; everything before them has a size that is known at once. The domain is
//! only read: whoever wants a picture of one moment pauses it first, as with stock. Source: Xen `docs/misc/dump-core-format.txt`.

pub mod elf;
pub mod error;
pub mod notes;

pub use error::DumpError;

use crate::build::{Hypervisor, plan_pvh};
use crate::save::p2m::P2m;
use crate::save::{PageSet, limits::BATCH_PAGES, pv};
use elf::{Contents, Frames};
use error::Step;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_host::region::SharedRegion;
use xen_stream::libxc::PageKind;

/// Writes a dump of `domid` to `file`, which must be a regular one, empty; answers how many pages are in it.
///
/// # Errors
/// The domain is gone or does not say where its memory is, Xen refuses, or the file does. The file is good for nothing then.
pub fn dump(host: &dyn Hypervisor, domid: DomId, file: &mut File) -> Result<u64, DumpError> {
    let info = host.domain_info(domid).step("looking at the domain")?;
    let info = info.ok_or(DumpError::Gone(domid))?;
    let source = Source::of(host, &info)?;
    let contents = Contents {
        contexts: contexts(host, &info)?,
        shared_info: source.shared_info.clone(),
        pv: source.p2m.is_some(),
    };
    let pages_at = contents.pages_at();
    file.seek(SeekFrom::Start(pages_at))
        .map_err(DumpError::File)?;
    let frames = source.write_pages(file)?;
    let strings = host.strings().step("asking Xen for its version")?;
    let (head, tail) = contents.around(&frames, &strings);
    file.write_all(&tail).map_err(DumpError::File)?;
    file.rewind().map_err(DumpError::File)?;
    file.write_all(&head).map_err(DumpError::File)?;
    file.sync_data().map_err(DumpError::File)?;
    Ok(frames.len() as u64)
}

/// Registers of every vcpu that ever ran.
fn contexts(host: &dyn Hypervisor, info: &DomainInfo) -> Result<Vec<Vec<u8>>, DumpError> {
    const STEP: &str = "reading the registers";
    let mut all = Vec::new();
    for vcpu in (0..=info.max_vcpu_id).map(VcpuId) {
        if host.vcpu_info(info.domid, vcpu).step(STEP)?.online {
            all.push(host.vcpu_context(info.domid, vcpu).step(STEP)?);
        }
    }
    Ok(all)
}

/// Where a domain's pages are.
struct Source<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    pages: PageSet,
    /// PV guests only.
    p2m: Option<P2m>,
    shared_info: Option<Box<[u8; PAGE_SIZE]>>,
}

impl<'a> Source<'a> {
    fn of(host: &'a dyn Hypervisor, info: &DomainInfo) -> Result<Self, DumpError> {
        let domid = info.domid;
        if info.hvm {
            let most = info.max_pages.saturating_mul(PAGE_SIZE as u64) / 1024;
            return Ok(Self {
                host,
                domid,
                pages: PageSet::of(plan_pvh::possible_pages(most)),
                p2m: None,
                shared_info: None,
            });
        }
        let (state, _) = pv::look(host, domid).map_err(DumpError::Memory)?;
        Ok(Self {
            host,
            domid,
            pages: PageSet::of(std::iter::once(0..state.p2m.pages())),
            p2m: Some(state.p2m),
            shared_info: Some(state.shared_info),
        })
    }

    /// Writes every page that is there, from where the file stands.
    fn write_pages(&self, file: &File) -> Result<Vec<Frames>, DumpError> {
        let mut written = Vec::new();
        for batch in self.pages.batches(BATCH_PAGES) {
            let mut there: Vec<Frames> = batch
                .into_iter()
                .filter_map(|pfn| {
                    let frame = self.p2m.as_ref().map_or(Some(pfn), |p2m| p2m.mfn(pfn))?;
                    Some(Frames { pfn, frame })
                })
                .collect();
            self.keep_those_with_contents(&mut there)?;
            if there.is_empty() {
                continue;
            }
            let frames: Vec<u64> = there.iter().map(|page| page.frame).collect();
            let region = self
                .host
                .map_foreign(self.domid, &frames, false)
                .step("mapping the domain's memory")?;
            write_region(file, &region, frames.len() * PAGE_SIZE)?;
            written.append(&mut there);
        }
        Ok(written)
    }

    fn keep_those_with_contents(&self, pages: &mut Vec<Frames>) -> Result<(), DumpError> {
        if pages.is_empty() {
            return Ok(());
        }
        let frames: Vec<u64> = pages.iter().map(|page| page.frame).collect();
        let types = self
            .host
            .page_types(self.domid, &frames)
            .step("asking what the domain's pages are")?;
        let mut types = types.into_iter();
        pages.retain(|_| {
            let kind = types.next().and_then(PageKind::from_pfinfo);
            kind.is_some_and(PageKind::has_contents)
        });
        Ok(())
    }
}

fn write_region(file: &File, region: &SharedRegion, bytes: usize) -> Result<(), DumpError> {
    let mut done = 0;
    while done < bytes {
        match region.write_out(file.as_fd(), &[], done, bytes - done) {
            Ok(0) => return Err(DumpError::File(std::io::ErrorKind::WriteZero.into())),
            Ok(written) => done += written,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DumpError::File(error)),
        }
    }
    Ok(())
}
