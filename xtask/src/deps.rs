//! `cargo xtask deps`: the Debian packages the lab needs.
//!
//! As root they are installed, otherwise by `sudo` if that works without asking, otherwise the one line to type is printed. Never touches
//! anything but packages; on Debian 12 it adds the backports suite, because that release's own QEMU is too old.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use stack_tests::rig::image::MIRROR_VARIABLE;

/// Program looked for, and the package it is in.
const NEEDED: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mke2fs", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("cc", "gcc"),
];
/// As [`NEEDED`], for whoever builds the hypervisor.
const NEEDED_FOR_XEN: [(&str, &str); 6] = [
    ("flex", "flex"),
    ("bison", "bison"),
    ("python3", "python3"),
    ("make", "make"),
    ("patch", "patch"),
    // Its build makes small programs for itself.
    ("/usr/include/stdio.h", "libc6-dev"),
];
/// Keys of the releases the images are made of.
pub const KEYRING: (&str, &str) = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
);
/// First QEMU that can map a saved machine's memory from a file.
const QEMU_MIN_MAJOR: u32 = 9;
/// The release whose own QEMU is older than that, and where the newer one is.
const OLD_RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/parapet-backports.sources";

/// What to do about missing packages.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only say what is missing; exit 1 if anything is
    #[arg(long)]
    check: bool,
}

/// Checks or installs.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        let missing = missing(&NEEDED);
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        println!("missing: {}", missing.join(" "));
        return Ok(ExitCode::FAILURE);
    }
    ensure_installed()?;
    println!("everything the lab needs is installed");
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing, or says how.
pub fn ensure_installed() -> Result<()> {
    ensure(&NEEDED)
}

/// As [`ensure_installed`], and what a build of the hypervisor needs too.
pub fn ensure_installed_for_xen() -> Result<()> {
    ensure(&[NEEDED, NEEDED_FOR_XEN].concat())
}

fn ensure(needed: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let codename = codename();
    let add = match codename == OLD_RELEASE && !backports_configured() {
        true => add_backports(configured_archive())?,
        false => String::new(),
    };
    let script = script(&missing, &codename, &add);
    let root = nix::unistd::geteuid().is_root();
    let sudo = !root && sudo_works();
    if !root && !sudo {
        bail!(
            "these Debian packages are missing: {}\nInstall them with:\n\n    sudo sh -c '{script}'\n",
            missing.join(" ")
        );
    }
    eprintln!("deps: installing {}", missing.join(" "));
    let mut command = if root {
        Command::new("sh")
    } else {
        Command::new("sudo")
    };
    if sudo {
        command.arg("sh");
    }
    let status = command
        .args(["-ec", &script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status();
    ensure!(
        status.context("cannot run sh")?.success(),
        "apt-get could not install {}",
        missing.join(" ")
    );
    let still = self::missing(needed);
    ensure!(
        still.is_empty(),
        "still missing after the installation: {}",
        still.join(" ")
    );
    Ok(())
}

fn missing(needed: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut missing: Vec<_> = needed
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| *package)
        .collect();
    if !Path::new(KEYRING.0).exists() {
        missing.push(KEYRING.1);
    }
    let qemu_is_old = qemu_major().is_some_and(|major| major < QEMU_MIN_MAJOR);
    if qemu_is_old {
        missing.extend(
            ["qemu-system-x86", "qemu-utils"]
                .iter()
                .filter(|p| !missing.contains(p))
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    missing
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).exists())
}

fn qemu_major() -> Option<u32> {
    let output = Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .ok()?;
    major_in(&String::from_utf8_lossy(&output.stdout))
}

fn major_in(version: &str) -> Option<u32> {
    version
        .split("version ")
        .nth(1)?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .to_owned()
}

/// The part of the line that makes backports known to apt.
fn add_backports(archive: Option<(String, String)>) -> Result<String> {
    let (mirror, key) = archive.with_context(|| {
        format!(
            "QEMU of {BACKPORTS} is needed, and apt knows no archive of {OLD_RELEASE} to take it from: \
             name one in {MIRROR_VARIABLE}, or add {BACKPORTS} to apt's sources"
        )
    })?;
    Ok(format!(
        "printf \"Types: deb\\nURIs: {mirror}\\nSuites: {BACKPORTS}\\nComponents: main\\nSigned-By: {key}\\n\" > {BACKPORTS_FILE} && "
    ))
}

/// The whole installation as one shell line without single quotes; `add` is what makes backports known.
fn script(missing: &[&str], codename: &str, add: &str) -> String {
    let packages = missing.join(" ");
    let install = "apt-get install -y --no-install-recommends";
    if codename != OLD_RELEASE {
        return format!("apt-get update && {install} {packages}");
    }
    // Both QEMU packages must come from the same suite.
    let (newer, plain): (Vec<&str>, Vec<&str>) = missing
        .iter()
        .copied()
        .partition(|package| package.starts_with("qemu"));
    let mut line = format!("{add}apt-get update");
    if !plain.is_empty() {
        line += &format!(" && {install} {}", plain.join(" "));
    }
    if !newer.is_empty() {
        line += &format!(" && {install} -t {BACKPORTS} {}", newer.join(" "));
    }
    line
}

/// Site and release of every index apt knows.
fn index_targets() -> String {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(SITE)\t$(RELEASE)\t$(SIGNED_BY)",
            "Created-By: Packages",
        ])
        .stderr(Stdio::null())
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

