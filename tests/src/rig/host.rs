//! A running lab host: commands and files in its dom0.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::port::{Conversation, Output};
use super::qemu::Qemu;
use super::qmp::Qmp;
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::{deadline, dirs, guest::Guest, lock, postmortem, snapshot};

/// Machines that may run at the same time for tests, one per core of the reference machine.
const SLOTS: usize = 2;
/// How often a condition in dom0 is looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// Longest time between two looks.
const LOOK_MOST: Duration = Duration::from_secs(3);
/// Lines of the serial log shown when something failed.
const TAIL_LINES: usize = 40;

static FORKS: AtomicU32 = AtomicU32::new(0);

/// A host that ends when it is dropped.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
    qmp: Mutex<Qmp>,
    qemu: Option<Qemu>,
    slot: Option<lock::Held>,
    /// Folders of the machines that this one went on from; its disks lie on theirs.
    behind: Vec<PathBuf>,
}

/// Tries to fork a host before a test fails for it.
const FORK_TRIES: u32 = 3;

impl Host {
    /// A fork of the host of this shape, running, with a name of its own.
    ///
    /// # Errors
    /// When no machine is free in time or the host cannot be built, booted or forked.
    pub fn fork(shape: &Shape) -> Result<Self> {
        let snapshot = snapshot::of(shape)?;
        let slots: Vec<PathBuf> = (0..SLOTS)
            .map(|n| dirs::part("slots").join(n.to_string()))
            .collect();
        let slots: Vec<&Path> = slots.iter().map(PathBuf::as_path).collect();
        let slot = lock::lock_any(&slots, "a machine to be free")?;
        Self::fork_of(&snapshot, shape, Some(slot))
    }

    /// A second host in the place of the first, for tests that need two and must not wait for each other's.
    ///
    /// # Errors
    /// As [`fork`](Self::fork).
    pub fn fork_beside(&self, shape: &Shape) -> Result<Self> {
        Self::fork_of(&snapshot::of(shape)?, shape, None)
    }

    fn fork_of(snapshot: &Snapshot, shape: &Shape, slot: Option<lock::Held>) -> Result<Self> {
        sweep();
        let name = format!(
            "test-{}-{}",
            std::process::id(),
            FORKS.fetch_add(1, Ordering::Relaxed)
        );
        let dir = new_run_dir(&name)?;
        let mut tries = 1;
        let (qemu, qmp) = loop {
            match snapshot::fork(shape, snapshot, &dir, false) {
                Ok(running) => break running,
                // Seen when both cores are busy: QEMU ends while it takes in the saved state. Said, not hidden.
                Err(error) if tries < FORK_TRIES => eprintln!(
                    "lab: fork {tries} of {FORK_TRIES} failed: {error:#}; QEMU said: {}",
                    fs::read_to_string(dir.join("qemu.log")).unwrap_or_default()
                ),
                Err(error) => return Err(error),
            }
            tries += 1;
            fs::remove_dir_all(&dir)?;
            fs::create_dir(&dir)?;
        };
        Ok(Self {
            dir,
            qmp: Mutex::new(qmp),
            qemu: Some(qemu),
            slot,
            behind: Vec::new(),
        })
    }

    /// Saves this host with everything that runs in it, ends it, and goes on from what was saved.
    ///
    /// # Errors
    /// When it cannot be saved or does not start again.
    pub fn reborn(mut self, shape: &Shape) -> Result<Self> {
        let machine = snapshot::of(shape)?.machine;
        let saved = Snapshot {
            dir: self.dir.clone(),
            machine,
        };
        snapshot::save(
            self.qmp.get_mut().unwrap_or_else(PoisonError::into_inner),
            &saved.state(),
        )?;
        if let Some(qemu) = self.qemu.take() {
            qemu.quit(self.qmp.get_mut().unwrap_or_else(PoisonError::into_inner))?;
        }
        let mut next = Self::fork_of(&saved, shape, self.slot.take())?;
        next.behind = std::mem::take(&mut self.behind);
        next.behind.push(self.dir.clone());
        Ok(next)
    }

    /// A fork that outlives this process, for people: see [`open`](Self::open) and [`take_down`].
    ///
    /// # Errors
    /// As [`fork`](Self::fork), and when the name is taken.
    pub fn start_named(name: &str, shape: &Shape) -> Result<()> {
        let snapshot = snapshot::of(shape)?;
        let dir = new_run_dir(name)?;
        let started = snapshot::fork(shape, &snapshot, &dir, true);
        if started.is_err() {
            drop(fs::rename(&dir, failed_dir(name)));
        }
        let (qemu, _) = started?;
        qemu.let_go();
        Ok(())
    }

