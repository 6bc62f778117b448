//! What `xl migrate-receive` reaches when the listener runs it: one line, and the agent's socket. No hypervisor, no xenstore.

use dom0_agent::build::Hypervisor;
use dom0_agent::cli::agent::AgentClient;
use dom0_agent::cli::reach::{Failure, Reach, Wire};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use xen_host::seam::{DomainControl, HostControl, Store};

/// What a command that asks for Xen is told.
const NO_XEN: &str = "the listener of the link has no way to Xen; a guest's configuration must come as JSON, as Parapet's `xl migrate` sends it";

/// See the file's beginning.
#[derive(Debug)]
pub(super) struct LinkReach {
    agent: PathBuf,
    wire: Mutex<Option<Wire>>,
}

impl LinkReach {
    /// For one guest that comes over `line`.
    pub(super) fn new(agent: PathBuf, line: UnixStream) -> io::Result<Self> {
        let output = File::from(OwnedFd::from(line.try_clone()?));
        let input = File::from(OwnedFd::from(line));
        Ok(Self {
            agent,
            wire: Mutex::new(Some(Wire { input, output })),
        })
    }
}

fn no_xen<T>() -> Result<T, Failure> {
    Err(Failure::new(NO_XEN))
}

impl Reach for LinkReach {
    fn host(&self) -> Result<&dyn HostControl, Failure> {
        no_xen()
    }

    fn domains(&self) -> Result<&dyn DomainControl, Failure> {
        no_xen()
    }

    fn hypervisor(&self) -> Result<&dyn Hypervisor, Failure> {
        no_xen()
    }

    fn store(&self) -> Result<&dyn Store, Failure> {
        no_xen()
    }

    fn watching_store(&self) -> Result<Arc<dyn Store>, Failure> {
        no_xen()
    }

    fn agent(&self) -> Result<AgentClient, Failure> {
        AgentClient::connect_to(&self.agent)
    }

    fn userdata(&self) -> PathBuf {
        PathBuf::new()
    }

    fn wire(&self) -> Result<Wire, Failure> {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.take()
            .ok_or_else(|| Failure::new("the line was taken already"))
    }

    fn link(&self, _host: &str) -> Option<String> {
        None
    }
}

/// What a command prints, line by line to the other host. It waits while the other host does not read; when that is gone, nobody listens.
#[derive(Debug)]
pub(super) struct Lines {
    to: mpsc::Sender<String>,
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(to: mpsc::Sender<String>) -> Self {
        let begun = Vec::new();
        Self { to, begun }
    }

    fn say(&mut self) {
        if !self.begun.is_empty() {
            let line = String::from_utf8_lossy(&self.begun).into_owned();
            self.begun.clear();
            let _ = self.to.blocking_send(line);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\n' => self.say(),
                byte => self.begun.push(*byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.say();
    }
}
