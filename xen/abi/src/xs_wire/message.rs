//! Framing: a header of 16 bytes and a payload of at most 4096.
//!
//! [`Message::decode`] takes what has arrived so far and says "not yet", "one message of so many bytes" or "this peer
//! does not speak xenstore". It never waits and never allocates more than one payload.

use super::PAYLOAD_MAX;
use super::errno::StoreErrno;
use crate::layout;
use crate::layout::copy_out;
use zerocopy::IntoBytes;

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $c:literal,)*) => {
        /// Kind of a message. Source: `xsd_sockmsg_type`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Op {
            $($(#[$doc])* $name = $value,)*
        }

        impl Op {
            /// Every kind.
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];

            /// From its number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($value => Some(Op::$name),)*
                    _ => None,
                }
            }
        }

        /// The kinds under their C names, for the header check.
        pub const C_OPS: &[(&str, u64)] = &[$(($c, $value),)*];
    };
}

ops! {
    /// Orders to xenstored itself.
    Control = 0 => "XS_CONTROL",
    /// Children of a node.
    Directory = 1 => "XS_DIRECTORY",
    /// Value of a node.
    Read = 2 => "XS_READ",
    /// Permissions of a node.
    GetPerms = 3 => "XS_GET_PERMS",
    /// Begin to watch.
    Watch = 4 => "XS_WATCH",
    /// Stop watching.
    Unwatch = 5 => "XS_UNWATCH",
    /// Open a transaction.
    TransactionStart = 6 => "XS_TRANSACTION_START",
    /// Commit or abort it.
    TransactionEnd = 7 => "XS_TRANSACTION_END",
    /// Connect a domain.
    Introduce = 8 => "XS_INTRODUCE",
    /// Disconnect a domain.
    Release = 9 => "XS_RELEASE",
    /// Home of a domain.
    GetDomainPath = 10 => "XS_GET_DOMAIN_PATH",
    /// Set a value.
    Write = 11 => "XS_WRITE",
    /// Make a node.
    Mkdir = 12 => "XS_MKDIR",
    /// Remove a node and all below.
    Rm = 13 => "XS_RM",
    /// Set permissions.
    SetPerms = 14 => "XS_SET_PERMS",
    /// From xenstored: a watch fired.
    WatchEvent = 15 => "XS_WATCH_EVENT",
    /// From xenstored: the request failed.
    Error = 16 => "XS_ERROR",
    /// Is a domain connected?
    IsDomainIntroduced = 17 => "XS_IS_DOMAIN_INTRODUCED",
    /// A suspended domain runs again.
    Resume = 18 => "XS_RESUME",
    /// Let a stub domain act for another.
    SetTarget = 19 => "XS_SET_TARGET",
    /// Remove all watches of the caller.
    ResetWatches = 21 => "XS_RESET_WATCHES",
    /// A part of a long list of children.
    DirectoryPart = 22 => "XS_DIRECTORY_PART",
}

layout! {
    /// What stands before every payload.
    pub struct Header: "struct xsd_sockmsg", 16 {
        /// [`Op`] as a number.
        pub op: u32 = 0 => "type",
        /// Chosen by the client; comes back in the answer.
        pub req_id: u32 = 4 => "req_id",
        /// Transaction, 0 for none.
        pub tx_id: u32 = 8 => "tx_id",
        /// Bytes of payload.
        pub len: u32 = 12 => "len",
    }
}

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = size_of::<Header>();

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Kind.
    pub op: Op,
    /// Chosen by the client; comes back in the answer.
    pub req_id: u32,
    /// Transaction, 0 for none.
    pub tx_id: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Bytes that are not the xenstore protocol, or a message that would not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The payload is too long.
    #[error(
        "a xenstore message of {len} bytes is longer than the {PAYLOAD_MAX} the protocol allows"
    )]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The kind is not known.
    #[error("unknown xenstore message type {number}")]
    UnknownOp {
        /// Its number.
        number: u32,
    },
    /// The payload is not what its kind promises.
    #[error("malformed xenstore {op:?} payload: {what}")]
    Malformed {
        /// Kind.
        op: Op,
        /// What is wrong.
        what: &'static str,
    },
    /// A string holds a NUL, which ends strings on the wire.
    #[error("a path or token for xenstore {op:?} contains a NUL byte")]
    EmbeddedNul {
        /// Kind.
        op: Op,
    },
}

