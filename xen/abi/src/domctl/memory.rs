//! Memory limits, the paging pool, the address width and page types.

use super::{Call, Command};
use crate::ids::DomId;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;

crate::constants! {
    table MEMORY_CONSTANTS;
    /// Bits of a page type word that hold the type.
    pub const PFINFO_TYPE_MASK: u32 = 0xf << 28 => "XEN_DOMCTL_PFINFO_LTAB_MASK";
    /// An ordinary page.
    pub const PFINFO_NOTAB: u32 = 0 => "XEN_DOMCTL_PFINFO_NOTAB";
    /// A level 1 page table.
    pub const PFINFO_L1TAB: u32 = 1 << 28 => "XEN_DOMCTL_PFINFO_L1TAB";
    /// A level 2 page table.
    pub const PFINFO_L2TAB: u32 = 2 << 28 => "XEN_DOMCTL_PFINFO_L2TAB";
    /// A level 3 page table.
    pub const PFINFO_L3TAB: u32 = 3 << 28 => "XEN_DOMCTL_PFINFO_L3TAB";
    /// A level 4 page table.
    pub const PFINFO_L4TAB: u32 = 4 << 28 => "XEN_DOMCTL_PFINFO_L4TAB";
    /// Pinned, together with a table type.
    pub const PFINFO_PINNED: u32 = 1 << 31 => "XEN_DOMCTL_PFINFO_LPINTAB";
    /// Broken.
    pub const PFINFO_BROKEN: u32 = 0xd << 28 => "XEN_DOMCTL_PFINFO_BROKEN";
    /// To be allocated without content.
    pub const PFINFO_XALLOC: u32 = 0xe << 28 => "XEN_DOMCTL_PFINFO_XALLOC";
    /// Not there.
    pub const PFINFO_XTAB: u32 = 0xf << 28 => "XEN_DOMCTL_PFINFO_XTAB";
}

layout! {
    /// `XEN_DOMCTL_max_mem`.
    pub struct MaxMem: "struct xen_domctl_max_mem", 8 {
        /// KiB.
        pub max_memkb: u64 = 0 => "max_memkb",
    }
}

layout! {
    /// `XEN_DOMCTL_set_paging_mempool_size` and `get_paging_mempool_size`.
    pub struct PagingMempool: "struct xen_domctl_paging_mempool", 8 {
        /// Bytes.
        pub size: u64 = 0 => "size",
    }
}

layout! {
    /// `XEN_DOMCTL_set_address_size` and `get_address_size`.
    pub struct AddressSize: "struct xen_domctl_address_size", 4 {
        /// 64 or 32.
        pub size: u32 = 0 => "size",
    }
}

/// Frames that one `getpageframeinfo3` takes; Xen refuses more with `E2BIG`.
pub const PAGE_TYPES_PER_CALL: usize = 1024;

layout! {
    /// `XEN_DOMCTL_getpageframeinfo3`.
    pub struct GetPageFrameInfo3: "struct xen_domctl_getpageframeinfo3", 16 {
        /// Frames.
        pub num: u64 = 0 => "num",
        /// Array of u64: in, frames; out, type words.
        pub array: UserPtr = 8 => "array",
    }
}

/// Limits a domain's memory.
#[must_use]
pub fn set_max_mem(abi: Abi, domain: DomId, kib: u64) -> Call {
    Call::with(abi, Command::MaxMem, domain, &MaxMem { max_memkb: kib })
}

/// Sizes the pool of pages Xen itself uses for the domain's page tables. May fail half-way: read it back.
#[must_use]
pub fn set_paging_pool(abi: Abi, domain: DomId, bytes: u64) -> Call {
    Call::with(
        abi,
        Command::SetPagingMempoolSize,
        domain,
        &PagingMempool { size: bytes },
    )
}

/// Asks the size of the paging pool; see [`paging_pool_answer`].
#[must_use]
pub fn get_paging_pool(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::GetPagingMempoolSize, domain)
}

/// Bytes in the paging pool.
#[must_use]
pub fn paging_pool_answer(answer: &Call) -> u64 {
    answer.payload::<PagingMempool>().size
}

/// Sets the width of a PV guest's addresses, in bits. Only before it has memory.
#[must_use]
pub fn set_address_size(abi: Abi, domain: DomId, bits: u32) -> Call {
    Call::with(
        abi,
        Command::SetAddressSize,
        domain,
        &AddressSize { size: bits },
    )
}

/// Asks the width of a guest's addresses; see [`address_size_answer`].
#[must_use]
pub fn get_address_size(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::GetAddressSize, domain)
}

/// Bits of the guest's addresses.
#[must_use]
pub fn address_size_answer(answer: &Call) -> u32 {
    answer.payload::<AddressSize>().size
}

/// Asks the types of `count` frames; Xen overwrites the array of u64 with `PFINFO_*` words.
#[must_use]
pub fn get_page_frame_info(abi: Abi, domain: DomId, frames: UserPtr, count: u64) -> Call {
    let raw = GetPageFrameInfo3 {
        num: count,
        array: frames,
    };
    Call::with(abi, Command::GetPageFrameInfo3, domain, &raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_units_of_each_call() {
        let abi = Abi::V4_20;
        assert_eq!(
            set_max_mem(abi, DomId(1), 0x1_0203).payload[..4],
            [3, 2, 1, 0]
        );
        let pool = set_paging_pool(abi, DomId(1), 0x10_0000);
        assert_eq!((pool.cmd, paging_pool_answer(&pool)), (86, 0x10_0000));
        assert_eq!(get_paging_pool(abi, DomId(1)).cmd, 85);
        let width = set_address_size(abi, DomId(1), 64);
        assert_eq!((width.cmd, address_size_answer(&width)), (35, 64));
    }
}
