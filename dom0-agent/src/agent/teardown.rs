//! Removes every trace of a guest. The one way out, for a failed creation, a destroyed guest and what a dead agent left; each step tolerates that
//! its object is gone, so it may be repeated from any point.

use super::error::AgentError;
use super::guest::{DeviceBody, Guest};
use super::record::{Arrival, Record, Stage};
use super::{Agent, handle, landing, lock};
use crate::device::userdata;
use crate::layout::device::{CONSOLE_BACKEND, DISK_BACKEND, NET_BACKEND};
use crate::layout::{Tree, paths};
use nix::errno::Errno;
use parapet_wire::agent as wire;
use std::path::PathBuf;
use std::sync::MutexGuard;
use uuid::Uuid;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::StoreExt;

/// Backend kinds that stock toolstacks use besides ours; a stock guest's directories are removed with it.
const STOCK_BACKENDS: [&str; 8] = ["vbd", "vif", "9pfs", "vkbd", "vfb", "pci", "vtpm", "qusb"];

impl Agent {
    /// Destroys a domain: one of ours, or a stock one.
    ///
    /// # Errors
    /// Dom0, an unknown domain, or a hypervisor that does not let go.
    pub fn destroy(&self, domid: DomId) -> Result<(), AgentError> {
        if domid == DomId::DOM0 {
            return Err(AgentError::ControlDomain("destroying it"));
        }
        match self.by_domid(domid) {
            Some(guest) => self.give_up(lock(&guest)),
            None if self.is_shell(domid) => self.give_up_shell(domid),
            None => self.destroy_foreign(domid),
        }
    }

    /// Destroys a guest's domain and forgets the guest. What fails is said, and tried again by [`Agent::reap`].
    ///
    /// # Errors
    /// A hypervisor that does not let go, a tap or a file that cannot be removed.
    pub fn give_up(&self, mut guest: MutexGuard<'_, Guest>) -> Result<(), AgentError> {
        let (key, uuid) = (guest.record.key, guest.uuid());
        if guest.gone {
            return Ok(());
        }
        guest.record.stage = Stage::Dying;
        if let Err(error) = self.save(&guest) {
            // On a full disk it must still be possible to destroy a guest; and one that was saved must not be found suspended, and woken. Whoever
            // finds a record without its domain removes it.
            tracing::warn!(%error, "a guest's end is not on record");
        }
        self.remove_all(&mut guest)?;
        if guest.record.arrival == Some(Arrival::Expected) {
            landing::take_away(&guest.record.landed);
        }
        self.records
            .remove(key)
            .map_err(|source| AgentError::File {
                what: "cannot remove the record in",
                path: self.dirs.state.clone(),
                source,
            })?;
        guest.gone = true;
        self.forget(key);
        // A guest that was moved from this host to this host is not gone, nor was it ever here if it did not arrive.
        if guest.record.arrival != Some(Arrival::Expected) && !self.has_namesake(&guest.record) {
            self.tell(wire::Event::Gone { uuid: handle(uuid) });
        }
        Ok(())
    }

    /// Destroys what a guest has, keeping its record: it is to come back.
    pub(super) fn take_down(&self, guest: &mut Guest) -> Result<(), AgentError> {
        guest.record.stage = Stage::Waiting;
        self.save(guest)?;
        self.remove_all(guest)?;
        guest.record.aside = None;
        self.save(guest)
    }

    /// Ends a guest's driver, or one that an earlier agent left it.
    pub(super) fn end_driver(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let Some(mut driver) = guest.driver.take() else {
            let ended = self.drivers.end(guest.record.key);
            return ended.map_err(|error| AgentError::Driver {
                domid: guest.record.domid.unwrap_or(DomId::INVALID),
                what: error.to_string(),
            });
        };
        driver.kill();
        Ok(())
    }

