//! Many nodes read by somebody who is in no hurry, with few wake-ups.
//!
//! ```text
//!   Idle ── ask(paths): one write ──▶ Asked ── collect(): takes what has come ──▶ all of it? ──▶ answers, and Idle again
//!                                       ▲                                             │ no
//!                                       └──────────── the caller sleeps a while ──────┘
//! ```
//!
//! xenstored writes each answer by itself, its header and its payload apart, and whoever waits for them at the socket is woken by every write (measured:
//! 83 times for 50 nodes). So nobody waits here: nothing blocks, nothing polls, and what has come lies in the socket until it is collected. A connection
//! that fails is gone with the error; there is no retry.

use super::endpoint::{Endpoints, Link};
use super::error::StoreError;
use super::frame::Frames;
use super::quick::MAX_IN_FLIGHT;
use super::store::StoreOp;
use super::translate::{Subject, encode};
use std::io;
use std::time::{Duration, Instant};
use xen_abi::xs_wire::Op;

/// Longest that xenstored may take for all answers.
pub const TIMEOUT: Duration = super::quick::TIMEOUT;

/// What became of each read, in the order asked.
pub type Values = Vec<Result<Vec<u8>, StoreError>>;

/// A connection on which nothing is under way.
#[derive(Debug)]
pub struct Idle {
    link: Link,
    frames: Frames,
    next_id: u32,
}

/// A connection on which answers are expected.
#[derive(Debug)]
pub struct Asked {
    idle: Idle,
    subjects: Vec<Result<Subject, StoreError>>,
    first_id: u32,
    since: Instant,
    values: Values,
}

/// What [`Asked::collect`] found.
#[derive(Debug)]
pub enum Collected {
    /// Everything.
    All(Idle, Values),
    /// Some are still to come.
    NotYet(Asked),
}

impl Idle {
    /// Connects; `None` where xenstored is only reached through a device, which answers one request at a time.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], which names the place tried.
    pub fn connect(endpoints: &Endpoints) -> Result<Option<Self>, StoreError> {
        let link = endpoints.connect()?;
        if link.is_device() {
            return Ok(None);
        }
        let unreachable = |error: io::Error| StoreError::Unreachable {
            endpoint: "xenstored".to_owned(),
            reason: error.to_string(),
        };
        link.set_nonblocking().map_err(unreachable)?;
        Ok(Some(Self {
            link,
            frames: Frames::default(),
            next_id: 1,
        }))
    }

    /// Asks for the values of at most [`MAX_IN_FLIGHT`] nodes, which fit the socket's buffers; those beyond are not asked.
    ///
    /// # Errors
    /// The connection's.
    pub fn ask(mut self, paths: &[String]) -> Result<Asked, StoreError> {
        let first_id = self.next_id;
        let mut bytes = Vec::new();
        let mut read = |path: &String| {
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            encode(&StoreOp::Read(path.clone()), id, 0, &mut bytes)
        };
        let subjects: Vec<_> = paths.iter().take(MAX_IN_FLIGHT).map(&mut read).collect();
        if !bytes.is_empty() {
            super::count_round_trip();
            // Nothing else is on its way: a socket that takes less than all of it serves nobody.
            self.link
                .send(&bytes)
                .map_err(|_| Subject::new(Op::Read, "").lost())?;
        }
        Ok(Asked {
            idle: self,
            values: Vec::with_capacity(subjects.len()),
            subjects,
            first_id,
            since: Instant::now(),
        })
    }
}

impl Asked {
    /// Takes what has come, without waiting.
    ///
    /// # Errors
    /// The connection's; xenstored does not speak its protocol, or has taken longer than [`TIMEOUT`].
    pub fn collect(mut self) -> Result<Collected, StoreError> {
        loop {
            self.take_complete()?;
            let Some(Ok(subject)) = self.subjects.get(self.values.len()) else {
                return Ok(Collected::All(self.idle, self.values));
            };
            match self.idle.frames.fill(&mut &self.idle.link) {
                Ok(0) => return Err(subject.lost()),
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(subject.lost());
                }
                Err(_) if self.since.elapsed() >= TIMEOUT => {
                    let millis = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
                    return Err(subject.late(millis));
                }
                Err(_) => return Ok(Collected::NotYet(self)),
            }
        }
    }

    /// Moves on as far as whole messages go. Answers keep the order of the requests.
    fn take_complete(&mut self) -> Result<(), StoreError> {
        while let Some(subject) = self.subjects.get(self.values.len()) {
            let subject = match subject {
                Ok(subject) => subject,
                // It was never sent.
                Err(error) => {
                    self.values.push(Err(error.clone()));
                    continue;
                }
            };
            let next = self.idle.frames.next();
            let Some(message) = next.map_err(|error| subject.malformed(error))? else {
                return Ok(());
            };
            if message.op == Op::WatchEvent {
                continue;
            }
            let offset = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
            let expected = self.first_id.wrapping_add(offset);
            if message.req_id != expected {
                let what = format!("answer {} instead of {expected}", message.req_id);
                return Err(subject.malformed(what));
            }
            self.values.push(subject.payload(message));
        }
        Ok(())
    }
}
