//! Nodes, paths and permissions: what xenstored's data is made of. Nothing here knows connections or transactions.

use crate::hypervisor::Outcome;
use crate::limits::{XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX};
use nix::errno::Errno;
use std::collections::BTreeSet;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{Access, Permission};

/// One node. Adding or removing a child changes the node, as in xenstored, so it conflicts with who read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Vec<u8>,
    pub(crate) permissions: Vec<Permission>,
    pub(crate) children: BTreeSet<String>,
    /// Changes with every change of the node.
    pub(crate) generation: u64,
}

impl Node {
    pub(crate) fn owner(&self) -> DomId {
        self.permissions
            .first()
            .map_or(DomId::DOM0, |first| first.domid)
    }

    /// Whether a domain may do `wanted`. Dom0 may do everything, an owner too.
    pub(crate) fn allows(&self, domid: DomId, wanted: Access) -> bool {
        if domid == DomId::DOM0 || self.owner() == domid {
            return true;
        }
        let access = self
            .permissions
            .iter()
            .skip(1)
            .find(|permission| permission.domid == domid)
            .or(self.permissions.first())
            .map_or(Access::None, |permission| permission.access);
        match wanted {
            Access::None => true,
            Access::Read => matches!(access, Access::Read | Access::Both),
            Access::Write => matches!(access, Access::Write | Access::Both),
            Access::Both => access == Access::Both,
        }
    }
}

/// The parent of an absolute path; `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let (parent, _) = path.rsplit_once('/')?;
    match (path, parent) {
        ("/", _) => None,
        (_, "") => Some("/"),
        _ => Some(parent),
    }
}

/// The last component of an absolute path.
pub(crate) fn basename(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path == "/" {
        format!("/{name}")
    } else {
        format!("{path}/{name}")
    }
}

/// Whether `path` is `root` or lies below it.
pub(crate) fn is_within(path: &str, root: &str) -> bool {
    root == "/"
        || path
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The absolute form of what a connection of `domid` wrote, or `EINVAL`.
pub(crate) fn absolute(domid: DomId, path: &str) -> Outcome<String> {
    let relative = !path.starts_with('/');
    let most = if relative {
        XENSTORE_REL_PATH_MAX
    } else {
        XENSTORE_ABS_PATH_MAX
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let malformed = path.is_empty()
        || path.len() >= most
        || path.contains("//")
        || (path.len() > 1 && path.ends_with('/'))
        || !path.bytes().all(letters);
    if malformed {
        return Err(Errno::EINVAL);
    }
    Ok(if relative {
        format!("/local/domain/{domid}/{path}")
    } else {
        path.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(permissions: &[(u16, Access)]) -> Node {
        let permissions = permissions
            .iter()
            .map(|(domid, access)| Permission {
                domid: DomId(*domid),
                access: *access,
            })
            .collect();
        Node {
            value: Vec::new(),
            permissions,
            children: BTreeSet::new(),
            generation: 0,
        }
    }

    #[test]
    fn the_first_permission_is_the_owner_and_the_default_for_the_rest() {
        let node = node(&[(5, Access::Read), (6, Access::Both), (7, Access::None)]);
        let table = [
            (0, true, true),
            (5, true, true),
            (6, true, true),
            (7, false, false),
            (8, true, false),
        ];
        for (domid, read, write) in table {
            assert_eq!(
                node.allows(DomId(domid), Access::Read),
                read,
                "domain {domid} reads"
            );
            assert_eq!(
                node.allows(DomId(domid), Access::Write),
                write,
                "domain {domid} writes"
            );
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for bad in ["", "/a//b", "/a/", "/a b", "/ä", "//"] {
            assert_eq!(absolute(DomId(3), bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert!(absolute(DomId(3), &format!("/{}", "x".repeat(XENSTORE_ABS_PATH_MAX))).is_err());
        assert_eq!(
            absolute(DomId(3), "data/x").as_deref(),
            Ok("/local/domain/3/data/x")
        );
        assert_eq!(absolute(DomId(3), "/").as_deref(), Ok("/"));
    }

    proptest! {
        #[test]
        fn parent_and_basename_join_again(path in "(/[a-z0-9]{1,4}){1,6}") {
            let up = parent(&path).unwrap();
            prop_assert_eq!(join(up, basename(&path)), path.clone());
            prop_assert!(is_within(&path, up) && !is_within(up, &path));
        }
    }
}
