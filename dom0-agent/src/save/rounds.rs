//! Which pages go next: sets of page numbers, one for each round.
//!
//! ```text
//!   Everything:   all ─▶ done                                  a guest that is suspended
//!   (live)        all ─▶ dirty ─▶ dirty ... ─▶ suspended, dirty ─▶ done
//! ```
//!
//! Pure, but for what a live source will ask Xen. A set says what may have to go; what is not there when its turn comes is left out.

use super::error::SaveError;
use std::ops::Range;

/// Page numbers, as ascending ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSet(Vec<Range<u64>>);

impl PageSet {
    /// The set of these ranges, which may come in any order.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// How many pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether the page is in it.
    #[must_use]
    pub fn contains(&self, pfn: u64) -> bool {
        let behind = self.0.partition_point(|range| range.start <= pfn);
        behind > 0 && pfn < self.0[behind - 1].end
    }

    /// First page number behind all of it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// Its pages in order, at most `most` at a time; a part never spans a gap.
    pub fn windows(&self, most: usize) -> impl Iterator<Item = Range<u64>> + '_ {
        let most = (most as u64).max(1);
        self.0.iter().flat_map(move |range| {
            (range.start..range.end)
                .step_by(usize::try_from(most).unwrap_or(usize::MAX))
                .map(move |start| start..range.end.min(start + most))
        })
    }
}

/// Yields the rounds.
pub trait PageSource {
    /// The next set, or `None` when all is sent.
    ///
    /// # Errors
    /// Xen does not say which pages are dirty.
    fn next_round(&mut self) -> Result<Option<PageSet>, SaveError>;
}

/// One round with everything: for a guest that does not run meanwhile.
#[derive(Debug)]
pub struct Everything(Option<PageSet>);

impl Everything {
    /// All of `pages`.
    #[must_use]
    pub const fn of(pages: PageSet) -> Self {
        Self(Some(pages))
    }
}

impl PageSource for Everything {
    fn next_round(&mut self) -> Result<Option<PageSet>, SaveError> {
        Ok(self.0.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_gaps_stay() {
        let set = PageSet::of([10..12, 0..4, 4..6, 11..13, 20..20]);
        assert_eq!(set, PageSet(vec![0..6, 10..13]));
        assert_eq!((set.pages(), set.end()), (9, 13));
        let inside: Vec<u64> = (0..15).filter(|pfn| set.contains(*pfn)).collect();
        assert_eq!(inside, [0, 1, 2, 3, 4, 5, 10, 11, 12]);
    }

    #[test]
    fn windows_cover_everything_once_and_span_no_gap() {
        let set = PageSet::of([0..5, 7..9]);
        let windows: Vec<_> = set.windows(2).collect();
        assert_eq!(windows, [0..2, 2..4, 4..5, 7..9]);
    }

    #[test]
    fn everything_is_one_round() {
        let mut source = Everything::of(PageSet::of([0..1, 2..3]));
        assert_eq!(source.next_round().unwrap().unwrap().pages(), 2);
        assert!(source.next_round().unwrap().is_none());
    }
}
