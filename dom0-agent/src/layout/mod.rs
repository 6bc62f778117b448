//! The xenstore tree of a guest, as data.
//!
//! Pure: functions from facts to lists of [`StoreOp`]. The agent sends each list in one transaction, so a guest's whole tree costs one
//! round trip. The layout is libxl's, so that stock tools recognise our guests; `docs/xenstore.md` lists it.

pub mod device;
pub mod domain;
pub mod paths;

use xen_abi::ids::DomId;
use xen_host::xenstore::store::{Access, Permission, StoreOp};

/// Who may do what with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Dom0 owns it, the guest may read.
    GuestReads,
    /// The guest owns it.
    GuestOwns,
    /// The guest owns it, the backend's domain may read: a frontend directory.
    Frontend,
    /// Only dom0.
    Private,
}

impl Mode {
    /// The permission list for a guest's node.
    #[must_use]
    pub fn permissions(self, guest: DomId) -> Vec<Permission> {
        let dom0 = Permission {
            domid: DomId::DOM0,
            access: Access::None,
        };
        let owner = Permission {
            domid: guest,
            access: Access::None,
        };
        match self {
            Self::GuestReads => vec![
                dom0,
                Permission {
                    domid: guest,
                    access: Access::Read,
                },
            ],
            Self::GuestOwns => vec![owner],
            Self::Frontend => {
                vec![
                    owner,
                    Permission {
                        domid: DomId::DOM0,
                        access: Access::Read,
                    },
                ]
            }
            Self::Private => vec![dom0],
        }
    }
}

/// Collects the operations that make a tree.
#[derive(Debug)]
pub struct Tree {
    guest: DomId,
    ops: Vec<StoreOp>,
}

impl Tree {
    /// An empty list for a guest's nodes.
    #[must_use]
    pub fn new(guest: DomId) -> Self {
        Self {
            guest,
            ops: Vec::new(),
        }
    }

    /// Whose nodes they are.
    #[must_use]
    pub const fn guest(&self) -> DomId {
        self.guest
    }

    /// A directory with its own permissions.
    pub fn directory(&mut self, path: &str, mode: Mode) {
        self.ops.push(StoreOp::Mkdir(path.to_owned()));
        self.permit(path, mode);
    }

    /// A value that inherits its directory's permissions.
    pub fn value(&mut self, path: String, value: impl Into<Vec<u8>>) {
        self.ops.push(StoreOp::Write(path, value.into()));
    }

    /// A value with its own permissions.
    pub fn value_as(&mut self, path: String, value: impl Into<Vec<u8>>, mode: Mode) {
        self.ops.push(StoreOp::Write(path.clone(), value.into()));
        self.permit(&path, mode);
    }

    /// Removes whatever is there.
    pub fn remove(&mut self, path: &str) {
        self.ops.push(StoreOp::Remove(path.to_owned()));
    }

    fn permit(&mut self, path: &str, mode: Mode) {
        self.ops.push(StoreOp::SetPermissions(
            path.to_owned(),
            mode.permissions(self.guest),
        ));
    }

    /// The operations, in order.
    #[must_use]
    pub fn into_ops(self) -> Vec<StoreOp> {
        self.ops
    }
}
