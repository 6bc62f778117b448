//! Restores a guest: as `create.rs` makes one, but its domain comes from a save file.
//!
//! ```text
//!   check ─▶ record(Building) ─▶ domain from the stream ─▶ driver, media, taps, pty ─▶ xenstore ─▶ console ─▶ unpause ─▶ record(Running)
//!                    └──────────────── any failure: teardown, the same way a destroyed guest goes ────────────────┘
//! ```
//!
//! The file is only read. An agent that is killed on the way leaves a record that says `Building`, and the next one removes what is there.

use super::create::{CreateOptions, check, draw_what_is_open};
use super::error::AgentError;
use super::request::build_request;
use super::{Agent, handle, lock};
use crate::config::domain::DomainConfig;
use crate::peer::Incoming;
use crate::restore;
use std::fs::File;
use xen_abi::ids::DomId;
use xen_stream::Accord;

impl Agent {
    /// Restores a guest from a file that stands at a libxl stream; answers its domain.
    ///
    /// # Errors
    /// The cause, with nothing left behind.
    pub fn restore_guest(
        &self,
        mut config: DomainConfig,
        options: CreateOptions,
        file: File,
    ) -> Result<DomId, AgentError> {
        draw_what_is_open(&mut config);
        // Its kernel is in its memory: the file it came from may be gone.
        check(&config)?;
        let guest = self.enter_new(config, options)?;
        self.start_by(lock(&guest), options.paused, |config| {
            let request = build_request(config, handle(config.uuid));
            let xen = self.seams.xen.as_ref();
            let from = Incoming::patient(file, &|| true);
            // Whoever wrote a file is not there to be answered.
            let mut nobody = |_| Ok(Accord::NONE);
            let restored = restore::restore(xen, &request, from, &mut nobody, &mut |_| {})?;
            Ok(restored.built)
        })
    }
}
