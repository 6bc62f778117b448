//! The ELF file around the pages. Pure. Source: `elf(5)`, Xen `docs/misc/dump-core-format.txt`.

use super::notes::{self, Header};
use object::elf::{self, FileHeader64, SectionHeader64};
use object::pod::bytes_of;
use object::{LittleEndian as LE, U16, U32, U64};
use xen_abi::host::XenStrings;
use xen_abi::ids::PAGE_SIZE;

/// A page in the dump: its number, and the frame that it lies in, which is the same but for PV guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// The guest's number of it.
    pub pfn: u64,
    /// Xen's.
    pub frame: u64,
}

/// What a dump holds besides pages.
#[derive(Debug)]
pub struct Contents {
    /// Registers of each vcpu.
    pub contexts: Vec<Vec<u8>>,
    /// A PV guest's shared info.
    pub shared_info: Option<Box<[u8; PAGE_SIZE]>>,
    /// Pages are named by number and frame.
    pub pv: bool,
}

const HEADER_BYTES: usize = size_of::<FileHeader64<LE>>();
const SECTION_BYTES: usize = size_of::<SectionHeader64<LE>>();
/// The table of sections' names is the second section, as stock has it.
const NAMES: u16 = 1;

/// One section, before its place is known.
struct Section {
    name: &'static str,
    kind: elf::SectionType,
    bytes: u64,
    align: u64,
    each: u64,
}

impl Contents {
    /// Where the first page belongs in the file.
    #[must_use]
    pub fn pages_at(&self) -> u64 {
        let head = HEADER_BYTES
            + self.sections(0).len() * SECTION_BYTES
            + notes::BYTES
            + self.contexts.iter().map(Vec::len).sum::<usize>()
            + self.shared_info.as_ref().map_or(0, |page| page.len());
        head.next_multiple_of(PAGE_SIZE) as u64
    }

    /// What stands before the pages, and what stands behind them.
    #[must_use]
    pub fn around(&self, pages: &[Frames], xen: &XenStrings) -> (Vec<u8>, Vec<u8>) {
        let count = pages.len() as u64;
        let sections = self.sections(count);
        let (names, offsets) = names(&sections);
        let mut head = file_header(sections.len());
        let tail_at = self.pages_at() + count * PAGE_SIZE as u64;
        let mut at = (HEADER_BYTES + sections.len() * SECTION_BYTES) as u64;
        for (section, name) in sections.iter().zip(offsets) {
            let list = if self.pv { 16 } else { 8 } * count;
            let (offset, bytes) = match section.name {
                "" => (0, 0),
                ".shstrtab" => (tail_at + list, names.len() as u64),
                ".xen_pages" => (self.pages_at(), section.bytes),
                ".xen_p2m" | ".xen_pfn" => (tail_at, section.bytes),
                _ => {
                    at += section.bytes;
                    (at - section.bytes, section.bytes)
                }
            };
            head.extend_from_slice(bytes_of(&section.header(name, offset, bytes)));
        }
        head.extend(notes::notes(
            Header {
                pv: self.pv,
                vcpus: self.contexts.len() as u64,
                pages: count,
                page_bytes: PAGE_SIZE as u64,
            },
            xen,
        ));
        head.extend(self.contexts.iter().flatten());
        head.extend(self.shared_info.iter().flat_map(|page| page.iter()));

        let mut tail = Vec::new();
        for page in pages {
            tail.extend_from_slice(&page.pfn.to_le_bytes());
            if self.pv {
                tail.extend_from_slice(&page.frame.to_le_bytes());
            }
        }
        tail.extend(names);
        (head, tail)
    }

    /// All sections; what stands before the pages is in the order of the file.
    fn sections(&self, pages: u64) -> Vec<Section> {
        let section = |name, kind, bytes, align, each| Section {
            name,
            kind,
            bytes,
            align,
            each,
        };
        let bits = elf::SHT_PROGBITS;
        let context = self.contexts.first().map_or(0, Vec::len) as u64;
        let contexts = self.contexts.iter().map(Vec::len).sum::<usize>() as u64;
        let page = PAGE_SIZE as u64;
        let mut all = vec![
            section("", elf::SHT_NULL, 0, 0, 0),
            section(".shstrtab", elf::SHT_STRTAB, 0, 0, 0),
            section(".note.Xen", elf::SHT_NOTE, notes::BYTES as u64, 0, 0),
            section(".xen_prstatus", bits, contexts, 8, context),
        ];
        if self.shared_info.is_some() {
            all.push(section(".xen_shared_info", bits, page, 8, page));
        }
        all.push(section(".xen_pages", bits, pages * page, page, page));
        all.push(if self.pv {
            section(".xen_p2m", bits, pages * 16, 8, 16)
        } else {
            section(".xen_pfn", bits, pages * 8, 8, 8)
        });
        all
    }
}

impl Section {
    fn header(&self, name: u32, offset: u64, bytes: u64) -> SectionHeader64<LE> {
        SectionHeader64 {
            sh_name: U32::new(LE, name),
            sh_type: U32::new(LE, self.kind),
            sh_flags: U64::new(LE, elf::SectionFlags(0)),
            sh_addr: U64::new(LE, 0),
            sh_offset: U64::new(LE, offset),
            sh_size: U64::new(LE, bytes),
            sh_link: U32::new(LE, 0),
            sh_info: U32::new(LE, 0),
            sh_addralign: U64::new(LE, self.align),
            sh_entsize: U64::new(LE, self.each),
        }
    }
}

