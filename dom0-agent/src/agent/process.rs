//! Driver processes: started with their listening socket as descriptor 0, reached by path, ended by signal.
//!
//! ```text
//!   agent ──spawn──▶ split-driver (fd 0 = /run/parapet/drivers/<uuid>.sock, listening)
//!     └──connect, Hello ──────────▶│        an agent that is restarted connects again
//! ```
//!
//! Each connection has a reader thread that sorts answers from unasked faults; the end of the connection is the news of a death.

use super::drivers::{Driver, DriverNews, DriverSpec, Drivers, NewsSink, OrderError};
use super::furnish::log_file;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parapet_wire::driver::{Answer, Order, OrderBody, Outcome};
use parapet_wire::frame::{self, Kind};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::ids::DomId;

/// Longest an order may take. Opening a disk waits for the predecessor's I/O, so this exceeds [`super::DISK_LOCK_TIMEOUT`].
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest a driver may take to say hello, from its start.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest a killed driver may take to be gone.
const DEATH_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile, where nothing tells.
const DEATH_LOOK: Duration = Duration::from_millis(2);
/// First uid of the range drivers run as; each guest's driver gets its own.
const UID_BASE: u32 = 0x5000_0000;

/// Starts drivers as processes of their own.
#[derive(Debug)]
pub struct Processes {
    program: PathBuf,
    directory: PathBuf,
    log_directory: PathBuf,
}

impl Processes {
    /// Drivers run `program`; their sockets live in `<run>/drivers`.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(program: PathBuf, run: &Path, logs: &Path) -> std::io::Result<Self> {
        let directory = run.join("drivers");
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(logs)?;
        Ok(Self {
            program,
            directory,
            log_directory: logs.to_owned(),
        })
    }

    fn socket(&self, uuid: Uuid) -> PathBuf {
        self.directory.join(format!("{uuid}.sock"))
    }

    fn pid_file(&self, uuid: Uuid) -> PathBuf {
        self.directory.join(format!("{uuid}.pid"))
    }

    fn spawn(&self, spec: &DriverSpec, socket: &Path) -> std::io::Result<Child> {
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_file(&self.log_directory, "driver", &spec.name))?;
        let child = Command::new(&self.program)
            .arg("--domid")
            .arg(spec.domid.to_string())
            .arg("--uid")
            .arg((UID_BASE + u32::from(spec.domid.0)).to_string())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .env_clear()
            // No `current_dir`: in a static program the standard library would fork for it, and the agent would pay for every page it touches next.
            .spawn()?;
        // Should this process die before the next line, the socket still leads to the driver.
        let birth = birth(child.id()).unwrap_or(0);
        let _ = fs::write(self.pid_file(spec.uuid), format!("{} {birth}", child.id()));
        Ok(child)
    }
}

/// When a process was started, in the kernel's ticks; `None` when there is none, or only its zombie. Tells a process from a later one of the same id.
fn birth(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Of proc_pid_stat(5): state is field 3 and starttime field 22; the name before the parenthesis is field 2.
    match fields.first() {
        Some(&"Z" | &"X") | None => None,
        Some(_) => fields.get(19)?.parse().ok(),
    }
}

impl Drivers for Processes {
    fn start(&self, spec: DriverSpec, news: NewsSink) -> Result<Box<dyn Driver>, OrderError> {
        let (uuid, domid, since) = (spec.uuid, spec.domid, Instant::now());
        self.end(uuid)?;
        let ended = since.elapsed();
        let socket = self.socket(uuid);
        let child = self.spawn(&spec, &socket).map_err(|error| {
            OrderError::Lost(format!("cannot start {}: {error}", self.program.display()))
        })?;
        let greeted = Process::connect(spec, &socket, Some(child), news)
            .map_err(|error| OrderError::Lost(format!("{}: {error}", socket.display())))
            .and_then(|mut process| process.hello().map(|()| process));
        match greeted {
            Ok(process) => {
                tracing::debug!(%domid, ?ended, greeted = ?since.elapsed(), "driver started");
                Ok(Box::new(process))
            }
            Err(error) => {
                self.end(uuid)?;
                Err(error)
            }
        }
    }

    fn attach(
        &self,
        spec: DriverSpec,
        news: NewsSink,
    ) -> Result<Option<Box<dyn Driver>>, OrderError> {
        let socket = self.socket(spec.uuid);
        let Ok(mut process) = Process::connect(spec, &socket, None, news) else {
            return Ok(None);
        };
        process.hello()?;
        Ok(Some(Box::new(process)))
    }

