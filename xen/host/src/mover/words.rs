//! What a mover is told and what it answers: fixed structures in the machine's own byte order, then bytes whose number they say.

use super::{Look, MAX_HEAD, WINDOW_PAGES};
use std::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// "From where the file stands".
const HERE: u64 = u64::MAX;

const OPEN: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 3;
const CLEAR: u32 = 4;

/// An order as it travels. Behind it: frames (`OPEN`), the head (`WRITE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Raw {
    verb: u32,
    /// First page of the window.
    first: u32,
    /// Pages.
    count: u32,
    /// `OPEN`: 1 looks for zeroes. `WRITE`: bytes of the head.
    extra: u32,
    /// `READ`: where in the file.
    at: u64,
}

/// An order, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Open {
        frames: usize,
        look: Look,
    },
    Write {
        head: usize,
        pages: Range<usize>,
    },
    Read {
        pages: Range<usize>,
        at: Option<u64>,
    },
    Clear {
        pages: Range<usize>,
    },
}

impl Order {
    /// As it travels; `None` if it is beyond a bound.
    pub(super) fn encode(&self) -> Option<Raw> {
        let small = |number: usize| u32::try_from(number).ok();
        let raw = match self {
            Self::Open { frames, look } => Raw {
                verb: OPEN,
                first: 0,
                count: small(*frames)?,
                extra: (*look == Look::ForZeroes).into(),
                at: HERE,
            },
            Self::Write { head, pages } => Raw {
                verb: WRITE,
                first: small(pages.start)?,
                count: small(pages.len())?,
                extra: small(*head)?,
                at: HERE,
            },
            Self::Read { pages, at } => Raw {
                verb: READ,
                first: small(pages.start)?,
                count: small(pages.len())?,
                extra: 0,
                at: at.unwrap_or(HERE),
            },
            Self::Clear { pages } => Raw {
                verb: CLEAR,
                first: small(pages.start)?,
                count: small(pages.len())?,
                extra: 0,
                at: HERE,
            },
        };
        (Self::decode(raw)? == *self).then_some(raw)
    }

    /// Judges what came; `None` if it is no order.
    pub(super) fn decode(raw: Raw) -> Option<Self> {
        let (first, count, extra) = (raw.first as usize, raw.count as usize, raw.extra as usize);
        let pages = first..first.checked_add(count)?;
        if pages.end > WINDOW_PAGES {
            return None;
        }
        match raw.verb {
            OPEN if count > 0 => Some(Self::Open {
                frames: count,
                look: if extra == 0 {
                    Look::Away
                } else {
                    Look::ForZeroes
                },
            }),
            WRITE if extra <= MAX_HEAD => Some(Self::Write { head: extra, pages }),
            READ if count > 0 => Some(Self::Read {
                pages,
                at: (raw.at != HERE).then_some(raw.at),
            }),
            CLEAR if count > 0 => Some(Self::Clear { pages }),
            _ => None,
        }
    }
}

/// The answer to an order. Behind it, after `OPEN` with a look: a byte for each frame, 1 for zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Answer {
    /// 0, or why not.
    pub(super) errno: i32,
    pad: u32,
    /// Bytes moved.
    pub(super) bytes: u64,
}

impl Answer {
    /// It is done.
    pub(super) const fn done(bytes: u64) -> Self {
        Self {
            errno: 0,
            pad: 0,
            bytes,
        }
    }

    /// It is not.
    pub(super) const fn refused(errno: i32) -> Self {
        Self {
            errno,
            pad: 0,
            bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn orders() -> impl Strategy<Value = Order> {
        let pages = (0..WINDOW_PAGES, 1..=WINDOW_PAGES)
            .prop_map(|(first, count)| first..(first + count).min(WINDOW_PAGES));
        prop_oneof![
            (1..=WINDOW_PAGES, any::<bool>()).prop_map(|(frames, zeroes)| Order::Open {
                frames,
                look: if zeroes { Look::ForZeroes } else { Look::Away },
            }),
            (0..=MAX_HEAD, pages.clone()).prop_map(|(head, pages)| Order::Write { head, pages }),
            pages.clone().prop_map(|pages| Order::Clear { pages }),
            (pages, proptest::option::of(0..HERE))
                .prop_map(|(pages, at)| Order::Read { pages, at }),
        ]
    }

    proptest! {
        #[test]
        fn an_order_arrives_as_it_was_sent(order in orders()) {
            prop_assert_eq!(order.encode().and_then(Order::decode), Some(order));
        }

        #[test]
        fn no_bytes_make_an_order_beyond_the_window(bytes in any::<[u8; size_of::<Raw>()]>()) {
            let raw = Raw::read_from_bytes(&bytes[..]).unwrap();
            match Order::decode(raw) {
                Some(Order::Open { frames, .. }) => prop_assert!((1..=WINDOW_PAGES).contains(&frames)),
                Some(Order::Write { head, pages }) => prop_assert!(head <= MAX_HEAD && pages.end <= WINDOW_PAGES),
                Some(Order::Read { pages, .. } | Order::Clear { pages }) => prop_assert!(pages.end <= WINDOW_PAGES),
                None => {}
            }
        }
    }

    #[test]
    fn what_is_beyond_a_bound_is_not_sent() {
        let look = Look::Away;
        let frames = WINDOW_PAGES + 1;
        assert_eq!(Order::Open { frames, look }.encode(), None);
        assert_eq!(Order::Open { frames: 0, look }.encode(), None);
        let (head, pages) = (MAX_HEAD + 1, 0..1);
        assert_eq!(Order::Write { head, pages }.encode(), None);
        let (pages, at) = (1000..1025, None);
        assert_eq!(Order::Read { pages, at }.encode(), None);
    }
}
