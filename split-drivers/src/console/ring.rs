//! The console page: two byte rings and four free-running indices. Source: `xen/io/console.h`.
//!
//! ```text
//!   0        1024            3072      3076      3080       3084
//!   in[1024] | out[2048]     | in_cons | in_prod | out_cons | out_prod
//!   to guest | from guest      guest     us        us         guest
//! ```
//!
//! Ours are kept privately and only written; the guest's are read once per call and bounded. Bytes move by copy; they are never looked at here.

use xen_host::region::SharedRegion;

const IN: usize = 0;
const IN_BYTES: u32 = 1024;
const OUT: usize = 1024;
const OUT_BYTES: u32 = 2048;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// The guest broke the rules of its console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("console index {theirs} is impossible beside {ours}: the ring has {size} bytes")]
pub struct ConsoleFault {
    theirs: u32,
    ours: u32,
    size: u32,
}

/// The mapped page.
#[derive(Debug)]
pub struct ConsoleRing {
    page: SharedRegion,
    in_prod: u32,
    out_cons: u32,
}

impl ConsoleRing {
    /// Takes a console over where its page says it stands.
    ///
    /// # Errors
    /// The page's indices contradict each other.
    pub fn attach(page: SharedRegion) -> Result<Self, ConsoleFault> {
        let (in_prod, out_cons) = (page.load_u32(IN_PROD), page.load_u32(OUT_CONS));
        let ring = Self {
            page,
            in_prod,
            out_cons,
        };
        ring.input_room()?;
        ring.output_waiting()?;
        Ok(ring)
    }

    /// Bytes that the guest has printed and we have not taken.
    ///
    /// # Errors
    /// An impossible index.
    pub fn output_waiting(&self) -> Result<u32, ConsoleFault> {
        let out_prod = self.page.load_u32(OUT_PROD);
        let waiting = out_prod.wrapping_sub(self.out_cons);
        if waiting > OUT_BYTES {
            return Err(ConsoleFault {
                theirs: out_prod,
                ours: self.out_cons,
                size: OUT_BYTES,
            });
        }
        Ok(waiting)
    }

    /// Appends everything that the guest has printed; answers how much.
    ///
    /// # Errors
    /// An impossible index.
    pub fn take_output(&mut self, into: &mut Vec<u8>) -> Result<usize, ConsoleFault> {
        let waiting = self.output_waiting()?;
        let start = into.len();
        into.resize(start + waiting as usize, 0);
        let at = self.out_cons % OUT_BYTES;
        let first = waiting.min(OUT_BYTES - at) as usize;
        let (head, tail) = into[start..].split_at_mut(first);
        self.page.read(OUT + at as usize, head);
        self.page.read(OUT, tail);
        self.out_cons = self.out_cons.wrapping_add(waiting);
        self.page.store_u32(OUT_CONS, self.out_cons);
        Ok(waiting as usize)
    }

    /// Bytes that the guest has room for.
    ///
    /// # Errors
    /// An impossible index.
    pub fn input_room(&self) -> Result<usize, ConsoleFault> {
        let in_cons = self.page.load_u32(IN_CONS);
        let used = self.in_prod.wrapping_sub(in_cons);
        if used > IN_BYTES {
            return Err(ConsoleFault {
                theirs: in_cons,
                ours: self.in_prod,
                size: IN_BYTES,
            });
        }
        Ok((IN_BYTES - used) as usize)
    }

    /// Gives the guest what it has room for; answers how much.
    ///
    /// # Errors
    /// An impossible index.
    pub fn give_input(&mut self, bytes: &[u8]) -> Result<usize, ConsoleFault> {
        let count = bytes.len().min(self.input_room()?);
        let at = (self.in_prod % IN_BYTES) as usize;
        let (head, tail) = bytes[..count].split_at(count.min(IN_BYTES as usize - at));
        self.page.write(IN + at, head);
        self.page.write(IN, tail);
        // At most 1024, see input_room.
        self.in_prod = self.in_prod.wrapping_add(u32::try_from(count).unwrap_or(0));
        self.page.store_u32(IN_PROD, self.in_prod);
        Ok(count)
    }
}

