//! One request of one caller: read, list, write, make, remove, permissions, with every check xenstored makes.

use super::tree::{Node, absolute, basename, join, parent};
use super::{Caller, Change, StoreState};
use crate::hypervisor::Outcome;
use crate::limits::{QUOTA_NODES, QUOTA_PERMISSIONS, QUOTA_VALUE, XENSTORE_PAYLOAD_MAX};
use nix::errno::Errno;
use std::collections::BTreeSet;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{Access, Permission, StoreOp, StoreReply};

/// The store as one caller sees it, in one transaction (0 for none).
pub(crate) struct Session<'a> {
    pub(crate) store: &'a mut StoreState,
    pub(crate) caller: Caller,
    pub(crate) tx: u32,
}

impl Session<'_> {
    /// Does one operation.
    pub(crate) fn perform(&mut self, op: &StoreOp) -> Outcome<StoreReply> {
        self.store.own(self.caller, self.tx)?;
        let path = absolute(self.caller.domid, op.path())?;
        match op {
            StoreOp::Read(_) => Ok(StoreReply::Value(self.get(&path, Access::Read)?.value)),
            StoreOp::List(_) => {
                let node = self.get(&path, Access::Read)?;
                Ok(StoreReply::Children(node.children.into_iter().collect()))
            }
            StoreOp::GetPermissions(_) => Ok(StoreReply::Permissions(
                self.get(&path, Access::Read)?.permissions,
            )),
            StoreOp::Write(given, value) => self.write(given, &path, value),
            StoreOp::Mkdir(_) => self.mkdir(&path),
            StoreOp::Remove(_) => self.remove(&path),
            StoreOp::SetPermissions(_, permissions) => self.set_permissions(&path, permissions),
        }
    }

    /// The node, if the caller may do `wanted` with it. A caller that may not look at the parent does not learn that a node is missing.
    fn get(&mut self, path: &str, wanted: Access) -> Outcome<Node> {
        match self.store.look(self.tx, path) {
            Some(node) if node.allows(self.caller.domid, wanted) => Ok(node),
            Some(_) => Err(Errno::EACCES),
            None => Err(self.missing(path)),
        }
    }

    fn missing(&mut self, path: &str) -> Errno {
        let mut at = path.to_owned();
        while let Some(up) = parent(&at).map(str::to_owned) {
            if let Some(node) = self.store.look(self.tx, &up) {
                let known = node.allows(self.caller.domid, Access::Read);
                return if known { Errno::ENOENT } else { Errno::EACCES };
            }
            at = up;
        }
        Errno::ENOENT
    }

    fn write(&mut self, given: &str, path: &str, value: &[u8]) -> Outcome<StoreReply> {
        if given.len() + 1 + value.len() > XENSTORE_PAYLOAD_MAX {
            return Err(Errno::E2BIG);
        }
        if !self.caller.is_privileged() && value.len() > QUOTA_VALUE {
            return Err(Errno::ENOSPC);
        }
        match self.get(path, Access::Write) {
            Ok(mut node) => {
                node.value = value.to_vec();
                self.changed(path, node);
            }
            Err(Errno::ENOENT) => self.create(path, value)?,
            Err(errno) => return Err(errno),
        }
        Ok(StoreReply::Done)
    }

    fn mkdir(&mut self, path: &str) -> Outcome<StoreReply> {
        match self.get(path, Access::Write) {
            Ok(_) => {}
            Err(Errno::ENOENT) => self.create(path, b"")?,
            Err(errno) => return Err(errno),
        }
        Ok(StoreReply::Done)
    }

    fn changed(&mut self, path: &str, node: Node) {
        let permissions = node.permissions.clone();
        self.store.put(self.tx, path, Some(node));
        self.store.tell(
            self.tx,
            Change {
                path: path.to_owned(),
                exact: false,
                permissions,
            },
        );
    }

    /// Makes a node and what is missing above it. Permissions come from the nearest node above; a guest owns what it makes.
    fn create(&mut self, path: &str, value: &[u8]) -> Outcome<()> {
        let mut missing = vec![path.to_owned()];
        let nearest = loop {
            let lowest = missing.last().map_or("/", String::as_str);
            let Some(up) = parent(lowest).map(str::to_owned) else {
                return Err(Errno::EINVAL);
            };
            match self.store.look(self.tx, &up) {
                Some(node) => break (up, node),
                None => missing.push(up),
            }
        };
        let (mut above, mut node) = nearest;
        if !node.allows(self.caller.domid, Access::Write) {
            return Err(Errno::EACCES);
        }
        if !self.caller.is_privileged()
            && self.store.nodes_of(self.caller.domid) + missing.len() > QUOTA_NODES
        {
            return Err(Errno::ENOSPC);
        }
        for made in missing.iter().rev() {
            let mut permissions = node.permissions.clone();
            if let Some(owner) = permissions
                .first_mut()
                .filter(|_| !self.caller.is_privileged())
            {
                owner.domid = self.caller.domid;
            }
            node.children.insert(basename(made).to_owned());
            self.store.put(self.tx, &above, Some(node));
            let value = if made == path {
                value.to_vec()
            } else {
                Vec::new()
            };
            node = Node {
                value,
                permissions,
                children: BTreeSet::new(),
                generation: 0,
            };
            above.clone_from(made);
        }
        self.changed(path, node);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Outcome<StoreReply> {
        let Some(up) = parent(path).map(str::to_owned) else {
            return Err(Errno::EINVAL);
        };
        match self.get(path, Access::Write) {
            Ok(node) => {
                let removed = Change {
                    path: path.to_owned(),
                    exact: false,
                    permissions: node.permissions.clone(),
                };
                if let Some(mut above) = self.store.look(self.tx, &up) {
                    above.children.remove(basename(path));
                    self.store.put(self.tx, &up, Some(above));
                }
                self.remove_below(path, node);
                self.store.tell(self.tx, removed);
                Ok(StoreReply::Done)
            }
            Err(Errno::ENOENT) => Ok(StoreReply::Done),
            Err(errno) => Err(errno),
        }
    }

    fn remove_below(&mut self, top: &str, node: Node) {
        let mut pending = vec![(top.to_owned(), node)];
        while let Some((path, node)) = pending.pop() {
            for name in &node.children {
                let child = join(&path, name);
                if let Some(node) = self.store.look(self.tx, &child) {
                    let permissions = node.permissions.clone();
                    let change = Change {
                        path: child.clone(),
                        exact: true,
                        permissions,
                    };
                    self.store.tell(self.tx, change);
                    pending.push((child, node));
                }
            }
            self.store.put(self.tx, &path, None);
        }
    }

    fn set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Outcome<StoreReply> {
        let Some(first) = permissions.first() else {
            return Err(Errno::EINVAL);
        };
        let guest = !self.caller.is_privileged();
        if guest && permissions.len() > QUOTA_PERMISSIONS {
            return Err(Errno::ENOSPC);
        }
        if permissions
            .iter()
            .any(|permission| permission.domid >= DomId::FIRST_RESERVED)
        {
            return Err(Errno::EINVAL);
        }
        let mut node = self.get(path, Access::Write)?;
        if guest && node.owner() != self.caller.domid {
            return Err(Errno::EACCES);
        }
        if guest && first.domid != node.owner() {
            return Err(Errno::EPERM);
        }
        node.permissions = permissions.to_vec();
        self.changed(path, node);
        Ok(StoreReply::Done)
    }
}
