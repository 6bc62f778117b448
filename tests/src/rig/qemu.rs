//! One QEMU process: its command line, its life, its death.
//!
//! A process made for a test dies with it, however the test ends: a second small process holds a pipe to the test and kills QEMU when the pipe
//! closes. A process made by `cargo xtask lab up` is let go and lives until `lab down`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab_delegate::{PORT_PREFIX, PORTS};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::deadline;
use super::image::Base;
use super::qmp::Qmp;
use super::shape::Shape;

const PROGRAM: &str = "qemu-system-x86_64";
const LOOK: Duration = Duration::from_millis(20);

/// What a machine is started from, besides its shape.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Kernel and root.
    pub base: Base,
    /// The hypervisor.
    pub xen: PathBuf,
    /// dom0's initrd.
    pub initrd: PathBuf,
    /// The product disk.
    pub product: PathBuf,
    /// Wait for a memory image instead of booting.
    pub incoming: bool,
}

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    /// Kills QEMU when this process is gone; `None` for one that was let go.
    lifeline: Option<Child>,
}

impl Qemu {
    /// Starts a machine in `dir`, which holds its disks and receives its sockets and logs, and connects to its control socket.
    ///
    /// # Errors
    /// When QEMU is missing or ends at once; its own words are in the error.
    pub fn start(
        dir: &Path,
        shape: &Shape,
        machine: &Machine,
        detached: bool,
    ) -> Result<(Self, Qmp)> {
        let log = File::create(dir.join("qemu.log"))?;
        let mut command = Command::new(PROGRAM);
        command
            .current_dir(dir)
            .args(arguments(shape, machine))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if detached {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let child = command
            .spawn()
            .context("cannot run qemu-system-x86_64; `cargo xtask deps` installs it")?;
        fs::write(dir.join("pid"), child.id().to_string())?;
        let mut qemu = Self {
            child,
            lifeline: None,
        };
        if !detached {
            qemu.lifeline = Some(lifeline(qemu.child.id())?);
        }
        let qmp = qemu.first_contact(dir)?;
        Ok((qemu, qmp))
    }

    fn first_contact(&mut self, dir: &Path) -> Result<Qmp> {
        let give_up = Instant::now() + deadline::scaled(deadline::QMP);
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
                bail!("QEMU ended at once ({status}): {}", said.trim());
            }
            match Qmp::connect(dir) {
                Ok(qmp) => return Ok(qmp),
                Err(error) if Instant::now() > give_up => return Err(error),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the machine to end and waits until it has, so that everything is on its disks.
    ///
    /// # Errors
    /// When it does not within [`deadline::QMP`]; it is killed then.
    pub fn quit(mut self, qmp: &mut Qmp) -> Result<()> {
        // It may be gone before it has answered.
        drop(qmp.execute("quit", serde_json::json!({})));
        let give_up = Instant::now() + deadline::scaled(deadline::QMP);
        while self.is_running() {
            ensure!(Instant::now() < give_up, "QEMU does not end");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Lets the process live on after this one; only for a machine that was started detached.
    pub fn let_go(self) {
        std::mem::forget(self);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // The lifeline first, so that it cannot meet a reused process id.
        if let Some(lifeline) = &mut self.lifeline {
            drop(lifeline.kill());
            drop(lifeline.wait());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lifeline(pid: u32) -> Result<Child> {
    Command::new("sh")
        .args([
            "-c",
            "read -r _; kill -KILL \"$1\"",
            "lifeline",
            &pid.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run sh")
}

/// Kills a detached machine and waits until it is gone.
///
/// # Errors
/// When there is none in `dir`, or it cannot be killed.
pub fn kill_detached(dir: &Path) -> Result<()> {
    let text = fs::read_to_string(dir.join("pid"))
        .with_context(|| format!("no machine in {}", dir.display()))?;
    let pid: i32 = text.trim().parse().context("malformed pid file")?;
    let give_up = Instant::now() + deadline::scaled(deadline::QMP);
    while is_machine_of(pid, dir) {
        // Gone between the look and the signal is what was wanted.
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        ensure!(Instant::now() < give_up, "process {pid} does not die");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether process `pid` is a QEMU whose working directory is `dir`; a reused process id is not.
#[must_use]
pub fn is_machine_of(pid: i32, dir: &Path) -> bool {
    let working = fs::read_link(format!("/proc/{pid}/cwd"));
    working.is_ok_and(|path| dir.canonicalize().is_ok_and(|dir| path == dir))
}

/// QEMU's version line, part of every snapshot's key.
///
/// # Errors
/// When QEMU is not installed.
pub fn version() -> Result<String> {
    let output = Command::new(PROGRAM).arg("--version").output();
    let output = output.context("cannot run qemu-system-x86_64; `cargo xtask deps` installs it")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn arguments(shape: &Shape, machine: &Machine) -> Vec<String> {
    let mut line = shape.machine();
    line.extend(shape.clock());
    let mut add = |words: &[&str]| line.extend(words.iter().map(ToString::to_string));
    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    add(&[
        "-kernel",
        &machine.xen.display().to_string(),
        "-append",
        &shape.xen_line(),
    ]);
    let kernel = quoted(&machine.base.kernel());
    add(&[
        "-initrd",
        &format!("{kernel} {},{}", shape.dom0_line(), quoted(&machine.initrd)),
    ]);
    add(&[
        "-chardev",
        "socket,id=serial,path=serial.sock,server=on,wait=off,logfile=serial.log",
        "-serial",
        "chardev:serial",
    ]);
    add(&["-qmp", "unix:qmp.sock,server=on,wait=off"]);
    for (id, file) in [("root", "root.qcow2"), ("guest", "guest.qcow2")] {
        add(&[
            "-drive",
            &format!("if=none,id={id},file={file},format=qcow2,cache=unsafe"),
        ]);
    }
    let product = quoted(&machine.product);
    add(&[
        "-drive",
        &format!("if=none,id=product,file={product},format=raw,readonly=on,file.locking=off"),
    ]);
    for id in ["root", "product", "guest"] {
        add(&["-device", &format!("virtio-blk-pci,drive={id}")]);
    }
    add(&["-device", "virtio-serial-pci"]);
    for number in 0..PORTS {
        add(&[
            "-chardev",
            &format!("socket,id=lab{number},path=lab{number}.sock,server=on,wait=off"),
        ]);
        add(&[
            "-device",
            &format!("virtserialport,chardev=lab{number},name={PORT_PREFIX}{number}"),
        ]);
    }
    add(&[
        "-netdev",
        "stream,id=net,server=on,addr.type=unix,addr.path=net.sock",
        "-device",
        "virtio-net-pci,netdev=net",
    ]);
    if machine.incoming {
        add(&["-incoming", "defer"]);
    }
    line
}

/// A path inside a comma-separated option.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
