//! The agent's part, played by hand: xenstore keys become orders.

pub mod disk;
pub mod link;
pub mod net;

use std::time::Duration;
use xen_abi::ids::{GrantRef, Port};
use xen_host::xenstore::store::{StoreExt, TxId};
use xen_sim::{Guest, SimHost, World};

/// Longest wait for a thread; never reached when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn read(host: &SimHost, dir: &str, key: &str) -> Option<String> {
    host.store()
        .read_text(TxId::NONE, &format!("{dir}/{key}"))
        .unwrap()
}

pub fn write(host: &SimHost, dir: &str, key: &str, value: &str) {
    host.store()
        .write_text(TxId::NONE, &format!("{dir}/{key}"), value)
        .unwrap();
}

pub fn number(host: &SimHost, dir: &str, key: &str) -> Option<u32> {
    read(host, dir, key)?.parse().ok()
}

pub fn gref(host: &SimHost, dir: &str, key: &str) -> GrantRef {
    GrantRef(number(host, dir, key).unwrap())
}

pub fn port(host: &SimHost, dir: &str, key: &str) -> Port {
    Port(number(host, dir, key).unwrap())
}

/// The guests end, and nothing of them and their drivers is left.
#[track_caller]
pub fn assert_nothing_left(world: &World, guests: &[&Guest]) {
    guests
        .iter()
        .for_each(|guest| world.destroy_guest(guest.domid()));
    world.ledger().assert_empty();
}