fn backports_configured() -> bool {
    index_targets()
        .lines()
        .any(|line| line.split('\t').nth(1) == Some(BACKPORTS))
        || Path::new(BACKPORTS_FILE).exists()
}

/// The archive that apt uses and its key; one that was named in the environment goes before.
fn configured_archive() -> Option<(String, String)> {
    if let Ok(named) = std::env::var(MIRROR_VARIABLE) {
        return Some((named.trim_end_matches('/').to_owned(), KEYRING.0.to_owned()));
    }
    index_targets().lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (site, release, key) = (fields.next()?, fields.next()?, fields.next()?);
        let key = if key.is_empty() { KEYRING.0 } else { key };
        (release == OLD_RELEASE).then(|| (site.trim_end_matches('/').to_owned(), key.to_owned()))
    })
}

/// `sudo` without a password, or with a person there to type it.
fn sudo_works() -> bool {
    if !on_path("sudo") {
        return false;
    }
    let silent = Command::new("sudo")
        .args(["-n", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    silent.is_ok_and(|status| status.success()) || std::io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_debian_12_qemu_comes_from_backports_and_the_rest_does_not() {
        let archive = ("http://m.example/debian".to_owned(), KEYRING.0.to_owned());
        let add = add_backports(Some(archive)).unwrap();
        let needed = ["mmdebstrap", "qemu-system-x86", "qemu-utils"];
        let line = script(&needed, "bookworm", &add);
        assert!(line.contains("URIs: http://m.example/debian\\n"), "{line}");
        assert!(
            line.contains("install -y --no-install-recommends mmdebstrap &&"),
            "{line}"
        );
        assert!(
            line.ends_with("-t bookworm-backports qemu-system-x86 qemu-utils"),
            "{line}"
        );
        assert!(!line.contains('\''), "{line}");
    }

    #[test]
    fn without_any_archive_the_way_out_is_said() {
        let error = add_backports(None).unwrap_err().to_string();
        assert!(error.contains(MIRROR_VARIABLE), "{error}");
    }

    #[test]
    fn on_debian_13_one_plain_line_does() {
        let line = script(&["mmdebstrap", "qemu-utils"], "trixie", "");
        assert_eq!(
            line,
            "apt-get update && apt-get install -y --no-install-recommends mmdebstrap qemu-utils"
        );
    }

    #[test]
    fn the_version_is_read_from_qemus_own_line() {
        assert_eq!(
            major_in("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds)"),
            Some(10)
        );
        assert_eq!(major_in("nonsense"), None);
    }
}
