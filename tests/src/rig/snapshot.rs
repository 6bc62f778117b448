//! Boots each shape of host once and keeps its memory and disks, so that every test starts from a running dom0.
//!
//! ```text
//!   boot ─▶ delegate answers ─▶ rc finished ─▶ caches warm ─▶ stop ─▶ CPU not inside a PVH guest? ─▶ memory to file ─▶ quit
//!                                                              ▲                │ it is
//!                                                              └──── continue ◀─┘
//! ```
//!
//! A snapshot is never written again: forks put overlays on its disks and map its memory file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::key::Key;
use super::port::Conversation;
use super::qemu::{self, Machine, Qemu};
use super::qmp::Qmp;
use super::shape::{Hypervisor, Init, Shape};
use super::{deadline, delegate, dirs, image, initrd, lock, product};

/// The disks of a host that are written to: overlays on dom0's root file system and on the Debian guest's, which dom0 sees as `/dev/vdc`.
const DISKS: [&str; 2] = ["root.qcow2", "guest.qcow2"];
/// How often a CPU may be found inside a PVH guest before the attempt to save is given up.
const SAVE_ATTEMPTS: u32 = 200;
/// Snapshots of one shape that are kept, the newest first.
const KEEP: usize = 2;

/// A booted host on disk.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Folder with disks, memory and the serial log of the boot.
    pub dir: PathBuf,
    /// What its QEMU was started from.
    pub machine: Machine,
}

impl Snapshot {
    /// Its memory; a snapshot that has this is complete.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }
}

/// The snapshot of `shape`; built, with the image under it, when something that it depends on has changed.
///
/// # Errors
/// When a package is missing, the image cannot be built or the host does not boot; the serial log is then kept and named.
pub fn of(shape: &Shape) -> Result<Snapshot> {
    let base = image::base(&shape.suite)?;
    let initrd = initrd::dom0(&base, &delegate::program()?)?;
    let mut key = Key::default()
        .with(&base.key)
        .with(&initrd)
        .with(qemu::version()?);
    let xen = match shape.hypervisor {
        Hypervisor::Debian => base.xen(),
        Hypervisor::Patched => {
            let (kept, content) = patched_xen()?;
            key = key.with(content);
            kept
        }
    };
    let key = shape.key(key).digits();
    let dir = dirs::part("snapshots").join(format!("{}-{key}", shape.name));
    let machine = |dir: &Path| -> Result<Machine> {
        Ok(Machine {
            base: base.clone(),
            xen: xen.clone(),
            initrd: dir.join("initrd.img"),
            product: product::disk()?,
            incoming: false,
        })
    };
    let finished = dir.join("state");
    if !finished.exists() {
        let name = format!("{}.lock", shape.name);
        let _turn = lock::lock(
            &dirs::part("snapshots").join(name),
            "another process booting this kind of host",
        )?;
        if !finished.exists() {
            let partial = dirs::part("snapshots").join(format!("{}-{key}.partial", shape.name));
            fresh_dir(&partial)?;
            fs::write(partial.join("initrd.img"), &initrd)?;
            boot(shape, &machine(&partial)?, &partial)?;
            fs::rename(&partial, &dir)?;
            dirs::keep_newest(&dirs::part("snapshots"), &format!("{}-", shape.name), KEEP);
        }
    }
    let machine = machine(&dir)?;
    Ok(Snapshot { dir, machine })
}

/// The patched hypervisor and its content.
fn patched_xen() -> Result<(PathBuf, Vec<u8>)> {
    let path = dirs::patched_xen();
    let content = fs::read(&path).with_context(|| {
        format!(
            "there is no patched hypervisor at {}; `cargo xtask xen` makes it (about five minutes, once)",
            path.display()
        )
    })?;
    Ok((path, content))
}

