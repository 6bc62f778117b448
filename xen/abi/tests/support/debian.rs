//! Fetches one package of another Debian suite and unpacks it, without installing it.
//!
//! ```text
//!   apt's own configuration ─▶ mirror ─▶ Packages.xz of the suite ─▶ file name and SHA256 ─▶ .deb ─▶ dpkg-deb -x
//! ```
//!
//! What was unpacked once is kept and used again without the network. Nothing is ever skipped: if the package cannot be had,
//! the caller gets a sentence that says why. Plain std and Debian's own tools, so that any test crate can include this file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package of a suite.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What its version must begin with.
    pub version: &'static str,
    /// Suites to look in; the first that has it wins.
    pub suites: &'static [&'static str],
}

/// What an index says of a package.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    version: String,
    filename: String,
    sha256: String,
}

/// The directory into which `package` is unpacked, below `cache`; fetched if it is not there yet.
///
/// # Errors
/// A sentence that names the package and what failed.
pub fn unpacked(package: Package, cache: &Path) -> Result<PathBuf, String> {
    let home = cache.join(package.version);
    if home.join("complete").exists() {
        return Ok(home);
    }
    fetch(package, cache, &home).map_err(|cause| {
        format!(
            "{} {} cannot be fetched from the Debian archive: {cause}; give this machine access to the mirror its apt \
             configuration names, or unpack the package into {} by hand and put a file `complete` beside it",
            package.name,
            package.version,
            home.display()
        )
    })?;
    Ok(home)
}

fn fetch(package: Package, cache: &Path, home: &Path) -> Result<(), String> {
    let work = cache.join(format!("{}.{}", package.version, std::process::id()));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)
        .map_err(|error| format!("cannot make {}: {error}", work.display()))?;
    let result = fetch_into(package, &work).and_then(|()| {
        // Another test run may have been faster; its copy is as good.
        match fs::rename(&work, home) {
            Err(error) if !home.join("complete").exists() => Err(format!(
                "cannot move {} to {}: {error}",
                work.display(),
                home.display()
            )),
            _ => Ok(()),
        }
    });
    let _ = fs::remove_dir_all(&work);
    result
}

fn fetch_into(package: Package, work: &Path) -> Result<(), String> {
    let (mirror, entry) = find(package, work)?;
    let deb = work.join("package.deb");
    download(&format!("{mirror}/{}", entry.filename), &deb)?;
    let sum = run(Command::new("sha256sum").arg(&deb))?;
    if !sum.starts_with(&entry.sha256) {
        let got = sum.split_whitespace().next().unwrap_or_default();
        return Err(format!(
            "{} has SHA256 {got}, the index says {}",
            entry.filename, entry.sha256
        ));
    }
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(work))?;
    let note = format!("{} {} {}\n", package.name, entry.version, entry.sha256);
    fs::write(work.join("complete"), note).map_err(|error| error.to_string())
}

fn find(package: Package, work: &Path) -> Result<(String, Entry), String> {
    let mut misses = Vec::new();
    for suite in package.suites {
        let mirror = mirror_of(suite)?;
        let url = format!("{mirror}/dists/{suite}/main/binary-amd64/Packages.xz");
        let index = work.join("Packages.xz");
        download(&url, &index)?;
        let text = run(Command::new("xz").arg("-dc").arg(&index))?;
        match lookup(&text, package.name) {
            Some(entry) if entry.version.starts_with(package.version) => {
                return Ok((mirror, entry));
            }
            Some(entry) => misses.push(format!("{suite} has {}", entry.version)),
            None => misses.push(format!("{suite} does not have it")),
        }
    }
    Err(misses.join(", "))
}

/// Where apt gets suites of this kind from: of the archives it knows, the one for security updates or the main one.
fn mirror_of(suite: &str) -> Result<String, String> {
    let targets = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    choose_mirror(&targets, suite).ok_or(format!(
        "apt knows no Debian archive that could have the suite {suite}"
    ))
}

fn choose_mirror(targets: &str, suite: &str) -> Option<String> {
    let security = suite.ends_with("-security");
    let debian = |uri: &str| {
        uri.trim_end_matches('/').ends_with(if security {
            "debian-security"
        } else {
            "/debian"
        })
    };
    let lines = targets.lines().filter_map(|line| line.split_once(' '));
    let uri = lines.map(|(uri, _)| uri).find(|uri| debian(uri))?;
    Some(uri.trim_end_matches('/').to_owned())
}

fn lookup(index: &str, name: &str) -> Option<Entry> {
    let wanted = format!("Package: {name}");
    let stanza = index
        .split("\n\n")
        .find(|stanza| stanza.lines().next() == Some(&wanted))?;
    let field = |key: &str| {
        let line = stanza
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    Some(Entry {
        version: field("Version")?,
        filename: field("Filename")?,
        sha256: field("SHA256")?,
    })
}

/// Through apt's helper, so that apt's proxies and transports are used.
fn download(url: &str, to: &Path) -> Result<(), String> {
    let helper = Path::new("/usr/lib/apt/apt-helper");
    let mut command = if helper.exists() {
        let mut command = Command::new(helper);
        command
            .args(["-o", "Acquire::Retries=2", "download-file", url])
            .arg(to);
        command
    } else {
        let mut command = Command::new("curl");
        command.args(["-fsSL", "--retry", "2", url, "-o"]).arg(to);
        command
    };
    run(&mut command)
        .map(drop)
        .map_err(|cause| format!("{url}: {cause}"))
}

/// Runs a program and gives its output.
///
/// # Errors
/// A sentence with the program's name and what it complained of.
pub fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{program} failed ({}): {}",
            output.status,
            complaint.trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_by_whole_names() {
        let index = "Package: a\nVersion: 1\nFilename: f\nSHA256: x\n\n\
                     Package: ab\nVersion: 2\nFilename: g\nSHA256: y\n";
        let found = lookup(index, "ab").unwrap();
        assert_eq!(
            (found.version.as_str(), found.filename.as_str()),
            ("2", "g")
        );
        assert_eq!(lookup(index, "b"), None);
    }

    #[test]
    fn security_suites_come_from_the_security_archive() {
        let targets = "http://m/debian-security/ bookworm-security\nhttp://m/debian/ bookworm\nhttp://x/other a\n";
        assert_eq!(
            choose_mirror(targets, "trixie").as_deref(),
            Some("http://m/debian")
        );
        let security = choose_mirror(targets, "trixie-security");
        assert_eq!(security.as_deref(), Some("http://m/debian-security"));
        assert_eq!(choose_mirror("http://x/other a\n", "trixie"), None);
    }
}
