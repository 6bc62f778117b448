//! Unpacking in a process of its own: the daemon never decodes a byte of a kernel.
//!
//! ```text
//!   daemon                                   worker = /proc/self/exe unpack-kernel
//!   opens kernel ──────── stdin ───────────▶ sandbox::enter, read all
//!   makes a memfd ──────── stdout ─────────▶ unpack into it, parse
//!   reads one line ◀───── stderr ─────────── {"kernel": metadata} | {"fault": ...} | {"trouble": ...}
//!   checks the metadata again
//! ```
//!
//! The worker has the two descriptors and nothing else: no file system, no network, no privilege, bounded memory and
//! time. Whatever becomes of it is one error that names the kernel.

use super::compact;
use super::elf::KernelMeta;
use super::error::{Fault, Format, ImageError, Role};
use super::limits::{MAX_KERNEL_FILE, MAX_UNPACKED, WORKER_ANSWER, WORKER_DEADLINE};
use super::sandbox;
use super::source::Source;
use super::unpack;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use xen_host::scratch::Scratch;

/// First argument that makes the daemon's program a worker.
pub const WORKER_ARGUMENT: &str = "unpack-kernel";

/// The worker's one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Kernel(Box<KernelMeta>),
    Fault(Fault),
    Trouble(String),
}

/// The worker's `main`: stdin is the kernel, stdout the image memfd, stderr the answer.
///
/// The answer carries success and failure alike; the exit code is 0 once it is written.
#[must_use]
pub fn worker_main() -> ExitCode {
    // Duplicated first: the sandbox allows no new descriptor.
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let image = io::stdout().as_fd().try_clone_to_owned();
    let answer = match sandbox::enter() {
        Ok(()) => input
            .and_then(|input| work(input, image?))
            .unwrap_or_else(|error| Answer::Trouble(error.to_string())),
        Err(error) => Answer::Trouble(format!("could not give up its privileges: {error}")),
    };
    let line = serde_json::to_string(&answer).unwrap_or_default();
    match io::stderr().write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work(input: File, image: OwnedFd) -> io::Result<Answer> {
    let file = read_all(input)?;
    Ok(match unpack_to(&file, image)? {
        Ok(meta) => Answer::Kernel(Box::new(meta)),
        Err(fault) => Answer::Fault(fault),
    })
}

/// Memory that only the end of this process gives back. In a PV control domain each page that is unmapped before is a trap through the
/// hypervisor; what an ending process still has mapped is not, because its page tables are no longer Xen's business.
fn left_mapped(scratch: Scratch) -> &'static mut [u8] {
    let left: &'static mut Scratch = Box::leak(Box::new(scratch));
    left
}

/// The whole input: a regular file goes into memory that is already there, see [`Scratch`].
fn read_all(mut input: File) -> io::Result<Box<dyn Deref<Target = [u8]>>> {
    let size = input.metadata()?.len().min(MAX_KERNEL_FILE + 1);
    match usize::try_from(size) {
        Ok(size) if size > 0 => {
            let file = left_mapped(Scratch::private(size).map_err(io::Error::other)?);
            input.read_exact(file)?;
            Ok(Box::new(file))
        }
        _ => {
            let mut file = Vec::new();
            input.take(MAX_KERNEL_FILE + 1).read_to_end(&mut file)?;
            Ok(Box::new(file))
        }
    }
}

/// Unpacks into the image file; what is wrong with the kernel is the inner error.
fn unpack_to(file: &[u8], image: OwnedFd) -> io::Result<Result<KernelMeta, Fault>> {
    if file.len() as u64 > MAX_KERNEL_FILE {
        let size = file.len() as u64;
        return Ok(Err(Fault::TooBig {
            size,
            limit: MAX_KERNEL_FILE,
        }));
    }
    let size = match unpack::zstd_size(file, MAX_UNPACKED) {
        Ok(size) => size.and_then(|size| usize::try_from(size).ok()),
        Err(fault) => return Ok(Err(fault)),
    };
    if let Some(size) = size {
        let elf = left_mapped(Scratch::output(image, size).map_err(io::Error::other)?);
        let unpacked = unpack::unpack_zstd(file, MAX_UNPACKED, elf);
        return Ok(unpacked.and_then(|()| compact::loadable(elf, Format::Zstd)));
    }
    let unpacked = match unpack::unpack(file, MAX_UNPACKED) {
        Ok(unpacked) => unpacked,
        Err(fault) => return Ok(Err(fault)),
    };
    File::from(image).write_all(&unpacked.elf)?;
    Ok(compact::loadable(&unpacked.elf, unpacked.format))
}

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct Worker {
    program: PathBuf,
    arguments: Vec<OsString>,
    deadline: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        Self::of(Path::new("/proc/self/exe"))
    }
}

