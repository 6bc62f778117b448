//! Reads an ELF kernel: what to load where, and its Xen notes.
//!
//! Segments are placed by **p_paddr**: Linux's per-CPU segment has p_vaddr 0. Notes are looked for in the PT_NOTE
//! segments, then in the SHT_NOTE sections. Pure, for untrusted input; runs in the unpacking worker. What it finds is
//! checked again by [`KernelMeta::check`], because the daemon must not have to believe the worker.

use super::error::{Fault, Format};
use super::limits::{MAX_KERNEL_SPAN, MAX_NOTES, MAX_PROGRAM_HEADERS, MAX_SECTIONS};
use super::notes::XenNotes;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::{Endianness, read};
use serde::{Deserialize, Serialize};

/// Offset of the class byte in the ELF identification.
const IDENT_CLASS: usize = 4;

/// Word size of the kernel's ELF file. A 32-bit file can only start as PVH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// ELFCLASS32 (or a 64-bit file for i386).
    Bits32,
    /// ELFCLASS64 for x86-64.
    Bits64,
}

/// One PT_LOAD segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Physical address it is linked for.
    pub paddr: u64,
    /// Bytes in memory; what the file does not have is zero.
    pub memory_size: u64,
    /// Offset of its bytes in the unpacked file.
    pub file_offset: u64,
    /// Bytes in the unpacked file, at most `memory_size`.
    pub file_size: u64,
}

impl Segment {
    /// First physical address behind it. Checked not to overflow by [`KernelMeta::check`].
    #[must_use]
    pub fn end(&self) -> u64 {
        self.paddr + self.memory_size
    }
}

/// All that building a domain needs to know of a kernel; its bytes stay in the unpacked file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMeta {
    /// How the file was packed.
    pub format: Format,
    /// Size of the unpacked ELF file in bytes.
    pub unpacked_size: u64,
    /// Word size.
    pub class: Class,
    /// ELF entry point; the notes usually override it.
    pub elf_entry: u64,
    /// Segments in ascending physical order, not overlapping, at least one.
    pub segments: Vec<Segment>,
    /// Xen notes.
    pub notes: XenNotes,
}

impl KernelMeta {
    /// First physical address of any segment.
    #[must_use]
    pub fn paddr_start(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.paddr)
    }

    /// First physical address behind all segments.
    #[must_use]
    pub fn paddr_end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// Everything about the segments that loading them relies on.
    ///
    /// # Errors
    /// [`Fault::BadElf`] with the first rule broken.
    pub fn check(&self) -> Result<(), Fault> {
        if self.segments.is_empty() {
            return Err(Fault::elf("no segment to load"));
        }
        if self.segments.len() > MAX_PROGRAM_HEADERS {
            return Err(Fault::elf(format!("{} segments", self.segments.len())));
        }
        let mut below = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let end = segment.paddr.checked_add(segment.memory_size);
            let file_end = segment.file_offset.checked_add(segment.file_size);
            if end.is_none() {
                return Err(Fault::elf(format!(
                    "segment {index} wraps around the address space"
                )));
            }
            if file_end.is_none_or(|end| end > self.unpacked_size) {
                return Err(Fault::elf(format!(
                    "segment {index} takes {} bytes at {} of a file of {} bytes",
                    segment.file_size, segment.file_offset, self.unpacked_size
                )));
            }
            if segment.file_size > segment.memory_size {
                return Err(Fault::elf(format!(
                    "segment {index} is larger in the file than in memory"
                )));
            }
            if segment.paddr < below {
                return Err(Fault::elf(format!(
                    "segment {index} overlaps the one before it"
                )));
            }
            below = segment.end();
        }
        let span = self.paddr_end() - self.paddr_start();
        if span > MAX_KERNEL_SPAN {
            return Err(Fault::elf(format!(
                "its segments span {span} bytes of memory"
            )));
        }
        Ok(())
    }
}

