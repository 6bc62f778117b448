//! What a client can ask, and how each question is spelled in a payload.
//!
//! Strings end in NUL; the value of a write does not. [`Request::decode`] is the other direction, for stores used in
//! tests.

use super::message::{Message, Op, WireError};
use super::perms::Permission;
use crate::ids::{DomId, Gfn, Port};

/// A question to xenstored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An order to xenstored itself, with its arguments.
    Control(Vec<String>),
    /// Children of a node; fails with `E2BIG` if they fill more than a message.
    Directory(String),
    /// Children of a node from this byte of the list on.
    DirectoryPart(String, usize),
    /// Value of a node.
    Read(String),
    /// Permissions of a node.
    GetPerms(String),
    /// Begin to watch a path; the token comes back in each event.
    Watch {
        /// Node, or one of the special `@` names.
        path: String,
        /// Chosen by the caller.
        token: String,
    },
    /// Stop watching.
    Unwatch {
        /// As given.
        path: String,
        /// As given.
        token: String,
    },
    /// Open a transaction.
    TransactionStart,
    /// Close it; with `false` nothing of it happens.
    TransactionEnd(bool),
    /// Connect a domain: its ring page and port.
    Introduce(DomId, Gfn, Port),
    /// Disconnect a domain.
    Release(DomId),
    /// Home of a domain.
    GetDomainPath(DomId),
    /// Set a value, making the node and its parents as needed.
    Write(String, Vec<u8>),
    /// Make a node.
    Mkdir(String),
    /// Remove a node and all below.
    Rm(String),
    /// Set permissions, the owner first.
    SetPerms(String, Vec<Permission>),
    /// Is a domain connected?
    IsDomainIntroduced(DomId),
    /// A suspended domain runs again.
    Resume(DomId),
    /// Let a stub domain act for a target.
    SetTarget(DomId, DomId),
    /// Remove all watches of the caller.
    ResetWatches,
}

impl Request {
    /// Its kind.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Control(_) => Op::Control,
            Self::Directory(_) => Op::Directory,
            Self::DirectoryPart(..) => Op::DirectoryPart,
            Self::Read(_) => Op::Read,
            Self::GetPerms(_) => Op::GetPerms,
            Self::Watch { .. } => Op::Watch,
            Self::Unwatch { .. } => Op::Unwatch,
            Self::TransactionStart => Op::TransactionStart,
            Self::TransactionEnd(_) => Op::TransactionEnd,
            Self::Introduce(..) => Op::Introduce,
            Self::Release(_) => Op::Release,
            Self::GetDomainPath(_) => Op::GetDomainPath,
            Self::Write(..) => Op::Write,
            Self::Mkdir(_) => Op::Mkdir,
            Self::Rm(_) => Op::Rm,
            Self::SetPerms(..) => Op::SetPerms,
            Self::IsDomainIntroduced(_) => Op::IsDomainIntroduced,
            Self::Resume(_) => Op::Resume,
            Self::SetTarget(..) => Op::SetTarget,
            Self::ResetWatches => Op::ResetWatches,
        }
    }

    /// The message that asks it.
    ///
    /// # Errors
    /// [`WireError::TooLong`] or [`WireError::EmbeddedNul`].
    pub fn to_message(&self, req_id: u32, tx_id: u32) -> Result<Message, WireError> {
        let op = self.op();
        let mut payload = Payload {
            op,
            bytes: Vec::new(),
        };
        match self {
            Self::Control(arguments) => {
                for argument in arguments {
                    payload.text(argument)?;
                }
            }
            Self::Directory(path)
            | Self::Read(path)
            | Self::GetPerms(path)
            | Self::Mkdir(path)
            | Self::Rm(path) => payload.text(path)?,
            Self::DirectoryPart(path, offset) => {
                payload.text(path)?;
                payload.text(&offset.to_string())?;
            }
            Self::Watch { path, token } | Self::Unwatch { path, token } => {
                payload.text(path)?;
                payload.text(token)?;
            }
            // An empty payload is refused by some servers.
            Self::TransactionStart | Self::ResetWatches => payload.text("")?,
            Self::TransactionEnd(commit) => payload.text(if *commit { "T" } else { "F" })?,
            Self::Introduce(domain, frame, port) => {
                payload.text(&domain.to_string())?;
                payload.text(&frame.to_string())?;
                payload.text(&port.to_string())?;
            }
            Self::Release(domain)
            | Self::GetDomainPath(domain)
            | Self::IsDomainIntroduced(domain)
            | Self::Resume(domain) => payload.text(&domain.to_string())?,
            Self::Write(path, value) => {
                payload.text(path)?;
                payload.bytes.extend_from_slice(value);
            }
            Self::SetPerms(path, permissions) => {
                payload.text(path)?;
                for permission in permissions {
                    payload.text(&permission.to_string())?;
                }
            }
            Self::SetTarget(domain, target) => {
                payload.text(&domain.to_string())?;
                payload.text(&target.to_string())?;
            }
        }
        payload.finish(req_id, tx_id)
    }

    /// What a message asks.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn decode(message: &Message) -> Result<Request, WireError> {
        let op = message.op;
        if op == Op::Write {
            let mut halves = message.payload.splitn(2, |byte| *byte == 0);
            let path = text(op, halves.next().unwrap_or_default())?;
            let value = halves
                .next()
                .ok_or(malformed(op, "no NUL after the path"))?;
            return Ok(Self::Write(path, value.to_vec()));
        }
        let strings = strings(op, &message.payload)?;
        Fields {
            op,
            strings,
            next: 0,
        }
        .request()
    }
}

