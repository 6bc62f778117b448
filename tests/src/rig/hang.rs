//! A kernel module that hangs its kernel from inside: its `init` takes a spin lock with interrupts off and never comes back.
//!
//! ```text
//!   stock module ──▶ name of the kernel (vermagic), CRCs of two symbols, shape of `struct module`
//!                                     │
//!   .text   endbr64; lea lock(%rip), %rdi; call _raw_spin_lock_irqsave; jmp .
//!   .data   the lock                  ▼
//!   .modinfo, __versions, .gnu.linkonce.this_module ──▶ hang.ko
//! ```
//!
//! Interrupts go off through the kernel's own function, so it is the same for PV and PVH. No compiler and no kernel headers are needed: what
//! depends on the kernel is taken from one of its own modules. Source: `elf(5)`; `MODULE_INFO`, `struct modversion_info` in Linux.

use std::mem::size_of;

use anyhow::{Context, Result, ensure};
use object::elf::{
    self, FileHeader64, Rela64, RelocationType, SectionFlags, SectionHeader64, SectionType, Sym64,
    SymbolBind, SymbolSection,
};
use object::pod::{Pod, bytes_of};
use object::read::elf::ElfFile64;
use object::{LittleEndian as LE, Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{RelocationTarget, U16, U32, U64};

/// What `insmod` shows.
const NAME: &str = "hang";
/// The function that turns interrupts off: `unsigned long f(raw_spinlock_t *)`.
const LOCK: &str = "_raw_spin_lock_irqsave";
/// The symbol whose CRC stands for `struct module` and its relatives.
const LAYOUT: &str = "module_layout";
/// `struct modversion_info`: a CRC of 8 bytes, then a name.
const VERSION_BYTES: usize = 64;
/// Longest name a `struct module` holds, its end mark included (`MODULE_NAME_LEN`).
const NAME_BYTES: usize = 56;
/// `endbr64; lea 0(%rip), %rdi; call 0; jmp .`
const CODE: [u8; 18] = [
    0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8d, 0x3d, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xeb, 0xfe,
];
/// Where in [`CODE`] the address of the lock and of the function go. Both count from the end of their four bytes.
const LOCK_AT: u64 = 7;
const CALL_AT: u64 = 12;
const FROM_END: i64 = -4;

/// What a kernel wants to see in a module, learned from one that it accepts.
struct Stock {
    vermagic: Vec<u8>,
    versions: Vec<u8>,
    this_module: Vec<u8>,
    init_at: u64,
}

/// The module, for the kernel that `stock` belongs to; `stock` must use its lock itself.
///
/// # Errors
/// When something of what a kernel wants is not in `stock`.
pub fn module(stock: &[u8]) -> Result<Vec<u8>> {
    let stock = Stock::learn(stock)?;
    let mut modinfo = format!("license=GPL\0name={NAME}\0depends=\0retpoline=Y\0").into_bytes();
    modinfo.extend_from_slice(&stock.vermagic);

    let strings = [LOCK, "init_module", "__this_module"];
    let (strtab, names) = string_table(&strings);
    // A symbol for the lock, then the global ones: the kernel's, and ours.
    let symbols = [
        symbol(0, elf::STB_LOCAL, 0, 0),
        symbol(0, elf::STB_LOCAL, DATA, 0),
        symbol(names[0], elf::STB_GLOBAL, 0, 0),
        symbol(names[1], elf::STB_GLOBAL, TEXT, CODE.len() as u64),
        symbol(
            names[2],
            elf::STB_GLOBAL,
            THIS,
            stock.this_module.len() as u64,
        ),
    ];
    let calls = [
        relocation(LOCK_AT, 1, elf::R_X86_64_PC32, FROM_END),
        relocation(CALL_AT, 2, elf::R_X86_64_PLT32, FROM_END),
    ];
    let entry = [relocation(stock.init_at, 3, elf::R_X86_64_64, 0)];

    let (code, data) = (
        elf::SHF_ALLOC | elf::SHF_EXECINSTR,
        elf::SHF_ALLOC | elf::SHF_WRITE,
    );
    let (bits, rela) = (elf::SHT_PROGBITS, elf::SHT_RELA);
    // In the order of the numbers below.
    let sections = [
        Section::of(".text", bits, code, CODE.to_vec()),
        Section::of(".data", bits, data, vec![0; 8]),
        Section::of(".modinfo", bits, elf::SHF_ALLOC, modinfo),
        Section::of("__versions", bits, elf::SHF_ALLOC, stock.versions),
        Section::of(".gnu.linkonce.this_module", bits, data, stock.this_module).aligned(64),
        Section::of(".rela.text", rela, elf::SHF_INFO_LINK, bytes(&calls))
            .table::<Rela64<LE>>(SYMTAB, TEXT),
        Section::of(
            ".rela.gnu.linkonce.this_module",
            rela,
            elf::SHF_INFO_LINK,
            bytes(&entry),
        )
        .table::<Rela64<LE>>(SYMTAB, THIS),
        // The first two symbols are local.
        Section::of(".symtab", elf::SHT_SYMTAB, NONE, bytes(&symbols))
            .table::<Sym64<LE>>(STRTAB, 2),
        Section::of(".strtab", elf::SHT_STRTAB, NONE, strtab).aligned(1),
    ];
    Ok(file(sections.into()))
}

/// What is only for the kernel's loader.
const NONE: SectionFlags = SectionFlags(0);

/// Numbers of the sections that others refer to.
const TEXT: u16 = 1;
const DATA: u16 = 2;
const THIS: u16 = 5;
const SYMTAB: u16 = 8;
const STRTAB: u16 = 9;

impl Stock {
    fn learn(module: &[u8]) -> Result<Self> {
        let file = ElfFile64::<LE>::parse(module).context("the stock module is no ELF file")?;
        let section = |name: &str| {
            let found = file
                .section_by_name(name)
                .with_context(|| format!("the stock module has no {name}"))?;
            Ok::<_, anyhow::Error>((found.data()?, found))
        };
        let (info, _) = section(".modinfo")?;
        let word = |key: &[u8]| {
            info.split(|&byte| byte == 0)
                .find(|word| word.starts_with(key))
        };
        let vermagic = word(b"vermagic=").context("the stock module has no vermagic")?;
        let name = word(b"name=").and_then(|word| word.strip_prefix(b"name="));

        let (versions, _) = section("__versions")?;
        let version = |symbol: &str| {
            let wanted = |entry: &&[u8]| {
                entry[8..].split(|&byte| byte == 0).next() == Some(symbol.as_bytes())
            };
            let entry = versions.chunks_exact(VERSION_BYTES).find(wanted);
            entry.with_context(|| format!("the stock module has no CRC of {symbol}"))
        };

        let (this, shape) = section(".gnu.linkonce.this_module")?;
        let init_at = shape
            .relocations()
            .find_map(|(at, relocation)| {
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    return None;
                };
                let symbol = file.symbol_by_index(index).ok()?;
                (symbol.name() == Ok("init_module")).then_some(at)
            })
            .context("the stock module has no init")?;
        Ok(Self {
            vermagic: [vermagic, b"\0"].concat(),
            versions: [version(LAYOUT)?, version(LOCK)?].concat(),
            this_module: renamed(this, name.context("the stock module has no name")?)?,
            init_at,
        })
    }
}

