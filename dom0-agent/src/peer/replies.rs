//! What comes back while a stream goes out: an answer to its offer, if the other side is one of ours, and then the words that are waited for.
//!
//! ```text
//!   Silent ──offered──▶ Awaited ──answer──▶ Heard          whoever reads gets what is behind the answer
//!                          └──another word──▶ Heard        whoever reads gets that word, too
//! ```
//!
//! Nobody has to wait for the answer: it is looked for while the stream goes, and found at the latest by whoever waits for the next word.

use super::{Incoming, await_ready};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;
use xen_stream::Accord;
use xen_stream::accord::{ANSWER_BYTES, Heard, hear};

/// The way back of a connection.
#[derive(Debug)]
pub struct Replies {
    from: File,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    awaited: bool,
    /// Bytes that came and that nobody has had.
    unread: Vec<u8>,
    agreed: Accord,
}

impl State {
    /// Takes bytes that came.
    fn take(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        match hear(&self.unread) {
            Heard::Beginning => {}
            Heard::Answer(agreed) => {
                self.agreed = agreed;
                self.awaited = false;
                self.unread.clear();
            }
            Heard::Other => self.awaited = false,
        }
    }
}

impl Replies {
    /// Of the end that is read from.
    #[must_use]
    pub fn new(from: File) -> Self {
        let state = RefCell::default();
        Self { from, state }
    }

    /// Something is offered now: an answer may come.
    pub fn offered(&self) {
        self.state.borrow_mut().awaited = true;
    }

    /// What the other side has agreed to, as far as it is known. Does not wait; what is wrong with the connection is for whoever reads next.
    pub fn agreed(&self) -> Accord {
        while self.state.borrow().awaited && self.has_some() {
            if !matches!(self.listen(), Ok(got) if got > 0) {
                break;
            }
        }
        self.state.borrow().agreed
    }

    /// Waits for an answer, for `most` at most.
    pub fn wait(&self, most: Duration, wanted: &dyn Fn() -> bool) {
        while self.state.borrow().awaited
            && await_ready(self.from.as_fd(), PollFlags::POLLIN, most, wanted).is_ok()
        {
            if !matches!(self.listen(), Ok(got) if got > 0) {
                break;
            }
        }
    }

    /// Reads what comes, without the answer; gives up when nothing comes for as long as `stall`.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn reader<'a>(
        &'a self,
        stall: Duration,
        wanted: &'a dyn Fn() -> bool,
    ) -> io::Result<Words<'a>> {
        let from = Incoming::new(self.from.try_clone()?, stall, wanted);
        Ok(Words {
            replies: self,
            from,
        })
    }

    fn has_some(&self) -> bool {
        let mut polled = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
    }

    /// Reads no more than an answer has; answers how many bytes came.
    fn listen(&self) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let mut bytes = [0; ANSWER_BYTES];
        let most = ANSWER_BYTES - state.unread.len().min(ANSWER_BYTES);
        let got = (&self.from).read(&mut bytes[..most])?;
        state.take(&bytes[..got]);
        Ok(got)
    }
}

/// See [`Replies::reader`].
#[derive(Debug)]
pub struct Words<'a> {
    replies: &'a Replies,
    from: Incoming<'a>,
}

impl Read for Words<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.replies.state.borrow().awaited {
            self.from.await_some()?;
            if self.replies.listen()? == 0 {
                // It ends within an answer, or before any word: whoever reads is told by what there is.
                self.replies.state.borrow_mut().awaited = false;
            }
        }
        let mut state = self.replies.state.borrow_mut();
        if state.unread.is_empty() {
            drop(state);
            return self.from.read(into);
        }
        let count = state.unread.len().min(into.len());
        into[..count].copy_from_slice(&state.unread[..count]);
        state.unread.drain(..count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use xen_stream::accord::answer;
    use xen_stream::handshake::{Message, expect};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn line() -> (Replies, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Replies::new(File::from(OwnedFd::from(ours))), theirs)
    }

    fn ready(replies: &Replies) {
        let mut words = replies.reader(PATIENCE, &|| true).unwrap();
        expect(&mut words, Message::Ready).unwrap();
    }

    #[test]
    fn an_answer_is_heard_however_it_comes_and_the_next_word_is_whole() {
        for cut in 0..=ANSWER_BYTES {
            let (replies, mut theirs) = line();
            replies.offered();
            assert_eq!(replies.agreed(), Accord::NONE);
            let bytes = answer(Accord::ALL);
            theirs.write_all(&bytes[..cut]).unwrap();
            let whole = cut == ANSWER_BYTES;
            let agreed = if whole { Accord::ALL } else { Accord::NONE };
            assert_eq!(replies.agreed(), agreed);
            theirs.write_all(&bytes[cut..]).unwrap();
            theirs.write_all(Message::Ready.bytes()).unwrap();
            // Whoever reads hears it as well.
            if cut % 2 == 0 {
                assert_eq!(replies.agreed(), Accord::ALL);
            }
            ready(&replies);
            assert_eq!(replies.agreed(), Accord::ALL);
        }
    }

    #[test]
    fn a_stock_receiver_says_the_next_word_and_nothing_was_agreed() {
        for looked in [false, true] {
            let (replies, mut theirs) = line();
            replies.offered();
            theirs.write_all(Message::Ready.bytes()).unwrap();
            if looked {
                assert_eq!(replies.agreed(), Accord::NONE);
            }
            ready(&replies);
            assert_eq!(replies.agreed(), Accord::NONE);
        }
    }

    #[test]
    fn who_offered_nothing_is_answered_nothing() {
        let (replies, mut theirs) = line();
        theirs.write_all(&answer(Accord::ALL)).unwrap();
        drop(theirs);
        assert_eq!(replies.agreed(), Accord::NONE);
        let mut words = replies.reader(PATIENCE, &|| true).unwrap();
        assert!(expect(&mut words, Message::Ready).is_err());
    }

    #[test]
    fn a_line_that_ends_is_no_answer_and_ends_for_whoever_reads() {
        let (replies, mut theirs) = line();
        replies.offered();
        theirs.write_all(&answer(Accord::ALL)[..9]).unwrap();
        drop(theirs);
        assert_eq!(replies.agreed(), Accord::NONE);
        replies.wait(PATIENCE, &|| true);
        let mut rest = Vec::new();
        let mut words = replies.reader(PATIENCE, &|| true).unwrap();
        words.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, answer(Accord::ALL)[..9]);
    }

    #[test]
    fn an_answer_is_waited_for_no_longer_than_that() {
        let (replies, mut theirs) = line();
        replies.offered();
        replies.wait(Duration::from_millis(10), &|| true);
        assert_eq!(replies.agreed(), Accord::NONE);
        theirs.write_all(&answer(Accord::ALL)).unwrap();
        replies.wait(PATIENCE, &|| true);
        assert_eq!(replies.agreed(), Accord::ALL);
    }
}
