//! The header of an xl save file, which also begins a migration: marks, flags, and the domain's configuration.
//!
//! ```text
//!   0  magic, 32 bytes | 32 byte order | 36 mandatory flags | 40 optional flags | 44 length L of optional data
//!   48 if L: u32 C | C bytes of configuration, JSON with a trailing NUL | what else is in L is skipped
//! ```
//!
//! Source: `tools/xl/xl.h`, `xl_saverestore.c`, `xl_vmcontrol.c`. Numbers are in the byte order of the host that saved. It
//! never looks into the configuration.

use crate::bytes::Fields;
use crate::error::{Expected, Problem};
use crate::limits;

/// First bytes of every save file.
pub const MAGIC: [u8; 32] = *b"Xen saved domain, xl format\n \0 \r";
/// Bytes before the optional data.
pub const HEADER_BYTES: usize = 48;
/// Mandatory flag: the configuration is JSON, not the language of configuration files.
pub const FLAG_JSON: u32 = 1 << 0;
/// Mandatory flag: a libxl stream of version 2 follows.
pub const FLAG_STREAM_V2: u32 = 1 << 1;

const BYTE_ORDER: u32 = 0x0102_0304;

/// The header of an xl save file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XlHeader {
    /// The configuration is JSON ([`FLAG_JSON`]).
    pub json: bool,
    /// Flags that nobody needs to know; stock writes 0.
    pub optional_flags: u32,
    /// The domain's configuration as stock xl keeps it: JSON and a NUL. `None`: none was sent.
    pub config: Option<Vec<u8>>,
}

impl XlHeader {
    /// As stock xl writes it: JSON, with the NUL appended.
    #[must_use]
    pub fn with_json(config: &str) -> Self {
        let mut bytes = config.as_bytes().to_vec();
        bytes.push(0);
        Self {
            json: true,
            optional_flags: 0,
            config: Some(bytes),
        }
    }

    /// The configuration as text, without NULs at its end.
    ///
    /// # Errors
    /// There is none, or it is not UTF-8 up to its NULs.
    pub fn config_text(&self) -> Result<&str, Problem> {
        let bytes = self
            .config
            .as_deref()
            .ok_or(Problem::Content("holds no configuration of the domain"))?;
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        std::str::from_utf8(&bytes[..end])
            .map_err(|_| Problem::Content("the configuration in it is not text"))
    }

    /// The mandatory flags, as `xl` prints them.
    #[must_use]
    pub const fn mandatory_flags(&self) -> u32 {
        FLAG_STREAM_V2 | if self.json { FLAG_JSON } else { 0 }
    }

    /// Bytes of optional data this takes, as `xl` prints them.
    ///
    /// # Errors
    /// More than [`limits::XL_DATA_BYTES`].
    pub fn optional_length(&self) -> Result<u32, Problem> {
        let bytes = self.config.as_ref().map_or(0, |config| 4 + config.len());
        within_limit(bytes as u64)
    }

    /// Stock reads JSON up to its NUL, wherever that may be.
    fn check(&self) -> Result<(), Problem> {
        match self.config.as_deref() {
            Some(config) if self.json && config.last() != Some(&0) => Err(Problem::Content(
                "the configuration in it is JSON and does not end in a NUL",
            )),
            _ => Ok(()),
        }
    }

    /// Appends header and configuration.
    ///
    /// # Errors
    /// As [`XlHeader::optional_length`], or the configuration is JSON without its NUL.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), Problem> {
        let length = self.optional_length()?;
        self.check()?;
        into.extend_from_slice(&MAGIC);
        for word in [
            BYTE_ORDER,
            self.mandatory_flags(),
            self.optional_flags,
            length,
        ] {
            into.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(config) = &self.config {
            into.extend_from_slice(&(length - 4).to_le_bytes());
            into.extend_from_slice(config);
        }
        Ok(())
    }
}

fn within_limit(bytes: u64) -> Result<u32, Problem> {
    u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= limits::XL_DATA_BYTES)
        .ok_or(Problem::Limit {
            what: "bytes of configuration",
            found: bytes,
            limit: limits::XL_DATA_BYTES,
        })
}

/// The fixed part of a header, judged; the optional data is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed {
    flags: u32,
    optional_flags: u32,
    /// Bytes that follow.
    pub data_length: u32,
}

impl Fixed {
    /// Judges the first [`HEADER_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(bytes);
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(Problem::NotXl);
        }
        match fields.u32()? {
            BYTE_ORDER => {}
            order if order == BYTE_ORDER.swap_bytes() => {
                return Err(Problem::BigEndian("the file"));
            }
            order => {
                return Err(Problem::Mark {
                    what: "the byte order",
                    found: order.into(),
                    expected: BYTE_ORDER.into(),
                    format: "an xl save file",
                });
            }
        }
        let flags = fields.u32()?;
        let unknown = flags & !(FLAG_JSON | FLAG_STREAM_V2);
        if unknown != 0 {
            return Err(Problem::Flags { unknown });
        }
        if flags & FLAG_STREAM_V2 == 0 {
            return Err(Problem::Legacy);
        }
        let optional_flags = fields.u32()?;
        let data_length = within_limit(fields.u32()?.into())?;
        Ok(Self {
            flags,
            optional_flags,
            data_length,
        })
    }

    /// With the optional data.
    pub fn complete(self, data: &[u8]) -> Result<XlHeader, Problem> {
        let config = if data.is_empty() {
            None
        } else {
            let mut fields = Fields::of(data);
            let length = fields.u32()?;
            let rest = fields.rest();
            let config = usize::try_from(length)
                .ok()
                .and_then(|length| rest.get(..length))
                .ok_or(Problem::Length {
                    found: data.len() as u64,
                    expected: Expected::AtLeast(4 + u64::from(length)),
                })?;
            Some(config.to_vec())
        };
        let header = XlHeader {
            json: self.flags & FLAG_JSON != 0,
            optional_flags: self.optional_flags,
            config,
        };
        header.check().map(|()| header)
    }
}
