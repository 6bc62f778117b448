//! One disk from its first extent to its last: driver, plan, image and line put together.
//!
//! ```text
//!   begin: track, then ask what the image holds          round, round ...: copy, take, decide
//!   (the caller suspends the guest)                       finish: freeze, take, copy ... until a freeze is followed by nothing to take
//!   drop: thaw, untrack
//! ```
//!
//! The proof that both sides are the same: after the last read the disk was frozen (once more: a driver that was replaced meanwhile ran what
//! its predecessor had begun), and nothing was noted since the set of the last round was taken.

use super::copy::{Decision, Forecast, Input, Moved, Plan, Policy};
use super::error::CopyError;
use super::extents::ExtentSet;
use super::format::Totals;
use super::send::Sender;
use super::source::Source;
use crate::agent::error::AgentError;
use std::io::{Read, Write};
use std::path::Path;

/// What copying needs of whoever serves a disk.
pub trait Tracked {
    /// Writes are noted from now on.
    ///
    /// # Errors
    /// They are not.
    fn begin(&mut self, disk_bytes: u64) -> Result<(), AgentError>;
    /// What was noted since the last call.
    ///
    /// # Errors
    /// It cannot be told; nothing of it is lost.
    fn dirty(&mut self) -> Result<ExtentSet, AgentError>;
    /// Makes the disk quiet, or makes sure that it is. Answers how many requests wait in the guest's rings.
    ///
    /// # Errors
    /// It is not quiet.
    fn freeze(&mut self) -> Result<u32, AgentError>;
    /// The disk is served again and nothing noted any more. Called once, whatever was called before.
    fn end(&mut self);
}

/// What follows a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another; so many bytes are left.
    Round(u64),
    /// It is time to suspend the guest. Another round is no harm.
    Suspend(Forecast),
}

/// See the module.
#[derive(Debug)]
pub struct DiskCopy<T: Tracked> {
    disk: u32,
    tracked: T,
    sender: Sender,
    plan: Plan,
    decision: Decision,
    /// A section was begun, on the present connection or an earlier one.
    began: bool,
    /// The present connection has its header.
    headed: bool,
    moved: Option<Moved>,
}

impl<T: Tracked> DiskCopy<T> {
    /// Lets writes be noted and plans the first round; nothing is sent.
    ///
    /// # Errors
    /// The image or the driver; nothing is noted then.
    pub fn begin(
        disk: u32,
        image: &Path,
        policy: Policy,
        mut tracked: T,
    ) -> Result<Self, CopyError> {
        let mut source = Source::open(disk, image)?;
        // In this order: what is written into a hole after it was looked at has been noted.
        let allocated = tracked
            .begin(source.bytes())
            .map_err(|error| driver(disk, error))
            .and_then(|()| source.allocated());
        match allocated {
            Ok(allocated) => {
                let (plan, decision) = Plan::begin(policy, allocated);
                Ok(Self {
                    disk,
                    tracked,
                    sender: Sender::new(disk, source),
                    plan,
                    decision,
                    began: false,
                    headed: false,
                    moved: None,
                })
            }
            Err(error) => {
                tracked.end();
                Err(error)
            }
        }
    }

    /// Copies one round while the guest runs. After a [`CopyError::is_resumable`] error and [`DiskCopy::reconnect`] it may be called again.
    ///
    /// # Errors
    /// The image, the driver or the line; nothing that was to be copied is forgotten.
    pub fn round(
        &mut self,
        out: &mut dyn Write,
        reports: &mut dyn Read,
    ) -> Result<Next, CopyError> {
        self.head(out)?;
        if let Decision::Round(set) = self.decision.clone() {
            let (moved, damaged) = self.sender.round(&set, out, reports)?;
            self.moved = Some(moved);
            let left = self.dirty()?.with(damaged);
            self.advance(Input::Copied { moved, left });
        } else {
            self.look()?;
        }
        Ok(match &self.decision {
            Decision::Suspend(forecast) => Next::Suspend(*forecast),
            Decision::Round(_) | Decision::Over | Decision::GiveUp { .. } => {
                Next::Round(self.plan.pending().bytes())
            }
        })
    }

    /// Whether there is anything for [`DiskCopy::round`] to copy.
    #[must_use]
    pub fn is_due(&self) -> bool {
        matches!(self.decision, Decision::Round(_))
    }

    /// Takes what was noted since, and plans the next round; nothing is sent.
    ///
    /// # Errors
    /// The driver.
    pub fn look(&mut self) -> Result<(), CopyError> {
        let dirty = self.dirty()?;
        self.advance(Input::Again(dirty));
        Ok(())
    }

    /// Bytes that the other side does not have for certain.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.plan.pending().bytes()
    }

    /// What the last round moved.
    #[must_use]
    pub fn moved(&self) -> Option<Moved> {
        self.moved
    }

    /// Copies what is left of the disk of a guest that is suspended, and ends the section: the other side has every byte. The disk stays
    /// frozen until this is dropped.
    ///
    /// # Errors
    /// As [`DiskCopy::round`], or the disk does not become quiet.
    pub fn finish(
        &mut self,
        out: &mut dyn Write,
        reports: &mut dyn Read,
    ) -> Result<Totals, CopyError> {
        self.head(out)?;
        let dirty = self.quiet()?;
        self.advance(Input::Frozen(dirty));
        // Ends: the plan counts these rounds.
        loop {
            match self.decision.clone() {
                Decision::Round(set) => {
                    let (moved, damaged) = self.sender.round(&set, out, reports)?;
                    let left = self.quiet()?.with(damaged);
                    self.advance(Input::Copied { moved, left });
                }
                Decision::Over => return self.sender.end(out, reports),
                // A plan that knows of the suspension asks for none; one that did all the same would be told again, and counts.
                Decision::Suspend(_) => {
                    let dirty = self.quiet()?;
                    self.advance(Input::Frozen(dirty));
                }
                Decision::GiveUp { rounds, left } => {
                    let disk = self.disk;
                    return Err(CopyError::NotQuiet { disk, rounds, left });
                }
            }
        }
    }

    /// The connection broke: the next call sends a new section, on a new one, and what the other side did not confirm once more.
    pub fn reconnect(&mut self) {
        self.headed = false;
    }

    /// Whoever serves the disk.
    pub fn tracked(&mut self) -> &mut T {
        &mut self.tracked
    }

    fn head(&mut self, out: &mut dyn Write) -> Result<(), CopyError> {
        if !self.headed {
            self.sender.begin(self.began, out)?;
            (self.began, self.headed) = (true, true);
        }
        Ok(())
    }

    fn advance(&mut self, input: Input) {
        let (plan, decision) = self.plan.clone().step(input);
        (self.plan, self.decision) = (plan, decision);
    }

    fn dirty(&mut self) -> Result<ExtentSet, CopyError> {
        let disk = self.disk;
        self.tracked.dirty().map_err(|error| driver(disk, error))
    }

    /// What was noted of a disk that is quiet.
    fn quiet(&mut self) -> Result<ExtentSet, CopyError> {
        let disk = self.disk;
        let untaken = self.tracked.freeze().map_err(|error| driver(disk, error))?;
        if untaken > 0 {
            // Its frontend asks again wherever the guest runs on.
            tracing::info!(disk, untaken, "requests wait in a suspended guest's rings");
        }
        self.dirty()
    }
}

impl<T: Tracked> Drop for DiskCopy<T> {
    fn drop(&mut self) {
        self.tracked.end();
    }
}

fn driver(disk: u32, error: AgentError) -> CopyError {
    CopyError::Driver {
        disk,
        source: Box::new(error),
    }
}
