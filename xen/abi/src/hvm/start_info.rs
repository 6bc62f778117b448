//! What a PVH kernel finds behind `ebx` when it starts. Source: `xen/arch-x86/hvm/start_info.h`.

use crate::domain::{MemoryKind, MemoryRange};
use crate::layout;

crate::constants! {
    /// [`StartInfo::magic`].
    pub const MAGIC: u32 = 0x336e_c578 => "XEN_HVM_START_MAGIC_VALUE";
    /// [`MemmapEntry::kind`]: RAM.
    pub const MEMMAP_RAM: u32 = 1 => "XEN_HVM_MEMMAP_TYPE_RAM";
    /// [`MemmapEntry::kind`]: reserved.
    pub const MEMMAP_RESERVED: u32 = 2 => "XEN_HVM_MEMMAP_TYPE_RESERVED";
    /// [`MemmapEntry::kind`]: ACPI tables.
    pub const MEMMAP_ACPI: u32 = 3 => "XEN_HVM_MEMMAP_TYPE_ACPI";
}

/// [`StartInfo::version`] that has a memory map.
pub const VERSION: u32 = 1;

layout! {
    /// The start information. All addresses are guest-physical; 0 is "none".
    pub struct StartInfo: "struct hvm_start_info", 56 {
        /// [`MAGIC`].
        pub magic: u32 = 0 => "magic",
        /// [`VERSION`].
        pub version: u32 = 4 => "version",
        /// `pv::start_info::SIF_*`.
        pub flags: u32 = 8 => "flags",
        /// Modules.
        pub nr_modules: u32 = 12 => "nr_modules",
        /// Array of [`ModlistEntry`].
        pub modlist_paddr: u64 = 16 => "modlist_paddr",
        /// Command line, NUL-terminated.
        pub cmdline_paddr: u64 = 24 => "cmdline_paddr",
        /// ACPI root pointer.
        pub rsdp_paddr: u64 = 32 => "rsdp_paddr",
        /// Array of [`MemmapEntry`].
        pub memmap_paddr: u64 = 40 => "memmap_paddr",
        /// Its entries.
        pub memmap_entries: u32 = 48 => "memmap_entries",
        /// Zero.
        pub reserved: u32 = 52 => "reserved",
    }
}

layout! {
    /// One module, such as an initial ram disk.
    pub struct ModlistEntry: "struct hvm_modlist_entry", 32 {
        /// Where.
        pub paddr: u64 = 0 => "paddr",
        /// Bytes.
        pub size: u64 = 8 => "size",
        /// Its command line, NUL-terminated.
        pub cmdline_paddr: u64 = 16 => "cmdline_paddr",
        /// Zero.
        pub reserved: u64 = 24 => "reserved",
    }
}

layout! {
    /// One range of the memory map.
    pub struct MemmapEntry: "struct hvm_memmap_table_entry", 24 {
        /// Where.
        pub addr: u64 = 0 => "addr",
        /// Bytes.
        pub size: u64 = 8 => "size",
        /// `MEMMAP_*`.
        pub kind: u32 = 16 => "type",
        /// Zero.
        pub reserved: u32 = 20 => "reserved",
    }
}

impl From<MemoryRange> for MemmapEntry {
    fn from(range: MemoryRange) -> Self {
        let kind = match range.kind {
            MemoryKind::Ram => MEMMAP_RAM,
            MemoryKind::Reserved => MEMMAP_RESERVED,
            MemoryKind::Acpi => MEMMAP_ACPI,
        };
        Self {
            addr: range.address,
            size: range.size,
            kind,
            reserved: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_agree_with_the_e820_numbers() {
        for kind in [MemoryKind::Ram, MemoryKind::Reserved, MemoryKind::Acpi] {
            let entry = MemmapEntry::from(MemoryRange {
                address: 1,
                size: 2,
                kind,
            });
            assert_eq!(entry.kind, crate::memory::e820_type(kind));
            assert_eq!((entry.addr, entry.size, entry.reserved), (1, 2, 0));
        }
    }
}
