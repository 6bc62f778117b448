//! Grant tables as a toolstack meets them: version 1 entries it writes for a guest, and the errors of grant operations.
//! Source: `xen/grant_table.h`.

use crate::ids::{DomId, GrantRef};
use crate::layout;
use crate::layout::UserPtr;

crate::constants! {
    /// Frames of a domain's table: [`SetupTable`]. Only where the resource cannot be mapped.
    pub const OP_SETUP_TABLE: u64 = 2 => "GNTTABOP_setup_table";
    /// Copy between pages: what gntdev does for us.
    pub const OP_COPY: u64 = 5 => "GNTTABOP_copy";
    /// Size of a domain's table: [`QuerySize`].
    pub const OP_QUERY_SIZE: u64 = 6 => "GNTTABOP_query_size";
    /// Version of a domain's table: [`GetVersion`].
    pub const OP_GET_VERSION: u64 = 10 => "GNTTABOP_get_version";

    /// Entries at the start that belong to the toolstack.
    pub const RESERVED_ENTRIES: u32 = 8 => "GNTTAB_NR_RESERVED_ENTRIES";

    /// Entry type: nothing.
    pub const FLAG_INVALID: u16 = 0 => "GTF_invalid";
    /// Entry type: the domain may map the page.
    pub const FLAG_PERMIT_ACCESS: u16 = 1 => "GTF_permit_access";
    /// The domain may only read.
    pub const FLAG_READONLY: u16 = 1 << 2 => "GTF_readonly";
    /// Mapped or copied from now.
    pub const FLAG_READING: u16 = 1 << 3 => "GTF_reading";
    /// Mapped for writing or copied to now.
    pub const FLAG_WRITING: u16 = 1 << 4 => "GTF_writing";
}

/// The entry of the console page (`GNTTAB_RESERVED_CONSOLE`).
pub const RESERVED_CONSOLE: GrantRef = GrantRef(0);
/// The entry of the xenstore page (`GNTTAB_RESERVED_XENSTORE`).
pub const RESERVED_XENSTORE: GrantRef = GrantRef(1);

layout! {
    /// One entry of a version 1 table. A guest that has not chosen a version has this one.
    pub struct EntryV1: "struct grant_entry_v1", 8 {
        /// `FLAG_*`; written last, after the rest.
        pub flags: u16 = 0 => "flags",
        /// Who may map.
        pub domid: u16 = 2 => "domid",
        /// The page: an mfn for a PV guest, a gfn otherwise.
        pub frame: u32 = 4 => "frame",
    }
}

impl EntryV1 {
    /// Lets `domid` map `frame` for reading and writing; `None` if the frame is beyond 16 TiB.
    #[must_use]
    pub fn permit(domid: DomId, frame: u64) -> Option<Self> {
        let frame = u32::try_from(frame).ok()?;
        Some(Self {
            flags: FLAG_PERMIT_ACCESS,
            domid: domid.0,
            frame,
        })
    }
}

layout! {
    /// Argument of [`OP_SETUP_TABLE`].
    pub struct SetupTable: "struct gnttab_setup_table", 24 {
        /// Whose.
        pub dom: u16 = 0 => "dom",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// Frames wanted.
        pub nr_frames: u32 = 4 => "nr_frames",
        /// Out: [`Status`].
        pub status: i16 = 8 => "status",
        /// Padding, zero.
        pub pad2: [u16; 3] = 10,
        /// Array of u64.
        pub frame_list: UserPtr = 16 => "frame_list",
    }
}

layout! {
    /// Argument of [`OP_QUERY_SIZE`].
    pub struct QuerySize: "struct gnttab_query_size", 16 {
        /// Whose.
        pub dom: u16 = 0 => "dom",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// Out: frames it has.
        pub nr_frames: u32 = 4 => "nr_frames",
        /// Out: frames it may have.
        pub max_nr_frames: u32 = 8 => "max_nr_frames",
        /// Out: [`Status`].
        pub status: i16 = 12 => "status",
        /// Padding, zero.
        pub pad2: u16 = 14,
    }
}

layout! {
    /// Argument of [`OP_GET_VERSION`].
    pub struct GetVersion: "struct gnttab_get_version", 8 {
        /// Whose.
        pub dom: u16 = 0 => "dom",
        /// Padding, zero.
        pub pad: u16 = 2 => "pad",
        /// Out: 1 or 2.
        pub version: u32 = 4 => "version",
    }
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $c:literal, $text:literal;)*) => {
        /// What became of a grant operation (`GNTST_*`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Status {
            $($(#[$doc])* #[error($text)] $name,)*
            /// A number the header does not have.
            #[error("unknown grant status {0}")]
            Other(i16),
        }

        impl Status {
            /// From the number in a status field.
            #[must_use]
            pub const fn from_number(number: i16) -> Self {
                match number {
                    $($value => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// The number.
            #[must_use]
            pub const fn number(self) -> i16 {
                match self {
                    $(Self::$name => $value,)*
                    Self::Other(number) => number,
                }
            }
        }

        /// The statuses under their C names, for the header check.
        pub const C_STATUSES: &[(&str, u64)] = &[$(($c, $value as i64 as u64),)*];
    };
}

statuses! {
    /// Done.
    Okay = 0, "GNTST_okay", "done";
    /// No reason given.
    GeneralError = -1, "GNTST_general_error", "the hypervisor gives no reason";
    /// No such domain.
    BadDomain = -2, "GNTST_bad_domain", "there is no such domain";
    /// The reference is not one, or not for this.
    BadGntref = -3, "GNTST_bad_gntref", "the grant reference is invalid or not for this use";
    /// The handle is not one.
    BadHandle = -4, "GNTST_bad_handle", "the grant mapping handle is invalid";
    /// Cannot map there.
    BadVirtAddr = -5, "GNTST_bad_virt_addr", "the address to map at is inappropriate";
    /// Cannot unmap there.
    BadDevAddr = -6, "GNTST_bad_dev_addr", "the device address to unmap is inappropriate";
    /// The IOMMU is full.
    NoDeviceSpace = -7, "GNTST_no_device_space", "the IOMMU has no room";
    /// Not allowed.
    PermissionDenied = -8, "GNTST_permission_denied", "the grant does not permit this";
    /// The page granted is none.
    BadPage = -9, "GNTST_bad_page", "the granted page is invalid";
    /// The copy leaves the page.
    BadCopyArg = -10, "GNTST_bad_copy_arg", "the copy crosses a page boundary";
    /// The page is too high.
    AddressTooBig = -11, "GNTST_address_too_big", "the page address is too large";
    /// Paged out: try again.
    Again = -12, "GNTST_eagain", "the page is not there now; try again";
    /// Out of handles.
    NoSpace = -13, "GNTST_no_space", "out of grant mapping handles";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_beyond_the_entry_is_refused() {
        assert_eq!(EntryV1::permit(DomId(0), 1 << 32), None);
        let entry = EntryV1::permit(DomId(3), 0xfeff7).unwrap();
        assert_eq!((entry.flags, entry.domid, entry.frame), (1, 3, 0xfeff7));
    }

    #[test]
    fn every_number_is_a_status_and_back() {
        for number in -20..=5 {
            assert_eq!(Status::from_number(number).number(), number);
        }
        assert_eq!(Status::from_number(-3), Status::BadGntref);
        assert_eq!(Status::from_number(1), Status::Other(1));
    }
}