/// `struct module` as the linker leaves it: nothing but a name, which becomes ours.
fn renamed(this: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let at = this
        .windows(name.len() + 1)
        .position(|bytes| bytes.starts_with(name) && bytes.ends_with(b"\0"))
        .context("the stock module's name is not in its struct module")?;
    let mut this = this.to_vec();
    let room = this
        .get_mut(at..at + NAME_BYTES)
        .context("struct module is too small for a name")?;
    ensure!(
        room[name.len()..].iter().all(|&byte| byte == 0),
        "struct module holds more than a name"
    );
    room.fill(0);
    room[..NAME.len()].copy_from_slice(NAME.as_bytes());
    Ok(this)
}

/// A section and what its header says of it.
struct Section {
    name: &'static str,
    content: Vec<u8>,
    header: SectionHeader64<LE>,
}

impl Section {
    fn of(name: &'static str, kind: SectionType, flags: SectionFlags, content: Vec<u8>) -> Self {
        let header = SectionHeader64 {
            sh_name: U32::new(LE, 0),
            sh_type: U32::new(LE, kind),
            sh_flags: U64::new(LE, flags),
            sh_addr: U64::new(LE, 0),
            sh_offset: U64::new(LE, 0),
            sh_size: U64::new(LE, content.len() as u64),
            sh_link: U32::new(LE, 0),
            sh_info: U32::new(LE, 0),
            sh_addralign: U64::new(LE, 8),
            sh_entsize: U64::new(LE, 0),
        };
        Self {
            name,
            content,
            header,
        }
    }

