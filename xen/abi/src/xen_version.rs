//! `xen_version`: who the hypervisor is. Source: `xen/version.h`.
//!
//! The older calls fill arrays of fixed length and cut what is longer; the newer ones (`*2`) take a [`VarBufHeader`] and
//! say how much there is. Texts end at the first NUL and may be anything: they are read lossily.

use crate::layout;
use crate::layout::copy_out;

crate::constants! {
    /// `major << 16 | minor` as the return value; no argument. See [`crate::version::XenVersion::from_word`].
    pub const VERSION: u64 = 0 => "XENVER_version";
    /// Text of [`EXTRAVERSION_BYTES`].
    pub const EXTRAVERSION: u64 = 1 => "XENVER_extraversion";
    /// [`CompileInfo`].
    pub const COMPILE_INFO: u64 = 2 => "XENVER_compile_info";
    /// Text of [`CAPABILITIES_BYTES`].
    pub const CAPABILITIES: u64 = 3 => "XENVER_capabilities";
    /// Text of [`CHANGESET_BYTES`].
    pub const CHANGESET: u64 = 4 => "XENVER_changeset";
    /// [`PlatformParameters`].
    pub const PLATFORM_PARAMETERS: u64 = 5 => "XENVER_platform_parameters";
    /// [`FeatureInfo`].
    pub const GET_FEATURES: u64 = 6 => "XENVER_get_features";
    /// Page size as the return value; no argument.
    pub const PAGESIZE: u64 = 7 => "XENVER_pagesize";
    /// The calling domain's uuid, 16 bytes.
    pub const GUEST_HANDLE: u64 = 8 => "XENVER_guest_handle";
    /// Text of [`COMMANDLINE_BYTES`].
    pub const COMMANDLINE: u64 = 9 => "XENVER_commandline";
    /// Build id in a [`VarBufHeader`].
    pub const BUILD_ID: u64 = 10 => "XENVER_build_id";

    /// Bytes of the extra version.
    pub const EXTRAVERSION_BYTES: usize = 16 => "XEN_EXTRAVERSION_LEN";
    /// Bytes of the capabilities.
    pub const CAPABILITIES_BYTES: usize = 1024 => "XEN_CAPABILITIES_INFO_LEN";
    /// Bytes of the changeset.
    pub const CHANGESET_BYTES: usize = 64 => "XEN_CHANGESET_INFO_LEN";
    /// Bytes of the command line.
    pub const COMMANDLINE_BYTES: usize = 1024 => "sizeof(xen_commandline_t)";
}

/// Bytes of a build id that are read; a SHA-1 has 20.
pub const BUILD_ID_MAX_BYTES: usize = 64;

layout! {
    /// How the hypervisor was built.
    pub struct CompileInfo: "struct xen_compile_info", 144 {
        /// Compiler.
        pub compiler: [u8; 64] = 0 => "compiler",
        /// Who.
        pub compile_by: [u8; 16] = 64 => "compile_by",
        /// Where.
        pub compile_domain: [u8; 32] = 80 => "compile_domain",
        /// When.
        pub compile_date: [u8; 32] = 112 => "compile_date",
    }
}

layout! {
    /// Where the hypervisor's part of a PV address space begins.
    pub struct PlatformParameters: "struct xen_platform_parameters", 8 {
        /// Virtual address.
        pub virt_start: u64 = 0 => "virt_start",
    }
}

layout! {
    /// 32 of the hypervisor's features; see [`crate::elfnote::features`].
    pub struct FeatureInfo: "struct xen_feature_info", 8 {
        /// In: which 32.
        pub submap_idx: u32 = 0 => "submap_idx",
        /// Out: the bits.
        pub submap: u32 = 4 => "submap",
    }
}

layout! {
    /// What stands before a buffer of variable length.
    pub struct VarBufHeader: "struct xen_build_id", 4 {
        /// Bytes of the buffer that follows.
        pub len: u32 = 0 => "len",
    }
}

/// A text of the hypervisor, up to its NUL.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The build id as hex, from a [`VarBufHeader`] with its buffer and the length the call returned.
#[must_use]
pub fn build_id(buffer: &[u8], len: usize) -> String {
    let id = buffer.get(size_of::<VarBufHeader>()..).unwrap_or_default();
    let id = &id[..len.min(id.len()).min(BUILD_ID_MAX_BYTES)];
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiler, who, where and when, out of a [`CompileInfo`] as bytes.
#[must_use]
pub fn compile_info(bytes: &[u8]) -> Option<[String; 4]> {
    let raw: CompileInfo = copy_out(bytes)?;
    Some([
        text(&raw.compiler),
        text(&raw.compile_by),
        text(&raw.compile_domain),
        text(&raw.compile_date),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_at_their_nul_or_at_their_array() {
        assert_eq!(text(b".3\0junk"), ".3");
        assert_eq!(text(b"full"), "full");
        assert_eq!(text(b""), "");
        let mut raw = [0u8; 144];
        raw[..3].copy_from_slice(b"gcc");
        raw[112..115].copy_from_slice(b"now");
        let [compiler, by, _, date] = compile_info(&raw).unwrap();
        assert_eq!(
            (compiler.as_str(), by.as_str(), date.as_str()),
            ("gcc", "", "now")
        );
        assert_eq!(compile_info(&raw[..143]), None);
    }

    #[test]
    fn a_build_id_is_hex_and_bounded() {
        assert_eq!(build_id(&[8, 0, 0, 0, 0xab, 0x01], 2), "ab01");
        assert_eq!(build_id(&[8, 0, 0, 0, 0xab], usize::MAX), "ab");
        assert_eq!(build_id(&[8, 0], 2), "");
        assert_eq!(build_id(&[1; 4096], 4092).len(), 2 * BUILD_ID_MAX_BYTES);
    }
}
