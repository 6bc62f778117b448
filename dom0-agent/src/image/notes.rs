//! A kernel's Xen notes, typed, and the checks that they hold together for a PV or a PVH guest.
//!
//! ```text
//!   virtual    VIRT_BASE ......... kstart ═══ kernel ═══ kend          INIT_P2M ...
//!                  │                  │ = paddr_start + virt_offset
//!   virt_offset = VIRT_BASE - PADDR_OFFSET
//! ```
//!
//! A missing HYPERCALL_PAGE note is normal: current kernels enter Xen by themselves (XSA-466). A feature the kernel
//! requires (`!name`) need only be one that it also supports; what Xen offers is the kernel's to find out. Pure.
//! Source: `public/elfnote.h`, `public/features.h`.

use super::elf::{Class, KernelMeta};
use super::error::Fault;
use super::limits::MAX_NOTE_TEXT;
use serde::{Deserialize, Serialize};
use xen_abi::elfnote::{self, features};

/// Bit of `linux_rsdp_unrestricted`: the kernel finds the RSDP where `start_info` says, not only below 1 MiB.
const LINUX_RSDP_UNRESTRICTED: u32 = 1 << features::LINUX_RSDP_UNRESTRICTED;
const PAGE: u64 = 4096;
const GIB4: u64 = 1 << 32;

/// Where a relocatable PVH kernel may be placed (PHYS32_RELOC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phys32Reloc {
    /// Alignment in bytes.
    pub align: u32,
    /// Lowest address.
    pub min: u32,
    /// Highest address.
    pub max: u32,
}

/// The notes with owner "Xen", as the kernel has them. `None`: the note is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XenNotes {
    /// ENTRY (1): first instruction of a PV guest.
    pub entry: Option<u64>,
    /// HYPERCALL_PAGE (2).
    pub hypercall_page: Option<u64>,
    /// VIRT_BASE (3): virtual address of pfn 0.
    pub virt_base: Option<u64>,
    /// PADDR_OFFSET (4).
    pub paddr_offset: Option<u64>,
    /// XEN_VERSION (5).
    pub xen_version: Option<String>,
    /// GUEST_OS (6).
    pub guest_os: Option<String>,
    /// GUEST_VERSION (7).
    pub guest_version: Option<String>,
    /// LOADER (8).
    pub loader: Option<String>,
    /// FEATURES (10) and SUPPORTED_FEATURES (17): bits the kernel can live with.
    pub supported: u32,
    /// FEATURES (10), those with `!`: bits the kernel must have.
    pub required: u32,
    /// SUSPEND_CANCEL (14): resume in place is allowed.
    pub suspend_cancel: bool,
    /// INIT_P2M (15): where the guest wants its p2m list mapped.
    pub init_p2m: Option<u64>,
    /// MOD_START_PFN (16): the initrd need not be mapped.
    pub mod_start_pfn: bool,
    /// PHYS32_ENTRY (18): first instruction of a PVH guest.
    pub phys32_entry: Option<u32>,
    /// PHYS32_RELOC (19).
    pub phys32_reloc: Option<Phys32Reloc>,
}