    fn aligned(mut self, to: u64) -> Self {
        self.header.sh_addralign = U64::new(LE, to);
        self
    }

    fn table<T>(mut self, link: u16, info: u16) -> Self {
        self.header.sh_link = U32::new(LE, link.into());
        self.header.sh_info = U32::new(LE, info.into());
        self.header.sh_entsize = U64::new(LE, size_of::<T>() as u64);
        self
    }
}

/// Header, sections and the table of them, with the empty first section and the table of their names added.
fn file(mut sections: Vec<Section>) -> Vec<u8> {
    sections.insert(
        0,
        Section::of("", elf::SHT_NULL, NONE, Vec::new()).aligned(0),
    );
    sections.push(Section::of(".shstrtab", elf::SHT_STRTAB, NONE, Vec::new()).aligned(1));
    let names: Vec<&str> = sections.iter().map(|section| section.name).collect();
    let (table, offsets) = string_table(&names);
    if let Some(last) = sections.last_mut() {
        last.header.sh_size = U64::new(LE, table.len() as u64);
        last.content = table;
    }
    let mut out = vec![0; size_of::<FileHeader64<LE>>()];
    for (section, name) in sections.iter_mut().zip(offsets) {
        pad(&mut out, section.header.sh_addralign.get(LE));
        section.header.sh_name = U32::new(LE, name);
        // The empty first one has to be all zeroes.
        let at = if name == 0 { 0 } else { out.len() as u64 };
        section.header.sh_offset = U64::new(LE, at);
        out.extend_from_slice(&section.content);
    }
    pad(&mut out, 8);
    let head = header(out.len() as u64, sections.len());
    for section in &sections {
        out.extend_from_slice(bytes_of(&section.header));
    }
    out[..size_of::<FileHeader64<LE>>()].copy_from_slice(bytes_of(&head));
    out
}

fn header(table_at: u64, sections: usize) -> FileHeader64<LE> {
    let count = u16::try_from(sections).unwrap_or(u16::MAX);
    FileHeader64 {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_SYSV,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, elf::ET_REL),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, elf::EV_CURRENT.0.into()),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, 0),
        e_shoff: U64::new(LE, table_at),
        e_flags: U32::new(LE, elf::FileFlags(0)),
        e_ehsize: size_field::<FileHeader64<LE>>(),
        e_phentsize: U16::new(LE, 0),
        e_phnum: U16::new(LE, 0),
        e_shentsize: size_field::<SectionHeader64<LE>>(),
        e_shnum: U16::new(LE, count),
        e_shstrndx: U16::new(LE, SymbolSection(count - 1)),
    }
}

fn size_field<T>() -> U16<LE> {
    U16::new(LE, u16::try_from(size_of::<T>()).unwrap_or(u16::MAX))
}

fn symbol(name: u32, binding: SymbolBind, section: u16, size: u64) -> Sym64<LE> {
    let kind = match section {
        TEXT => elf::STT_FUNC,
        THIS => elf::STT_OBJECT,
        _ if binding == elf::STB_LOCAL && section != 0 => elf::STT_SECTION,
        _ => elf::STT_NOTYPE,
    };
    Sym64 {
        st_name: U32::new(LE, name),
        st_info: binding | kind,
        st_other: elf::SymbolOther(0),
        st_shndx: U16::new(LE, SymbolSection(section)),
        st_value: U64::new(LE, 0),
        st_size: U64::new(LE, size),
    }
}

fn relocation(at: u64, symbol: u32, kind: RelocationType, addend: i64) -> Rela64<LE> {
    Rela64 {
        r_offset: U64::new(LE, at),
        r_info: Rela64::r_info(LE, false, symbol, kind),
        r_addend: object::I64::new(LE, addend),
    }
}

/// Strings that end with a zero byte, an empty one first, and where each begins.
fn string_table(strings: &[&str]) -> (Vec<u8>, Vec<u32>) {
    let mut table = vec![0];
    let mut places = Vec::new();
    for string in strings {
        if string.is_empty() {
            places.push(0);
            continue;
        }
        places.push(u32::try_from(table.len()).unwrap_or(0));
        table.extend_from_slice(string.as_bytes());
        table.push(0);
    }
    (table, places)
}

