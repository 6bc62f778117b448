//! A private copy of a guest's request, and the one place where it is judged: [`Request::check`] answers with a request that is safe to
//! carry out, or with the refusal that the guest gets.
//!
//! All quantities are in units of 512 bytes, whatever the medium's sector size; that only limits alignment. Indirect requests are
//! judged twice: here, and by [`Transfer::indirect`] once their descriptors were fetched. This module sees no memory but its arguments.

use super::wire::Status;
use crate::limits::{BLK_INDIRECT_PAGES, BLK_INDIRECT_SEGMENTS};
use xen_abi::ids::{GrantRef, PAGE_SIZE};
use xen_abi::io::blkif::{self, SECTOR_BYTES, SECTORS_PER_PAGE, Segment};

/// What a request may do to this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Alignment of every transfer, in bytes: a power of two from 512 to 4096.
    pub sector_size: u32,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Discard is offered.
    pub discard: bool,
}

/// Why a request is answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An operation that is not offered.
    #[error("operation {0} is not offered")]
    Operation(u8),
    /// A change to a read-only disk.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Wrong number of segments.
    #[error("{0} segments")]
    Segments(usize),
    /// A segment that leaves its page or is backwards.
    #[error("segment of sectors {first}..={last}")]
    Segment {
        /// First sector.
        first: u8,
        /// Last sector.
        last: u8,
    },
    /// Outside of the disk.
    #[error("sectors {sector}+{sectors} of a disk that is smaller")]
    Range {
        /// First.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Not a multiple of the sector size.
    #[error("sectors {sector}+{sectors} are not aligned to the disk's sector size")]
    Alignment {
        /// First.
        sector: u64,
        /// How many.
        sectors: u64,
    },
}

impl Refusal {
    /// What the guest is told.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Operation(_) => Status::NotSupported,
            _ => Status::Error,
        }
    }
}

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Disk to guest.
    Read,
    /// Guest to disk.
    Write,
}

/// A contiguous range of the disk and the pages it goes to or comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// First sector on the disk.
    pub sector: u64,
    /// Sectors: the sum over the segments.
    pub sectors: u64,
    /// Pages, in disk order; each `first <= last <= 7`.
    pub segments: Vec<Segment>,
}

/// A request that may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Read or write.
    Transfer(Way, Transfer),
    /// Read or write whose descriptors must be fetched first: then [`Transfer::indirect`].
    Indirect {
        /// Direction.
        way: Way,
        /// First sector on the disk.
        sector: u64,
        /// Descriptors to fetch.
        segments: usize,
        /// From here; only the first ones needed are used.
        pages: [GrantRef; BLK_INDIRECT_PAGES],
    },
    /// Make what was completed durable, then write the data if there is any.
    Flush(Option<Transfer>),
    /// Everything before it durable, then the data if there is any and durable too, then everything after it.
    Barrier(Option<Transfer>),
    /// Give sectors back.
    Discard {
        /// First.
        sector: u64,
        /// How many, at least one.
        sectors: u64,
    },
}

impl Request {
    /// Judges a request.
    ///
    /// # Errors
    /// The refusal that the guest is to get.
    pub fn check(raw: &blkif::Request, disk: &Geometry) -> Result<Self, Refusal> {
        match raw {
            blkif::Request::Direct {
                operation,
                nr_segments,
                sector,
                segments,
                ..
            } => {
                let count = usize::from(*nr_segments);
                let segments = segments.get(..count).ok_or(Refusal::Segments(count))?;
                Self::check_direct(*operation, *sector, segments, disk)
            }
            blkif::Request::Indirect {
                operation,
                nr_segments,
                sector,
                pages,
                ..
            } => {
                let way = match *operation {
                    blkif::OP_READ => Way::Read,
                    blkif::OP_WRITE => Way::Write,
                    other => return Err(Refusal::Operation(other)),
                };
                refuse_change_if(way == Way::Write, disk)?;
                let segments = usize::from(*nr_segments);
                if segments == 0 || segments > BLK_INDIRECT_SEGMENTS {
                    return Err(Refusal::Segments(segments));
                }
                let pages = std::array::from_fn(|i| pages[i]);
                Ok(Self::Indirect {
                    way,
                    sector: *sector,
                    segments,
                    pages,
                })
            }
            blkif::Request::Discard {
                sector, nr_sectors, ..
            } => {
                if !disk.discard {
                    return Err(Refusal::Operation(blkif::OP_DISCARD));
                }
                refuse_change_if(true, disk)?;
                check_range(*sector, *nr_sectors, disk)?;
                Ok(Self::Discard {
                    sector: *sector,
                    sectors: *nr_sectors,
                })
            }
        }
    }