fn fresh_dir(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn boot(shape: &Shape, machine: &Machine, dir: &Path) -> Result<()> {
    let began = Instant::now();
    eprintln!("lab: booting a {} host (about 30 s, once)", shape.name);
    let below = [machine.base.root(), machine.base.guest_root()];
    for (disk, below) in DISKS.iter().zip(&below) {
        overlay(below, "raw", &dir.join(disk))?;
    }
    let (qemu, mut qmp) = Qemu::start(dir, shape, machine, false)?;
    let booted = wait_for_toolstack(shape, dir).and_then(|()| save(&mut qmp, &dir.join("memory")));
    booted.with_context(|| {
        let kept = dirs::part("failed").join("boot");
        let copied = fs::create_dir_all(&kept)
            .and_then(|()| fs::copy(dir.join("serial.log"), kept.join("serial.log")));
        format!(
            "the {} host did not come up (serial log: {}, {copied:?})",
            shape.name,
            kept.display()
        )
    })?;
    // An ordinary end, so that the disks' caches are written.
    qemu.quit(&mut qmp)?;
    fs::rename(dir.join("memory"), dir.join("state"))?;
    eprintln!(
        "lab: {} host booted and saved in {:.0} s",
        shape.name,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn wait_for_toolstack(shape: &Shape, dir: &Path) -> Result<()> {
    let (limit, ready) = match shape.init {
        Init::Lab => (
            deadline::BOOT,
            "until [ -e /run/lab-ready ]; do sleep 0.2; done; xl list && xl info && sync",
        ),
        Init::Systemd => (
            deadline::BOOT_SYSTEMD,
            "systemctl is-system-running --wait; udevadm settle; xl list && sync",
        ),
    };
    let limit = deadline::scaled(limit);
    let output = Conversation::open(dir, limit)?.exec(&["sh", "-c", ready], &[], limit)?;
    ensure!(
        output.code == 0,
        "the toolstack in dom0 does not work: {}{}",
        output.text(),
        output.errors()
    );
    Ok(())
}

/// Stops the machine at a point from which it can be loaded again and writes its memory to `path`.
///
/// QEMU refuses to load a machine whose CPU stood inside a PVH guest, so such a moment is passed over.
///
/// # Errors
/// When no good moment is found or QEMU cannot write.
pub fn save(qmp: &mut Qmp, path: &Path) -> Result<()> {
    let mut attempts = 0;
    loop {
        qmp.execute("stop", json!({}))?;
        if stands_outside_hvm_guests(&qmp.monitor("info registers -a")?) {
            break;
        }
        attempts += 1;
        ensure!(
            attempts < SAVE_ATTEMPTS,
            "the CPU was inside a PVH guest {SAVE_ATTEMPTS} times in a row"
        );
        qmp.execute("cont", json!({}))?;
    }
    mapped_ram(qmp)?;
    qmp.execute(
        "migrate",
        json!({ "uri": format!("file:{}", path.display()) }),
    )?;
    let passing = ["none", "setup", "active", "device", "pre-switchover"];
    let end = qmp.await_field(
        "query-migrate",
        "status",
        &passing,
        deadline::scaled(deadline::SAVE),
    )?;
    ensure!(end == "completed", "QEMU could not save the machine: {end}");
    Ok(())
}

/// Starts a fork of `snapshot` in `dir`; `detached` as in [`Qemu::start`].
///
/// # Errors
/// When QEMU refuses the saved machine.
pub fn fork(shape: &Shape, snapshot: &Snapshot, dir: &Path, detached: bool) -> Result<(Qemu, Qmp)> {
    for disk in DISKS {
        overlay(&snapshot.dir.join(disk), "qcow2", &dir.join(disk))?;
    }
    let machine = Machine {
        incoming: true,
        ..snapshot.machine.clone()
    };
    let (qemu, mut qmp) = Qemu::start(dir, shape, &machine, detached)?;
    mapped_ram(&mut qmp)?;
    qmp.execute(
        "migrate-incoming",
        json!({ "uri": format!("file:{}", snapshot.state().display()) }),
    )?;
    let limit = deadline::scaled(deadline::FORK);
    let state = qmp.await_field("query-status", "status", &["inmigrate", "prelaunch"], limit)?;
    if state != "paused" && state != "postmigrate" {
        bail!("the fork is {state} instead of ready to run");
    }
    qmp.execute("cont", json!({}))?;
    Ok((qemu, qmp))
}

fn mapped_ram(qmp: &mut Qmp) -> Result<()> {
    qmp.execute(
        "migrate-set-capabilities",
        json!({ "capabilities": [{ "capability": "mapped-ram", "state": true }] }),
    )?;
    Ok(())
}

/// Code segments: e008 is Xen, e033 and e02b a PV kernel or program; anything else may be a guest under hardware virtualisation.
fn stands_outside_hvm_guests(registers: &str) -> bool {
    let mut cpus = registers
        .lines()
        .filter_map(|line| line.strip_prefix("CS ="))
        .peekable();
    cpus.peek().is_some()
        && cpus.all(|cs| {
            ["e008", "e033", "e02b", "e023"]
                .iter()
                .any(|good| cs.starts_with(good))
        })
}

fn overlay(base: &Path, format: &str, path: &Path) -> Result<()> {
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .args([base, path])
        .stdin(Stdio::null())
        .output()
        .context("cannot run qemu-img; `cargo xtask deps` installs it")?;
    ensure!(
        output.status.success(),
        "qemu-img: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::stands_outside_hvm_guests;

    #[test]
    fn a_cpu_inside_a_pvh_guest_is_no_place_to_save() {
        let line = |cs: &str| format!("RAX=0\nCS ={cs} 0000000000000000 ffffffff 00a09b00\n");
        for good in ["e008", "e033", "e02b"] {
            assert!(stands_outside_hvm_guests(&line(good)), "{good}");
        }
        for bad in ["0010", "0033"] {
            assert!(!stands_outside_hvm_guests(&line(bad)), "{bad}");
        }
        assert!(
            !stands_outside_hvm_guests(&(line("e008") + &line("0010"))),
            "two CPUs, one inside"
        );
        assert!(!stands_outside_hvm_guests(""), "nothing known");
    }
}