/// Reads the headers and notes of an unpacked kernel.
///
/// # Errors
/// [`Fault::BadElf`] and [`Fault::BadNote`] name what is malformed; [`Fault::NotForXen`] if there is no Xen note.
pub fn parse(data: &[u8], format: Format) -> Result<KernelMeta, Fault> {
    let meta = match data.get(IDENT_CLASS) {
        Some(&class) if class == elf::ELFCLASS64.0 => {
            parse_as::<FileHeader64<Endianness>>(data, format)?
        }
        Some(&class) if class == elf::ELFCLASS32.0 => {
            parse_as::<FileHeader32<Endianness>>(data, format)?
        }
        Some(other) => return Err(Fault::elf(format!("class {other}"))),
        None => return Err(Fault::elf("it ends inside of the ELF identification")),
    };
    meta.check()?;
    if meta.notes == XenNotes::default() {
        return Err(Fault::NotForXen);
    }
    Ok(meta)
}

fn parse_as<Elf: FileHeader<Endian = Endianness>>(
    data: &[u8],
    format: Format,
) -> Result<KernelMeta, Fault> {
    let header = Elf::parse(data).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    let machine = header.e_machine(endian);
    if endian != Endianness::Little || (machine != elf::EM_X86_64 && machine != elf::EM_386) {
        return Err(Fault::elf(format!(
            "it is for another machine (ELF machine {})",
            machine.0
        )));
    }
    let class = match machine {
        elf::EM_X86_64 if header.is_class_64() => Class::Bits64,
        _ => Class::Bits32,
    };
    Ok(KernelMeta {
        format,
        unpacked_size: data.len() as u64,
        class,
        elf_entry: header.e_entry(endian).into(),
        segments: segments(header, endian, data)?,
        notes: notes(header, endian, data)?,
    })
}

fn bad(error: read::Error) -> Fault {
    Fault::elf(error.to_string())
}

fn program_headers<'data, Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    data: &'data [u8],
) -> Result<&'data [Elf::ProgramHeader], Fault> {
    let headers = header.program_headers(endian, data).map_err(bad)?;
    if headers.len() > MAX_PROGRAM_HEADERS {
        return Err(Fault::elf(format!("{} program headers", headers.len())));
    }
    Ok(headers)
}

fn segments<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    data: &[u8],
) -> Result<Vec<Segment>, Fault> {
    let mut segments: Vec<Segment> = program_headers(header, endian, data)?
        .iter()
        .filter(|header| header.p_type(endian) == elf::PT_LOAD)
        .map(|header| Segment {
            paddr: header.p_paddr(endian).into(),
            memory_size: header.p_memsz(endian).into(),
            file_offset: header.p_offset(endian).into(),
            file_size: header.p_filesz(endian).into(),
        })
        .filter(|segment| segment.memory_size != 0)
        .collect();
    segments.sort_by_key(|segment| segment.paddr);
    Ok(segments)
}

fn notes<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    data: &[u8],
) -> Result<XenNotes, Fault> {
    let mut found = XenNotes::default();
    let mut budget = MAX_NOTES;
    for header in program_headers(header, endian, data)? {
        if let Some(notes) = header.notes(endian, data).map_err(bad)? {
            collect(notes, endian, &mut found, &mut budget)?;
        }
    }
    if found != XenNotes::default() {
        return Ok(found);
    }
    let sections = header.section_headers(endian, data).map_err(bad)?;
    for section in sections.iter().take(MAX_SECTIONS) {
        if let Some(notes) = section.notes(endian, data).map_err(bad)? {
            collect(notes, endian, &mut found, &mut budget)?;
        }
    }
    Ok(found)
}

fn collect<Elf: FileHeader<Endian = Endianness>>(
    notes: NoteIterator<'_, Elf>,
    endian: Endianness,
    found: &mut XenNotes,
    budget: &mut usize,
) -> Result<(), Fault> {
    for note in notes {
        let note = note.map_err(bad)?;
        *budget = budget
            .checked_sub(1)
            .ok_or_else(|| Fault::elf(format!("more than {MAX_NOTES} notes")))?;
        if note.name() == b"Xen" {
            found.add(note.n_type(endian).0, note.desc())?;
        }
    }
    Ok(())
}
