//! The bytes of blkif, as this driver uses `xen_abi::io::blkif`: the order's word for the layout, and what a response can say.

use parapet_wire::driver::Protocol;
use xen_abi::io::blkif;

/// Bytes of the larger layout's request.
pub const MAX_REQUEST_BYTES: usize = 112;
const _: () = assert!(blkif::Protocol::X86_64.entry_bytes() == MAX_REQUEST_BYTES);
const _: () = assert!(blkif::Protocol::X86_32.entry_bytes() <= MAX_REQUEST_BYTES);

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Status {
    /// Done.
    Okay = blkif::RSP_OKAY,
    /// Failed.
    Error = blkif::RSP_ERROR,
    /// Not offered.
    NotSupported = blkif::RSP_EOPNOTSUPP,
}

/// The layout in the words of the header.
#[must_use]
pub fn layout(protocol: Protocol) -> blkif::Protocol {
    match protocol {
        Protocol::X86_64 => blkif::Protocol::X86_64,
        Protocol::X86_32 => blkif::Protocol::X86_32,
    }
}

/// Bytes of one ring entry (a request; responses are shorter).
#[must_use]
pub fn stride(protocol: Protocol) -> usize {
    layout(protocol).entry_bytes()
}
