//! Sets of ranges in their simplest form: in order, none empty, none touching the next.

use std::ops::Range;

/// The same set in that form. The ranges may come in any order, overlap, and be empty.
#[must_use]
pub fn merged(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
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
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_same_numbers_are_in_and_no_two_ranges_touch(
            ranges in proptest::collection::vec((0_u64..64, 0_u64..64), 0..12),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, end)| start..end).collect();
            let set = merged(ranges.iter().cloned());
            for number in 0..64 {
                let within = |range: &Range<u64>| range.contains(&number);
                prop_assert_eq!(ranges.iter().any(within), set.iter().any(within));
            }
            prop_assert!(set.iter().all(|range| range.start < range.end));
            prop_assert!(set.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