struct Payload {
    op: Op,
    bytes: Vec<u8>,
}

impl Payload {
    fn text(&mut self, text: &str) -> Result<(), WireError> {
        if text.bytes().any(|byte| byte == 0) {
            return Err(WireError::EmbeddedNul { op: self.op });
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(())
    }

    fn finish(self, req_id: u32, tx_id: u32) -> Result<Message, WireError> {
        if self.bytes.len() > super::PAYLOAD_MAX {
            return Err(WireError::TooLong {
                len: self.bytes.len(),
            });
        }
        Ok(Message {
            op: self.op,
            req_id,
            tx_id,
            payload: self.bytes,
        })
    }
}

const fn malformed(op: Op, what: &'static str) -> WireError {
    WireError::Malformed { op, what }
}

fn text(op: Op, bytes: &[u8]) -> Result<String, WireError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed(op, "not text"))
}

/// Splits NUL-terminated strings.
pub(super) fn strings(op: Op, bytes: &[u8]) -> Result<Vec<String>, WireError> {
    let Some(body) = bytes.strip_suffix(&[0]) else {
        return if bytes.is_empty() {
            Ok(vec![])
        } else {
            Err(malformed(op, "no NUL at the end"))
        };
    };
    body.split(|byte| *byte == 0)
        .map(|part| text(op, part))
        .collect()
}

struct Fields {
    op: Op,
    strings: Vec<String>,
    next: usize,
}

