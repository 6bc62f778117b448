//! Are the bytes really so? Compares every structure and constant of this crate with the C headers of Debian's Xen.
//!
//! ```text
//!   our table (registry.rs) ─▶ C program that prints sizeof, offsetof and values ─▶ gcc, run ─▶ compare line by line
//! ```
//!
//! The headers come from `libxen-dev` of Debian 12 (Xen 4.17) and Debian 13 (Xen 4.20). The releases between and after
//! have no Debian package: their numbers are pinned by assertions beside the structures, and whoever has a clone of Xen's
//! repository can compare all of them (`every_supported_release_agrees`). What only patched hypervisors know is compared with the patches themselves.

#[path = "../support/debian.rs"]
mod debian;
mod patches;
mod probe;
mod registry;
mod upstream;

use debian::Package;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use xen_abi::version::Abi;

const XEN_4_17: Package = Package {
    name: "libxen-dev",
    version: "4.17",
    suites: &["bookworm-security", "bookworm"],
};
const XEN_4_20: Package = Package {
    name: "libxen-dev",
    version: "4.20",
    suites: &["trixie-security", "trixie"],
};

/// `target/headers`, kept between runs.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("headers")
}

/// A directory of this test alone.
fn scratch(test: &str) -> PathBuf {
    let name = format!("header-check-{test}-{}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn check(abi: Abi, package: Package) {
    let result = debian::unpacked(package, &cache())
        .and_then(|home| compare(abi, &home.join("usr/include"), &scratch(package.version)));
    judge(result);
}

fn compare(abi: Abi, include: &Path, scratch: &Path) -> Result<usize, String> {
    std::fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
    let result = probe::compare(&registry::table(abi), "", include, scratch).and_then(|count| {
        probe::compare_32_bit(&registry::table_32_bit(), include, scratch).map(|()| count)
    });
    let _ = std::fs::remove_dir_all(scratch);
    result
}

fn judge(result: Result<usize, String>) {
    let count = result.unwrap_or_else(|complaint| panic!("{complaint}"));
    assert!(
        count > 1000,
        "only {count} numbers were compared: the table has been emptied"
    );
}

#[test]
fn debian_12_agrees_on_every_number() {
    check(Abi::V4_17, XEN_4_17);
}

#[test]
fn debian_13_agrees_on_every_number() {
    check(Abi::V4_20, XEN_4_20);
}

/// Against Debian 13's headers and what our patches add to them.
#[test]
fn our_patches_agree_on_every_number() {
    let scratch = scratch("patches");
    std::fs::create_dir_all(&scratch).unwrap();
    let declarations = patches::declarations().unwrap();
    let table = registry::table_of_patches();
    let compared = debian::unpacked(XEN_4_20, &cache()).and_then(|home| {
        probe::compare(&table, &declarations, &home.join("usr/include"), &scratch)
    });
    let _ = std::fs::remove_dir_all(&scratch);
    let numbers: usize = table
        .structures
        .iter()
        .map(|structure| structure.fields.len() + 1)
        .sum();
    assert_eq!(compared, Ok(numbers + table.constants.len()));
}

/// All six releases, also those between Debian's, against the stable branches of a clone of Xen's repository.
#[test]
#[ignore = "needs a clone of Xen's repository, named by XEN_SOURCE"]
fn every_supported_release_agrees() {
    let source = std::env::var_os("XEN_SOURCE").expect("XEN_SOURCE must name a clone of xen.git");
    for abi in Abi::ALL {
        let scratch = scratch("upstream");
        let _ = std::fs::remove_dir_all(&scratch);
        let branch = format!("stable-{}", abi.version());
        let include = upstream::include_of(Path::new(&source), &branch, &scratch);
        judge(include.and_then(|include| compare(abi, &include, &scratch)));
    }
}

/// A structure that nobody compares could hold any offset: each `layout!` must be in the table or named here.
#[test]
fn no_structure_is_left_out_of_the_table() {
    let mut compared: BTreeSet<&str> = BTreeSet::new();
    for abi in [Abi::V4_17, Abi::V4_20] {
        compared.extend(
            registry::table(abi)
                .structures
                .iter()
                .map(|structure| structure.name),
        );
    }
    compared.extend(
        registry::table_32_bit()
            .structures
            .iter()
            .map(|structure| structure.name),
    );
    let patches = registry::table_of_patches();
    compared.extend(patches.structures.iter().map(|structure| structure.name));
    compared.extend(registry::NEWER_THAN_DEBIAN);
    let declared = declared_structures(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    assert!(
        declared.len() > 80,
        "the search for declarations found only {}",
        declared.len()
    );
    let missing: Vec<_> = declared
        .iter()
        .filter(|name| !compared.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "not compared with any header: {missing:?}"
    );
}

/// Names after `pub struct` on lines that have the form of `layout!`: `pub struct Name: "c", size {`.
fn declared_structures(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            names.extend(declared_structures(&path)?);
        } else if path.file_name().is_some_and(|name| name != "layout.rs") {
            let text = std::fs::read_to_string(&path)?;
            let lines = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("pub struct "));
            let named = lines.filter_map(|line| line.split_once(": \""));
            names.extend(named.map(|(name, _)| name.to_owned()));
        }
    }
    Ok(names)
}

/// The comparison must be able to fail: one wrong number in an otherwise right table is found and named.
#[test]
fn a_wrong_number_is_found_and_named() {
    let include = debian::unpacked(XEN_4_20, &cache())
        .unwrap()
        .join("usr/include");
    let scratch = scratch("wrong-number");
    std::fs::create_dir_all(&scratch).unwrap();
    let mut table = registry::table(Abi::V4_20);
    table.constants.push(("XENMEM_claim_pages", 25));
    let complaint = probe::compare(&table, "", &include, &scratch).unwrap_err();
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(
        complaint.contains("XENMEM_claim_pages is 24 in C, 25 here"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
}