/// The guest's half, for tests.
#[cfg(test)]
pub mod guest {
    use super::*;

    /// Prints; answers how much fitted.
    pub fn print(page: &SharedRegion, bytes: &[u8]) -> usize {
        let (cons, prod) = (page.load_u32(OUT_CONS), page.load_u32(OUT_PROD));
        let room = (OUT_BYTES - prod.wrapping_sub(cons)) as usize;
        for (i, byte) in bytes.iter().take(room).enumerate() {
            let at = prod.wrapping_add(u32::try_from(i).unwrap()) % OUT_BYTES;
            page.store_u8(OUT + at as usize, *byte);
        }
        let count = bytes.len().min(room);
        page.store_u32(OUT_PROD, prod.wrapping_add(u32::try_from(count).unwrap()));
        count
    }

    /// Reads what was typed.
    pub fn typed(page: &SharedRegion) -> Vec<u8> {
        let (cons, prod) = (page.load_u32(IN_CONS), page.load_u32(IN_PROD));
        let bytes = (0..prod.wrapping_sub(cons))
            .map(|i| page.load_u8(IN + (cons.wrapping_add(i) % IN_BYTES) as usize))
            .collect();
        page.store_u32(IN_CONS, prod);
        bytes
    }

    /// Sets all four indices.
    pub fn set_indices(
        page: &SharedRegion,
        in_cons: u32,
        in_prod: u32,
        out_cons: u32,
        out_prod: u32,
    ) {
        for (at, value) in [
            (IN_CONS, in_cons),
            (IN_PROD, in_prod),
            (OUT_CONS, out_cons),
            (OUT_PROD, out_prod),
        ] {
            page.store_u32(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xen_abi::ids::GrantRef;

    fn page() -> (crate::testing::GuestMemory, GrantRef) {
        let memory = crate::testing::GuestMemory::new(16);
        let page = memory.page();
        (memory, page)
    }

    #[test]
    fn impossible_indices_are_a_fault() {
        let (memory, gref) = page();
        let page = memory.view(&[gref]);
        let mut ring = ConsoleRing::attach(memory.view(&[gref])).unwrap();
        guest::set_indices(&page, 0, 0, 0, 2049);
        assert!(ring.take_output(&mut Vec::new()).is_err());
        guest::set_indices(&page, 1, 0, 0, 0);
        assert!(ring.give_input(b"x").is_err());
        assert!(ConsoleRing::attach(memory.view(&[gref])).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn bytes_pass_in_order_across_every_wrap(start: u32, texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..12)) {
            let (memory, gref) = page();
            let page = memory.view(&[gref]);
            guest::set_indices(&page, start, start, start, start);
            let mut ring = ConsoleRing::attach(memory.view(&[gref])).unwrap();
            for text in texts {
                prop_assert_eq!(guest::print(&page, &text), text.len());
                let mut printed = Vec::new();
                ring.take_output(&mut printed).unwrap();
                prop_assert_eq!(&printed, &text);
                let count = ring.give_input(&text).unwrap();
                prop_assert_eq!(count, text.len().min(1024));
                prop_assert_eq!(guest::typed(&page), &text[..count]);
            }
        }

        #[test]
        fn arbitrary_pages_never_panic(words: [u32; 8]) {
            let (memory, gref) = page();
            let page = memory.view(&[gref]);
            guest::set_indices(&page, words[0], words[1], words[2], words[3]);
            if let Ok(mut ring) = ConsoleRing::attach(memory.view(&[gref])) {
                guest::set_indices(&page, words[4], words[5], words[6], words[7]);
                let mut out = Vec::new();
                let _ = ring.take_output(&mut out);
                prop_assert!(out.len() <= 2048);
                let _ = ring.give_input(&[0; 3000]);
            }
        }
    }
}
