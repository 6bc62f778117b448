//! Headers of any release, out of a clone of Xen's own repository.
//!
//! For the releases that no Debian suite has. The clone is only read, with `git archive`.

use super::debian::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts the public headers of a branch where a compiler finds them as `xen/...`.
///
/// # Errors
/// A sentence with the branch and what failed.
pub fn include_of(source: &Path, branch: &str, scratch: &Path) -> Result<PathBuf, String> {
    let tree = scratch.join("tree");
    fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
    let archive = scratch.join("headers.tar");
    let (public, drivers) = ("xen/include/public", "tools/include/xen-sys/Linux");
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(source)
        .args(["archive", "-o"])
        .arg(&archive)
        .args([&name_of(source, branch), public, drivers]);
    run(&mut git).map_err(|cause| format!("{branch} of {}: {cause}", source.display()))?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(&tree))?;
    let include = scratch.join("include");
    fs::create_dir_all(&include).map_err(|error| error.to_string())?;
    fs::rename(tree.join(public), include.join("xen")).map_err(|error| error.to_string())?;
    fs::rename(tree.join(drivers), include.join("xen/sys")).map_err(|error| error.to_string())?;
    Ok(include)
}

/// A mirror has the branch itself, an ordinary clone the remote's.
fn name_of(source: &Path, branch: &str) -> String {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(source)
        .args(["rev-parse", "--verify", "--quiet", branch]);
    if run(&mut git).is_ok() {
        branch.to_owned()
    } else {
        format!("origin/{branch}")
    }
}
