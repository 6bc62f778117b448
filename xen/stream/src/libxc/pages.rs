//! The list in front of page contents: which pages, of which type, and which of them have contents.
//!
//! ```text
//!   0 count, u32 | 4 zero, u32 | 8 entries, u64 each | contents, 4096 bytes for each entry that has some
//!   entry: type in bits 63-60, zero in 59-52, page number in 51-0
//! ```
//!
//! A page may come any number of times; the last one counts, its type included. This module never touches contents.
//!
//! One type is ours, and of a stream only after both ends have agreed upon it ([`crate::accord`]): stock refuses it.

use crate::accord::Accord;
use crate::error::{Expected, Problem};
use crate::limits::{PAGE_BYTES, RECORD_PAGES};
use xen_abi::domctl as pfinfo;

/// Bytes before the entries.
pub const HEADER_BYTES: usize = 8;

const NUMBER_BITS: u64 = (1 << 52) - 1;
const RESERVED_BITS: u64 = 0xff << 52;
const TYPE_SHIFT: u32 = 60;
/// Our own type: a number that Xen has not given to any.
const ZERO: u8 = 7;

/// A page of a guest, as the guest numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

impl std::fmt::Display for Pfn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a page is, as Xen tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// An ordinary page; with contents.
    Normal,
    /// A page table of a PV guest, whose entries hold page numbers in the stream; with contents.
    Table {
        /// 1 to 4.
        level: u8,
        /// The guest has pinned it.
        pinned: bool,
    },
    /// An ordinary page that holds nothing but zeroes; no contents. Only where both ends have agreed upon it.
    Zero,
    /// Memory with an error in it; no contents.
    Broken,
    /// To be allocated; no contents.
    Allocate,
    /// Not there, or no longer; no contents.
    Invalid,
}

impl PageKind {
    /// From the 4 bits of a stream; those of our own type mean [`PageKind::Zero`] only where that was agreed.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Normal,
            level @ 1..=4 => Self::Table {
                level,
                pinned: false,
            },
            9..=0xc => Self::Table {
                level: bits - 8,
                pinned: true,
            },
            ZERO => Self::Zero,
            0xd => Self::Broken,
            0xe => Self::Allocate,
            0xf => Self::Invalid,
            _ => return None,
        })
    }

    /// The 4 bits of a stream. A level beyond 4 has none.
    #[must_use]
    pub const fn bits(self) -> Option<u8> {
        Some(match self {
            Self::Normal => 0,
            Self::Table {
                level: level @ 1..=4,
                pinned: false,
            } => level,
            Self::Table {
                level: level @ 1..=4,
                pinned: true,
            } => level | 8,
            Self::Table { .. } => return None,
            Self::Zero => ZERO,
            Self::Broken => 0xd,
            Self::Allocate => 0xe,
            Self::Invalid => 0xf,
        })
    }

    /// From the type word that Xen answers about a frame; bits other than the type are ignored.
    #[must_use]
    pub const fn from_pfinfo(word: u32) -> Option<Self> {
        match Self::from_bits(((word & pfinfo::PFINFO_TYPE_MASK) >> 28) as u8) {
            Some(Self::Zero) => None,
            kind => kind,
        }
    }

    /// Whether a stream may hold it in which so much is agreed.
    const fn is_in(self, agreed: Accord) -> bool {
        !matches!(self, Self::Zero) || agreed.has(Accord::ZERO_PAGES)
    }

    /// Whether 4096 bytes follow for it.
    #[must_use]
    pub const fn has_contents(self) -> bool {
        matches!(self, Self::Normal | Self::Table { .. })
    }
}

/// One page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry {
    /// Which page.
    pub pfn: Pfn,
    /// What it is.
    pub kind: PageKind,
}

impl PageEntry {
    /// An ordinary page.
    #[must_use]
    pub const fn normal(pfn: Pfn) -> Self {
        let kind = PageKind::Normal;
        Self { pfn, kind }
    }

    /// Judges one entry.
    fn decode(index: usize, word: u64, agreed: Accord) -> Result<Self, Problem> {
        if word & RESERVED_BITS != 0 {
            return Err(Problem::Entry {
                index,
                what: "a reserved bit of the page",
                found: word,
                expected: "0",
            });
        }
        let bits = (word >> TYPE_SHIFT) as u8;
        let kind = PageKind::from_bits(bits).filter(|kind| kind.is_in(agreed));
        let kind = kind.ok_or(Problem::Entry {
            index,
            what: "the page type",
            found: bits.into(),
            expected: "0 to 4 or 9 to 0xf",
        })?;
        Ok(Self {
            pfn: Pfn(word & NUMBER_BITS),
            kind,
        })
    }

    fn encode(self, index: usize, agreed: Accord) -> Result<u64, Problem> {
        let wrong = |what, found, expected| Problem::Entry {
            index,
            what,
            found,
            expected,
        };
        if self.pfn.0 & !NUMBER_BITS != 0 {
            return Err(wrong("the page number", self.pfn.0, "less than 2^52"));
        }
        let bits = self
            .kind
            .bits()
            .ok_or(wrong("the page type", 0, "a table of level 1 to 4"))?;
        if !self.kind.is_in(agreed) {
            return Err(wrong("the page type", bits.into(), "one of stock's"));
        }
        Ok(u64::from(bits) << TYPE_SHIFT | self.pfn.0)
    }
}

