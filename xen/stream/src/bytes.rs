//! Little-endian fields out of a body that is already in private memory. Never panics: a short body is a [`Problem`].

use crate::error::{Expected, Problem};

/// What is left of a body.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    length: u64,
}

impl<'a> Fields<'a> {
    /// The whole body.
    pub fn of(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            length: body.len() as u64,
        }
    }

    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Problem::Length {
            found: self.length,
            expected: Expected::AtLeast(self.length - self.rest.len() as u64 + count as u64),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Problem> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next 2 bytes.
    pub fn u16(&mut self) -> Result<u16, Problem> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next 4 bytes.
    pub fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next 8 bytes.
    pub fn u64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next 2 bytes, big-endian.
    pub fn be16(&mut self) -> Result<u16, Problem> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// The next 4 bytes, big-endian.
    pub fn be32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next 8 bytes, big-endian.
    pub fn be64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The next 2 bytes, which must be 0.
    pub fn zero16(&mut self, what: &'static str) -> Result<(), Problem> {
        zero(self.u16()?.into(), what)
    }

    /// The next 4 bytes, which must be 0.
    pub fn zero32(&mut self, what: &'static str) -> Result<(), Problem> {
        zero(self.u32()?.into(), what)
    }

    /// Everything that was not taken.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

fn zero(value: u64, what: &'static str) -> Result<(), Problem> {
    match value {
        0 => Ok(()),
        value => Err(Problem::Reserved { what, value }),
    }
}

/// A body that must have this size.
pub(crate) fn exactly(body: &[u8], bytes: u64) -> Result<(), Problem> {
    let found = body.len() as u64;
    if found == bytes {
        return Ok(());
    }
    Err(Problem::Length {
        found,
        expected: Expected::Exactly(bytes),
    })
}

/// A list of 8-byte numbers.
pub(crate) fn u64s(bytes: &[u8]) -> Vec<u64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|chunk| u64::from_le_bytes(*chunk))
        .collect()
}

/// Bytes that fill a body of this length up to a multiple of 8.
pub(crate) const fn padding(length: u64) -> usize {
    (8 - (length & 7) as usize) & 7
}
