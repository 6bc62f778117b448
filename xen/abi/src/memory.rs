//! `memory_op`: what memory a domain has and where. Source: `xen/memory.h`.
//!
//! Frame lists are arrays of `u64` in hypercall buffers. Calls that work on many extents may stop short: the return
//! value is how many were done, and the caller goes on from there.

use crate::domain::{MemoryKind, MemoryRange};
use crate::layout;
use crate::layout::UserPtr;
use zerocopy::IntoBytes;

crate::constants! {
    /// `XENMEM_increase_reservation`: [`Reservation`].
    pub const INCREASE_RESERVATION: u64 = 0 => "XENMEM_increase_reservation";
    /// Take extents away: [`Reservation`].
    pub const DECREASE_RESERVATION: u64 = 1 => "XENMEM_decrease_reservation";
    /// Highest machine frame; no argument.
    pub const MAXIMUM_RAM_PAGE: u64 = 2 => "XENMEM_maximum_ram_page";
    /// Pages a domain has: [`OfDomain`]; the answer is the return value.
    pub const CURRENT_RESERVATION: u64 = 3 => "XENMEM_current_reservation";
    /// Pages a domain may have: [`OfDomain`].
    pub const MAXIMUM_RESERVATION: u64 = 4 => "XENMEM_maximum_reservation";
    /// Frames of the machine-to-physical table: [`MachphysMfnList`].
    pub const MACHPHYS_MFN_LIST: u64 = 5 => "XENMEM_machphys_mfn_list";
    /// Give a domain memory at chosen frames: [`Reservation`].
    pub const POPULATE_PHYSMAP: u64 = 6 => "XENMEM_populate_physmap";
    /// Make a frame of Xen's or of the guest appear at a gfn: [`AddToPhysmap`].
    pub const ADD_TO_PHYSMAP: u64 = 7 => "XENMEM_add_to_physmap";
    /// The calling domain's own memory map: [`MemoryMap`].
    pub const MEMORY_MAP: u64 = 9 => "XENMEM_memory_map";
    /// The machine's memory map: [`MemoryMap`].
    pub const MACHINE_MEMORY_MAP: u64 = 10 => "XENMEM_machine_memory_map";
    /// Set a domain's memory map: [`ForeignMemoryMap`].
    pub const SET_MEMORY_MAP: u64 = 13 => "XENMEM_set_memory_map";
    /// Highest gfn of a domain: [`OfDomain`].
    pub const MAXIMUM_GPFN: u64 = 14 => "XENMEM_maximum_gpfn";
    /// Take one gfn away: [`RemoveFromPhysmap`].
    pub const REMOVE_FROM_PHYSMAP: u64 = 15 => "XENMEM_remove_from_physmap";
    /// `XENMEM_set_pod_target`: [`PodTarget`].
    pub const SET_POD_TARGET: u64 = 16 => "XENMEM_set_pod_target";
    /// `XENMEM_get_pod_target`: [`PodTarget`].
    pub const GET_POD_TARGET: u64 = 17 => "XENMEM_get_pod_target";
    /// Pages freed by sharing; no argument.
    pub const GET_SHARING_FREED_PAGES: u64 = 18 => "XENMEM_get_sharing_freed_pages";
    /// Pages in use by sharing; no argument.
    pub const GET_SHARING_SHARED_PAGES: u64 = 19 => "XENMEM_get_sharing_shared_pages";
    /// Stake a claim to free pages: [`Reservation`] with no list; 0 pages gives it up.
    pub const CLAIM_PAGES: u64 = 24 => "XENMEM_claim_pages";
    /// Frames of a resource: [`AcquireResource`]. Linux offers it through [`crate::privcmd::IOCTL_MMAP_RESOURCE`].
    pub const ACQUIRE_RESOURCE: u64 = 28 => "XENMEM_acquire_resource";

    /// [`Reservation::mem_flags`]: only from the node named, or fail.
    pub const MEMF_EXACT_NODE_REQUEST: u32 = 1 << 17 => "XENMEMF_exact_node_request";
    /// [`Reservation::mem_flags`]: populate on demand.
    pub const MEMF_POPULATE_ON_DEMAND: u32 = 1 << 16 => "XENMEMF_populate_on_demand";

    /// [`AddToPhysmap::space`]: the shared info page.
    pub const SPACE_SHARED_INFO: u32 = 0 => "XENMAPSPACE_shared_info";
    /// [`AddToPhysmap::space`]: grant table frames.
    pub const SPACE_GRANT_TABLE: u32 = 1 => "XENMAPSPACE_grant_table";
    /// [`AddToPhysmap::space`]: another gfn of the same guest.
    pub const SPACE_GMFN: u32 = 2 => "XENMAPSPACE_gmfn";

    /// Resource type: pages of an ioreq server.
    pub const RESOURCE_IOREQ_SERVER: u32 = 0 => "XENMEM_resource_ioreq_server";
    /// Resource type: grant table frames.
    pub const RESOURCE_GRANT_TABLE: u32 = 1 => "XENMEM_resource_grant_table";
    /// Grant table resource id: the entries.
    pub const RESOURCE_GRANT_TABLE_SHARED: u32 = 0 => "XENMEM_resource_grant_table_id_shared";
    /// Grant table resource id: the status words of version 2.
    pub const RESOURCE_GRANT_TABLE_STATUS: u32 = 1 => "XENMEM_resource_grant_table_id_status";
}