impl XenNotes {
    /// Takes one note in. Kinds that do not concern a 64-bit guest are passed over.
    ///
    /// # Errors
    /// Its descriptor has not the form its type demands.
    pub fn add(&mut self, kind: u32, desc: &[u8]) -> Result<(), Fault> {
        match kind {
            elfnote::ENTRY => self.entry = Some(number("ENTRY", desc)?),
            elfnote::HYPERCALL_PAGE => self.hypercall_page = Some(number("HYPERCALL_PAGE", desc)?),
            elfnote::VIRT_BASE => self.virt_base = Some(number("VIRT_BASE", desc)?),
            elfnote::PADDR_OFFSET => self.paddr_offset = Some(number("PADDR_OFFSET", desc)?),
            elfnote::XEN_VERSION => self.xen_version = Some(text("XEN_VERSION", desc)?),
            elfnote::GUEST_OS => self.guest_os = Some(text("GUEST_OS", desc)?),
            elfnote::GUEST_VERSION => self.guest_version = Some(text("GUEST_VERSION", desc)?),
            elfnote::LOADER => self.loader = Some(text("LOADER", desc)?),
            elfnote::FEATURES => self.add_features(&text("FEATURES", desc)?)?,
            elfnote::SUSPEND_CANCEL => self.suspend_cancel = number("SUSPEND_CANCEL", desc)? != 0,
            elfnote::INIT_P2M => self.init_p2m = Some(number("INIT_P2M", desc)?),
            elfnote::MOD_START_PFN => self.mod_start_pfn = number("MOD_START_PFN", desc)? != 0,
            elfnote::SUPPORTED_FEATURES => self.supported |= low_half("SUPPORTED_FEATURES", desc)?,
            elfnote::PHYS32_ENTRY => self.phys32_entry = Some(low_half("PHYS32_ENTRY", desc)?),
            elfnote::PHYS32_RELOC => self.phys32_reloc = Some(reloc(desc)?),
            _ => {}
        }
        Ok(())
    }