impl Fields {
    fn text(&mut self) -> Result<String, WireError> {
        let field = self.strings.get(self.next).cloned();
        self.next += 1;
        field.ok_or(malformed(self.op, "too few fields"))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, WireError> {
        let op = self.op;
        self.text()?
            .parse()
            .map_err(|_| malformed(op, "not a number in range"))
    }

    fn domain(&mut self) -> Result<DomId, WireError> {
        self.number().map(DomId)
    }

    fn rest(&mut self) -> Vec<String> {
        let rest = self.strings.split_off(self.next.min(self.strings.len()));
        self.next += rest.len();
        rest
    }

    fn request(mut self) -> Result<Request, WireError> {
        let op = self.op;
        let request = match op {
            Op::Control => Request::Control(self.rest()),
            Op::Directory => Request::Directory(self.text()?),
            Op::DirectoryPart => Request::DirectoryPart(self.text()?, self.number()?),
            Op::Read => Request::Read(self.text()?),
            Op::GetPerms => Request::GetPerms(self.text()?),
            Op::Watch => Request::Watch {
                path: self.text()?,
                token: self.text()?,
            },
            Op::Unwatch => Request::Unwatch {
                path: self.text()?,
                token: self.text()?,
            },
            Op::TransactionStart => Request::TransactionStart,
            Op::TransactionEnd => match self.text()?.as_str() {
                "T" => Request::TransactionEnd(true),
                "F" => Request::TransactionEnd(false),
                _ => return Err(malformed(op, "neither T nor F")),
            },
            Op::Introduce => {
                Request::Introduce(self.domain()?, Gfn(self.number()?), Port(self.number()?))
            }
            Op::Release => Request::Release(self.domain()?),
            Op::GetDomainPath => Request::GetDomainPath(self.domain()?),
            Op::Mkdir => Request::Mkdir(self.text()?),
            Op::Rm => Request::Rm(self.text()?),
            Op::SetPerms => {
                let path = self.text()?;
                let entries = self.rest();
                let entries: Result<_, _> = entries.iter().map(|text| text.parse()).collect();
                Request::SetPerms(path, entries.map_err(|_| malformed(op, "bad permission"))?)
            }
            Op::IsDomainIntroduced => Request::IsDomainIntroduced(self.domain()?),
            Op::Resume => Request::Resume(self.domain()?),
            Op::SetTarget => Request::SetTarget(self.domain()?, self.domain()?),
            Op::ResetWatches => Request::ResetWatches,
            Op::Write | Op::WatchEvent | Op::Error => return Err(malformed(op, "not a request")),
        };
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xs_wire::Access;
    use proptest::prelude::*;

    fn payload(request: &Request) -> Vec<u8> {
        request.to_message(1, 2).unwrap().payload
    }

    #[test]
    fn questions_are_spelled_as_the_protocol_says() {
        assert_eq!(payload(&Request::Read("/a".into())), b"/a\0");
        assert_eq!(
            payload(&Request::Write("/a".into(), b"v\0w".to_vec())),
            b"/a\0v\0w"
        );
        assert_eq!(payload(&Request::TransactionStart), b"\0");
        assert_eq!(payload(&Request::TransactionEnd(true)), b"T\0");
        assert_eq!(
            payload(&Request::Introduce(DomId(5), Gfn(6), Port(7))),
            b"5\x006\x007\0"
        );
        assert_eq!(
            payload(&Request::DirectoryPart("/a".into(), 40)),
            b"/a\x0040\0"
        );
        let permissions = vec![
            Permission::new(Access::None, DomId(0)),
            Permission::new(Access::Read, DomId(5)),
        ];
        assert_eq!(
            payload(&Request::SetPerms("/a".into(), permissions)),
            b"/a\0n0\0r5\0"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_sent() {
        let long = Request::Write("/a".into(), vec![0; 4096]).to_message(1, 0);
        assert_eq!(long, Err(WireError::TooLong { len: 4099 }));
        let nul = Request::Read("/a\0b".into()).to_message(1, 0);
        assert_eq!(nul, Err(WireError::EmbeddedNul { op: Op::Read }));
    }

    fn path() -> impl Strategy<Value = String> {
        "[a-z0-9/@_-]{1,40}"
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let domid = any::<u16>().prop_map(DomId);
        prop_oneof![
            proptest::collection::vec("[a-z]{1,5}", 1..4).prop_map(Request::Control),
            path().prop_map(Request::Directory),
            (path(), any::<usize>()).prop_map(|(p, n)| Request::DirectoryPart(p, n)),
            path().prop_map(Request::Read),
            path().prop_map(Request::GetPerms),
            (path(), path()).prop_map(|(path, token)| Request::Watch { path, token }),
            (path(), path()).prop_map(|(path, token)| Request::Unwatch { path, token }),
            Just(Request::TransactionStart),
            any::<bool>().prop_map(Request::TransactionEnd),
            (domid.clone(), any::<u64>(), any::<u32>()).prop_map(|(d, g, p)| Request::Introduce(
                d,
                Gfn(g),
                Port(p)
            )),
            domid.clone().prop_map(Request::Release),
            domid.clone().prop_map(Request::GetDomainPath),
            (path(), proptest::collection::vec(any::<u8>(), 0..100))
                .prop_map(|(p, v)| Request::Write(p, v)),
            path().prop_map(Request::Mkdir),
            path().prop_map(Request::Rm),
            (path(), proptest::collection::vec(domid.clone(), 0..5)).prop_map(|(p, ids)| {
                let entries = ids.into_iter().map(|id| Permission::new(Access::Both, id));
                Request::SetPerms(p, entries.collect())
            }),
            domid.clone().prop_map(Request::IsDomainIntroduced),
            domid.clone().prop_map(Request::Resume),
            (domid.clone(), domid).prop_map(|(d, t)| Request::SetTarget(d, t)),
            Just(Request::ResetWatches),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_question_comes_back(request in any_request(), req_id: u32, tx_id: u32) {
            let message = request.to_message(req_id, tx_id).unwrap();
            prop_assert_eq!(Request::decode(&message), Ok(request));
        }

        #[test]
        fn no_payload_panics(
            op in proptest::sample::select(Op::ALL),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = Request::decode(&Message { op, req_id: 0, tx_id: 0, payload });
        }
    }
}
