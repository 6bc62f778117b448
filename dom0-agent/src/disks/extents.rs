//! A set of extents: ascending ranges that do not touch.

use super::limits::BLOCK_BYTES;
use crate::ranges::merged;
use parapet_wire::dirty::EXTENT_BYTES;
use std::ops::Range;

/// Numbers of extents of [`EXTENT_BYTES`] each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtentSet(Vec<Range<u64>>);

impl ExtentSet {
    /// The set of these ranges, which may come in any order and overlap.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self(merged(ranges))
    }

    /// Every extent of a disk of so many bytes.
    #[must_use]
    pub fn all(disk_bytes: u64) -> Self {
        Self::of(std::iter::once(0..disk_bytes.div_ceil(EXTENT_BYTES)))
    }

    /// The extents that these ranges of bytes touch.
    #[must_use]
    pub fn touching(bytes: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self::of(
            bytes
                .into_iter()
                .filter(|range| range.start < range.end)
                .map(|range| range.start / EXTENT_BYTES..range.end.div_ceil(EXTENT_BYTES)),
        )
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self::of(self.0.into_iter().chain(other.0))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes of all, the last one taken for a whole one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count().saturating_mul(EXTENT_BYTES)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Bytes to read, in order, at most [`BLOCK_BYTES`] at a time, none behind the end of the disk.
    pub fn windows(&self, disk_bytes: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let step = BLOCK_BYTES as u64;
        self.0.iter().flat_map(move |range| {
            let start = range.start.saturating_mul(EXTENT_BYTES);
            let end = range.end.saturating_mul(EXTENT_BYTES).min(disk_bytes);
            (start..end)
                .step_by(BLOCK_BYTES)
                .map(move |from| from..end.min(from + step))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_gaps_stay() {
        let set = ExtentSet::of([10..12, 0..4, 4..6, 11..13, 20..20]);
        assert_eq!(set.ranges(), [0..6, 10..13]);
        assert_eq!(set.count(), 9);
        let both = set.with(ExtentSet::of([6..10, 40..41]));
        assert_eq!(both.ranges(), [0..13, 40..41]);
    }

    #[test]
    fn bytes_become_the_extents_that_they_touch() {
        let set = ExtentSet::touching([0..1, EXTENT_BYTES - 1..EXTENT_BYTES + 1, 9..9]);
        assert_eq!((set.count(), set.ranges()[0].clone()), (2, 0..2));
        assert_eq!(ExtentSet::all(EXTENT_BYTES + 1).count(), 2);
        assert!(ExtentSet::all(0).is_empty());
    }

    #[test]
    fn windows_are_bounded_and_end_with_the_disk() {
        let bytes = 40 * EXTENT_BYTES + 512;
        let set = ExtentSet::of([0..20, 40..41]);
        let windows: Vec<_> = set.windows(bytes).collect();
        assert_eq!(
            windows,
            [
                0..16 * EXTENT_BYTES,
                16 * EXTENT_BYTES..20 * EXTENT_BYTES,
                40 * EXTENT_BYTES..bytes
            ]
        );
        assert_eq!(
            ExtentSet::of(std::iter::once(50..60))
                .windows(bytes)
                .count(),
            0
        );
    }
}