    /// A host started by [`start_named`](Self::start_named), to work with; dropping this leaves it running.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let dir = run_dir(name);
        ensure!(
            dir.exists(),
            "no host named {name}; `cargo xtask lab up {name}` makes one"
        );
        let qmp = Qmp::connect(&dir).with_context(|| format!("host {name} is not running"))?;
        Ok(Self {
            dir,
            qmp: Mutex::new(qmp),
            qemu: None,
            slot: None,
            behind: Vec::new(),
        })
    }

    /// Folder with its logs and sockets.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a program in dom0, without a shell.
    ///
    /// # Errors
    /// When the host fails; a failing command is an [`Output`].
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_with(argv, &[], deadline::COMMAND)
    }

    /// As [`run`](Self::run), with standard input and its own limit of silence.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&self, argv: &[&str], input: &[u8], silence: Duration) -> Result<Output> {
        let silence = deadline::scaled(silence);
        let conversation = Conversation::open(&self.dir, deadline::scaled(deadline::FORK))?;
        conversation
            .exec(argv, input, silence)
            .with_context(|| format!("`{}` in dom0", argv.join(" ")))
    }

    /// Runs a program that must succeed; its standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when it exits with anything but 0: its own words are in the error.
    pub fn ok(&self, argv: &[&str]) -> Result<String> {
        let output = self.run(argv)?;
        if output.code != 0 {
            bail!(
                "`{}` in dom0 exited with {}: {}{}",
                argv.join(" "),
                output.code,
                output.text(),
                output.errors()
            );
        }
        Ok(output.text())
    }

    /// Runs a shell script that must succeed; its standard output.
    ///
    /// # Errors
    /// As [`ok`](Self::ok).
    pub fn sh(&self, script: &str) -> Result<String> {
        self.ok(&["sh", "-c", script])
    }

    /// Waits until a shell condition holds in dom0.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_until(&self, condition: &str, limit: Duration) -> Result<()> {
        let give_up = Instant::now() + deadline::scaled(limit);
        loop {
            let began = Instant::now();
            if self.run(&["sh", "-c", condition])?.code == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < give_up,
                "still not so after {limit:?}: {condition}"
            );
            // Looking must not keep the host's one CPU from what is waited for.
            std::thread::sleep((began.elapsed() * 2).clamp(LOOK, LOOK_MOST));
        }
    }

    /// Writes a file in dom0.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let conversation = Conversation::open(&self.dir, deadline::scaled(deadline::FORK))?;
        conversation.put(
            &mut &*content,
            path,
            mode,
            deadline::scaled(deadline::COMMAND),
        )
    }

    /// Copies a file of this machine into dom0, executable if it is so here.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn put(&self, local: &Path, path: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut file =
            File::open(local).with_context(|| format!("cannot read {}", local.display()))?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        let conversation = Conversation::open(&self.dir, deadline::scaled(deadline::FORK))?;
        conversation.put(&mut file, path, mode, deadline::scaled(deadline::COMMAND))
    }

    /// Reads a file in dom0.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        Conversation::open(&self.dir, deadline::scaled(deadline::FORK))?
            .get(path, deadline::scaled(deadline::COMMAND))
    }

    /// Makes the product appear at `/lab/dist`, as `target/dist` was when this host was forked.
    ///
    /// # Errors
    /// When the disk cannot be mounted.
    pub fn mount_product(&self) -> Result<()> {
        self.sh("mountpoint -q /lab/dist || { blockdev --flushbufs /dev/vdb && mkdir -p /lab/dist && mount -o ro /dev/vdb /lab/dist; }")?;
        Ok(())
    }

    /// A guest of this host, whoever made it.
    #[must_use]
    pub fn guest(&self, name: &str) -> Guest<'_> {
        Guest::new(self, name)
    }

    /// Runs one command on QEMU's own monitor (`set_link`, `system_reset` …).
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn monitor(&self, line: &str) -> Result<String> {
        self.qmp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .monitor(line)
    }

    /// Everything Xen and dom0's kernel have said.
    #[must_use]
    pub fn serial(&self) -> String {
        fs::read(self.dir.join("serial.log")).map_or_else(
            |_| String::new(),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }

    /// Ends the host and keeps its logs and what it was doing under `target/lab/failed`, with the last lines of the serial log on standard error.
    pub fn keep_as_failed(mut self) {
        let serial = self.serial();
        let lines: Vec<&str> = serial.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            eprintln!("serial| {line}");
        }
        postmortem::examine(
            &self.dir,
            self.qmp.get_mut().unwrap_or_else(PoisonError::into_inner),
        );
        self.qemu = None;
        let name = self
            .dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let kept = failed_dir(&name);
        drop(fs::remove_dir_all(&kept));
        match fs::rename(&self.dir, &kept) {
            Ok(()) => eprintln!("lab: what was left of the host: {}", kept.display()),
            Err(error) => eprintln!(
                "lab: could not keep the logs in {}: {error}",
                kept.display()
            ),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.qemu.take().is_some() {
            for dir in self.behind.iter().chain([&self.dir]) {
                // Left behind is only untidy.
                drop(fs::remove_dir_all(dir));
            }
        }
    }
}

/// Where a host of that name runs.
#[must_use]
pub fn run_dir(name: &str) -> PathBuf {
    dirs::part("run").join(name)
}

/// Kills a host made by [`Host::start_named`] and removes what it left.
///
/// # Errors
/// When there is none, or it cannot be killed.
pub fn take_down(name: &str) -> Result<()> {
    let dir = run_dir(name);
    super::qemu::kill_detached(&dir)?;
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Removes what tests left that were killed before they could do it themselves; their machines died with them.
fn sweep() {
    for entry in fs::read_dir(dirs::part("run"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("test-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Left behind is only untidy.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn failed_dir(name: &str) -> PathBuf {
    let dir = dirs::part("failed");
    // The rename that follows reports what is wrong, if anything.
    drop(fs::create_dir_all(&dir));
    dir.join(name)
}

fn new_run_dir(name: &str) -> Result<PathBuf> {
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    ensure!(plain, "a host's name is letters, digits, - and _: {name:?}");
    fs::create_dir_all(dirs::part("run"))?;
    let dir = run_dir(name);
    match fs::create_dir(&dir) {
        Ok(()) => Ok(dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("there is a host named {name} already; `cargo xtask lab down {name}` ends it")
        }
        Err(error) => Err(error).with_context(|| format!("cannot make {}", dir.display())),
    }
}
