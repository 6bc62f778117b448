//! What a guest printed and nobody read yet: the newest bytes up to a bound, so that a reader who comes late sees the end and not the beginning.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    bound: usize,
    discarded: u64,
}

impl Backlog {
    /// Empty, with room for `bound` bytes.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            bound,
            discarded: 0,
        }
    }

    /// Appends; the oldest bytes go when there is no room.
    pub fn push(&mut self, bytes: &[u8]) {
        let newest = &bytes[bytes.len().saturating_sub(self.bound)..];
        let excess = (self.bytes.len() + newest.len()).saturating_sub(self.bound);
        self.bytes.drain(..excess);
        self.bytes.extend(newest);
        self.discarded += (excess + bytes.len() - newest.len()) as u64;
    }

    /// The oldest bytes that lie together in memory.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Forgets the oldest `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that nobody will read.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_newest_bytes_stay(pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut backlog = Backlog::new(50);
            let mut all = Vec::new();
            for bytes in pushes {
                backlog.push(&bytes);
                all.extend(bytes);
            }
            let kept = &all[all.len().saturating_sub(50)..];
            prop_assert_eq!(backlog.discarded(), (all.len() - kept.len()) as u64);
            let mut read = Vec::new();
            while !backlog.is_empty() {
                let part = backlog.front().to_vec();
                prop_assert!(!part.is_empty());
                backlog.consume(part.len());
                read.extend(part);
            }
            prop_assert_eq!(read, kept);
        }
    }
}
