//! Which pages go next: sets of page numbers, one for each round. Pure.
//!
//! ```text
//!   a guest that is suspended:   all ─▶ done
//!   a guest that runs:           all ─▶ dirty ─▶ dirty ... ─▶ suspended, dirty ─▶ done       live.rs
//! ```
//!
//! A set says what may have to go; what is not there when its turn comes is left out.

use crate::ranges::merged;
use std::ops::Range;

/// Pages of one word of a bitmap.
const WORD_PAGES: u64 = 64;

/// A bit for each page, the first in the lowest bit of the first word. Pages beyond it have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bitmap(pub Vec<u64>);

impl Bitmap {
    /// Whether the page's bit is set.
    #[must_use]
    pub fn has(&self, pfn: u64) -> bool {
        let word = usize::try_from(pfn / WORD_PAGES).ok();
        let word = word.and_then(|word| self.0.get(word)).copied();
        word.unwrap_or(0) >> (pfn % WORD_PAGES) & 1 == 1
    }
}

/// Page numbers, as ascending ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSet(Vec<Range<u64>>);

impl PageSet {
    /// The set of these ranges, which may come in any order.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self(merged(ranges))
    }

    /// Those of `all` whose bit is set: one bit each, the first in the lowest bit of the first word.
    #[must_use]
    pub fn marked(words: &[u64], all: &Self) -> Self {
        let mut marked = Vec::new();
        for range in &all.0 {
            let mut at = range.start;
            while let Some(start) = next(words, at, range.end, true) {
                let end = next(words, start, range.end, false).unwrap_or(range.end);
                marked.push(start..end);
                at = end;
            }
        }
        Self(marked)
    }

    /// All pages of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.0.into_iter().chain(other.0))
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

    /// Its pages in order, `most` at a time.
    pub fn batches(&self, most: usize) -> impl Iterator<Item = Vec<u64>> + '_ {
        let mut rest = self.0.iter().cloned().flatten().peekable();
        std::iter::from_fn(move || {
            rest.peek()?;
            Some(rest.by_ref().take(most.max(1)).collect())
        })
    }

    /// The same batches in another order: those that follow each other are far apart in the set.
    pub fn scattered(&self, most: usize) -> impl Iterator<Item = Vec<u64>> + '_ {
        let most = most.max(1) as u64;
        // Where each range begins among the pages.
        let mut before = 0;
        let places: Vec<u64> = self
            .0
            .iter()
            .map(|range| {
                let place = before;
                before += range.end - range.start;
                place
            })
            .collect();
        let batches = before.div_ceil(most);
        let bits = u64::BITS - batches.next_power_of_two().trailing_zeros();
        let scattered = (0..batches.next_power_of_two())
            .map(move |number| number.reverse_bits().checked_shr(bits).unwrap_or(0))
            .filter(move |number| *number < batches);
        scattered.map(move |number| {
            self.from(&places, number * most)
                .take(usize::try_from(most).unwrap_or(usize::MAX))
                .collect()
        })
    }

    /// Its pages from a place on; `places`: where each range begins.
    fn from(&self, places: &[u64], place: u64) -> impl Iterator<Item = u64> + '_ {
        let first = places
            .partition_point(|begins| *begins <= place)
            .saturating_sub(1);
        let into = place - places.get(first).copied().unwrap_or(0);
        let ranges = self.0[first.min(self.0.len())..]
            .iter()
            .cloned()
            .enumerate();
        ranges.flat_map(move |(index, range)| {
            let skipped = if index == 0 { into } else { 0 };
            range.start + skipped..range.end
        })
    }
}

/// The first page in `from..end` whose bit is `set`. Bits beyond the bitmap are not set.
fn next(words: &[u64], from: u64, end: u64, set: bool) -> Option<u64> {
    let mut at = from;
    while at < end {
        let word = usize::try_from(at / WORD_PAGES).ok()?;
        let word = words.get(word).copied().unwrap_or(0);
        let word = if set { word } else { !word };
        let bits = word >> (at % WORD_PAGES);
        if bits != 0 {
            let found = at + u64::from(bits.trailing_zeros());
            return (found < end).then_some(found);
        }
        at = (at / WORD_PAGES + 1) * WORD_PAGES;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_merge_and_gaps_stay() {
        let set = PageSet::of([10..12, 0..4, 4..6, 11..13, 20..20]);
        assert_eq!(set, PageSet(vec![0..6, 10..13]));
        assert_eq!((set.pages(), set.end()), (9, 13));
        let inside: Vec<u64> = (0..15).filter(|pfn| set.contains(*pfn)).collect();
        assert_eq!(inside, [0, 1, 2, 3, 4, 5, 10, 11, 12]);
    }

    #[test]
    fn batches_that_follow_each_other_are_far_apart() {
        let set = PageSet::of([0..3, 10..15]);
        let scattered: Vec<_> = set.scattered(2).collect();
        assert_eq!(
            scattered,
            [vec![0, 1], vec![11, 12], vec![2, 10], vec![13, 14]]
        );
        assert_eq!(PageSet::default().scattered(2).count(), 0);
    }

    #[test]
    fn batches_cover_everything_once_and_are_full_but_for_the_last() {
        let set = PageSet::of([0..3, 7..9]);
        let batches: Vec<_> = set.batches(2).collect();
        assert_eq!(batches, [vec![0, 1], vec![2, 7], vec![8]]);
        assert_eq!(PageSet::default().batches(2).count(), 0);
    }

    proptest! {
        #[test]
        fn marked_pages_are_those_with_a_bit(
            words in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 0..6),
            from in 0u64..200,
            gap in 1u64..100,
            len in 0u64..300,
        ) {
            let all = PageSet::of([from..from + len, from + len + gap..500]);
            let bitmap = Bitmap(words.clone());
            let wanted: Vec<u64> = (0..600).filter(|pfn| all.contains(*pfn) && bitmap.has(*pfn)).collect();
            let marked = PageSet::marked(&words, &all);
            let found: Vec<u64> = marked.batches(1000).flatten().collect();
            prop_assert_eq!(&found, &wanted);
            let mut scattered: Vec<Vec<u64>> = marked.scattered(7).collect();
            scattered.sort();
            prop_assert_eq!(scattered, marked.batches(7).collect::<Vec<_>>());
            prop_assert_eq!(marked.clone().and(all.clone()), all);
            prop_assert!(marked.0.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