    fn end(&self, uuid: Uuid) -> Result<(), OrderError> {
        let path = self.pid_file(uuid);
        let known = fs::read_to_string(&path).ok();
        let numbers = known.as_deref().and_then(|text| text.split_once(' '));
        let Some((pid, born)) = numbers
            .and_then(|(pid, born)| Some((pid.parse::<u32>().ok()?, born.parse::<u64>().ok()?)))
        else {
            return Ok(());
        };
        let there = || birth(pid) == Some(born);
        let deadline = Instant::now() + DEATH_TIMEOUT;
        while there() {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if Instant::now() >= deadline {
                return Err(OrderError::Lost(format!(
                    "driver process {pid} does not go away"
                )));
            }
            std::thread::sleep(DEATH_LOOK);
        }
        let _ = fs::remove_file(path);
        Ok(())
    }
}

/// One driver process.
#[derive(Debug)]
struct Process {
    spec: DriverSpec,
    /// Whom the reader's news are about.
    serves: Arc<Mutex<Uuid>>,
    socket: PathBuf,
    pid: u32,
    child: Option<Child>,
    stream: UnixStream,
    answers: Receiver<(u64, Result<Outcome, parapet_wire::driver::DriverFault>)>,
    next_id: u64,
    /// Set before the end is wanted, so that it makes no news.
    ending: Arc<AtomicBool>,
}

impl Process {
    fn connect(
        spec: DriverSpec,
        socket: &Path,
        child: Option<Child>,
        news: NewsSink,
    ) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let (sender, answers) = channel();
        let ending = Arc::new(AtomicBool::new(false));
        let pid = child.as_ref().map_or(0, Child::id);
        let serves = Arc::new(Mutex::new(spec.uuid));
        let reader = Reader {
            domid: spec.domid,
            serves: Arc::clone(&serves),
            stream: stream.try_clone()?,
            answers: sender,
            ending: Arc::clone(&ending),
            news,
        };
        std::thread::Builder::new()
            .name(format!("driver-{}", spec.domid))
            .spawn(move || reader.run())?;
        Ok(Self {
            spec,
            serves,
            socket: socket.to_owned(),
            pid,
            child,
            stream,
            answers,
            next_id: 1,
            ending,
        })
    }

    fn hello(&mut self) -> Result<(), OrderError> {
        match self.order_within(OrderBody::Hello, Vec::new(), HELLO_TIMEOUT)? {
            Outcome::Hello { domid, pid, .. } if domid == self.spec.domid => {
                self.pid = pid;
                Ok(())
            }
            other => Err(OrderError::Lost(format!("answered hello with {other:?}"))),
        }
    }

    fn order_within(
        &mut self,
        body: OrderBody,
        fds: Vec<OwnedFd>,
        timeout: Duration,
    ) -> Result<Outcome, OrderError> {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = frame::encode(Kind::DriverOrder, &Order { id, body })
            .map_err(|error| OrderError::Lost(error.to_string()))?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        xen_host::fdpass::send(&self.stream, &bytes, &borrowed)
            .map_err(|error| OrderError::Lost(format!("driver process {}: {error}", self.pid)))?;
        drop(fds);
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok((answered, result)) if answered == id => return Ok(result?),
                Ok(_late) => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Its end is news then, and it is replaced.
                    let _ = self.stream.shutdown(std::net::Shutdown::Both);
                    return Err(OrderError::Lost(format!(
                        "driver process {} did not answer within {} s",
                        self.pid,
                        timeout.as_secs()
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(OrderError::Lost(format!(
                        "driver process {} ended",
                        self.pid
                    )));
                }
            }
        }
    }
}

impl Driver for Process {
    fn order(&mut self, body: OrderBody, fds: Vec<OwnedFd>) -> Result<Outcome, OrderError> {
        let (name, since) = (body.name(), Instant::now());
        let result = self.order_within(body, fds, ORDER_TIMEOUT);
        tracing::debug!(domid = %self.spec.domid, order = name, took = ?since.elapsed(), "order");
        result
    }

    fn serve_as(&mut self, spec: DriverSpec) -> Result<(), OrderError> {
        let of = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| OrderError::Lost(format!("{path}: {error}"))
        };
        let socket = self.socket.with_file_name(format!("{}.sock", spec.uuid));
        let (old, new) = (
            self.socket.with_extension("pid"),
            socket.with_extension("pid"),
        );
        // First the file by which whoever comes next can end the process.
        match fs::rename(&old, new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(of(&old)(error));
            }
            _ => {}
        }
        fs::rename(&self.socket, &socket).map_err(of(&self.socket))?;
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = spec.uuid;
        self.socket = socket;
        self.spec = spec;
        Ok(())
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn kill(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        } else if let Ok(pid) = i32::try_from(self.pid)
            && pid > 1
        {
            // The connection proves that the process behind this pid is still the driver: its end is what we wait for below.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let deadline = Instant::now() + DEATH_TIMEOUT;
        while let Err(RecvTimeoutError::Timeout) | Ok(_) = self
            .answers
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if Instant::now() >= deadline {
                tracing::error!(pid = self.pid, domid = %self.spec.domid, "a killed driver does not go away");
                break;
            }
        }
    }
}