    /// Driver, links, domain, xenstore, files; in this order, since a domain cannot die while its pages are mapped.
    pub(super) fn remove_all(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let key = guest.record.key;
        if guest.record.domid.is_none() {
            guest.record.domid = self.find_unfinished(guest)?;
        }
        let ours = match guest.record.domid {
            Some(domid) => self.is_ours(domid, guest)?,
            None => false,
        };
        if let Some(domid) = guest.record.domid.filter(|_| ours) {
            let _ = self.seams.xen.pause(domid);
        }
        self.end_driver(guest)?;
        let left = self.remove_links(guest);
        guest.console = None;
        guest.started = None;
        if let Some(domid) = guest.record.domid {
            let mut tree = Tree::new(domid);
            if ours {
                self.destroy_domain(domid)?;
                let _ = self.seams.store.release(domid);
                nodes_of(&mut tree, domid);
            }
            self.remove_names(guest, tree)?;
        }
        // Names of taps hang on the domain, so it is remembered until the last one is gone.
        left?;
        guest.record.domid = None;
        guest.record.console = None;
        self.remove_journals(key);
        Ok(())
    }

    /// Forgets all devices but interfaces whose tap could not be removed.
    pub(super) fn remove_links(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let mut left = Ok(());
        guest.devices.retain(|_, device| {
            let DeviceBody::Net { ifname, queues, .. } = &mut device.body else {
                return false;
            };
            queues.clear();
            match self.links.remove(ifname) {
                Ok(()) => false,
                Err(what) => {
                    let ifname = ifname.clone();
                    left = Err(AgentError::Link { ifname, what });
                    true
                }
            }
        });
        left
    }

    /// False when Xen has given the number to another domain since: nothing of that one may be touched.
    fn is_ours(&self, domid: DomId, guest: &Guest) -> Result<bool, AgentError> {
        let info = self.seams.xen.domain_info(domid)?;
        Ok(info.is_none_or(|info| guest.record.is_called(info.handle)))
    }

    /// The domain of a guest whose record does not know it yet: somebody died between making it and saying so.
    fn find_unfinished(&self, guest: &Guest) -> Result<Option<DomId>, AgentError> {
        let wanted = handle(guest.record.identity());
        let all = self.seams.xen.domain_list(DomId(1))?;
        Ok(all
            .into_iter()
            .find(|info| info.handle == wanted && !info.dying)
            .map(|info| info.domid))
    }

