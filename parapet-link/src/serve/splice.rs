//! A line and a socket of this host's, until both directions have ended, or one of them broke.

use crate::frame::{self, FrameError, Kind};
use crate::limits::LINGER;
use crate::pump;
use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Carries bytes between `line` and `plain`, and `lines` to the other host, whose last frame is `code`: whoever works at the other end of `plain` answers it
/// when it is done. A line that breaks closes `plain` both ways, as when any other line closes.
///
/// # Errors
/// The line broke.
pub(super) async fn splice(
    line: &mut (impl AsyncRead + AsyncWrite + Unpin),
    plain: UnixStream,
    mut lines: mpsc::Receiver<String>,
    code: impl Future<Output = u8>,
) -> Result<(), FrameError> {
    plain.set_nonblocking(true)?;
    // A way to end both directions at once, whoever holds the other end.
    let cutter = plain.try_clone()?;
    let cut = || {
        let _ = shutdown(cutter.as_raw_fd(), Shutdown::Both);
    };
    let (mut plain_in, mut plain_out) = tokio::net::UnixStream::from_std(plain)?.into_split();
    let (mut from, mut to) = tokio::io::split(line);
    let forth = async {
        let sent = pump::outbound(&mut plain_in, &mut lines, &mut to).await;
        if sent.is_err() {
            // Before `code` is waited for: who works there must hear that the line is gone.
            cut();
            lines.close();
        }
        let code = code.await;
        sent?;
        frame::write(&mut to, Kind::End, &[code]).await
    };
    let mut nobody = |_: &str| {};
    let back = pump::inbound(&mut from, &mut plain_out, &mut nobody);
    tokio::pin!(forth, back);
    let mut heard = None;
    let said = loop {
        tokio::select! {
            ended = &mut back, if heard.is_none() => {
                if ended.is_err() {
                    cut();
                }
                heard = Some(ended);
            }
            said = &mut forth => break said,
        }
    };
    match heard {
        // What broke first is the cause.
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => said,
        None => {
            said?;
            // Until the other side has read the last word, and hangs up.
            let _ = timeout(LINGER, back).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_FRAME_BYTES, SAID_BACKLOG};
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;
    use tokio::task::{JoinHandle, spawn_blocking};

    /// Longest time for anything here.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// In which nothing happens, where nothing should.
    const QUIET: Duration = Duration::from_millis(300);
    const CODE: u8 = 3;

    struct Rig {
        far: DuplexStream,
        near: JoinHandle<Result<(), FrameError>>,
        say: mpsc::Sender<String>,
    }

    /// `work` has the other end of the plain socket.
    fn rig(work: impl FnOnce(UnixStream) + Send + 'static) -> Rig {
        let (far, mut line) = duplex(1000);
        let (plain, theirs) = UnixStream::pair().unwrap();
        let (say, lines) = mpsc::channel(SAID_BACKLOG);
        let done = spawn_blocking(move || work(theirs));
        let near = tokio::spawn(async move {
            let code = async move {
                done.await.unwrap();
                CODE
            };
            splice(&mut line, plain, lines, code).await
        });
        Rig { far, near, say }
    }

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        timeout(PATIENCE, what).await.unwrap()
    }

    #[tokio::test]
    async fn each_direction_ends_alone_and_the_code_comes_last() {
        let Rig { mut far, near, say } = rig(|mut theirs| {
            let mut all = Vec::new();
            // Ends although the other direction is open.
            theirs.read_to_end(&mut all).unwrap();
            theirs.write_all(&all).unwrap();
        });
        say.send("a line".into()).await.unwrap();
        drop(say);
        frame::write(&mut far, Kind::Data, b"there and back")
            .await
            .unwrap();
        frame::write(&mut far, Kind::End, &[]).await.unwrap();
        let (mut back, mut heard) = (Vec::new(), Vec::new());
        let mut tell = |line: &str| heard.push(line.to_owned());
        let code = soon(pump::inbound(&mut far, &mut back, &mut tell)).await;
        assert_eq!(
            (code.unwrap(), back.as_slice()),
            (CODE, &b"there and back"[..])
        );
        assert_eq!(heard, ["a line"]);
        drop(far);
        soon(near).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_slow_reader_makes_the_sender_wait() {
        const BLOCKS: usize = 256;
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let Rig { far, near, say } = rig(move |mut theirs| {
            wait.recv().unwrap();
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            let length = all.len() as u64;
            theirs.write_all(&length.to_le_bytes()).unwrap();
        });
        drop(say);
        let (mut from, mut to) = tokio::io::split(far);
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let mut sender = tokio::spawn(async move {
            let block = vec![7; MAX_FRAME_BYTES];
            for _ in 0..BLOCKS {
                frame::write(&mut to, Kind::Data, &block).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
            }
            frame::write(&mut to, Kind::End, &[]).await.unwrap();
        });
        // What the kernel keeps of a socket (a few hundred KiB), and a frame: no more goes, however long it is tried.
        timeout(QUIET, &mut sender).await.unwrap_err();
        let early = sent.load(Ordering::Relaxed);
        assert!(early < BLOCKS / 4, "{early} blocks went");
        go.send(()).unwrap();
        soon(sender).await.unwrap();
        let mut back = Vec::new();
        let code = soon(pump::inbound(&mut from, &mut back, &mut |_| {})).await;
        let all = (BLOCKS * MAX_FRAME_BYTES) as u64;
        assert_eq!((code.unwrap(), back), (CODE, all.to_le_bytes().to_vec()));
        drop(from);
        soon(near).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_line_that_breaks_ends_who_works_there() {
        for begun in [
            &b""[..],
            b"\x04",
            b"\x04\x05\x00\x00abc",
            b"\x63\x00\x00\x00",
        ] {
            let (gone, seen) = oneshot::channel();
            let Rig { mut far, near, say } = rig(move |mut theirs| {
                let mut all = Vec::new();
                let _ = theirs.read_to_end(&mut all);
                let wrote = theirs.write_all(b"x").is_ok();
                gone.send((all, wrote)).unwrap();
            });
            far.write_all(begun).await.unwrap();
            drop(far);
            drop(say);
            // Half a frame is nothing.
            assert_eq!(soon(seen).await.unwrap(), (Vec::new(), false));
            assert!(soon(near).await.unwrap().is_err(), "{begun:?}");
        }
    }

    #[tokio::test]
    async fn a_worker_that_is_done_early_is_told_while_the_sender_still_sends() {
        let Rig { far, near, say } = rig(drop);
        drop(say);
        let (mut from, mut to) = tokio::io::split(far);
        let sender = tokio::spawn(async move {
            let block = vec![7; MAX_FRAME_BYTES];
            while frame::write(&mut to, Kind::Data, &block).await.is_ok() {}
        });
        let code = soon(pump::inbound(&mut from, &mut Vec::new(), &mut |_| {})).await;
        assert_eq!(code.unwrap(), CODE);
        sender.abort();
        let _ = sender.await;
        drop(from);
        soon(near).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn lines_wait_for_a_host_that_does_not_read() {
        let Rig { mut far, near, say } = rig(|mut theirs| {
            let _ = theirs.read_to_end(&mut Vec::new());
        });
        let mut said = 0;
        while timeout(QUIET, say.send("x".repeat(500))).await.is_ok() {
            said += 1;
            assert!(said < 100, "nothing holds the speaker back");
        }
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [Kind::Said as u8, 0xf4, 0x01, 0]);
        drop((far, say));
        soon(near).await.unwrap().unwrap_err();
    }
}