    fn check_direct(
        operation: u8,
        sector: u64,
        segments: &[Segment],
        disk: &Geometry,
    ) -> Result<Self, Refusal> {
        let data = |disk: &Geometry| match segments {
            [] => Ok(None),
            some => Transfer::check(sector, some.to_vec(), disk).map(Some),
        };
        match operation {
            blkif::OP_READ => Ok(Self::Transfer(
                Way::Read,
                Transfer::check(sector, segments.to_vec(), disk)?,
            )),
            blkif::OP_WRITE => {
                refuse_change_if(true, disk)?;
                Ok(Self::Transfer(
                    Way::Write,
                    Transfer::check(sector, segments.to_vec(), disk)?,
                ))
            }
            blkif::OP_FLUSH_DISKCACHE | blkif::OP_WRITE_BARRIER => {
                refuse_change_if(!segments.is_empty(), disk)?;
                let data = data(disk)?;
                Ok(if operation == blkif::OP_FLUSH_DISKCACHE {
                    Self::Flush(data)
                } else {
                    Self::Barrier(data)
                })
            }
            other => Err(Refusal::Operation(other)),
        }
    }
}

impl Transfer {
    /// Judges the descriptors of an indirect request.
    ///
    /// # Errors
    /// The refusal that the guest is to get.
    pub fn indirect(sector: u64, segments: Vec<Segment>, disk: &Geometry) -> Result<Self, Refusal> {
        Self::check(sector, segments, disk)
    }

    fn check(sector: u64, segments: Vec<Segment>, disk: &Geometry) -> Result<Self, Refusal> {
        if segments.is_empty() {
            return Err(Refusal::Segments(0));
        }
        let mut sectors = 0;
        for Segment { first, last, .. } in &segments {
            if first > last || *last >= SECTORS_PER_PAGE {
                return Err(Refusal::Segment {
                    first: *first,
                    last: *last,
                });
            }
            sectors += u64::from(last - first) + 1;
        }
        check_range(sector, sectors, disk)?;
        Ok(Self {
            sector,
            sectors,
            segments,
        })
    }

    /// Bytes moved: at most [`BLK_INDIRECT_SEGMENTS`] pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.sectors * SECTOR_BYTES).unwrap_or(BLK_INDIRECT_SEGMENTS * PAGE_SIZE)
    }
}

fn refuse_change_if(changes: bool, disk: &Geometry) -> Result<(), Refusal> {
    if changes && disk.read_only {
        Err(Refusal::ReadOnly)
    } else {
        Ok(())
    }
}

fn check_range(sector: u64, sectors: u64, disk: &Geometry) -> Result<(), Refusal> {
    let end = sector.checked_add(sectors);
    if sectors == 0 || end.is_none_or(|end| end > disk.sectors) {
        return Err(Refusal::Range { sector, sectors });
    }
    let unit = u64::from(disk.sector_size) / SECTOR_BYTES;
    if unit > 1 && !(sector.is_multiple_of(unit) && sectors.is_multiple_of(unit)) {
        return Err(Refusal::Alignment { sector, sectors });
    }
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