    fn destroy_domain(&self, domid: DomId) -> Result<(), AgentError> {
        match self.seams.xen.destroy_domain(domid) {
            Ok(()) => Ok(()),
            Err(error) if error.errno() == Some(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether another domain of this host is the guest: one that it was moved to, by this toolstack or another.
    pub(super) fn lives_on(&self, record: &Record) -> Result<bool, AgentError> {
        if self.has_namesake(record) {
            return Ok(true);
        }
        if record.away.is_none() {
            return Ok(false);
        }
        let wanted = handle(record.config.uuid);
        let all = self.seams.xen.domain_list(DomId(1))?;
        // Its own may still be called so: its agent died before it gave that away.
        let other = |info: &DomainInfo| Some(info.domid) != record.domid && info.handle == wanted;
        Ok(all.iter().any(other))
    }

    /// Removes what `tree` removes, and what goes by the guest's uuid. Of a guest that was moved from this host to this host, the copy that arrived has that.
    fn remove_names(&self, guest: &Guest, mut tree: Tree) -> Result<(), AgentError> {
        let record = &guest.record;
        let domid = tree.guest();
        let lives_on = self.lives_on(record)?;
        let mut names = vec![record.key, record.identity(), record.config.uuid];
        names.extend(record.aside.as_ref().map(|aside| aside.uuid));
        names.sort_unstable();
        names.dedup();
        for name in &names {
            if *name != record.config.uuid || !lives_on {
                tree.remove(&paths::vm(handle(*name)));
            }
        }
        self.commit_removal(tree)?;
        names
            .into_iter()
            .try_for_each(|name| self.remove_userdata(domid, name))
    }

    fn remove_userdata(&self, domid: DomId, uuid: Uuid) -> Result<(), AgentError> {
        userdata::remove(&self.dirs.userdata, domid, uuid).map_err(|source| AgentError::File {
            what: "cannot remove userdata in",
            path: self.dirs.userdata.clone(),
            source,
        })
    }

    /// Removes nodes that may be gone already.
    pub(super) fn commit_removal(&self, tree: Tree) -> Result<(), AgentError> {
        let ops = tree.into_ops();
        self.seams
            .store
            .transaction("removing nodes", |store, tx| {
                for reply in store.call(tx, &ops)? {
                    match reply {
                        Err(error) if !error.is_missing() => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            })?;
        Ok(())
    }

    /// Where the in-flight journals of a guest's disks are.
    pub(super) fn journal_dir(&self, uuid: Uuid) -> PathBuf {
        self.dirs.run.join("journals").join(uuid.to_string())
    }

    pub(super) fn remove_journals(&self, uuid: Uuid) {
        let directory = self.journal_dir(uuid);
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(path = %directory.display(), %error, "journals stay behind");
        }
        let drivers = self.dirs.run.join("drivers");
        for name in [format!("{uuid}.sock"), format!("{uuid}.pid")] {
            let _ = std::fs::remove_file(drivers.join(name));
        }
    }

    /// A domain made by a stock toolstack, or one that is kept: its frontends are taken away, which is how its backends learn that they must close, then the rest.
    pub(super) fn destroy_foreign(&self, domid: DomId) -> Result<(), AgentError> {
        let Some(info) = self.seams.xen.domain_info(domid)? else {
            return Err(AgentError::NoDomain(domid));
        };
        let uuid = Uuid::from_bytes(info.handle.0);
        self.seams.xen.pause(domid)?;
        let mut frontends = Tree::new(domid);
        frontends.remove(&format!("{}/device", paths::domain(domid)));
        self.commit_removal(frontends)?;
        self.destroy_domain(domid)?;
        self.wait_for_backends(domid);
        let mut tree = Tree::new(domid);
        for kind in STOCK_BACKENDS {
            tree.remove(&paths::backends(kind, domid));
        }
        let _ = self.seams.store.release(domid);
        tree.remove(&paths::vm(info.handle));
        nodes_of(&mut tree, domid);
        self.commit_removal(tree)?;
        self.remove_userdata(domid, uuid)
    }

    /// Waits until the kernel's backends of a dead domain have closed, so that loop devices and taps are free again.
    fn wait_for_backends(&self, domid: DomId) {
        let deadline = std::time::Instant::now() + super::DETACH_TIMEOUT;
        for kind in STOCK_BACKENDS {
            let root = paths::backends(kind, domid);
            let Ok(watch) = self.seams.store.watch(&root) else {
                return;
            };
            loop {
                let devices = self
                    .seams
                    .store
                    .list(xen_host::xenstore::store::TxId::NONE, &root)
                    .unwrap_or_default();
                let open = devices.iter().any(|devid| {
                    let state = self.seams.store.read_text(
                        xen_host::xenstore::store::TxId::NONE,
                        &format!("{root}/{devid}/state"),
                    );
                    matches!(state, Ok(Some(state)) if state != "6")
                });
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                if !open || left.is_zero() || watch.next_timeout(left).is_none() {
                    break;
                }
            }
        }
    }
}

/// Everything that xenstore has about a domain, but for what goes by its uuid.
fn nodes_of(tree: &mut Tree, domid: DomId) {
    tree.remove(&paths::domain(domid));
    tree.remove(&paths::libxl(domid));
    for kind in [DISK_BACKEND, NET_BACKEND, CONSOLE_BACKEND] {
        tree.remove(&paths::backends(kind, domid));
    }
}
