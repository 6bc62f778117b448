//! Cutting a byte stream into xenstore messages, however the bytes arrive.
//!
//! Holds at most one incomplete message beside what was read in one go. A peer that does not speak the protocol is noticed at its first
//! bad header; the connection is then of no use.

use std::io::{self, Read};
use xen_abi::xs_wire::message::HEADER_BYTES;
use xen_abi::xs_wire::{Message, PAYLOAD_MAX, WireError};

/// Bytes of the first read from a connection: one page, as memory never touched costs a short command dear.
pub const FIRST_READ_BYTES: usize = 4096;
/// Most bytes read at once; reads that fill their buffer double it up to this.
pub const READ_BYTES: usize = 32 * 1024;
const _: () = assert!(READ_BYTES > HEADER_BYTES + PAYLOAD_MAX);

/// The receiving side of a connection.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    taken: usize,
    read_bytes: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            read_bytes: FIRST_READ_BYTES,
        }
    }
}

impl Frames {
    /// Reads once and keeps what came; `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// The connection's own.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let have = self.bytes.len();
        self.bytes.resize(have + self.read_bytes, 0);
        let result = loop {
            match from.read(&mut self.bytes[have..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let count = result.as_ref().map_or(0, |count| *count);
        self.bytes.truncate(have + count);
        if count == self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES);
        }
        result
    }

    /// The next complete message.
    ///
    /// # Errors
    /// The peer does not speak xenstore.
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        let waiting = self.bytes.get(self.taken..).unwrap_or_default();
        Ok(Message::decode(waiting)?.map(|(message, used)| {
            self.taken += used;
            message
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xen_abi::xs_wire::Op;

    /// Gives the bytes of a stream in pieces of the given sizes.
    struct Pieces<'a> {
        rest: &'a [u8],
        sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self
                .sizes
                .next()
                .unwrap()
                .min(into.len())
                .min(self.rest.len());
            into[..count].copy_from_slice(&self.rest[..count]);
            self.rest = &self.rest[count..];
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_fragmentation(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..PAYLOAD_MAX), 1..12),
            sizes in proptest::collection::vec(1..9000usize, 1..8),
        ) {
            let messages: Vec<Message> = payloads
                .into_iter()
                .zip(0..)
                .map(|(payload, req_id)| Message { op: Op::Read, req_id, tx_id: 7, payload })
                .collect();
            let mut stream = Vec::new();
            for message in &messages {
                message.encode_into(&mut stream).unwrap();
            }
            let mut pieces = Pieces { rest: &stream, sizes: sizes.into_iter().cycle() };
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            while frames.fill(&mut pieces).unwrap() > 0 {
                while let Some(message) = frames.next().unwrap() {
                    seen.push(message);
                }
                prop_assert!(frames.bytes.len() <= 2 * READ_BYTES);
            }
            prop_assert_eq!(seen, messages);
        }
    }

    #[test]
    fn a_length_beyond_the_protocol_ends_the_connection() {
        let mut header = vec![2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        header.extend_from_slice(&4097_u32.to_le_bytes());
        let mut frames = Frames::default();
        frames.fill(&mut header.as_slice()).unwrap();
        assert_eq!(frames.next(), Err(WireError::TooLong { len: 4097 }));
    }
}