    /// `name|!name|...`: `!` says required. A name nobody knows matters only if it is required.
    fn add_features(&mut self, list: &str) -> Result<(), Fault> {
        for item in list.split('|').filter(|item| !item.is_empty()) {
            let (name, required) = match item.strip_prefix('!') {
                Some(name) => (name, true),
                None => (item, false),
            };
            match features::NAMES.iter().position(|known| *known == name) {
                Some(bit) => {
                    self.supported |= 1 << bit;
                    self.required |= u32::from(required) << bit;
                }
                None if required => {
                    return Err(Fault::note(format!(
                        "it requires the unknown feature `{name}`"
                    )));
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn number(name: &str, desc: &[u8]) -> Result<u64, Fault> {
    match *desc {
        [a] => Ok(u64::from(a)),
        [a, b] => Ok(u64::from(u16::from_le_bytes([a, b]))),
        [a, b, c, d] => Ok(u64::from(u32::from_le_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(Fault::note(format!("{name} has {} bytes", desc.len()))),
    }
}

fn low_half(name: &str, desc: &[u8]) -> Result<u32, Fault> {
    let wide = number(name, desc)?;
    u32::try_from(wide).map_err(|_| Fault::note(format!("{name} is {wide:#x}, beyond 32 bits")))
}

fn text(name: &str, desc: &[u8]) -> Result<String, Fault> {
    let end = desc
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(desc.len());
    if end > MAX_NOTE_TEXT {
        return Err(Fault::note(format!("{name} is {end} bytes long")));
    }
    match std::str::from_utf8(&desc[..end]) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Fault::note(format!("{name} is not text"))),
    }
}

fn reloc(desc: &[u8]) -> Result<Phys32Reloc, Fault> {
    let (words, rest) = desc.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    match (words.as_slice(), rest) {
        ([align, min, max], []) if align.is_power_of_two() && min <= max => Ok(Phys32Reloc {
            align: *align,
            min: *min,
            max: *max,
        }),
        _ => Err(Fault::note("PHYS32_RELOC is not an alignment and a range")),
    }
}

/// A kernel that has passed every check for a PV guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvKernel {
    /// First instruction.
    pub entry: u64,
    /// Virtual address of pfn 0.
    pub virt_base: u64,
    /// What to add to a segment's physical address for its virtual one (wrapping).
    pub virt_offset: u64,
    /// First virtual address of the kernel.
    pub kstart: u64,
    /// First virtual address behind it.
    pub kend: u64,
    /// Virtual address of the hypercall page, if the kernel wants one.
    pub hypercall_page: Option<u64>,
    /// Virtual address of the p2m list, if the kernel names one.
    pub init_p2m: Option<u64>,
    /// The initrd may stay unmapped.
    pub mod_start_pfn: bool,
}

/// A kernel that has passed every check for a PVH guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PvhKernel {
    /// First instruction, a physical address.
    pub entry: u32,
    /// First physical address of the kernel.
    pub start: u64,
    /// First physical address behind it, below 4 GiB.
    pub end: u64,
    /// The ACPI root pointer may lie anywhere.
    pub rsdp_anywhere: bool,
}

impl KernelMeta {
    /// What a PV guest needs, if this kernel can be one.
    ///
    /// # Errors
    /// [`Fault::NotForKind`] says which requirement is not met.
    pub fn pv(&self) -> Result<PvKernel, Fault> {
        let refuse = |why: String| Err(Fault::kind("pv", why));
        let notes = &self.notes;
        if self.class != Class::Bits64 {
            return refuse("it is a 32-bit kernel; only x86-64 PV guests are supported".to_owned());
        }
        if !notes
            .xen_version
            .as_deref()
            .is_some_and(|version| version.starts_with("xen-3.0"))
        {
            return refuse(
                "it has no XEN_VERSION note `xen-3.0`; it was built without CONFIG_XEN_PV"
                    .to_owned(),
            );
        }
        if notes.loader.as_deref() != Some("generic") && notes.guest_os.as_deref() != Some("linux")
        {
            return refuse(
                "it names neither the generic loader nor linux as its system".to_owned(),
            );
        }
        if notes.required & !notes.supported != 0 {
            return refuse(format!(
                "it requires features {:#x} it does not support",
                notes.required
            ));
        }
        if notes.paddr_offset.is_some() && notes.virt_base.is_none() {
            return refuse("it has a PADDR_OFFSET note and no VIRT_BASE note".to_owned());
        }
        let virt_base = notes.virt_base.unwrap_or(0);
        let virt_offset = virt_base.wrapping_sub(notes.paddr_offset.unwrap_or(virt_base));
        let kstart = self.paddr_start().wrapping_add(virt_offset);
        let kend = self.paddr_end().wrapping_add(virt_offset);
        let entry = notes.entry.unwrap_or(self.elf_entry);
        if kstart > kend || virt_base > kstart || !(kstart..kend).contains(&entry) {
            return refuse(format!(
                "its entry {entry:#x} and base {virt_base:#x} do not fit its addresses {kstart:#x}..{kend:#x}"
            ));
        }
        if !virt_base.is_multiple_of(PAGE) {
            return refuse(format!("its base {virt_base:#x} is not page-aligned"));
        }
        if let Some(page) = notes.hypercall_page
            && (!page.is_multiple_of(PAGE) || !(kstart..kend).contains(&page))
        {
            return refuse(format!(
                "its hypercall page {page:#x} is not a page of the kernel"
            ));
        }
        if let Some(p2m) = notes.init_p2m
            && ((kstart..kend).contains(&p2m) || !p2m.is_multiple_of(PAGE))
        {
            return refuse(format!(
                "its p2m address {p2m:#x} lies inside of the kernel or is not page-aligned"
            ));
        }
        Ok(PvKernel {
            entry,
            virt_base,
            virt_offset,
            kstart,
            kend,
            hypercall_page: notes.hypercall_page,
            init_p2m: notes.init_p2m,
            mod_start_pfn: notes.mod_start_pfn,
        })
    }

    /// What a PVH guest needs, if this kernel can be one.
    ///
    /// # Errors
    /// [`Fault::NotForKind`] says which requirement is not met.
    pub fn pvh(&self) -> Result<PvhKernel, Fault> {
        let refuse = |why: String| Err(Fault::kind("pvh", why));
        let Some(entry) = self.notes.phys32_entry else {
            return refuse(
                "it has no PHYS32_ENTRY note; it was built without CONFIG_PVH".to_owned(),
            );
        };
        let (start, end) = (self.paddr_start(), self.paddr_end());
        if end > GIB4 || !(start..end).contains(&u64::from(entry)) {
            return refuse(format!(
                "its entry {entry:#x} does not fit its addresses {start:#x}..{end:#x}"
            ));
        }
        let linux = self.notes.guest_os.as_deref() == Some("linux");
        let rsdp_anywhere = !linux || self.notes.supported & LINUX_RSDP_UNRESTRICTED != 0;
        Ok(PvhKernel {
            entry,
            start,
            end,
            rsdp_anywhere,
        })
    }
}
