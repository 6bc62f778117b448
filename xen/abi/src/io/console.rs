//! The page of a PV console: two rings of bytes. Source: `xen/io/console.h`.
//!
//! "in" and "out" are the guest's: it takes from `in` and puts into `out`. Indexes run freely and are masked on use; the
//! guest writes two of them, so each is copied once and checked by [`pending`] before it means anything.

use crate::layout;
use std::ops::Range;

/// Bytes of the ring to the guest.
pub const IN_BYTES: u32 = 1024;
/// Bytes of the ring from the guest.
pub const OUT_BYTES: u32 = 2048;

layout! {
    /// The page, as far as every release has it.
    pub struct Interface: "struct xencons_interface", 3088 {
        /// To the guest.
        pub input: [u8; 1024] = 0 => "in",
        /// From the guest.
        pub output: [u8; 2048] = 1024 => "out",
        /// Bytes the guest took.
        pub in_cons: u32 = 3072 => "in_cons",
        /// Bytes put for it.
        pub in_prod: u32 = 3076 => "in_prod",
        /// Bytes taken from it.
        pub out_cons: u32 = 3080 => "out_cons",
        /// Bytes the guest put.
        pub out_prod: u32 = 3084 => "out_prod",
    }
}

crate::constants! {
    /// Offset of `connection`, one byte that guests know since 4.21's header; older ones leave it 0.
    pub const CONNECTION_OFFSET: usize = 3088 => "offsetof(struct xencons_interface, connection)";
    /// `connection`: a backend serves the ring.
    pub const CONNECTED: u8 = 0 => "XENCONSOLE_CONNECTED";
    /// `connection`: nobody does yet; what a builder writes for a backend that will write [`CONNECTED`].
    pub const DISCONNECTED: u8 = 1 => "XENCONSOLE_DISCONNECTED";
}

/// The guest's indexes claim more than the ring holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "console ring indexes are impossible: producer {prod} is {ahead} bytes ahead of consumer {cons} in a ring of {size}"
)]
pub struct BadIndexes {
    /// Producer.
    pub prod: u32,
    /// Consumer.
    pub cons: u32,
    /// Their distance.
    pub ahead: u32,
    /// What the ring holds.
    pub size: u32,
}

/// Bytes in a ring of `size`, which is a power of two.
///
/// # Errors
/// [`BadIndexes`]: the guest is broken or hostile.
pub const fn pending(prod: u32, cons: u32, size: u32) -> Result<u32, BadIndexes> {
    let ahead = prod.wrapping_sub(cons);
    if ahead > size {
        Err(BadIndexes {
            prod,
            cons,
            ahead,
            size,
        })
    } else {
        Ok(ahead)
    }
}

/// The one or two stretches of a ring of `size` (a power of two) that `count` bytes from `index` on occupy.
#[must_use]
pub fn stretches(index: u32, count: u32, size: u32) -> (Range<usize>, Range<usize>) {
    let count = count.min(size);
    let start = index & (size - 1);
    let first = count.min(size - start);
    let (start, first, rest) = (start as usize, first as usize, (count - first) as usize);
    (start..start + first, 0..rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_may_wrap_but_not_lie() {
        assert_eq!(pending(5, 5, OUT_BYTES), Ok(0));
        assert_eq!(pending(2, u32::MAX - 1, OUT_BYTES), Ok(4));
        assert_eq!(pending(2048, 0, OUT_BYTES), Ok(2048));
        assert!(pending(2049, 0, OUT_BYTES).is_err());
        assert!(pending(0, 1, IN_BYTES).is_err());
    }

    #[test]
    fn stretches_cover_exactly_the_bytes_meant() {
        let size = 8u32;
        for index in (0..20).chain(u32::MAX - 10..=u32::MAX) {
            for count in 0..=size {
                let (first, second) = stretches(index, count, size);
                let got: Vec<usize> = first.chain(second).collect();
                let wanted: Vec<usize> = (0..count)
                    .map(|n| (index.wrapping_add(n) % size) as usize)
                    .collect();
                assert_eq!(got, wanted, "{index} {count}");
            }
        }
    }
}
