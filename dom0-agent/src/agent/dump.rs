//! Dumps of guests that stopped, for `coredump-destroy` and `coredump-restart`.
//!
//! ```text
//!   reap: stopped ─▶ News::Dump ─▶ file, without the guest's lock ─▶ reap: destroyed or started again, as for any guest
//!   monitor: restart ─▶ file ─▶ started again
//! ```
//!
//! Writing takes the longer the larger the guest is, and other guests do not wait for it. That a dump was made is on no record: an agent that dies
//! meanwhile leaves the domain as it was, and the next one makes another.

use super::guest::{Dump, Guest, SharedGuest};
use super::reap::action_for;
use super::record::Stage;
use super::{Agent, lock};
use crate::config::events::ShutdownAction;
use crate::dump::{self, DumpError};
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use xen_abi::ids::DomId;

/// Where dumps go, as stock has it; each guest's last one is kept.
pub const DIRECTORY: &str = "/var/lib/xen/dump";
/// A guest's memory is nobody's to read but root's.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl Guest {
    /// Whether it stopped in a way for which a dump was asked, and none was begun.
    pub(super) fn wants_dump(&self) -> bool {
        let asked = self.down.is_some_and(|(reason, _)| {
            matches!(
                action_for(&self.record.config.events, reason),
                ShutdownAction::CoredumpDestroy | ShutdownAction::CoredumpRestart
            )
        });
        asked
            && self.dump == Dump::NotBegun
            && self.record.stage == Stage::Running
            && self.record.domid.is_some()
            && !self.gone
    }
}

impl Agent {
    /// Dumps a guest that stopped. What goes wrong is logged: it must not keep the guest from coming back.
    pub fn make_dump(&self, shared: &SharedGuest) {
        let (name, domid) = {
            let mut guest = lock(shared);
            let Some(domid) = guest.record.domid else {
                return;
            };
            guest.dump = Dump::Underway;
            (guest.record.config.name.clone(), domid)
        };
        match self.write_dump(&name, domid) {
            Ok((path, pages)) => {
                tracing::info!(name, %domid, path = %path.display(), pages, "guest dumped");
            }
            Err(error) => tracing::error!(name, %domid, %error, "the guest could not be dumped"),
        }
        let mut guest = lock(shared);
        if guest.record.domid == Some(domid) {
            guest.dump = Dump::Over;
        }
    }

    /// The file has its name once it is complete; until then the one before stays.
    fn write_dump(&self, name: &str, domid: DomId) -> Result<(PathBuf, u64), DumpError> {
        let folder = &self.dirs.dumps;
        let made = DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(folder);
        made.map_err(DumpError::File)?;
        let path = folder.join(name.replace('/', "_"));
        let partial = folder.join(format!(".{domid}.partial"));
        // What an agent left that was killed meanwhile.
        drop(fs::remove_file(&partial));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&partial);
        let mut file = file.map_err(DumpError::File)?;
        let written = dump::dump(self.seams.xen.as_ref(), domid, &mut file).and_then(|pages| {
            fs::rename(&partial, &path).map_err(DumpError::File)?;
            Ok((path, pages))
        });
        if written.is_err() {
            // Left behind is only untidy.
            drop(fs::remove_file(&partial));
        }
        written
    }
}