/// [`Reservation::mem_flags`] that prefer a NUMA node (`XENMEMF_node`).
#[must_use]
pub const fn memf_node(node: u8) -> u32 {
    ((node as u32).wrapping_add(1) & 0xff) << 8
}

layout! {
    /// Argument of the reservation calls, `populate_physmap` and `claim_pages`.
    pub struct Reservation: "struct xen_memory_reservation", 32 {
        /// Array of first frames, one per extent. `populate_physmap`: in gfns; out, for a PV guest, mfns.
        pub extent_start: UserPtr = 0 => "extent_start",
        /// Extents.
        pub nr_extents: u64 = 8 => "nr_extents",
        /// log2 of the pages in each: 0, 9 (2 MiB) or 18 (1 GiB).
        pub extent_order: u32 = 16 => "extent_order",
        /// `MEMF_*`.
        pub mem_flags: u32 = 20 => "mem_flags",
        /// Whose memory.
        pub domid: u16 = 24 => "domid",
        /// Padding, zero.
        pub pad: [u8; 6] = 26,
    }
}

layout! {
    /// Argument of the calls that only name a domain.
    pub struct OfDomain: "struct xen_memory_domain", 2 {
        /// The domain.
        pub domid: u16 = 0 => "domid",
    }
}

layout! {
    /// Argument of [`MACHPHYS_MFN_LIST`]. Each extent is 2 MiB of the table; a gap has frame 0.
    pub struct MachphysMfnList: "struct xen_machphys_mfn_list", 24 {
        /// Room in the array.
        pub max_extents: u32 = 0 => "max_extents",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of u64.
        pub extent_start: UserPtr = 8 => "extent_start",
        /// Out: extents written.
        pub nr_extents: u32 = 16 => "nr_extents",
        /// Padding, zero.
        pub pad2: u32 = 20,
    }
}

layout! {
    /// Argument of [`ADD_TO_PHYSMAP`].
    pub struct AddToPhysmap: "struct xen_add_to_physmap", 24 {
        /// Whose map.
        pub domid: u16 = 0 => "domid",
        /// Pages, for ranges only.
        pub size: u16 = 2 => "size",
        /// `SPACE_*`.
        pub space: u32 = 4 => "space",
        /// Index within the space.
        pub idx: u64 = 8 => "idx",
        /// Where it shall appear.
        pub gpfn: u64 = 16 => "gpfn",
    }
}

layout! {
    /// Argument of [`REMOVE_FROM_PHYSMAP`].
    pub struct RemoveFromPhysmap: "struct xen_remove_from_physmap", 16 {
        /// Whose map.
        pub domid: u16 = 0 => "domid",
        /// Padding, zero.
        pub pad: [u8; 6] = 2,
        /// The gfn.
        pub gpfn: u64 = 8 => "gpfn",
    }
}

layout! {
    /// A buffer of entries of [`E820_ENTRY_BYTES`].
    pub struct MemoryMap: "struct xen_memory_map", 16 {
        /// In: room; out: entries.
        pub nr_entries: u32 = 0 => "nr_entries",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// The entries.
        pub buffer: UserPtr = 8 => "buffer",
    }
}

layout! {
    /// Argument of [`SET_MEMORY_MAP`].
    pub struct ForeignMemoryMap: "struct xen_foreign_memory_map", 24 {
        /// Whose map.
        pub domid: u16 = 0 => "domid",
        /// Padding, zero.
        pub pad: [u8; 6] = 2,
        /// The map.
        pub map: MemoryMap = 8 => "map",
    }
}

