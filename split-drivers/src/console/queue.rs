//! One console, driven by calls: [`ConsoleQueue::pass`] moves what can be moved without waiting.
//!
//! The guest is never held up by a reader: its ring is always emptied, into the log and into a bounded backlog for the terminal. What is
//! typed is read from the terminal only when the guest has room, so the terminal itself holds it back.

use super::backlog::Backlog;
use super::log::Log;
use super::ring::{ConsoleFault, ConsoleRing};
use crate::limits::{CONSOLE_BACKLOG_BYTES, CONSOLE_INPUT_BYTES};
use crate::stats::{Counters, add};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

/// What a pass achieved, and what to wait for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes from the guest or to it: it is to be notified.
    pub moved: bool,
    /// Wait until the terminal takes bytes.
    pub want_write: bool,
    /// Wait until the terminal has bytes.
    pub want_read: bool,
    /// Nobody has the terminal open, and waiting on it would not sleep: try again later.
    pub hung_up: bool,
}

/// See the module. `L` is the terminal: non-blocking.
#[derive(Debug)]
pub struct ConsoleQueue<L> {
    ring: ConsoleRing,
    line: L,
    log: Option<Log>,
    backlog: Backlog,
    scratch: Vec<u8>,
    counters: Arc<Counters>,
    log_failed: bool,
}

impl<L: Read + Write> ConsoleQueue<L> {
    /// Connects a ring to a terminal and perhaps a log.
    pub fn new(ring: ConsoleRing, line: L, log: Option<Log>, counters: Arc<Counters>) -> Self {
        let backlog = Backlog::new(CONSOLE_BACKLOG_BYTES);
        Self {
            ring,
            line,
            log,
            backlog,
            scratch: Vec::new(),
            counters,
            log_failed: false,
        }
    }

    /// Goes on with another terminal and log (the agent was restarted).
    pub fn reconnect(&mut self, line: L, log: Option<Log>) {
        self.line = line;
        self.log = log;
        self.log_failed = false;
    }

    /// The terminal, to wait on.
    pub fn line(&self) -> &L {
        &self.line
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// The guest broke its page.
    pub fn pass(&mut self) -> Result<Progress, ConsoleFault> {
        let mut progress = Progress::default();
        self.scratch.clear();
        let printed = self.ring.take_output(&mut self.scratch)?;
        if printed > 0 {
            progress.moved = true;
            add(&self.counters.from_guest, 1);
            add(&self.counters.bytes_from_guest, printed as u64);
            self.write_log();
            self.backlog.push(&self.scratch);
        }
        self.write_line(&mut progress);
        self.read_line(&mut progress)?;
        Ok(progress)
    }

    fn write_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write(&self.scratch)
            && !std::mem::replace(&mut self.log_failed, true)
        {
            tracing::warn!(%error, "console log cannot be written");
        }
    }

    fn write_line(&mut self, progress: &mut Progress) {
        while !self.backlog.is_empty() {
            match self.line.write(self.backlog.front()) {
                Ok(0) => break,
                Ok(count) => self.backlog.consume(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    progress.want_write = true;
                    break;
                }
                Err(_) => {
                    progress.hung_up = true;
                    break;
                }
            }
        }
    }

    fn read_line(&mut self, progress: &mut Progress) -> Result<(), ConsoleFault> {
        let mut buffer = [0; CONSOLE_INPUT_BYTES];
        // The guest is not told to say when it has room again; it reads at once or loses nothing by our asking again later.
        let room = self.ring.input_room()?.min(buffer.len());
        if room == 0 {
            return Ok(());
        }
        match self.line.read(&mut buffer[..room]) {
            Ok(0) => progress.hung_up = true,
            Ok(count) => {
                // The room can only have grown since, unless the guest broke its page.
                self.ring.give_input(&buffer[..count])?;
                add(&self.counters.to_guest, 1);
                add(&self.counters.bytes_to_guest, count as u64);
                progress.moved = true;
                progress.want_read = true;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                progress.want_read = true
            }
            Err(_) => progress.hung_up = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::guest;
    use super::*;
    use crate::testing::GuestMemory;
    use std::collections::VecDeque;
    use std::io;
    use xen_host::region::SharedRegion;

    #[derive(Debug, Default)]
    struct Line {
        shown: Vec<u8>,
        room: usize,
        typed: VecDeque<u8>,
        gone: bool,
    }

    impl Read for Line {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.gone {
                return Err(io::Error::from_raw_os_error(5));
            }
            let count = into.len().min(self.typed.len());
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            for byte in &mut into[..count] {
                *byte = self.typed.pop_front().unwrap();
            }
            Ok(count)
        }
    }

    impl Write for Line {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            let count = from.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.shown.extend(&from[..count]);
            self.room -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn console(line: Line) -> (SharedRegion, ConsoleQueue<Line>) {
        let memory = GuestMemory::new(16);
        let page = memory.page();
        let ring = ConsoleRing::attach(memory.view(&[page])).unwrap();
        (
            memory.view(&[page]),
            ConsoleQueue::new(ring, line, None, Arc::default()),
        )
    }

    #[test]
    fn a_slow_reader_never_holds_the_guest_up_and_loses_the_oldest() {
        let (page, mut console) = console(Line {
            room: 10,
            ..Line::default()
        });
        let mut printed = 0;
        while printed < CONSOLE_BACKLOG_BYTES + 20 {
            printed += guest::print(&page, &[b'x'; 2000]);
            assert!(console.pass().unwrap().want_write);
        }
        guest::print(&page, b"the end");
        console.pass().unwrap();
        console.line.room = usize::MAX;
        assert!(!console.pass().unwrap().want_write);
        assert!(console.line.shown.ends_with(b"the end"));
        assert_eq!(console.line.shown.len(), CONSOLE_BACKLOG_BYTES + 10);
    }

    #[test]
    fn typing_waits_in_the_terminal_until_the_guest_has_room() {
        let (page, mut console) = console(Line {
            typed: (0..3000).map(|i: i32| i.to_le_bytes()[0]).collect(),
            ..Line::default()
        });
        let mut typed = Vec::new();
        for _ in 0..100 {
            let progress = console.pass().unwrap();
            if !progress.want_read {
                typed.extend(guest::typed(&page));
            }
        }
        typed.extend(guest::typed(&page));
        let expected: Vec<u8> = (0..3000).map(|i: i32| i.to_le_bytes()[0]).collect();
        assert_eq!(typed, expected);
    }

    #[test]
    fn a_terminal_without_a_reader_is_no_error() {
        let (page, mut console) = console(Line {
            gone: true,
            ..Line::default()
        });
        guest::print(&page, b"still logged");
        assert!(console.pass().unwrap().hung_up);
    }
}
