//! What stands before the records of an image: the image header, whose numbers are big-endian, and the domain header.
//!
//! ```text
//!   0 marker, all ones | 8 "XENF" | 12 version | 16 options | 18 zero, 6 bytes
//!   0 type | 4 page shift, u16 | 6 zero, u16 | 8 Xen's major | 12 Xen's minor          little-endian
//! ```

use crate::bytes::Fields;
use crate::error::Problem;

/// Bytes of the image header.
pub const IMAGE_BYTES: usize = 24;
/// Bytes of the domain header.
pub const DOMAIN_BYTES: usize = 16;
/// Version that is written.
pub const VERSION: u32 = 3;
/// Oldest version that is read, that of Xen 4.6 to 4.13.
pub const OLDEST_VERSION: u32 = 2;

const MARKER: u64 = u64::MAX;
const IDENT: u32 = 0x5845_4e46;
const FORMAT: &str = "a libxc image";
const BIG_ENDIAN: u16 = 1;
const PAGE_SHIFT: u16 = 12;

/// The image header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// 2 or 3. Version 2 has neither CPU policies nor STATIC_DATA_END.
    pub version: u32,
}

impl ImageHeader {
    /// Judges the bytes.
    ///
    /// # Errors
    /// Not such a header, another version, big-endian, or reserved bits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(bytes);
        let marks = [
            ("the marker", fields.be64()?, MARKER),
            ("the id", fields.be32()?.into(), u64::from(IDENT)),
        ];
        for (what, found, expected) in marks {
            if found != expected {
                let format = FORMAT;
                return Err(Problem::Mark {
                    what,
                    found,
                    expected,
                    format,
                });
            }
        }
        let version = fields.be32()?;
        check_version(FORMAT, version, OLDEST_VERSION, VERSION)?;
        let options = fields.be16()?;
        if options & !BIG_ENDIAN != 0 {
            return Err(Problem::Reserved {
                what: "the image header's options",
                value: (options & !BIG_ENDIAN).into(),
            });
        }
        if options & BIG_ENDIAN != 0 {
            return Err(Problem::BigEndian("the image"));
        }
        fields.zero16("the image header")?;
        fields.zero32("the image header")?;
        Ok(Self { version })
    }

    /// Appends it.
    pub fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&MARKER.to_be_bytes());
        into.extend_from_slice(&IDENT.to_be_bytes());
        into.extend_from_slice(&self.version.to_be_bytes());
        into.extend_from_slice(&[0; 8]);
    }
}

/// A version between two known ones, or which of them it misses.
pub(crate) fn check_version(
    format: &'static str,
    found: u32,
    oldest: u32,
    newest: u32,
) -> Result<(), Problem> {
    if found > newest {
        return Err(Problem::Newer {
            format,
            found,
            newest,
        });
    }
    if found < oldest {
        return Err(Problem::Older {
            format,
            found,
            oldest,
        });
    }
    Ok(())
}

/// Which records an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainKind {
    /// PV.
    Pv,
    /// PVH or HVM: images do not tell them apart.
    Hvm,
}

impl DomainKind {
    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pv => "PV",
            Self::Hvm => "PVH or HVM",
        }
    }
}

/// The domain header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainHeader {
    /// Which records follow.
    pub kind: DomainKind,
    /// Xen's major version where it was saved; 0 if a converter of old images made it.
    pub xen_major: u32,
    /// Xen's minor version there, or that of the converter.
    pub xen_minor: u32,
}

impl DomainHeader {
    /// Whether a converter made this of an image of Xen 4.5 or older.
    #[must_use]
    pub const fn is_converted(self) -> bool {
        self.xen_major == 0
    }

    /// Judges the bytes.
    ///
    /// # Errors
    /// An unknown kind of domain, pages of another size than 4096 bytes, or reserved bits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(bytes);
        let kind = match fields.u32()? {
            1 => DomainKind::Pv,
            2 => DomainKind::Hvm,
            found => {
                return Err(Problem::Value {
                    what: "the kind of domain",
                    found: found.into(),
                    expected: "1 (PV) or 2 (PVH, HVM)",
                });
            }
        };
        match fields.u16()? {
            PAGE_SHIFT => {}
            found => {
                return Err(Problem::Value {
                    what: "the page shift",
                    found: found.into(),
                    expected: "0xc",
                });
            }
        }
        fields.zero16("the domain header")?;
        Ok(Self {
            kind,
            xen_major: fields.u32()?,
            xen_minor: fields.u32()?,
        })
    }

    /// Appends it.
    pub fn encode(self, into: &mut Vec<u8>) {
        let kind: u32 = match self.kind {
            DomainKind::Pv => 1,
            DomainKind::Hvm => 2,
        };
        into.extend_from_slice(&kind.to_le_bytes());
        into.extend_from_slice(&PAGE_SHIFT.to_le_bytes());
        into.extend_from_slice(&[0; 2]);
        into.extend_from_slice(&self.xen_major.to_le_bytes());
        into.extend_from_slice(&self.xen_minor.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_refused_by_both_numbers() {
        let mut bytes = vec![];
        ImageHeader { version: 4 }.encode(&mut bytes);
        let text = ImageHeader::decode(&bytes).unwrap_err().to_string();
        assert!(text.contains("version 4 is newer than version 3"), "{text}");
        let mut bytes = vec![];
        ImageHeader { version: 1 }.encode(&mut bytes);
        let text = ImageHeader::decode(&bytes).unwrap_err().to_string();
        assert!(text.contains("version 1 is older than version 2"), "{text}");
    }

    #[test]
    fn an_old_image_has_no_marker() {
        let text = ImageHeader::decode(&[0; 24]).unwrap_err().to_string();
        assert!(text.contains("the marker is 0x0"), "{text}");
    }
}
