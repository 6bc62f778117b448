//! Rounds while the guest runs: everything once, then again and again what it wrote meanwhile, until little is left. Pages of the first round that the
//! guest has written before their turn wait for the next, which would have them anyway.
//!
//! ```text
//!   log on ─▶ send all ─▶ what is dirty? ──precopy: copy──▶ send that ─┐
//!                              ▲   │                                  │
//!                              │   └─precopy: suspend─▶ rest          │
//!                              └──────────────────────────────────────┘
//! ```
//!
//! Xen keeps the log, for PVH guests only where it has no shadow paging. It is off again when a [`Log`] is dropped; whoever is killed leaves it on, which
//! costs the guest some speed until [`crate::agent::Agent::recover`] ends it.

use super::error::{SaveError, Step};
use super::image::Saver;
use super::precopy::{Next, Precopy, Round, Why};
use super::rounds::{Bitmap, PageSet};
use crate::build::Hypervisor;
use std::fmt;
use std::time::Instant;
use xen_abi::ids::DomId;
use xen_host::seam::Dirty;

/// Pages in a MiB, for people.
const PAGES_PER_MIB: f64 = 256.0;

/// The dirty log of a guest, on for as long as this lives.
pub struct Log<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    all: PageSet,
}

impl std::fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("domid", &self.domid)
            .finish_non_exhaustive()
    }
}

impl Drop for Log<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.host.log_dirty_off(self.domid) {
            // The domain is gone, as a rule.
            tracing::debug!(domid = %self.domid, %error, "the dirty log is not off");
        }
    }
}

impl<'a> Log<'a> {
    /// Begins to note which of `all` pages are written.
    ///
    /// # Errors
    /// This kind of guest has no log on this host.
    pub fn start(
        host: &'a dyn Hypervisor,
        domid: DomId,
        all: PageSet,
    ) -> Result<Self, xen_host::error::Error> {
        host.log_dirty_on(domid)?;
        Ok(Self { host, domid, all })
    }

    /// Pages it is about.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.all.pages()
    }

    /// What was written since it was last taken.
    ///
    /// # Errors
    /// Xen does not say.
    pub fn take(&self, how: Dirty) -> Result<PageSet, SaveError> {
        Ok(PageSet::marked(&self.read(how)?, &self.all))
    }

    /// What was written since it was last taken, without taking it.
    ///
    /// # Errors
    /// Xen does not say.
    pub fn peek(&self) -> Result<Bitmap, SaveError> {
        self.read(Dirty::Peek).map(Bitmap)
    }

    fn read(&self, how: Dirty) -> Result<Vec<u64>, SaveError> {
        self.host
            .dirty_pages(self.domid, self.all.end(), how)
            .step("asking which pages the guest has written")
    }
}

/// One round, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundNews {
    /// Which, from 1 on.
    pub number: u32,
    /// What it was.
    pub round: Round,
    /// Pages that are dirty after it.
    pub dirty: u64,
    /// What comes next.
    pub next: Next,
}

impl fmt::Display for RoundNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.round.took.as_secs_f64().max(1e-9);
        let mib = |pages: u64| pages as f64 / PAGES_PER_MIB;
        let rate = mib(self.round.contents()) / seconds;
        write!(
            f,
            "round {}: {:.1} MiB in {seconds:.2} s ({rate:.1} MiB/s)",
            self.number,
            mib(self.round.contents()),
        )?;
        if self.round.named > 0 {
            write!(f, " and {:.1} MiB of zeroes", mib(self.round.named))?;
        }
        write!(
            f,
            ", {:.1} MiB written meanwhile ({:.1} MiB/s)",
            mib(self.dirty),
            mib(self.dirty) / seconds,
        )?;
        let left = mib(self.dirty) / rate.max(1e-9);
        match self.next {
            Next::Copy => write!(f, "; about {left:.2} s for the next"),
            Next::Suspend(why) => write!(f, "; suspending: {why}"),
        }
    }
}

/// What live rounds left to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Pages that were dirty at the last look.
    pub pages: PageSet,
    /// Why the rounds are over.
    pub why: Why,
}

/// Sends all of a guest that runs, until `precopy` says that it is to be suspended.
///
/// # Errors
/// The file refuses, Xen does, or nobody waits any more.
pub fn rounds(
    saver: &mut Saver<'_>,
    log: &Log<'_>,
    precopy: &mut Precopy,
    tell: &mut dyn FnMut(&RoundNews),
) -> Result<Rest, SaveError> {
    let mut pages = log.all.clone();
    loop {
        let since = Instant::now();
        let sent = if precopy.rounds() == 0 {
            saver.send_but(&pages, &|| log.peek())?
        } else {
            saver.send(&pages)?
        };
        let round = Round {
            pages: sent.pages,
            named: sent.named,
            took: since.elapsed(),
        };
        pages = log.take(Dirty::Take)?;
        let next = precopy.after(round, pages.pages());
        tell(&RoundNews {
            number: precopy.rounds(),
            round,
            dirty: pages.pages(),
            next,
        });
        if let Next::Suspend(why) = next {
            return Ok(Rest { pages, why });
        }
    }
}