impl Worker {
    /// A worker that is another program than this one: a build of the daemon, in tests.
    #[must_use]
    pub fn of(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: vec![WORKER_ARGUMENT.into()],
            deadline: WORKER_DEADLINE,
        }
    }

    /// Unpacks `source` into `image`, an empty memfd that can be sealed.
    ///
    /// # Errors
    /// What is wrong with the kernel, or what became of the worker.
    pub fn unpack(
        &self,
        path: &Path,
        source: &Source,
        image: &File,
    ) -> Result<KernelMeta, ImageError> {
        let failed = |what: String| ImageError::Worker {
            path: path.to_owned(),
            what,
        };
        let run = || -> io::Result<(Vec<u8>, ExitStatus)> {
            let mut child = Guard(
                Command::new(&self.program)
                    .args(&self.arguments)
                    .env_clear()
                    .stdin(Stdio::from(source.file().try_clone()?))
                    .stdout(Stdio::from(image.try_clone()?))
                    .stderr(Stdio::piped())
                    .spawn()?,
            );
            let answer = match child.0.stderr.take() {
                Some(pipe) => read_answer(pipe, self.deadline)?,
                None => Vec::new(),
            };
            Ok((answer, child.0.wait()?))
        };
        let (answer, status) =
            run().map_err(|error| failed(format!("could not be run: {error}")))?;
        let meta = match serde_json::from_slice(&answer) {
            Ok(Answer::Kernel(meta)) if status.success() => *meta,
            Ok(Answer::Fault(fault)) => {
                return Err(ImageError::Bad {
                    role: Role::Kernel,
                    path: path.to_owned(),
                    fault,
                });
            }
            Ok(Answer::Trouble(what)) => return Err(failed(format!("reports: {what}"))),
            Ok(Answer::Kernel(_)) | Err(_) => return Err(failed(last_words(status, &answer))),
        };
        meta.check().map_err(|fault| ImageError::Bad {
            role: Role::Kernel,
            path: path.to_owned(),
            fault,
        })?;
        let size = image
            .metadata()
            .map_err(|error| failed(error.to_string()))?
            .len();
        if size != meta.unpacked_size {
            return Err(failed(format!(
                "wrote {size} bytes instead of {}",
                meta.unpacked_size
            )));
        }
        Ok(meta)
    }
}

/// A child that is killed and reaped whatever happens.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it is already reaped, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until the pipe closes, at most [`WORKER_ANSWER`] bytes and not beyond the deadline.
fn read_answer(mut pipe: ChildStderr, deadline: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + deadline;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => {
                return Err(io::Error::other(format!(
                    "it did not finish within {} s",
                    deadline.as_secs()
                )));
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let length = pipe.read(&mut chunk)?;
        if length == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(&chunk[..length]);
        if answer.len() as u64 > WORKER_ANSWER {
            return Err(io::Error::other(
                "it answered with more than it ever should",
            ));
        }
    }
}

fn last_words(status: ExitStatus, answer: &[u8]) -> String {
    match status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGSYS)) => "tried a forbidden system call and was killed".to_owned(),
        Some(Ok(Signal::SIGXCPU)) => "used up its CPU time and was killed".to_owned(),
        Some(Ok(signal)) => format!("was killed by {signal}"),
        Some(Err(_)) | None => {
            let said = String::from_utf8_lossy(answer);
            let said = said.lines().next().unwrap_or("nothing").trim();
            format!("ended with {status} saying: {said:.200}")
        }
    }
}
