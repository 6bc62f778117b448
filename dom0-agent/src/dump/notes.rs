//! The notes of a dump: what it is of, and which Xen it was. Pure.
//!
//! A note is three numbers of 32 bits (length of its name, length of its contents, type), the name, and the contents, padded to 4 bytes.
//! Source: Xen `docs/misc/dump-core-format.txt`, `public/elfnote.h`, `public/version.h`.

use xen_abi::host::XenStrings;

const NAME: &[u8; 4] = b"Xen\0";
const NAME_BYTES: u32 = 4;
/// `XEN_ELFNOTE_DUMPCORE_NONE`: says what the file is.
const NONE: u32 = 0x0200_0000;
/// `XEN_ELFNOTE_DUMPCORE_HEADER`.
const HEADER: u32 = 0x0200_0001;
/// `XEN_ELFNOTE_DUMPCORE_XEN_VERSION`.
const XEN_VERSION: u32 = 0x0200_0002;
/// `XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION`.
const FORMAT_VERSION: u32 = 0x0200_0003;
/// `XC_CORE_MAGIC`: memory by frame.
const MAGIC_PV: u64 = 0xF00F_EBED;
/// `XC_CORE_MAGIC_HVM`: memory by page number.
const MAGIC_HVM: u64 = 0xF00F_EBEE;
/// Format 0.1.
const FORMAT: u64 = 1;

/// Bytes of all notes.
pub const BYTES: usize = 4 * NOTE_BYTES + HEADER_BYTES + VERSION_BYTES + 8;
const NOTE_BYTES: usize = 16;
const HEADER_BYTES: usize = 32;
const VERSION_BYTES: usize = 8 + 8 + 16 + (64 + 16 + 32 + 32) + 1024 + 64 + 8 + 8;

/// What the header note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Frames are not page numbers.
    pub pv: bool,
    /// Vcpus in `.xen_prstatus`.
    pub vcpus: u64,
    /// Pages in `.xen_pages`.
    pub pages: u64,
    /// Bytes of each.
    pub page_bytes: u64,
}

/// All notes, [`BYTES`] of them.
#[must_use]
pub fn notes(header: Header, xen: &XenStrings) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    note(&mut out, NONE, &[]);
    let magic = if header.pv { MAGIC_PV } else { MAGIC_HVM };
    let words = [magic, header.vcpus, header.pages, header.page_bytes];
    note(&mut out, HEADER, &words.map(u64::to_le_bytes).concat());
    note(&mut out, XEN_VERSION, &version(xen));
    note(&mut out, FORMAT_VERSION, &FORMAT.to_le_bytes());
    out
}

fn note(out: &mut Vec<u8>, kind: u32, contents: &[u8]) {
    let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
    for word in [NAME_BYTES, length, kind] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(NAME);
    out.extend_from_slice(contents);
}

/// What `XENVER_*` answers, in the fields that Xen gives them.
fn version(xen: &XenStrings) -> Vec<u8> {
    let mut out = Vec::with_capacity(VERSION_BYTES);
    for number in [u64::from(xen.major), u64::from(xen.minor)] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for (text, bytes) in [
        (&xen.extra_version, 16),
        (&xen.compiler, 64),
        (&xen.compile_by, 16),
        (&xen.compile_domain, 32),
        (&xen.compile_date, 32),
        (&xen.capabilities, 1024),
        (&xen.changeset, 64),
    ] {
        // The last byte ends the text.
        let text = &text.as_bytes()[..text.len().min(bytes - 1)];
        out.extend_from_slice(text);
        out.resize(out.len() + bytes - text.len(), 0);
    }
    out.extend_from_slice(&xen.virt_start.to_le_bytes());
    out.extend_from_slice(&u64::from(xen.page_size).to_le_bytes());
    out
}
