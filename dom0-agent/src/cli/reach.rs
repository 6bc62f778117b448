//! What a command reaches for: the hypervisor, xenstore, the agent. Each is opened when first needed, so that `xl help` needs nothing and
//! `xl list` makes no thread and no connection it does not use.

use super::agent::AgentClient;
use crate::build::Hypervisor;
use parapet_wire::link;
use std::cell::OnceCell;
use std::fmt::Debug;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use xen_host::seam::{DomainControl, HostControl, Store};
use xen_host::xenstore::quick::{Quick, QuickStore};

/// Access to the host for commands. Simulations implement it over `xen-sim`.
pub trait Reach: Debug {
    /// Host facts.
    ///
    /// # Errors
    /// Not root, not a control domain, an unknown Xen.
    fn host(&self) -> Result<&dyn HostControl, Failure>;
    /// Domains.
    ///
    /// # Errors
    /// As [`Reach::host`].
    fn domains(&self) -> Result<&dyn DomainControl, Failure>;
    /// Domains, with their memory.
    ///
    /// # Errors
    /// As [`Reach::host`].
    fn hypervisor(&self) -> Result<&dyn Hypervisor, Failure>;
    /// Xenstore for short reads and writes.
    ///
    /// # Errors
    /// xenstored does not answer.
    fn store(&self) -> Result<&dyn Store, Failure>;
    /// Xenstore with watches.
    ///
    /// # Errors
    /// xenstored does not answer.
    fn watching_store(&self) -> Result<Arc<dyn Store>, Failure>;
    /// The agent's API.
    ///
    /// # Errors
    /// The agent does not run.
    fn agent(&self) -> Result<AgentClient, Failure>;
    /// Where libxl keeps userdata.
    fn userdata(&self) -> PathBuf;
    /// What a command on another host reads from and writes to: standard input and output, past every buffer.
    ///
    /// # Errors
    /// They are not there.
    fn wire(&self) -> Result<Wire, Failure>;
    /// Command that leads to a host that is linked with this one, for the name that follows it; `None` for any other name.
    fn link(&self, host: &str) -> Option<String>;
}

/// See [`Reach::wire`].
#[derive(Debug)]
pub struct Wire {
    /// From the other side.
    pub input: File,
    /// To the other side.
    pub output: File,
}

/// Why a command failed, as it is printed, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What goes to stderr; empty when it was printed already.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

impl Failure {
    /// An ordinary failure: exit 1.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: 1,
        }
    }

    /// A failure with its own exit code.
    #[must_use]
    pub fn with_code(code: u8, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code,
        }
    }
}

impl From<xen_host::error::Error> for Failure {
    fn from(error: xen_host::error::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<xen_host::xenstore::error::StoreError> for Failure {
    fn from(error: xen_host::xenstore::error::StoreError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::fmt::Error> for Failure {
    fn from(error: std::fmt::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// The real host.
#[derive(Debug, Default)]
pub struct RealHost {
    xen: OnceCell<xen_host::xen::Xen>,
    store: OnceCell<QuickStore>,
}

impl RealHost {
    fn xen(&self) -> Result<&xen_host::xen::Xen, Failure> {
        if let Some(xen) = self.xen.get() {
            return Ok(xen);
        }
        let xen = xen_host::xen::Xen::open()
            .map_err(|error| Failure::new(format!("cannot init xl context: {error}")))?;
        Ok(self.xen.get_or_init(|| xen))
    }
}

impl Reach for RealHost {
    fn host(&self) -> Result<&dyn HostControl, Failure> {
        Ok(self.xen()?)
    }

    fn domains(&self) -> Result<&dyn DomainControl, Failure> {
        Ok(self.xen()?)
    }

    fn hypervisor(&self) -> Result<&dyn Hypervisor, Failure> {
        Ok(self.xen()?)
    }

    fn store(&self) -> Result<&dyn Store, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = QuickStore::from(Quick::connect()?);
        Ok(self.store.get_or_init(|| store))
    }

    fn watching_store(&self) -> Result<Arc<dyn Store>, Failure> {
        Ok(Arc::new(xen_host::xenstore::client::Client::connect()?))
    }

    fn agent(&self) -> Result<AgentClient, Failure> {
        AgentClient::connect()
    }

    fn userdata(&self) -> PathBuf {
        PathBuf::from(crate::device::userdata::DIRECTORY)
    }

    fn wire(&self) -> Result<Wire, Failure> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        Ok(Wire {
            input: own(std::io::stdin().as_fd())?,
            output: own(std::io::stdout().as_fd())?,
        })
    }

    fn link(&self, host: &str) -> Option<String> {
        if !link::is_linked(&link::folder(), host) {
            return None;
        }
        // Beside this program; one that was put elsewhere is looked for by the shell.
        let beside = std::env::current_exe().ok()?.with_file_name("parapet");
        let program = beside.to_str().filter(|_| beside.is_file());
        Some(format!(
            "{} link connect",
            quoted(program.unwrap_or("parapet"))
        ))
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