impl Message {
    /// The bytes to send.
    ///
    /// # Errors
    /// [`WireError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len().min(PAYLOAD_MAX));
        self.encode_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Appends the bytes to send, so that many requests go out in one write.
    ///
    /// # Errors
    /// [`WireError::TooLong`]; `bytes` is then untouched.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), WireError> {
        let len = checked_len(self.payload.len())?;
        let header = Header {
            op: self.op as u32,
            req_id: self.req_id,
            tx_id: self.tx_id,
            len,
        };
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.payload);
        Ok(())
    }

    /// Takes the first message off `bytes`: `None` if it is not complete, else it and its length.
    ///
    /// # Errors
    /// [`WireError::TooLong`] and [`WireError::UnknownOp`]: the connection is of no further use.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
        let Some(header) = copy_out::<Header>(bytes) else {
            return Ok(None);
        };
        let Some(op) = Op::from_number(header.op) else {
            return Err(WireError::UnknownOp { number: header.op });
        };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        checked_len(len)?;
        let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + len) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        let message = Message {
            op,
            req_id: header.req_id,
            tx_id: header.tx_id,
            payload,
        };
        Ok(Some((message, HEADER_BYTES + len)))
    }

    /// The payload of an answer, or the error it carries.
    ///
    /// # Errors
    /// The error xenstored named.
    pub fn into_result(self) -> Result<Vec<u8>, StoreErrno> {
        if self.op != Op::Error {
            return Ok(self.payload);
        }
        let name = self
            .payload
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        Err(StoreErrno::from_name(&String::from_utf8_lossy(name)))
    }

    /// The answer to `request` that carries `error`, as a xenstored would give it.
    #[must_use]
    pub fn error_reply(request: &Message, error: &StoreErrno) -> Message {
        let mut payload = error.name().as_bytes().to_vec();
        payload.push(0);
        Message {
            op: Op::Error,
            req_id: request.req_id,
            tx_id: request.tx_id,
            payload,
        }
    }
}

fn checked_len(len: usize) -> Result<u32, WireError> {
    u32::try_from(len)
        .ok()
        .filter(|_| len <= PAYLOAD_MAX)
        .ok_or(WireError::TooLong { len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_op() -> impl Strategy<Value = Op> {
        proptest::sample::select(Op::ALL)
    }

    #[test]
    fn kinds_have_the_numbers_of_the_protocol() {
        assert_eq!(Op::Control as u32, 0);
        assert_eq!(Op::ResetWatches as u32, 21);
        assert_eq!(Op::DirectoryPart as u32, 22);
        assert_eq!(Op::from_number(20), None, "RESTRICT is gone");
        assert_eq!(Op::from_number(23), None);
        for op in Op::ALL {
            assert_eq!(Op::from_number(*op as u32), Some(*op));
        }
    }

    #[test]
    fn a_foreign_peer_is_refused_before_its_payload_arrives() {
        let header = |op, len| Header {
            op,
            req_id: 1,
            tx_id: 0,
            len,
        };
        let too_long = header(2, 4097);
        assert_eq!(
            Message::decode(too_long.as_bytes()),
            Err(WireError::TooLong { len: 4097 })
        );
        let unknown = header(20, 0);
        assert_eq!(
            Message::decode(unknown.as_bytes()),
            Err(WireError::UnknownOp { number: 20 })
        );
    }

    #[test]
    fn an_error_answer_carries_its_name() {
        let ask = Message {
            op: Op::Read,
            req_id: 7,
            tx_id: 3,
            payload: vec![],
        };
        let answer = Message::error_reply(&ask, &StoreErrno::NoEnt);
        assert_eq!(answer.payload, b"ENOENT\0");
        assert_eq!((answer.req_id, answer.tx_id), (7, 3));
        assert_eq!(answer.into_result(), Err(StoreErrno::NoEnt));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn messages_round_trip_however_they_arrive(
            op in any_op(), req_id: u32, tx_id: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0..316usize,
        ) {
            let message = Message { op, req_id, tx_id, payload };
            let bytes = message.encode().unwrap();
            let cut = cut.min(bytes.len());
            if cut < bytes.len() {
                prop_assert_eq!(Message::decode(&bytes[..cut]), Ok(None));
            }
            let mut stream = bytes.clone();
            stream.extend_from_slice(&bytes[..cut]);
            prop_assert_eq!(Message::decode(&stream), Ok(Some((message, bytes.len()))));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((message, used))) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), &bytes[..used]);
            }
        }
    }

    #[test]
    fn the_longest_payload_is_4096() {
        let mut message = Message {
            op: Op::Write,
            req_id: 0,
            tx_id: 0,
            payload: vec![1; 4096],
        };
        assert_eq!(
            Message::decode(&message.encode().unwrap())
                .unwrap()
                .unwrap()
                .1,
            4112
        );
        message.payload.push(1);
        assert_eq!(message.encode(), Err(WireError::TooLong { len: 4097 }));
    }
}
