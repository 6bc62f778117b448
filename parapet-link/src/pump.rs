//! Bytes between a line and something plain: a socket of the agent's, or standard input and output.
//!
//! Each direction holds one frame. What cannot be handed on is not read: a slow reader at one end makes the writer at the other one wait, through TCP.

use crate::frame::{self, FrameError, HEAD_BYTES, Kind};
use crate::limits::{MAX_FRAME_BYTES, MAX_SAID_BYTES, MAX_SAID_LINES};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Hands on what comes from `from`, and the lines, until both have ended. The last frame is the caller's.
///
/// # Errors
/// The line broke.
pub async fn outbound(
    from: &mut (impl AsyncRead + Unpin),
    lines: &mut mpsc::Receiver<String>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), FrameError> {
    // With room for the head before them, so that nothing is copied once more.
    let mut buffer = vec![0; HEAD_BYTES + MAX_FRAME_BYTES];
    let (mut flows, mut talks) = (true, true);
    while flows || talks {
        tokio::select! {
            read = from.read(&mut buffer[HEAD_BYTES..]), if flows => match read {
                // A plain end that fails has ended: whoever is behind it says why by itself.
                Ok(0) | Err(_) => flows = false,
                Ok(count) => {
                    buffer[..HEAD_BYTES].copy_from_slice(&frame::head(Kind::Data, count)?);
                    to.write_all(&buffer[..HEAD_BYTES + count]).await?;
                    to.flush().await?;
                }
            },
            line = lines.recv(), if talks => match line {
                None => talks = false,
                Some(line) => frame::write(to, Kind::Said, said(&line).as_bytes()).await?,
            },
        }
    }
    Ok(())
}

/// Hands on what comes from the line, until its last frame; answers the exit code in that. When nobody takes the bytes any more, the rest is passed over:
/// what is said last should still be heard.
///
/// # Errors
/// The line broke, or something came that does not belong there.
pub async fn inbound(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<u8, FrameError> {
    let mut contents = Vec::new();
    let (mut taken, mut lines) = (true, 0);
    loop {
        match frame::read(from, &mut contents).await? {
            Kind::Data => {
                if taken {
                    let written = to.write_all(&contents).await;
                    taken = written.is_ok() && to.flush().await.is_ok();
                }
            }
            Kind::Said => {
                lines += 1;
                if lines <= MAX_SAID_LINES {
                    tell(&said(&String::from_utf8_lossy(&contents)));
                }
            }
            Kind::End => {
                // The one direction only: the other one goes on.
                let _ = to.shutdown().await;
                return Ok(contents.first().copied().unwrap_or_default());
            }
            other => return Err(FrameError::Unexpected(other)),
        }
    }
}

/// A line as it is shown: no longer than allowed, and nothing in it that a terminal obeys.
#[must_use]
pub fn said(line: &str) -> String {
    let mut text: String = line
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if text.len() > MAX_SAID_BYTES {
        let end = (0..=MAX_SAID_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_short_and_moves_no_cursor(line in "(\\PC|\u{1b}|\r|ä){0,3000}") {
            let shown = said(&line);
            prop_assert!(shown.len() <= MAX_SAID_BYTES);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }

    #[tokio::test]
    async fn bytes_and_lines_arrive_and_one_direction_ends_alone() {
        let (mut near, mut far) = tokio::io::duplex(100);
        let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
        let (say, mut lines) = mpsc::channel(1);
        let mut input = bytes.as_slice();
        let sender = async {
            outbound(&mut input, &mut lines, &mut near).await.unwrap();
            frame::write(&mut near, Kind::End, &[7]).await.unwrap();
        };
        let talker = async move {
            for line in ["one\u{1b}[2J", "two"] {
                say.send(line.to_owned()).await.unwrap();
            }
        };
        let (mut output, mut heard) = (Vec::new(), Vec::new());
        let mut tell = |line: &str| heard.push(line.to_owned());
        let receiver = inbound(&mut far, &mut output, &mut tell);
        let (_, _, code) = tokio::join!(sender, talker, receiver);
        assert_eq!(code.unwrap(), 7);
        assert_eq!(output, bytes);
        assert_eq!(heard, ["one [2J", "two"]);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_does_not_keep_the_last_words_away() {
        let mut wire = Vec::new();
        for _ in 0..3 {
            frame::write(&mut wire, Kind::Data, b"x").await.unwrap();
        }
        frame::write(&mut wire, Kind::Said, b"why").await.unwrap();
        frame::write(&mut wire, Kind::End, &[1]).await.unwrap();
        let (mut gone, other) = tokio::io::duplex(1);
        drop(other);
        let mut heard = String::new();
        let mut tell = |line: &str| heard.push_str(line);
        let code = inbound(&mut wire.as_slice(), &mut gone, &mut tell).await;
        assert_eq!((code.unwrap(), heard.as_str()), (1, "why"));
    }

    #[tokio::test]
    async fn what_does_not_belong_on_a_line_ends_it() {
        for kind in [Kind::Request, Kind::Accepted, Kind::Refused] {
            let mut wire = Vec::new();
            frame::write(&mut wire, kind, b"").await.unwrap();
            let ended = inbound(&mut wire.as_slice(), &mut Vec::new(), &mut |_| {}).await;
            assert!(matches!(ended, Err(FrameError::Unexpected(_))));
        }
    }
}
