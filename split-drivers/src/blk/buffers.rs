//! Which pages of the private buffer are free: contiguous runs, first fit.
//!
//! A request gets one run, so that one fixed-buffer operation moves it. When no run is long enough the request waits its turn; since the
//! queue is served in order and the largest request fits the whole buffer, it gets its run when those before it are done.

use xen_abi::ids::PAGE_SIZE;

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    first: usize,
    pages: usize,
}

impl Run {
    /// Its first byte in the buffer.
    #[must_use]
    pub fn offset(self) -> usize {
        self.first * PAGE_SIZE
    }
}

/// The free runs, sorted, never touching each other.
#[derive(Debug)]
pub struct Buffers {
    free: Vec<Run>,
}

impl Buffers {
    /// All of `pages` pages free.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self {
            free: vec![Run { first: 0, pages }],
        }
    }

    /// A run for `bytes` bytes, or `None` until others are given back.
    pub fn take(&mut self, bytes: usize) -> Option<Run> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let at = self.free.iter().position(|run| run.pages >= pages)?;
        let run = &mut self.free[at];
        let taken = Run {
            first: run.first,
            pages,
        };
        run.first += pages;
        run.pages -= pages;
        if run.pages == 0 {
            self.free.remove(at);
        }
        Some(taken)
    }

    /// Gives a run back.
    pub fn give(&mut self, run: Run) {
        if run.pages == 0 {
            return;
        }
        let at = self.free.partition_point(|free| free.first < run.first);
        self.free.insert(at, run);
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Pages that are free.
    #[must_use]
    pub fn free_pages(&self) -> usize {
        self.free.iter().map(|run| run.pages).sum()
    }

    fn join(&mut self, at: usize) {
        if let [left, right, ..] = self.free[at..]
            && left.first + left.pages == right.first
        {
            self.free[at].pages += right.pages;
            self.free.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_that_does_not_fit_waits() {
        let mut buffers = Buffers::new(4);
        let one = buffers.take(3 * PAGE_SIZE).unwrap();
        assert_eq!(buffers.take(2 * PAGE_SIZE), None);
        buffers.give(one);
        assert_eq!(buffers.take(4 * PAGE_SIZE).unwrap().offset(), 0);
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_all_come_back(sizes in prop::collection::vec((1_usize..20, any::<bool>()), 1..200)) {
            let mut buffers = Buffers::new(64);
            let mut held: Vec<Run> = Vec::new();
            for (pages, give) in sizes {
                if give && !held.is_empty() {
                    buffers.give(held.swap_remove(pages % held.len()));
                } else if let Some(run) = buffers.take(pages * PAGE_SIZE) {
                    let apart = |other: &Run| run.first + run.pages <= other.first || other.first + other.pages <= run.first;
                    prop_assert!(held.iter().all(apart));
                    held.push(run);
                }
                let used: usize = held.iter().map(|run| run.pages).sum();
                prop_assert_eq!(buffers.free_pages() + used, 64);
            }
            held.into_iter().for_each(|run| buffers.give(run));
            prop_assert_eq!(buffers.free, vec![Run { first: 0, pages: 64 }]);
        }
    }
}