impl Drop for Process {
    /// Lets go of the connection; the driver itself goes on serving its guest.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(mut child) = self.child.take() {
            // Reaps the process whenever it ends, so that it never stays a zombie of ours.
            let _ = std::thread::Builder::new()
                .name("reap".into())
                .spawn(move || child.wait());
        }
    }
}

/// Sorts what a driver says.
struct Reader {
    domid: DomId,
    serves: Arc<Mutex<Uuid>>,
    stream: UnixStream,
    answers: Sender<(u64, Result<Outcome, parapet_wire::driver::DriverFault>)>,
    ending: Arc<AtomicBool>,
    news: NewsSink,
}

impl Reader {
    fn run(mut self) {
        let mut pid = 0;
        while let Some(answer) = self.next() {
            match answer {
                Answer::Done { id, result } => {
                    if let Ok(Outcome::Hello { pid: theirs, .. }) = &result {
                        pid = *theirs;
                    }
                    if self.answers.send((id, result)).is_err() {
                        return;
                    }
                }
                Answer::Fault(fault) => (self.news)(DriverNews::Fault {
                    uuid: self.uuid(),
                    fault,
                }),
            }
        }
        if !self.ending.load(Ordering::SeqCst) {
            (self.news)(DriverNews::Died {
                uuid: self.uuid(),
                pid,
            });
        }
    }

    fn uuid(&self) -> Uuid {
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&mut self) -> Option<Answer> {
        let message = xen_host::fdpass::receive(&self.stream).ok().flatten()?;
        match frame::receive::<Answer>(&mut message.bytes.as_slice(), Kind::DriverAnswer) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::error!(domid = %self.domid, %error, "driver speaks nonsense; connection dropped");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    /// Drivers that are this shell script.
    fn scripted(directory: &Path, script: &str) -> Processes {
        let program = directory.join("driver");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Processes::new(program, directory, directory).unwrap()
    }

    fn spec() -> DriverSpec {
        DriverSpec {
            uuid: Uuid::from_u128(7),
            domid: DomId(3),
            name: "web/1".into(),
        }
    }

    #[test]
    fn a_driver_that_nobody_is_connected_to_can_be_ended() {
        let directory = tempfile::tempdir().unwrap();
        let drivers = scripted(directory.path(), "exec sleep 1000");
        let uuid = spec().uuid;
        drivers.end(uuid).unwrap();
        let mut child = drivers.spawn(&spec(), &drivers.socket(uuid)).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        assert!(directory.path().join("driver-web_1.log").exists());
        drivers.end(uuid).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        assert!(!drivers.pid_file(uuid).exists());
        drivers.end(uuid).unwrap();
    }

    #[test]
    fn a_driver_that_serves_another_guest_is_found_ended_and_reported_under_its_uuid() {
        let directory = tempfile::tempdir().unwrap();
        let drivers = scripted(directory.path(), "exec sleep 1000");
        let (old, new) = (spec().uuid, Uuid::from_u128(8));
        let child = drivers.spawn(&spec(), &drivers.socket(old)).unwrap();
        let (sender, news) = channel();
        let sink: NewsSink = Arc::new(move |item| drop(sender.send(item)));
        let socket = drivers.socket(old);
        let mut process = Process::connect(spec(), &socket, Some(child), sink).unwrap();
        let guest = DriverSpec {
            uuid: new,
            ..spec()
        };
        process.serve_as(guest).unwrap();
        assert!(!drivers.socket(old).exists() && !drivers.pid_file(old).exists());
        assert!(drivers.socket(new).exists());
        drivers.end(old).unwrap();
        drivers.end(new).unwrap();
        let died = news.recv_timeout(DEATH_TIMEOUT).unwrap();
        assert_eq!(died, DriverNews::Died { uuid: new, pid: 0 });
    }

    #[test]
    fn a_process_that_only_has_the_same_id_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let drivers = scripted(directory.path(), "exit 0");
        let uuid = spec().uuid;
        let me = std::process::id();
        let born = birth(me).unwrap();
        for text in [
            format!("{me} {}", born + 1),
            "nonsense".to_owned(),
            format!("{me}"),
        ] {
            fs::write(drivers.pid_file(uuid), text).unwrap();
            drivers.end(uuid).unwrap();
        }
    }

    #[test]
    fn a_driver_that_ends_before_it_greets_is_an_error_and_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let drivers = scripted(directory.path(), "exit 0");
        let news: NewsSink = Arc::new(|_| {});
        assert!(matches!(
            drivers.start(spec(), news),
            Err(OrderError::Lost(_))
        ));
        assert!(!drivers.pid_file(spec().uuid).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("no-such-driver");
        let drivers = Processes::new(program, directory.path(), directory.path()).unwrap();
        let news: NewsSink = Arc::new(|_| {});
        let error = drivers.start(spec(), news).unwrap_err().to_string();
        assert!(error.contains("no-such-driver"), "{error}");
    }
}
