//! What goes over a line behind the greetings, both ways.
//!
//! ```text
//!   0      1            4
//!   ┌──────┬────────────┬─────────┐        here                              there
//!   │ kind │ length     │ bytes … │          ── Request ──────────────────────▶
//!   └──────┴────────────┴─────────┘          ◀── Accepted | Refused(text) ─────
//!     u8     u24 LE                          ── Data*, End ───────────────────▶
//!                                            ◀── Data*, Said*, End(exit code) ─
//! ```
//!
//! A line that ends without `End` was cut: TLS alone would show that too, but only to the one who reads. `Said` is what the receiver would print: the
//! sender's operator should read it.

use crate::limits::MAX_FRAME_BYTES;
use std::io::{self, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before the contents.
pub const HEAD_BYTES: usize = 4;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See [`crate::request`].
    Request = 1,
    /// It will be done.
    Accepted = 2,
    /// It will not; why, as text.
    Refused = 3,
    /// Bytes of the stream.
    Data = 4,
    /// One line for people.
    Said = 5,
    /// The last one of its direction; from the listener with the exit code, one byte.
    End = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Request,
            Self::Accepted,
            Self::Refused,
            Self::Data,
            Self::Said,
            Self::End,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What is wrong with a frame, or with the line.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Transport or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ended without `End`.
    #[error("it was cut")]
    Cut,
    /// Not a kind.
    #[error("the other side sent a frame of kind {0}, which this release does not know")]
    Unknown(u8),
    /// Not the kind that should have come.
    #[error("the other side sent {0:?} where it does not belong")]
    Unexpected(Kind),
    /// Too long.
    #[error("the other side announced a frame of {0} bytes, at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
}

/// The four bytes before `length` bytes of contents.
///
/// # Errors
/// More than [`MAX_FRAME_BYTES`].
pub fn head(kind: Kind, length: usize) -> Result<[u8; HEAD_BYTES], FrameError> {
    match u32::try_from(length) {
        Ok(short) if length <= MAX_FRAME_BYTES => {
            let [a, b, c, _] = short.to_le_bytes();
            Ok([kind as u8, a, b, c])
        }
        _ => Err(FrameError::TooLong(length)),
    }
}

/// Kind and length, judged before a byte more is read.
///
/// # Errors
/// An unknown kind, or more than [`MAX_FRAME_BYTES`].
pub fn parse(head: [u8; HEAD_BYTES]) -> Result<(Kind, usize), FrameError> {
    let [kind, a, b, c] = head;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let kind = Kind::of(kind).ok_or(FrameError::Unknown(kind))?;
    Ok((kind, length))
}

/// Reads one frame; its contents are in `into` then. Not cancel safe.
///
/// # Errors
/// Whatever is wrong with it, or [`FrameError::Cut`].
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
) -> Result<Kind, FrameError> {
    let cut = |error: io::Error| match error.kind() {
        // TLS says this of a connection that was not ended as TLS ends one.
        ErrorKind::UnexpectedEof => FrameError::Cut,
        _ => FrameError::Io(error),
    };
    let mut bytes = [0; HEAD_BYTES];
    from.read_exact(&mut bytes).await.map_err(cut)?;
    let (kind, length) = parse(bytes)?;
    into.resize(length, 0);
    from.read_exact(into).await.map_err(cut)?;
    Ok(kind)
}

/// Writes one frame, and waits until it has left this program.
///
/// # Errors
/// It is too long, or the line broke.
pub async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    contents: &[u8],
) -> Result<(), FrameError> {
    // In one piece: a TLS record for four bytes would be a waste.
    let mut frame = Vec::with_capacity(HEAD_BYTES + contents.len());
    frame.extend(head(kind, contents.len())?);
    frame.extend(contents);
    to.write_all(&frame).await?;
    Ok(to.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> (Vec<(Kind, Vec<u8>)>, FrameError) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (mut frames, mut from) = (Vec::new(), bytes);
        runtime.block_on(async {
            loop {
                let mut contents = Vec::new();
                match read(&mut from, &mut contents).await {
                    Ok(kind) => frames.push((kind, contents)),
                    Err(error) => return (frames, error),
                }
            }
        })
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        assert_eq!(head(Kind::Data, 0x1_0000).unwrap(), [4, 0, 0, 1]);
        assert_eq!(head(Kind::End, 1).unwrap(), [6, 1, 0, 0]);
    }

    #[test]
    fn a_forged_length_allocates_nothing() {
        let (frames, error) = read_all(&[4, 1, 0, 1]);
        assert!(frames.is_empty() && matches!(error, FrameError::TooLong(0x1_0001)));
        assert!(head(Kind::Data, MAX_FRAME_BYTES + 1).is_err());
        assert!(matches!(read_all(&[9, 0, 0, 0]).1, FrameError::Unknown(9)));
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_or_not_at_all_wherever_the_line_is_cut(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
            cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            for part in &contents {
                bytes.extend(head(Kind::Data, part.len()).unwrap());
                bytes.extend(part);
            }
            let (frames, error) = read_all(&bytes[..cut.index(bytes.len() + 1)]);
            prop_assert!(matches!(error, FrameError::Cut));
            for ((kind, got), sent) in frames.iter().zip(&contents) {
                prop_assert_eq!((*kind, got), (Kind::Data, sent));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            read_all(&bytes);
        }
    }
}
