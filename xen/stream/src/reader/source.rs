//! Bytes out of a source, counted: exactly as many as asked, or an error that says how many there were.
//!
//! It never reads ahead, so that the source can be handed to someone else between any two calls, and page contents go
//! from it to where they belong without a stop.

use std::io::{self, Read};

use crate::error::Problem;
use crate::limits::{CHUNK_BYTES, SKIP_BYTES};

/// A source and how far it was read.
#[derive(Debug)]
pub(crate) struct Source<R> {
    inner: R,
    offset: u64,
}

impl<R> Source<R> {
    pub const fn new(inner: R) -> Self {
        Self { inner, offset: 0 }
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    pub const fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Lets `mover` read `bytes` by itself, in as many goes as it takes; `got` of `need` tells what an end here cuts short.
    pub fn move_with(
        &mut self,
        bytes: u64,
        what: &'static str,
        mut mover: impl FnMut(&mut R, u64) -> io::Result<usize>,
    ) -> Result<(), Problem> {
        let mut left = bytes;
        while left > 0 {
            let moved = match mover(&mut self.inner, left) {
                Ok(moved) => moved as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Problem::Read(error)),
            };
            if moved == 0 {
                let (got, need) = (bytes - left, bytes);
                return Err(Problem::Truncated { what, got, need });
            }
            left = left.checked_sub(moved).ok_or(Problem::Mover {
                claimed: moved,
                offered: left,
            })?;
            self.offset += moved;
        }
        Ok(())
    }
}

impl<R: Read> Source<R> {
    /// Fills `into`.
    pub fn fill(&mut self, into: &mut [u8], what: &'static str) -> Result<(), Problem> {
        let bytes = into.len() as u64;
        let mut at = 0;
        self.move_with(bytes, what, |source, _| {
            let got = source.read(&mut into[at..])?;
            at += got;
            Ok(got)
        })
    }

    /// Fills `into` with `bytes` bytes, growing it only as they arrive: a length alone costs no memory.
    pub fn collect(
        &mut self,
        bytes: u64,
        what: &'static str,
        into: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        into.clear();
        let mut at = 0;
        self.move_with(bytes, what, |source, left| {
            if at == into.len() {
                let room = usize::try_from(left).unwrap_or(usize::MAX);
                into.resize(at + room.min(CHUNK_BYTES.max(at)), 0);
            }
            let got = source.read(&mut into[at..])?;
            at += got;
            Ok(got)
        })
    }

    /// Reads `bytes` bytes into nowhere.
    pub fn skip(&mut self, bytes: u64, what: &'static str) -> Result<(), Problem> {
        if bytes == 0 {
            return Ok(());
        }
        let mut nowhere = [0; SKIP_BYTES];
        self.move_with(bytes, what, |source, left| {
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            source.read(&mut nowhere[..room.min(SKIP_BYTES)])
        })
    }

    /// Whether the source has come to its end; reads one byte if not.
    pub fn at_end(&mut self) -> Result<bool, Problem> {
        let mut one = [0];
        loop {
            match self.inner.read(&mut one) {
                Ok(0) => return Ok(true),
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Read(error)),
            }
        }
    }
}
