//! The envelope of every message.
//!
//! ```text
//!   0        4          6        8         12        16
//!   ┌────────┬──────────┬────────┬─────────┬─────────┬──────────────┐
//!   │ "PRPT" │ version  │ kind   │ length  │ crc32   │ payload …    │
//!   └────────┴──────────┴────────┴─────────┴─────────┴──────────────┘
//!     magic    u16 LE     u16 LE   u32 LE    of the payload
//! ```
//!
//! `kind` names the vocabulary, so that a client that connects to the wrong socket gets a clear error. The length is checked before
//! anything is allocated, the checksum before anything is decoded, and a payload must be consumed to its last byte.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{Read, Write};

/// First bytes of each frame.
pub const MAGIC: [u8; 4] = *b"PRPT";
/// Version of the envelope and of every vocabulary in it. Raised when an existing message changes; appended variants keep it.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// Longest payload, in bytes. The largest message is a guest's configuration.
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;

/// Which vocabulary a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`crate::agent::Request`].
    AgentRequest = 1,
    /// [`crate::agent::Reply`].
    AgentReply = 2,
    /// [`crate::driver::Order`].
    DriverOrder = 3,
    /// [`crate::driver::Answer`].
    DriverAnswer = 4,
    /// Requests of the monitor's own API (defined by `ft-monitor`).
    MonitorRequest = 5,
    /// Replies of the monitor's own API.
    MonitorReply = 6,
}

/// What is wrong with a frame, or with the stream it came by.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the connection between two frames.
    #[error("the other side closed the connection")]
    Closed,
    /// Transport.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Not our protocol.
    #[error("not a Parapet message (bytes {0:02x?})")]
    Magic([u8; 4]),
    /// Another version.
    #[error(
        "the other side speaks protocol version {theirs}, this program {VERSION}; install the same release on both sides"
    )]
    Version {
        /// Theirs.
        theirs: u16,
    },
    /// Another vocabulary.
    #[error("message of kind {theirs} where {wanted:?} was expected; is this the right socket?")]
    Kind {
        /// Theirs.
        theirs: u16,
        /// What was expected.
        wanted: Kind,
    },
    /// Longer than [`MAX_PAYLOAD_BYTES`].
    #[error("message of {0} bytes exceeds {MAX_PAYLOAD_BYTES}")]
    TooLong(usize),
    /// Damaged.
    #[error("message damaged in transit (checksum)")]
    Checksum,
    /// Not decodable.
    #[error("message cannot be decoded: {0}")]
    Payload(String),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_PAYLOAD_BYTES>()
}

/// A message as a whole frame.
///
/// # Errors
/// [`FrameError::TooLong`] or, for types bincode cannot carry, [`FrameError::Payload`].
pub fn encode<T: Serialize>(kind: Kind, message: &T) -> Result<Vec<u8>, FrameError> {
    let payload = bincode::serde::encode_to_vec(message, config())
        .map_err(|error| FrameError::Payload(error.to_string()))?;
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong(payload.len()));
    }
    let length = u32::try_from(payload.len()).map_err(|_| FrameError::TooLong(payload.len()))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.extend_from_slice(&(kind as u16).to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// A checked header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: usize,
    crc: u32,
}

/// Checks a header.
///
/// # Errors
/// Everything that is wrong with it, before any payload byte is read.
pub fn parse_header(wanted: Kind, bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
    let [
        m0,
        m1,
        m2,
        m3,
        v0,
        v1,
        k0,
        k1,
        l0,
        l1,
        l2,
        l3,
        c0,
        c1,
        c2,
        c3,
    ] = *bytes;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic([m0, m1, m2, m3]));
    }
    let theirs = u16::from_le_bytes([v0, v1]);
    if theirs != VERSION {
        return Err(FrameError::Version { theirs });
    }
    let theirs = u16::from_le_bytes([k0, k1]);
    if theirs != wanted as u16 {
        return Err(FrameError::Kind { theirs, wanted });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD_BYTES {
        return Err(FrameError::TooLong(length));
    }
    Ok(Header {
        length,
        crc: u32::from_le_bytes([c0, c1, c2, c3]),
    })
}