/// How many entries a record of `length` bytes has, from its first 8 bytes: judged before anything is made of it.
pub(crate) fn decode_count(length: u64, count: u32) -> Result<u32, Problem> {
    if count == 0 {
        return Err(Problem::Value {
            what: "the number of pages",
            found: 0,
            expected: "1 or more",
        });
    }
    if count > RECORD_PAGES {
        return Err(Problem::Limit {
            what: "pages",
            found: count.into(),
            limit: RECORD_PAGES.into(),
        });
    }
    let least = HEADER_BYTES as u64 + 8 * u64::from(count);
    if length < least {
        return Err(Problem::Length {
            found: length,
            expected: Expected::AtLeast(least),
        });
    }
    Ok(count)
}

/// Judges the entries of a record of `length` bytes, and answers how many bytes of contents follow.
pub(crate) fn decode_entries(
    length: u64,
    words: &[u8],
    agreed: Accord,
    into: &mut Vec<PageEntry>,
) -> Result<u64, Problem> {
    into.clear();
    for (index, word) in words.as_chunks::<8>().0.iter().enumerate() {
        into.push(PageEntry::decode(index, u64::from_le_bytes(*word), agreed)?);
    }
    let needs = record_length(into);
    if needs != length {
        return Err(Problem::Pages {
            pages: into.len() as u64,
            contents: contents(into),
            needs,
            length,
        });
    }
    Ok(contents(into) * PAGE_BYTES)
}

/// Appends what stands before the contents, and answers the record's length.
pub(crate) fn encode(
    entries: &[PageEntry],
    agreed: Accord,
    into: &mut Vec<u8>,
) -> Result<u64, Problem> {
    let length = record_length(entries);
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    decode_count(length, count)?;
    into.extend_from_slice(&count.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    for (index, entry) in entries.iter().enumerate() {
        into.extend_from_slice(&entry.encode(index, agreed)?.to_le_bytes());
    }
    Ok(length)
}

/// How many of these have contents.
#[must_use]
pub fn contents(entries: &[PageEntry]) -> u64 {
    entries
        .iter()
        .filter(|entry| entry.kind.has_contents())
        .count() as u64
}

fn record_length(entries: &[PageEntry]) -> u64 {
    HEADER_BYTES as u64 + 8 * entries.len() as u64 + PAGE_BYTES * contents(entries)
}

/// Pages whose contents follow each other both in the record and in the guest: one piece to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: Pfn,
    /// How many.
    pub pages: usize,
}

impl Run {
    /// Bytes of its contents.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.pages * xen_abi::ids::PAGE_SIZE
    }
}

/// The contents of a list, in their order, as few pieces.
pub fn runs(entries: &[PageEntry]) -> impl Iterator<Item = Run> + '_ {
    let mut rest = entries
        .iter()
        .filter(|entry| entry.kind.has_contents())
        .peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?.pfn;
        let mut pages = 1;
        while rest
            .next_if(|next| first.0.checked_add(pages as u64) == Some(next.pfn.0))
            .is_some()
        {
            pages += 1;
        }
        Some(Run { first, pages })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_its_bits_and_has_contents_as_specified() {
        for bits in 0..16 {
            let kind = PageKind::from_bits(bits);
            assert_eq!(kind.is_none(), [5, 6, 8].contains(&bits), "{bits}");
            if let Some(kind) = kind {
                assert_eq!(kind.bits(), Some(bits));
                let ours = kind == PageKind::Zero;
                assert_eq!(kind.has_contents(), bits < 0xd && !ours);
                // Xen never says so of a frame.
                assert_eq!(
                    PageKind::from_pfinfo(u32::from(bits) << 28 | 0x77),
                    (!ours).then_some(kind)
                );
            }
        }
        assert_eq!(
            PageKind::Table {
                level: 5,
                pinned: true
            }
            .bits(),
            None
        );
        assert_eq!(
            PageKind::Table {
                level: 0,
                pinned: false
            }
            .bits(),
            None
        );
    }

    #[test]
    fn runs_break_where_the_guest_does_and_pass_over_what_has_no_contents() {
        let entries = [
            PageEntry::normal(Pfn(5)),
            PageEntry {
                pfn: Pfn(99),
                kind: PageKind::Invalid,
            },
            PageEntry::normal(Pfn(6)),
            PageEntry {
                pfn: Pfn(7),
                kind: PageKind::Table {
                    level: 1,
                    pinned: false,
                },
            },
            PageEntry::normal(Pfn(9)),
            PageEntry::normal(Pfn(9)),
        ];
        let found: Vec<_> = runs(&entries).map(|run| (run.first.0, run.pages)).collect();
        assert_eq!(found, [(5, 3), (9, 1), (9, 1)]);
        assert_eq!(contents(&entries), 5);
    }
}