/// Names that end with a zero byte, and where each begins.
fn names(sections: &[Section]) -> (Vec<u8>, Vec<u32>) {
    let mut table = Vec::new();
    let mut places = Vec::new();
    for section in sections {
        places.push(u32::try_from(table.len()).unwrap_or(0));
        table.extend_from_slice(section.name.as_bytes());
        table.push(0);
    }
    (table, places)
}

fn file_header(sections: usize) -> Vec<u8> {
    let header = FileHeader64 {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_SYSV,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_CORE),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, elf::EV_CURRENT.0.into()),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, 0),
        e_shoff: U64::new(LE, HEADER_BYTES as u64),
        e_flags: U32::new(LE, elf::FileFlags(0)),
        e_ehsize: half(HEADER_BYTES),
        e_phentsize: half(size_of::<elf::ProgramHeader64<LE>>()),
        e_phnum: U16::new(LE, 0),
        e_shentsize: half(SECTION_BYTES),
        e_shnum: half(sections),
        e_shstrndx: U16::new(LE, elf::SymbolSection(NAMES)),
    };
    bytes_of(&header).to_vec()
}

fn half(number: usize) -> U16<LE> {
    U16::new(LE, u16::try_from(number).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::ElfFile64;
    use object::{Object as _, ObjectSection as _};

    fn xen() -> XenStrings {
        XenStrings {
            major: 4,
            minor: 20,
            extra_version: ".4-pre".into(),
            capabilities: "xen-3.0-x86_64 hvm-3.0-x86_64 ".into(),
            changeset: "unavailable".into(),
            command_line: String::new(),
            virt_start: 0xffff_8000_0000_0000,
            page_size: 4096,
            compiler: "gcc".into(),
            compile_by: "x".repeat(40),
            compile_domain: String::new(),
            compile_date: String::new(),
            build_id: String::new(),
        }
    }

    fn file_of(contents: &Contents, pages: &[Frames]) -> Vec<u8> {
        let (mut file, tail) = contents.around(pages, &xen());
        let at = usize::try_from(contents.pages_at()).unwrap();
        assert!(file.len() <= at && at - file.len() < PAGE_SIZE);
        file.resize(at, 0);
        for page in pages {
            file.resize(file.len() + PAGE_SIZE, u8::try_from(page.pfn).unwrap());
        }
        file.extend(tail);
        file
    }

    #[test]
    fn every_section_reads_back_by_its_name() {
        let pages = [Frames { pfn: 3, frame: 103 }, Frames { pfn: 7, frame: 107 }];
        for pv in [false, true] {
            let contents = Contents {
                contexts: vec![vec![1; 5168], vec![2; 5168]],
                shared_info: pv.then(|| Box::new([9; PAGE_SIZE])),
                pv,
            };
            let bytes = file_of(&contents, &pages);
            let file = ElfFile64::<LE>::parse(&*bytes).unwrap();
            let data = |name: &str| file.section_by_name(name).map(|s| s.data().unwrap());
            assert_eq!(
                data(".xen_prstatus").unwrap(),
                [[1; 5168], [2; 5168]].concat()
            );
            assert_eq!(data(".xen_shared_info").is_some(), pv);
            assert_eq!(data(".xen_pages").unwrap(), [[3; 4096], [7; 4096]].concat());
            let words = |name: &str| {
                data(name).map(|bytes| {
                    let words = bytes.as_chunks::<8>().0.iter();
                    words
                        .map(|word| u64::from_le_bytes(*word))
                        .collect::<Vec<_>>()
                })
            };
            let list = if pv { vec![3, 103, 7, 107] } else { vec![3, 7] };
            let (has, lacks) = if pv {
                (".xen_p2m", ".xen_pfn")
            } else {
                (".xen_pfn", ".xen_p2m")
            };
            assert_eq!((words(has), words(lacks)), (Some(list), None));
        }
    }

    #[test]
    fn notes_say_what_it_is_and_long_texts_keep_their_end() {
        let contents = Contents {
            contexts: vec![vec![0; 5168]],
            shared_info: None,
            pv: false,
        };
        let bytes = file_of(&contents, &[Frames { pfn: 1, frame: 1 }]);
        let file = ElfFile64::<LE>::parse(&*bytes).unwrap();
        let notes = file.section_by_name(".note.Xen").unwrap().data().unwrap();
        assert_eq!(notes.len(), notes::BYTES);
        let word = |at: usize| u64::from_le_bytes(notes[at..at + 8].try_into().unwrap());
        assert_eq!([32, 40, 48, 56].map(word), [0xF00F_EBEE, 1, 1, 4096]);
        let version = 64 + 16;
        assert_eq!([version, version + 8].map(word), [4, 20]);
        let by = version + 16 + 16 + 64;
        assert_eq!(&notes[by..by + 16], b"xxxxxxxxxxxxxxx\0");
        assert_eq!(word(notes::BYTES - 8), 1);
    }
}