/// Decodes a payload whose header was checked.
///
/// # Errors
/// A wrong checksum, an undecodable payload, or bytes left over.
pub fn decode<T: DeserializeOwned>(header: Header, payload: &[u8]) -> Result<T, FrameError> {
    if payload.len() != header.length || crc32fast::hash(payload) != header.crc {
        return Err(FrameError::Checksum);
    }
    let (message, used) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|error| FrameError::Payload(error.to_string()))?;
    if used != payload.len() {
        return Err(FrameError::Payload(format!(
            "{} bytes left over",
            payload.len() - used
        )));
    }
    Ok(message)
}

/// Decodes one frame from the front of `buffer`; answers the message and the bytes it took, or `None` when more bytes are needed.
///
/// # Errors
/// Whatever is wrong with the frame.
pub fn take<T: DeserializeOwned>(
    wanted: Kind,
    buffer: &[u8],
) -> Result<Option<(T, usize)>, FrameError> {
    let Some(head) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = parse_header(wanted, head)?;
    let Some(payload) = buffer.get(HEADER_BYTES..HEADER_BYTES + header.length) else {
        return Ok(None);
    };
    Ok(Some((
        decode(header, payload)?,
        HEADER_BYTES + header.length,
    )))
}

/// Sends a message.
///
/// # Errors
/// Transport or size.
pub fn send<T: Serialize>(to: &mut impl Write, kind: Kind, message: &T) -> Result<(), FrameError> {
    to.write_all(&encode(kind, message)?)?;
    Ok(to.flush()?)
}

/// Receives a message.
///
/// # Errors
/// [`FrameError::Closed`] at a clean end; otherwise whatever is wrong.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read, wanted: Kind) -> Result<T, FrameError> {
    let mut head = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match from.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Err(FrameError::Closed),
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let header = parse_header(wanted, &head)?;
    let mut payload = vec![0; header.length];
    from.read_exact(&mut payload)?;
    decode(header, &payload)
}

/// Sends a message on an async stream.
///
/// # Errors
/// Transport or size.
pub async fn send_async<T: Serialize>(
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    kind: Kind,
    message: &T,
) -> Result<(), FrameError> {
    use tokio::io::AsyncWriteExt;
    to.write_all(&encode(kind, message)?).await?;
    Ok(to.flush().await?)
}

/// Receives a message from an async stream. Not cancel safe: a cancelled call may have taken half a frame.
///
/// # Errors
/// [`FrameError::Closed`] at a clean end; otherwise whatever is wrong.
pub async fn receive_async<T: DeserializeOwned>(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    wanted: Kind,
) -> Result<T, FrameError> {
    use tokio::io::AsyncReadExt;
    let mut head = [0; HEADER_BYTES];
    let first = from.read(&mut head).await?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    from.read_exact(&mut head[first..]).await?;
    let header = parse_header(wanted, &head)?;
    let mut payload = vec![0; header.length];
    from.read_exact(&mut payload).await?;
    decode(header, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut wire = Vec::new();
        send(&mut wire, Kind::AgentRequest, &("hello".to_owned(), 7_u32)).unwrap();
        let (text, number): (String, u32) =
            receive(&mut wire.as_slice(), Kind::AgentRequest).unwrap();
        assert_eq!((text.as_str(), number), ("hello", 7));
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let frame = encode(Kind::DriverOrder, &(1_u8, "ab".to_owned())).unwrap();
        assert_eq!(frame[..12], *b"PRPT\x01\x00\x03\x00\x04\x00\x00\x00");
        assert_eq!(frame[16..], *b"\x01\x02ab");
    }

    #[test]
    fn a_wrong_socket_is_named() {
        let frame = encode(Kind::DriverOrder, &1_u8).unwrap();
        let error = receive::<u8>(&mut frame.as_slice(), Kind::AgentReply).unwrap_err();
        assert!(matches!(
            error,
            FrameError::Kind {
                theirs: 3,
                wanted: Kind::AgentReply
            }
        ));
    }

    #[test]
    fn a_forged_length_allocates_nothing() {
        let mut frame = encode(Kind::AgentRequest, &1_u8).unwrap();
        frame[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            receive::<u8>(&mut frame.as_slice(), Kind::AgentRequest),
            Err(FrameError::TooLong(_))
        ));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(value: Vec<u64>, at: prop::sample::Index, bit in 0_u8..8) {
            let mut frame = encode(Kind::AgentRequest, &value).unwrap();
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            prop_assert!(receive::<Vec<u64>>(&mut frame.as_slice(), Kind::AgentRequest).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = take::<crate::agent::Request>(Kind::AgentRequest, &bytes);
        }
    }
}
