//! The setup header in front of a packed Linux kernel: where the payload lies in the file.
//!
//! ```text
//!   0      0x1f1 setup header   (setup_sects+1)*512    + payload_offset      + payload_length
//!   ├──────┼────────────────────┼──────────────────────┼═════════ payload ═══┤┄┄┄
//! ```
//!
//! Pure; every number of the header is untrusted. Source: `Documentation/arch/x86/boot.rst`.

use super::error::{Fault, Format};
use std::ops::Range;

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: Range<usize> = 0x202..0x206;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// End of the part of the header that is read here.
const HEADER_END: usize = 0x250;
/// First boot protocol with a payload (2.08).
const PAYLOAD_PROTOCOL: u16 = 0x0208;
const SECTOR: usize = 512;
/// What a `setup_sects` of 0 stands for.
const DEFAULT_SETUP_SECTS: usize = 4;

/// Where the payload lies; `None` if `file` is not a bzImage.
///
/// # Errors
/// The header is older than 2.08, or the file ends before the payload does.
pub fn payload(file: &[u8]) -> Result<Option<Range<usize>>, Fault> {
    if file.get(MAGIC) != Some(b"HdrS") {
        return Ok(None);
    }
    let have = file.len() as u64;
    let Some(header) = file.get(..HEADER_END) else {
        return Err(Fault::CutShort {
            format: None,
            promised: HEADER_END as u64,
            have,
        });
    };
    let version = u16::from_le_bytes([header[VERSION], header[VERSION + 1]]);
    if version < PAYLOAD_PROTOCOL {
        return Err(Fault::OldProtocol { version });
    }
    let sectors = match usize::from(header[SETUP_SECTS]) {
        0 => DEFAULT_SETUP_SECTS,
        sectors => sectors,
    };
    // All u64, so that 32-bit fields cannot overflow when added.
    let start = ((sectors + 1) * SECTOR) as u64 + u64::from(u32_at(header, PAYLOAD_OFFSET));
    let promised = start + u64::from(u32_at(header, PAYLOAD_LENGTH));
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(promised)) else {
        return Err(Fault::CutShort {
            format: None,
            promised,
            have,
        });
    };
    if file.get(from..to).is_none() {
        let format = file.get(from..).and_then(super::unpack::detect);
        return Err(Fault::CutShort {
            format,
            promised,
            have,
        });
    }
    Ok(Some(from..to))
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The packing of a payload, or of a whole file that is not a bzImage.
///
/// # Errors
/// It is none that is known.
pub fn format_of(data: &[u8]) -> Result<Format, Fault> {
    super::unpack::detect(data).ok_or_else(|| Fault::NotAKernel {
        start: first_bytes(data),
    })
}

fn first_bytes(data: &[u8]) -> String {
    let shown: Vec<String> = data
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    shown.join(" ")
}
