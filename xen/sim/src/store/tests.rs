//! xenstored's rules, seen from its connections.

use crate::limits::{QUOTA_NODES, QUOTA_TRANSACTIONS, QUOTA_VALUE, QUOTA_WATCHES};
use crate::{GuestSpec, World};
use nix::errno::Errno;
use proptest::prelude::*;
use std::collections::BTreeMap;
use xen_abi::ids::{DomId, Port};
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{Access, Permission, Store, StoreExt, StoreOp, StoreReply, TxId};

const NONE: TxId = TxId::NONE;

fn errno<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Option<Errno> {
    result.unwrap_err().errno()
}

#[test]
fn writing_makes_parents_and_removing_takes_children() {
    let world = World::seeded(1);
    let store = world.host("agent");
    store.write_text(NONE, "/a/b/c", "x").unwrap();
    assert_eq!(store.list(NONE, "/a").unwrap(), ["b"]);
    assert_eq!(store.read_text(NONE, "/a/b").unwrap().as_deref(), Some(""));
    store.remove(NONE, "/a").unwrap();
    assert_eq!(store.read_text(NONE, "/a/b/c").unwrap(), None);
    store.remove(NONE, "/a").unwrap();
    assert_eq!(
        errno(store.one(NONE, StoreOp::Remove("/".into()))),
        Some(Errno::EINVAL)
    );
    assert_eq!(
        errno(store.write_text(NONE, "/a b", "")),
        Some(Errno::EINVAL)
    );
    let long = "x".repeat(4096);
    assert_eq!(
        errno(store.write_text(NONE, "/a", &long)),
        Some(Errno::E2BIG)
    );
    assert!(!world.xs_tree("/").contains(&"/a".to_owned()));
}

#[test]
fn a_transaction_is_seen_at_once_or_not_at_all() {
    let world = World::seeded(1);
    let (one, two) = (world.host("one"), world.host("two"));
    let tx = one.begin().unwrap();
    one.write_text(tx, "/x", "new").unwrap();
    assert_eq!(one.read_text(tx, "/x").unwrap().as_deref(), Some("new"));
    assert_eq!(two.read_text(NONE, "/x").unwrap(), None);
    assert!(one.end(tx, true).unwrap());
    assert_eq!(two.read_text(NONE, "/x").unwrap().as_deref(), Some("new"));
    let tx = one.begin().unwrap();
    one.write_text(tx, "/x", "other").unwrap();
    assert!(one.end(tx, false).unwrap());
    assert_eq!(two.read_text(NONE, "/x").unwrap().as_deref(), Some("new"));
    assert_eq!(errno(one.end(tx, true)), Some(Errno::ENOENT), "it is over");
}

#[test]
fn who_read_what_another_changed_has_a_conflict() {
    let world = World::seeded(1);
    let (one, two) = (world.host("one"), world.host("two"));
    two.write_text(NONE, "/x", "0").unwrap();
    let tx = one.begin().unwrap();
    let _ = one.read_text(tx, "/x").unwrap();
    one.write_text(tx, "/y", "1").unwrap();
    two.write_text(NONE, "/x", "0").unwrap();
    assert!(
        !one.end(tx, true).unwrap(),
        "even the same value is a change"
    );
    assert_eq!(two.read_text(NONE, "/y").unwrap(), None);
    let tx = one.begin().unwrap();
    let _ = one.list(tx, "/").unwrap();
    two.write_text(NONE, "/new", "").unwrap();
    assert!(
        !one.end(tx, true).unwrap(),
        "a new child changes its parent"
    );
    let tx = one.begin().unwrap();
    let _ = one.read_text(tx, "/missing").unwrap();
    two.write_text(NONE, "/missing", "").unwrap();
    assert!(
        !one.end(tx, true).unwrap(),
        "a node that appeared was seen missing"
    );
    let tx = one.begin().unwrap();
    one.write_text(tx, "/x", "2").unwrap();
    two.write_text(NONE, "/elsewhere/deep", "").unwrap();
    assert!(
        one.end(tx, true).unwrap(),
        "unrelated changes do not disturb"
    );
}

#[test]
fn commit_repeats_until_it_meets_no_conflict() {
    let world = World::seeded(1);
    let (one, two) = (world.host("one"), world.host("two"));
    let mut rounds = 0;
    one.transaction("counting", |store, tx| {
        let _ = store.read_text(tx, "/n")?;
        if rounds < 3 {
            two.write_text(NONE, "/n", "x").unwrap();
        }
        rounds += 1;
        store.write_text(tx, "/n", "mine")
    })
    .unwrap();
    assert_eq!(
        (rounds, two.read_text(NONE, "/n").unwrap().as_deref()),
        (4, Some("mine"))
    );
}