fn bytes<T: Pod>(items: &[T]) -> Vec<u8> {
    items
        .iter()
        .flat_map(|item| bytes_of(item).iter().copied())
        .collect()
}

fn pad(out: &mut Vec<u8>, to: u64) {
    let to = usize::try_from(to).unwrap_or(1).max(1);
    out.resize(out.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK_INIT_AT: u64 = 24 + 64;

    /// A stock module as small as one can be, made with the same tools.
    fn stock() -> Vec<u8> {
        let mut this = vec![0; 192];
        this[24..29].copy_from_slice(b"stock");
        let version = |crc: u64, name: &str| {
            let mut entry = crc.to_le_bytes().to_vec();
            entry.extend_from_slice(name.as_bytes());
            entry.resize(VERSION_BYTES, 0);
            entry
        };
        let versions = [version(1, "other"), version(2, LAYOUT), version(3, LOCK)].concat();
        let (strtab, names) = string_table(&["init_module"]);
        let symbols = [
            symbol(0, elf::STB_LOCAL, 0, 0),
            symbol(names[0], elf::STB_GLOBAL, TEXT, 1),
        ];
        let entry = [relocation(STOCK_INIT_AT, 1, elf::R_X86_64_64, 0)];
        let bits = elf::SHT_PROGBITS;
        file(vec![
            Section::of(".text", bits, elf::SHF_ALLOC, vec![0xc3]),
            Section::of(
                ".modinfo",
                bits,
                elf::SHF_ALLOC,
                b"name=stock\0vermagic=1.2 SMP \0".to_vec(),
            ),
            Section::of("__versions", bits, elf::SHF_ALLOC, versions),
            Section::of(".gnu.linkonce.this_module", bits, elf::SHF_ALLOC, this),
            Section::of(".rela.this", elf::SHT_RELA, NONE, bytes(&entry)).table::<Rela64<LE>>(6, 4),
            Section::of(".symtab", elf::SHT_SYMTAB, NONE, bytes(&symbols)).table::<Sym64<LE>>(7, 1),
            Section::of(".strtab", elf::SHT_STRTAB, NONE, strtab).aligned(1),
        ])
    }

    #[test]
    fn the_module_reads_back_with_what_the_kernel_wants() -> Result<()> {
        let made = module(&stock())?;
        let file = ElfFile64::<LE>::parse(&*made)?;
        let content = |name: &str| -> Result<Vec<u8>> {
            Ok(file
                .section_by_name(name)
                .context(name.to_owned())?
                .data()?
                .to_vec())
        };
        assert!(content(".modinfo")?.ends_with(b"vermagic=1.2 SMP \0"));
        let versions = content("__versions")?;
        assert_eq!(
            (versions.len(), versions[0], versions[VERSION_BYTES]),
            (2 * VERSION_BYTES, 2, 3)
        );
        let this = content(".gnu.linkonce.this_module")?;
        assert_eq!((this.len(), &this[24..30]), (192, &b"hang\0\0"[..]));

        let targets = |name: &str| -> Result<Vec<(u64, String)>> {
            let section = file.section_by_name(name).context(name.to_owned())?;
            let named = section.relocations().map(|(at, relocation)| {
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    anyhow::bail!("no symbol")
                };
                Ok((at, file.symbol_by_index(index)?.name()?.to_owned()))
            });
            named.collect()
        };
        assert_eq!(
            targets(".gnu.linkonce.this_module")?,
            [(STOCK_INIT_AT, "init_module".into())]
        );
        assert_eq!(
            targets(".text")?,
            [(LOCK_AT, String::new()), (CALL_AT, LOCK.into())]
        );
        let init = file
            .symbols()
            .find(|symbol| symbol.name() == Ok("init_module"));
        assert_eq!(
            init.map(|symbol| (symbol.address(), symbol.size())),
            Some((0, CODE.len() as u64))
        );
        Ok(())
    }

    #[test]
    fn a_stock_module_without_the_lock_is_refused_by_name() {
        let mut other = stock();
        let at = other
            .windows(LOCK.len())
            .position(|bytes| bytes == LOCK.as_bytes())
            .unwrap_or(0);
        other[at] = b'x';
        let refusal = module(&other).map_err(|error| error.to_string());
        assert!(refusal.is_err_and(|text| text.contains(LOCK)));
    }
}
