//! Rules about the source itself that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use stack_tests::rig::dirs;

/// Lines of one file, tests and comments included. One idea per file seldom needs half of it.
const MAX_LINES: usize = 560;
/// Tables that are one idea however long they are.
const TABLES: [&str; 1] = ["dom0-agent/src/cli/table.rs"];
/// The only crate that may hold `unsafe`.
const UNSAFE_HOME: &str = "xen/host/";

#[test]
fn every_file_says_what_it_is_and_holds_one_idea() -> Result<()> {
    let mut complaints = Vec::new();
    for (name, text) in sources()? {
        if !text.starts_with("//!") {
            complaints.push(format!("{name}: does not begin by saying what it is (//!)"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES && !TABLES.contains(&name.as_str()) {
            complaints.push(format!("{name}: {lines} lines, at most {MAX_LINES}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn unsafe_lives_in_one_crate() -> Result<()> {
    let mut complaints = Vec::new();
    for (name, text) in sources()?
        .into_iter()
        .filter(|(name, _)| !name.starts_with(UNSAFE_HOME))
    {
        for (number, line) in text.lines().enumerate() {
            // Assembled here so that this file does not complain about itself.
            let word = concat!("un", "safe");
            let code = line.split("//").next().unwrap_or_default();
            if [" {", " fn", " impl", " extern"]
                .iter()
                .any(|after| code.contains(&format!("{word}{after}")))
            {
                complaints.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    Ok(())
}

#[test]
fn every_program_and_library_but_one_forbids_it() -> Result<()> {
    let is_root = |name: &str| {
        name.ends_with("/src/lib.rs")
            || name.ends_with("/src/main.rs")
            || name.contains("/src/bin/")
    };
    let roots: Vec<_> = sources()?
        .into_iter()
        .filter(|(name, _)| is_root(name) && !name.starts_with(UNSAFE_HOME))
        .collect();
    assert!(roots.len() > 15, "only {} roots found", roots.len());
    let attribute = concat!("#![forbid(un", "safe_code)]");
    let without: Vec<_> = roots
        .iter()
        .filter(|(_, text)| !text.lines().any(|line| line == attribute))
        .map(|(name, _)| name)
        .collect();
    assert!(without.is_empty(), "{without:?}");
    Ok(())
}

#[test]
fn every_package_of_the_workspace_takes_its_lints() -> Result<()> {
    let mut manifests = Vec::new();
    collect(&dirs::workspace(), "toml", &mut manifests)?;
    let packages: Vec<_> = manifests
        .iter()
        .filter(|(path, text)| path.ends_with("/Cargo.toml") && text.contains("[package]"))
        .collect();
    assert!(packages.len() > 5, "only {} packages found", packages.len());
    for (path, text) in packages {
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{path} does not take the workspace's lints"
        );
    }
    Ok(())
}

/// Every Rust file of the tree with its path from the top.
fn sources() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    collect(&dirs::workspace(), "rs", &mut found)?;
    assert!(found.len() > 50, "only {} source files found", found.len());
    Ok(found)
}

fn collect(dir: &Path, ending: &str, into: &mut Vec<(String, String)>) -> Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, ending, into)?;
            }
        } else if path.extension().is_some_and(|e| e == ending) {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            into.push((
                path.strip_prefix(dirs::workspace())?.display().to_string(),
                text,
            ));
        }
    }
    Ok(())
}