#[test]
fn watches_fire_at_registration_below_and_for_removed_nodes() {
    let world = World::seeded(1);
    let store = world.host("agent");
    store.write_text(NONE, "/a/b/c", "x").unwrap();
    let (top, deep) = (store.watch("/a").unwrap(), store.watch("/a/b/c").unwrap());
    assert_eq!(top.try_next().as_deref(), Some("/a"));
    assert_eq!(deep.try_next().as_deref(), Some("/a/b/c"));
    store.write_text(NONE, "/a/b/c", "y").unwrap();
    assert_eq!(top.try_next().as_deref(), Some("/a/b/c"));
    assert_eq!(deep.try_next().as_deref(), Some("/a/b/c"));
    store.remove(NONE, "/a").unwrap();
    assert_eq!(top.try_next().as_deref(), Some("/a"));
    assert_eq!(
        (top.try_next(), deep.try_next().as_deref()),
        (None, Some("/a/b/c"))
    );
    let tx = store.begin().unwrap();
    store.write_text(tx, "/a/z", "").unwrap();
    assert_eq!(top.try_next(), None, "nothing before the commit");
    assert!(store.end(tx, true).unwrap());
    assert_eq!(top.try_next().as_deref(), Some("/a/z"));
    drop((top, deep));
    assert_eq!(world.ledger().lines().len(), 0);
}

#[test]
fn a_guest_writes_only_where_it_may() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let other = world.spawn(&GuestSpec::pvh("web2"));
    let store = guest.domu().store();
    let home = format!("/local/domain/{}", guest.domid());
    assert_eq!(
        store.read_text(NONE, "name").unwrap().as_deref(),
        Some("web1")
    );
    assert_eq!(
        errno(store.write_text(NONE, "name", "root")),
        Some(Errno::EACCES)
    );
    assert_eq!(
        errno(store.write_text(NONE, "new", "")),
        Some(Errno::EACCES)
    );
    store.write_text(NONE, "data/mine", "1").unwrap();
    let perms = host
        .one(NONE, StoreOp::GetPermissions(format!("{home}/data/mine")))
        .unwrap();
    let owner = Permission {
        domid: guest.domid(),
        access: Access::None,
    };
    assert_eq!(perms, StoreReply::Permissions(vec![owner]));
    let theirs = format!("/local/domain/{}/name", other.domid());
    assert_eq!(errno(store.read_text(NONE, &theirs)), Some(Errno::EACCES));
    let nothing = format!("/local/domain/{}/nothing", other.domid());
    assert_eq!(
        errno(store.read_text(NONE, &nothing)),
        Some(Errno::EACCES),
        "existence is secret"
    );
    assert_eq!(
        errno(store.introduce(other.domid(), 0, Port(1))),
        Some(Errno::EACCES)
    );
    assert_eq!(errno(store.watch("@releaseDomain")), Some(Errno::EACCES));
    let give_away = vec![Permission {
        domid: DomId(0),
        access: Access::Both,
    }];
    let refused = store.one(NONE, StoreOp::SetPermissions("data/mine".into(), give_away));
    assert_eq!(
        errno(refused),
        Some(Errno::EPERM),
        "a guest cannot give its nodes away"
    );
}

#[test]
fn a_guest_hears_only_of_what_it_may_read() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let watch = guest.domu().store().watch("data").unwrap();
    assert_eq!(watch.try_next().as_deref(), Some("data"));
    let home = format!("/local/domain/{}", guest.domid());
    host.write_text(NONE, &format!("{home}/data/x"), "1")
        .unwrap();
    assert_eq!(
        watch.try_next().as_deref(),
        Some("data/x"),
        "relative as registered"
    );
    let secret = format!("{home}/data/secret");
    host.write_text(NONE, &secret, "1").unwrap();
    let _ = watch.try_next();
    let dom0 = vec![Permission {
        domid: DomId::DOM0,
        access: Access::None,
    }];
    host.one(NONE, StoreOp::SetPermissions(secret.clone(), dom0))
        .unwrap();
    host.write_text(NONE, &secret, "2").unwrap();
    assert_eq!(watch.try_next(), None);
}