layout! {
    /// Argument of the populate-on-demand calls.
    pub struct PodTarget: "struct xen_pod_target", 40 {
        /// In: pages to aim at.
        pub target_pages: u64 = 0 => "target_pages",
        /// Out: pages the domain has.
        pub tot_pages: u64 = 8 => "tot_pages",
        /// Out: pages in the cache.
        pub pod_cache_pages: u64 = 16 => "pod_cache_pages",
        /// Out: entries not populated.
        pub pod_entries: u64 = 24 => "pod_entries",
        /// In: whose.
        pub domid: u16 = 32 => "domid",
        /// Padding, zero.
        pub pad: [u8; 6] = 34,
    }
}

layout! {
    /// Argument of [`ACQUIRE_RESOURCE`].
    pub struct AcquireResource: "struct xen_mem_acquire_resource", 32 {
        /// Whose resource.
        pub domid: u16 = 0 => "domid",
        /// `RESOURCE_*`, the types.
        pub kind: u16 = 2 => "type",
        /// Which one.
        pub id: u32 = 4 => "id",
        /// Frames; 0 with no list asks the size.
        pub nr_frames: u32 = 8 => "nr_frames",
        /// Padding, zero.
        pub pad: u32 = 12 => "pad",
        /// First frame.
        pub frame: u64 = 16 => "frame",
        /// Array of u64.
        pub frame_list: UserPtr = 24 => "frame_list",
    }
}

/// One entry of a memory map: the packed BIOS form. Source: `xen/memory.h`, "BIOS INT 0x15 EAX=0xE820".
///
/// It has 20 bytes and no C structure of the public headers stands for it, so it is encoded by hand.
pub const E820_ENTRY_BYTES: usize = 20;
/// Entries Xen accepts in [`SET_MEMORY_MAP`] (`E820MAX`).
pub const E820_MAX_ENTRIES: usize = 1024;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const E820_ACPI: u32 = 3;

/// Encodes a memory map for [`SET_MEMORY_MAP`].
#[must_use]
pub fn encode_memory_map(ranges: &[MemoryRange]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ranges.len() * E820_ENTRY_BYTES);
    for range in ranges {
        bytes.extend_from_slice(range.address.as_bytes());
        bytes.extend_from_slice(range.size.as_bytes());
        bytes.extend_from_slice(e820_type(range.kind).as_bytes());
    }
    bytes
}

/// Decodes at most [`E820_MAX_ENTRIES`] entries; a type that is not used here counts as reserved.
#[must_use]
pub fn decode_memory_map(bytes: &[u8]) -> Vec<MemoryRange> {
    let entries = bytes.chunks_exact(E820_ENTRY_BYTES).take(E820_MAX_ENTRIES);
    entries
        .filter_map(|entry| {
            let address = layout::copy_out(entry)?;
            let size = layout::copy_out(entry.get(8..)?)?;
            let kind = match layout::copy_out::<u32>(entry.get(16..)?)? {
                E820_RAM => MemoryKind::Ram,
                E820_ACPI => MemoryKind::Acpi,
                _ => MemoryKind::Reserved,
            };
            Some(MemoryRange {
                address,
                size,
                kind,
            })
        })
        .collect()
}

/// The E820 number of a kind of memory.
#[must_use]
pub const fn e820_type(kind: MemoryKind) -> u32 {
    match kind {
        MemoryKind::Ram => E820_RAM,
        MemoryKind::Reserved => E820_RESERVED,
        MemoryKind::Acpi => E820_ACPI,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_map_is_packed_and_comes_back() {
        let map = [
            MemoryRange {
                address: 0,
                size: 0x1000_0000,
                kind: MemoryKind::Ram,
            },
            MemoryRange {
                address: 0xfc00_0000,
                size: 0x1000,
                kind: MemoryKind::Acpi,
            },
            MemoryRange {
                address: 0xfeff_8000,
                size: 0x8000,
                kind: MemoryKind::Reserved,
            },
        ];
        let bytes = encode_memory_map(&map);
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[16], 1);
        assert_eq!(bytes[36], 3);
        assert_eq!(decode_memory_map(&bytes), map);
        assert_eq!(decode_memory_map(&bytes[..59]).len(), 2);
    }

    #[test]
    fn a_node_is_one_above_its_number() {
        assert_eq!(memf_node(0), 0x100);
        assert_eq!(memf_node(2), 0x300);
    }
}
