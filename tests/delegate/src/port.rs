//! The virtio-serial ports: one thread each, asleep until the rig connects.
//!
//! A read from a port that nobody holds at the other end returns 0 at once, and `poll` reports a hang-up for ever. An
//! edge-triggered epoll wakes only when the far end opens, closes or sends, so waiting for a client costs no periodic
//! wake-up that would disturb what is being measured. Never runs a command itself; see [`super::job`].

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lab_delegate::{Opening, PORT_PREFIX, PORTS, find_greeting, greeting, read_opening};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::job;

/// How often, and how many times, a port is looked for while the kernel starts.
const PORT_WAIT_STEPS: u32 = 100;
const PORT_WAIT_STEP: Duration = Duration::from_millis(50);

/// Serves every port until the machine stops.
pub fn serve() -> io::Result<Infallible> {
    let mut threads = Vec::new();
    for number in 0..PORTS {
        let path = find_port(number)?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let port = Port::new(Arc::new(file))?;
        threads.push(std::thread::spawn(move || serve_port(port)));
    }
    for thread in threads {
        // A port thread ends only by a bug in it; the others go on.
        drop(thread.join());
    }
    Err(io::Error::other("every port's thread has ended"))
}

/// Finds the device of port `number` by the name QEMU gave it; there is no udev to make the usual link.
fn find_port(number: usize) -> io::Result<PathBuf> {
    let name = format!("{PORT_PREFIX}{number}");
    for _ in 0..PORT_WAIT_STEPS {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")?.flatten() {
            let given = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if given.trim() == name {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        std::thread::sleep(PORT_WAIT_STEP);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no virtio port named {name}"),
    ))
}

fn serve_port(mut port: Port) {
    loop {
        port.patient = true;
        let Ok(mut nonce) = find_greeting(&mut port) else {
            std::thread::sleep(PORT_WAIT_STEP);
            continue;
        };
        // From here a hang-up ends the conversation.
        port.patient = false;
        let file = Arc::clone(&port.file);
        // A rig that waited for this machine to boot has greeted many times; all of that stands in the queue.
        while (&*file).write_all(&greeting(nonce)).is_ok() {
            match read_opening(&mut port) {
                Ok(Opening::Greeting(again)) => nonce = again,
                Ok(Opening::Frame(frame)) => {
                    job::converse(&mut port, &file, &frame);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// A reader that either sleeps through hang-ups (between conversations) or reports them as the end.
struct Port {
    file: Arc<File>,
    edges: Epoll,
    patient: bool,
}

impl Port {
    fn new(file: Arc<File>) -> io::Result<Self> {
        let edges = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        edges.add(
            &*file,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
        )?;
        Ok(Self {
            file,
            edges,
            patient: true,
        })
    }

    fn sleep_until_something_changes(&self) -> io::Result<()> {
        match self
            .edges
            .wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)
        {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Port {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.file).read(into) {
                Ok(0) if self.patient => self.sleep_until_something_changes()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
