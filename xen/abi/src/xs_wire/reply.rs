//! What answers and events mean.
//!
//! Each function takes the payload that [`super::Message::into_result`] let through.

use super::message::{Op, WireError};
use super::perms::Permission;
use super::request::strings;

const fn malformed(op: Op, what: &'static str) -> WireError {
    WireError::Malformed { op, what }
}

/// Children of a node.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn directory(payload: &[u8]) -> Result<Vec<String>, WireError> {
    strings(Op::Directory, payload)
}

/// A part of a list of children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPart {
    /// Changes whenever the list does; parts of different generations must not be joined.
    pub generation: u64,
    /// The children in this part.
    pub children: Vec<String>,
    /// Bytes of the list in this part: what to add to the offset.
    pub bytes: usize,
    /// No part follows.
    pub last: bool,
}

/// A part of a list of children.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn directory_part(payload: &[u8]) -> Result<DirectoryPart, WireError> {
    let op = Op::DirectoryPart;
    let mut halves = payload.splitn(2, |byte| *byte == 0);
    let generation = halves
        .next()
        .and_then(|text| std::str::from_utf8(text).ok());
    let generation = generation.and_then(|text| text.parse().ok());
    let generation = generation.ok_or(malformed(op, "no generation"))?;
    let list = halves
        .next()
        .ok_or(malformed(op, "no NUL after the generation"))?;
    let last = list == [0] || list.ends_with(&[0, 0]);
    let list = if last { &list[..list.len() - 1] } else { list };
    Ok(DirectoryPart {
        generation,
        children: strings(op, list)?,
        bytes: list.len(),
        last,
    })
}

/// Permissions of a node, the owner first.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn permissions(payload: &[u8]) -> Result<Vec<Permission>, WireError> {
    let entries = strings(Op::GetPerms, payload)?;
    let entries: Result<Vec<_>, _> = entries.iter().map(|text| text.parse()).collect();
    entries.map_err(|_| malformed(Op::GetPerms, "bad permission"))
}

/// The id of a transaction just opened.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn transaction_id(payload: &[u8]) -> Result<u32, WireError> {
    let op = Op::TransactionStart;
    let text = strings(op, payload)?.into_iter().next();
    let id = text.and_then(|text| text.parse().ok());
    id.filter(|id| *id != 0)
        .ok_or(malformed(op, "not a transaction id"))
}

/// Whether a domain is connected.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn is_introduced(payload: &[u8]) -> Result<bool, WireError> {
    match payload.strip_suffix(&[0]).unwrap_or(payload) {
        b"T" => Ok(true),
        b"F" => Ok(false),
        _ => Err(malformed(Op::IsDomainIntroduced, "neither T nor F")),
    }
}

/// One string: the home of a domain, or what an order to xenstored answered.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn text(op: Op, payload: &[u8]) -> Result<String, WireError> {
    let bytes = payload.strip_suffix(&[0]).unwrap_or(payload);
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed(op, "not text"))
}

/// A watch that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed, relative if the watch was.
    pub path: String,
    /// The token given with the watch.
    pub token: String,
}

/// A watch that fired.
///
/// # Errors
/// [`WireError::Malformed`].
pub fn watch_event(payload: &[u8]) -> Result<WatchEvent, WireError> {
    let mut fields = strings(Op::WatchEvent, payload)?.into_iter();
    match (fields.next(), fields.next()) {
        (Some(path), Some(token)) => Ok(WatchEvent { path, token }),
        _ => Err(malformed(Op::WatchEvent, "not a path and a token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_lists() {
        assert_eq!(directory(b"a\0b\0"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(directory(b""), Ok(vec![]));
        assert!(directory(b"a").is_err());
        assert_eq!(permissions(b"n0\0r5\0").map(|entries| entries.len()), Ok(2));
        assert!(permissions(b"q0\0").is_err());
    }

    #[test]
    fn a_part_knows_whether_it_is_the_last() {
        let part = directory_part(b"17\0a\0bc\0").unwrap();
        assert_eq!((part.generation, part.bytes, part.last), (17, 5, false));
        let part = directory_part(b"17\0d\0\0").unwrap();
        assert_eq!(
            (part.children, part.bytes, part.last),
            (vec!["d".to_owned()], 2, true)
        );
        let part = directory_part(b"17\0\0").unwrap();
        assert_eq!((part.children, part.bytes, part.last), (vec![], 0, true));
        assert!(directory_part(b"x\0a\0").is_err());
        assert!(directory_part(b"17").is_err());
    }

    #[test]
    fn single_answers_are_read() {
        assert_eq!(transaction_id(b"42\0"), Ok(42));
        assert!(transaction_id(b"0\0").is_err());
        assert_eq!(is_introduced(b"T\0"), Ok(true));
        assert!(is_introduced(b"?\0").is_err());
        assert_eq!(
            text(Op::GetDomainPath, b"/local/domain/3\0"),
            Ok("/local/domain/3".into())
        );
        let event = watch_event(b"@releaseDomain\0token\0").unwrap();
        assert_eq!(
            (event.path.as_str(), event.token.as_str()),
            ("@releaseDomain", "token")
        );
        assert!(watch_event(b"only\0").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = directory(&payload);
            let _ = directory_part(&payload);
            let _ = permissions(&payload);
            let _ = transaction_id(&payload);
            let _ = is_introduced(&payload);
            let _ = text(Op::Control, &payload);
            let _ = watch_event(&payload);
        }
    }
}
