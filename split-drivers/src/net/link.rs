//! Where packets go and come from: a tap, or a pair of lists in tests. Batches, one call each; a frame is a span of the private buffer, the tap's
//! header before it.

use crate::limits::{NET_RX_BATCH, NET_RX_LEAST_READS};
use nix::errno::Errno;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::uring::{Completion, DiskRing, Transfer};

/// A frame with its header, in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub len: usize,
}

/// See the module.
pub trait Link: std::fmt::Debug {
    /// The private buffer.
    fn buffer(&self) -> &SharedRegion;
    /// Sends all of `frames`, in order; answers how many were taken. What is not taken is lost, as on a wire.
    ///
    /// # Errors
    /// The link is gone.
    fn send(&mut self, frames: &[Span]) -> Result<usize, Errno>;
    /// Receives at most one frame into each of `rooms`, in order, and appends what came.
    ///
    /// # Errors
    /// The link is gone.
    fn receive(&mut self, rooms: &[Span], into: &mut Vec<Span>) -> Result<(), Errno>;
}

/// Files of the ring, by place.
const TAP: usize = 0;
const EVENT: usize = 1;
const STOP: usize = 2;
const POLL_TOKENS: u64 = 1 << 32;
/// Longest that a transfer of a non-blocking tap may take; it takes none.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(5);

/// Why a thread woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wake {
    /// The guest sent an event.
    pub event: bool,
    /// The control thread wants something.
    pub stop: bool,
    /// The tap may have frames.
    readable: bool,
}

/// One queue of a tap, on io_uring: a batch of frames is one system call.
///
/// A read that finds nothing costs as much as one that finds a small frame, so a tap that was found empty is not read again before a poll says that
/// it may be, and no more reads go into one call than the last calls had use for.
#[derive(Debug)]
pub struct TapLink {
    ring: DiskRing,
    polled: [bool; 3],
    woke: Wake,
    done: Vec<(u64, Result<u32, Errno>)>,
    /// Reads of the next call.
    reads: usize,
}

impl TapLink {
    /// Opens a tap's queue (non-blocking) with `pages` pages of buffer and batches of at most `batch` frames, and the descriptors that wake the thread.
    ///
    /// # Errors
    /// No memory, or io_uring is not to be had.
    pub fn open(
        tap: BorrowedFd<'_>,
        event: BorrowedFd<'_>,
        stop: BorrowedFd<'_>,
        pages: usize,
        batch: u32,
    ) -> Result<Self, Error> {
        let ring = DiskRing::new(&[tap, event, stop], pages, batch + 3)?;
        Ok(Self {
            ring,
            polled: [false; 3],
            woke: Wake {
                readable: true,
                ..Wake::default()
            },
            done: Vec::new(),
            reads: NET_RX_LEAST_READS,
        })
    }

    /// Sleeps until the guest sends an event, the control thread wants something, the time is over, or (if `tap`) a frame came.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn wait(&mut self, tap: bool, timeout: Duration) -> Result<Wake, Error> {
        for place in [TAP, EVENT, STOP] {
            if !self.polled[place] && (place != TAP || tap) {
                self.ring.poll(place, POLL_TOKENS + place as u64)?;
                self.polled[place] = true;
            }
        }
        self.ring.submit_and_wait(Some(timeout))?;
        while let Some(completion) = self.ring.next_completion() {
            note(&mut self.polled, &mut self.woke, &mut self.done, completion);
        }
        let rest = Wake {
            readable: self.woke.readable,
            ..Wake::default()
        };
        Ok(std::mem::replace(&mut self.woke, rest))
    }

    /// Runs what was queued to its end: a tap that never blocks ends at once.
    fn run(&mut self) -> Result<(), Errno> {
        let (polled, woke, done) = (&mut self.polled, &mut self.woke, &mut self.done);
        done.clear();
        self.ring.submit().map_err(code)?;
        match self.ring.drain(TRANSFER_PATIENCE, |completion| {
            note(polled, woke, done, completion)
        }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Errno::ETIMEDOUT),
            Err(error) => Err(code(error)),
        }
    }
}

fn note(
    polled: &mut [bool; 3],
    woke: &mut Wake,
    done: &mut Vec<(u64, Result<u32, Errno>)>,
    completion: Completion,
) {
    match completion.token.checked_sub(POLL_TOKENS) {
        Some(place) => {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            if let Some(polled) = polled.get_mut(place) {
                *polled = false;
            }
            woke.event |= place == EVENT;
            woke.stop |= place == STOP;
            woke.readable |= place == TAP;
        }
        None => done.push((completion.token, completion.into_result())),
    }
}

fn code(error: Error) -> Errno {
    error.errno().unwrap_or(Errno::EIO)
}

fn transfer(span: Span) -> Result<Transfer, Errno> {
    let len = u32::try_from(span.len).map_err(|_| Errno::EINVAL)?;
    Ok(Transfer {
        file: TAP,
        pool_offset: span.at,
        len,
        file_offset: 0,
    })
}

/// The tap was taken away (its descriptor stays, its interface does not).
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::EBADFD | Errno::ENODEV | Errno::EBADF)
}

impl Link for TapLink {
    fn buffer(&self) -> &SharedRegion {
        self.ring.pool()
    }

    fn send(&mut self, frames: &[Span]) -> Result<usize, Errno> {
        for (token, frame) in frames.iter().enumerate() {
            self.ring
                .write(transfer(*frame)?, false, token as u64)
                .map_err(code)?;
        }
        self.run()?;
        let gone = self
            .done
            .iter()
            .filter_map(|(_, result)| result.err())
            .find(|errno| is_gone(*errno));
        match gone {
            Some(errno) => Err(errno),
            None => Ok(self
                .done
                .iter()
                .filter(|(_, result)| result.is_ok())
                .count()),
        }
    }

    fn receive(&mut self, rooms: &[Span], into: &mut Vec<Span>) -> Result<(), Errno> {
        if !self.woke.readable {
            return Ok(());
        }
        let rooms = &rooms[..self.reads.min(rooms.len())];
        for (token, room) in rooms.iter().enumerate() {
            self.ring
                .read_now(transfer(*room)?, token as u64)
                .map_err(code)?;
        }
        self.run()?;
        self.done.sort_unstable_by_key(|(token, _)| *token);
        let before = into.len();
        for (token, result) in &self.done {
            match result {
                Ok(len) => {
                    let room = usize::try_from(*token)
                        .ok()
                        .and_then(|token| rooms.get(token));
                    into.extend(room.map(|room| Span {
                        at: room.at,
                        len: *len as usize,
                    }));
                }
                Err(errno) if is_gone(*errno) => return Err(*errno),
                Err(_) => {}
            }
        }
        let came = into.len() - before;
        self.reads = reads_after(self.reads, came);
        self.woke.readable = came == rooms.len();
        Ok(())
    }
}

/// Reads of the next call: twice as many when all of `reads` found a frame, else what was used and one to find the end.
fn reads_after(reads: usize, came: usize) -> usize {
    let wanted = if came >= reads { reads * 2 } else { came + 1 };
    wanted.clamp(NET_RX_LEAST_READS, NET_RX_BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_follow_the_traffic_within_their_bounds() {
        assert_eq!(reads_after(NET_RX_LEAST_READS, 0), NET_RX_LEAST_READS);
        assert_eq!(reads_after(8, 8), 16);
        assert_eq!(reads_after(NET_RX_BATCH, NET_RX_BATCH), NET_RX_BATCH);
        assert_eq!(reads_after(NET_RX_BATCH, 9), 10);
    }
}
