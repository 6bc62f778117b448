//! `cargo xtask dist`: the product as it is put on a host, in `target/dist`.
//!
//! ```text
//!   bin/    programs, static: for any dom0, and parapet-guest for any guest
//!   units/  systemd units          etc/          default configuration
//!   man/    manual pages           completions/  for shells
//! ```
//!
//! A file that has not changed keeps its time, so that nothing downstream is made again for nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use stack_tests::rig::{dirs, statics};

/// Packages whose folders and programs are shipped.
const PACKAGES: [&str; 5] = [
    "dom0-agent",
    "split-drivers",
    "ft-monitor",
    "parapet-link",
    "parapet-guest",
];
/// Programs of those packages. All are static: they run in every dom0, and in every guest, whatever Debian's release they were built on.
const PROGRAMS: [&str; 5] = [
    "dom0-agent",
    "split-driver",
    "ft-monitor",
    "parapet-link",
    "parapet-guest",
];
/// Commands, each with its package.
const COMMANDS: [(&str, &str); 2] = [("dom0-agent", "xl"), ("ft-monitor", "parapet")];
/// Folders of a package that are shipped as they are, if it has them, and where they go.
const FOLDERS: [(&str, &str); 2] = [("dist/units", "units"), ("dist/etc", "etc")];

/// There is nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Builds and says what there is.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    build()?;
    for path in files_below(&dirs::dist())? {
        println!("{:>10}  {}", fs::metadata(&path)?.len(), path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds release binaries and brings `target/dist` up to date.
pub fn build() -> Result<()> {
    statics::build(&PACKAGES, &PROGRAMS)?;
    for (package, command) in COMMANDS {
        statics::build_command(package, command)?;
    }
    let dist = dirs::dist();
    let mut made = BTreeSet::new();
    let commands = COMMANDS.map(|(_, command)| command);
    for program in PROGRAMS.into_iter().chain(commands) {
        place(
            &statics::program(program),
            &dist.join("bin").join(program),
            &mut made,
        )?;
    }
    for package in PACKAGES {
        for (source, target) in FOLDERS {
            let source = dirs::workspace().join(package).join(source);
            for file in files_below(&source)? {
                let name = file.strip_prefix(&source)?;
                place(&file, &dist.join(target).join(name), &mut made)?;
            }
        }
    }
    for file in crate::manuals::write(&dist)? {
        made.insert(file);
    }
    for stale in files_below(&dist)?
        .into_iter()
        .filter(|file| !made.contains(file))
    {
        fs::remove_file(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
    }
    Ok(())
}

/// The cargo that runs this command.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(dirs::workspace());
    cargo
}

/// Copies `from` to `to` if they differ.
fn place(from: &Path, to: &Path, made: &mut BTreeSet<PathBuf>) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &content)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    made.insert(to.to_path_buf());
    Ok(())
}

/// Writes `content` to `path` unless that is what it holds.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // A program that runs cannot be overwritten, but it can be replaced.
    let partial = path.with_extension("partial");
    fs::write(&partial, content).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot put {} in place", path.display()))
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(files);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_did_not_change_keeps_its_time() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("xtask-dist-{}", std::process::id()));
        let path = dir.join("a/b");
        write(&path, b"one")?;
        let before = fs::metadata(&path)?.modified()?;
        write(&path, b"one")?;
        assert_eq!(fs::metadata(&path)?.modified()?, before);
        write(&path, b"two")?;
        assert_eq!(fs::read(&path)?, b"two");
        fs::remove_dir_all(&dir)?;
        Ok(())
    }
}
