//! Our tables against an outside list: what stock knows, we know by name.

use dom0_agent::cli::table::COMMANDS;
use dom0_agent::config::keys::{KEYS, find};
use std::collections::BTreeSet;
use xen_abi::version::Abi;

/// See its head.
const STOCK: &str = include_str!("stock-names.txt");

/// (kind, name, release)
fn stock() -> Vec<(&'static str, &'static str, &'static str)> {
    let lines = STOCK.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, name, release] = words[..] else {
                panic!("{line}")
            };
            (kind, name, release)
        })
        .collect()
}

fn names(kind: &str) -> BTreeSet<&'static str> {
    let of_kind = stock().into_iter().filter(|(it, ..)| *it == kind);
    of_kind.map(|(_, name, _)| name).collect()
}

#[test]
fn every_key_of_every_supported_release_is_known() {
    let unknown: Vec<_> = names("key")
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_command_of_every_supported_release_is_known_and_no_other() {
    let ours: BTreeSet<_> = COMMANDS.iter().map(|command| command.name).collect();
    let mut stock = names("command");
    // Stock answers this one outside of its table.
    stock.insert("help");
    assert_eq!(ours, stock);
}

#[test]
fn no_key_is_an_invention() {
    // Read by stock, but on no manual page; and ours.
    const BESIDE: [&str; 9] = [
        "device_model",
        "extratime",
        "firmware_override",
        "latency",
        "period",
        "protect",
        "slice",
        "vif2",
        "vncviewer",
    ];
    let stock = names("key");
    let invented: Vec<_> = KEYS
        .iter()
        .map(|key| key.name)
        .filter(|name| !stock.contains(name) && !BESIDE.contains(name))
        .collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn the_list_is_of_the_releases_that_are_supported() {
    let told: BTreeSet<String> = stock()
        .into_iter()
        .map(|(_, _, release)| release.to_owned())
        .collect();
    let version = |abi: Abi| format!("{}.{}", abi.version().major, abi.version().minor);
    let supported: BTreeSet<String> = Abi::ALL.into_iter().map(version).collect();
    let first = supported.first().cloned();
    assert_eq!(told.first().cloned(), first);
    assert!(told.is_subset(&supported), "{told:?}");
    // A release that brought nothing is fine; that nobody looked at the newest is not.
    assert_eq!(told.last(), supported.last());
}
