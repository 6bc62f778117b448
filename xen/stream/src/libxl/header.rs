//! What a libxl stream begins with; all numbers big-endian.
//!
//! ```text
//!   0 "LibxlFmt" | 8 version | 12 options: bit 0 big-endian records, bit 1 made by a converter of old streams
//! ```

use crate::bytes::Fields;
use crate::error::Problem;
use crate::libxc::header::check_version;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// The version, so far the only one.
pub const VERSION: u32 = 2;

const IDENT: u64 = 0x4c69_6278_6c46_6d74;
const FORMAT: &str = "a libxl stream";
const BIG_ENDIAN: u32 = 1 << 0;
const CONVERTED: u32 = 1 << 1;

/// The header of a libxl stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LibxlHeader {
    /// `convert-legacy-stream` made it of a stream of Xen 4.5 or older.
    pub converted: bool,
}

impl LibxlHeader {
    /// Judges the bytes.
    ///
    /// # Errors
    /// Not such a header, another version, big-endian, or reserved bits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(bytes);
        let ident = fields.be64()?;
        if ident != IDENT {
            return Err(Problem::Mark {
                what: "the ident",
                found: ident,
                expected: IDENT,
                format: FORMAT,
            });
        }
        check_version(FORMAT, fields.be32()?, VERSION, VERSION)?;
        let options = fields.be32()?;
        let reserved = options & !(BIG_ENDIAN | CONVERTED);
        if reserved != 0 {
            return Err(Problem::Reserved {
                what: "the options",
                value: reserved.into(),
            });
        }
        if options & BIG_ENDIAN != 0 {
            return Err(Problem::BigEndian("the stream"));
        }
        Ok(Self {
            converted: options & CONVERTED != 0,
        })
    }

    /// Appends it.
    pub fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&IDENT.to_be_bytes());
        into.extend_from_slice(&VERSION.to_be_bytes());
        let options = if self.converted { CONVERTED } else { 0 };
        into.extend_from_slice(&options.to_be_bytes());
    }
}