#[test]
fn quotas_hold_a_guest_and_not_dom0() {
    let world = World::seeded(1);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let store = guest.domu().store();
    let big = "x".repeat(QUOTA_VALUE + 1);
    assert_eq!(
        errno(store.write_text(NONE, "data/big", &big)),
        Some(Errno::ENOSPC)
    );
    let refused = (0..=QUOTA_NODES)
        .find_map(|n| store.write_text(NONE, &format!("data/n{n}"), "").err())
        .and_then(|error| error.errno());
    assert_eq!(refused, Some(Errno::ENOSPC));
    let watches: Vec<_> = (0..QUOTA_WATCHES).map(|_| store.watch("data")).collect();
    assert!(
        watches.iter().filter(|watch| watch.is_err()).count() >= 1,
        "the guest has one already"
    );
    let open: Vec<_> = (0..QUOTA_TRANSACTIONS)
        .map(|_| store.begin().unwrap())
        .collect();
    assert_eq!(errno(store.begin()), Some(Errno::ENOSPC));
    open.into_iter()
        .for_each(|tx| assert!(store.end(tx, false).unwrap()));
    let host = world.host("agent");
    host.write_text(NONE, "/a", &big).unwrap();
}

#[test]
fn introduction_needs_the_grant_and_the_port() {
    use xen_abi::domain::{CreateDomain, DomainKind};
    use xen_abi::ids::Handle;
    use xen_host::seam::{DomainControl, MemoryControl};
    let world = World::seeded(1);
    let host = world.host("agent");
    assert_eq!(
        errno(host.introduce(DomId(5), 0, Port(1))),
        Some(Errno::ENOENT)
    );
    let create = CreateDomain {
        kind: DomainKind::Pvh,
        handle: Handle([1; 16]),
        max_vcpus: 1,
        max_event_port: 63,
        max_grant_frames: Some(4),
        max_maptrack_frames: None,
        grant_version: 2,
        cpupool: 0,
        ssidref: 0,
    };
    let domid = host.create_domain(&create).unwrap();
    host.set_max_mem(domid, 1024).unwrap();
    host.populate(domid, &mut [4], 0).unwrap();
    let port = host.alloc_unbound(domid, DomId::DOM0).unwrap();
    assert_eq!(
        errno(host.introduce(domid, 4, port)),
        Some(Errno::EINVAL),
        "no grant entry 1"
    );
    host.map_grant_table(domid, 1)
        .unwrap()
        .write(8, &[1, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(
        errno(host.introduce(domid, 4, Port(60))),
        Some(Errno::EINVAL),
        "no such port"
    );
    let introduced = host.watch("@introduceDomain").unwrap();
    assert!(introduced.try_next().is_some());
    host.introduce(domid, 4, port).unwrap();
    assert_eq!(introduced.try_next().as_deref(), Some("@introduceDomain"));
    drop(introduced);
    host.destroy_domain(domid).unwrap();
    world.ledger().assert_empty();
}

#[test]
fn a_stopped_xenstored_says_so() {
    let world = World::seeded(1);
    let host = world.host("agent");
    world.set_xenstored_down(true);
    let error = host.read_text(NONE, "/a").unwrap_err();
    assert!(
        error.to_string().contains("is xenstored running?"),
        "{error}"
    );
    world.set_xenstored_down(false);
    assert_eq!(host.read_text(NONE, "/a").unwrap(), None);
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(0u8..3, 1..4)
        .prop_map(|parts| parts.iter().map(|part| format!("/{part}")).collect())
}

proptest! {
    /// Whatever is written and removed, the tree is what a plain map says it is, and every node hangs on its parent.
    #[test]
    fn the_tree_agrees_with_a_map(steps in prop::collection::vec((path(), any::<Option<u8>>()), 1..40)) {
        let world = World::builder(1).memory_mib(1).build();
        let store = world.host("agent");
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for (path, value) in steps {
            let root = format!("/t{path}");
            if let Some(value) = value {
                store.write_text(NONE, &root, &value.to_string()).unwrap();
                let cuts: Vec<usize> = root.match_indices('/').map(|(at, _)| at).skip(1).collect();
                for at in cuts {
                    model.entry(root[..at].to_owned()).or_default();
                }
                model.insert(root, value.to_string());
            } else {
                store.remove(NONE, &root).unwrap();
                model.retain(|known, _| !super::tree::is_within(known, &root));
            }
        }
        let found: BTreeMap<String, String> = world
            .xs_tree("/t")
            .into_iter()
            .map(|path| { let value = world.xs_read(&path).unwrap(); (path, value) })
            .collect();
        prop_assert_eq!(&found, &model);
        for path in found.keys() {
            let up = super::tree::parent(path).unwrap();
            let name = super::tree::basename(path).to_owned();
            prop_assert!(store.list(NONE, up).unwrap().contains(&name));
        }
    }
}
