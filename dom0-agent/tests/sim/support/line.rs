//! A line between two hosts that may be cut after so many bytes, and a guest that is moved over it.

use super::Host;
use dom0_agent::agent::Agent;
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::landing::LandingOptions;
use dom0_agent::agent::migrate::{Connection, Escort, MoveOptions, Moved};
use dom0_agent::agent::receive::ArrivalOptions;
use dom0_agent::config::domain::DomainConfig;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::Crashed;

/// After how many bytes a line is gone, both ways at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub forth: u64,
    pub back: u64,
    /// It is not gone: nothing comes any more, for so long as the receiver bears it.
    pub silent: Option<Duration>,
}

impl Cut {
    pub const NEVER: Self = Self {
        forth: u64::MAX,
        back: u64::MAX,
        silent: None,
    };
}

/// How a move went at both ends; `None`: the agent died of it.
#[derive(Debug)]
pub struct Went {
    pub left: Option<Result<Moved, AgentError>>,
    pub arrived: Option<Result<DomId, AgentError>>,
    /// Bytes that came through, each way.
    pub bytes: (u64, u64),
    /// What the receiver told.
    pub told: Vec<String>,
}

/// Hears what is told, and may do something about it.
pub struct Ear<'a> {
    pub lines: Mutex<Vec<String>>,
    pub hook: &'a (dyn Fn(&str) + Sync),
    pub wanted: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Ear<'a> {
    pub fn with(hook: &'a (dyn Fn(&str) + Sync)) -> Self {
        Self {
            lines: Mutex::default(),
            hook,
            wanted: &|| true,
        }
    }
}

impl Escort for Ear<'_> {
    fn waits(&self) -> bool {
        (self.wanted)()
    }

    fn tell(&self, line: String) {
        (self.hook)(&line);
        self.lines.lock().unwrap().push(line);
    }
}

/// One way of the line.
struct Way {
    from: UnixStream,
    to: UnixStream,
    left: u64,
    silent: bool,
}

impl Way {
    /// Carries bytes until it is cut or one end is gone; answers how many.
    fn carry(mut self, others: &[UnixStream]) -> u64 {
        let mut buffer = vec![0; 1 << 16];
        let mut carried = 0;
        loop {
            if self.left == 0 {
                if self.silent {
                    // Until the other end hangs up.
                    let _ = self.to.read(&mut buffer);
                }
                for end in others {
                    let _ = end.shutdown(Shutdown::Both);
                }
                return carried;
            }
            let most = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let got = self.from.read(&mut buffer[..most]).unwrap_or(0);
            if got == 0 || self.to.write_all(&buffer[..got]).is_err() {
                // Whoever waits for room at the other end learns of it as well.
                let _ = self.to.shutdown(Shutdown::Write);
                let _ = self.from.shutdown(Shutdown::Both);
                return carried;
            }
            carried += got as u64;
            self.left -= got as u64;
        }
    }
}

fn file(stream: UnixStream) -> File {
    File::from(OwnedFd::from(stream))
}

/// What came of it; `None` when the agent died.
fn unless_it_dies<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Crashed>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Moves a guest from one agent to another, or to itself.
pub fn travel(
    from: &Arc<Agent>,
    to: &Arc<Agent>,
    domid: DomId,
    config: DomainConfig,
    options: &MoveOptions,
    cut: Cut,
    ear: &Ear<'_>,
) -> Went {
    // Whoever moves with disks takes with disks.
    let arrival = ArrivalOptions {
        disks: options.disks.map(|_| LandingOptions::default()),
        ..ArrivalOptions::default()
    };
    travel_to(from, to, (domid, config), options, arrival, cut, ear)
}

/// As [`travel`], with something to say about the arrival.
pub fn travel_to(
    from: &Arc<Agent>,
    to: &Arc<Agent>,
    (domid, config): (DomId, DomainConfig),
    options: &MoveOptions,
    mut arrival: ArrivalOptions,
    cut: Cut,
    ear: &Ear<'_>,
) -> Went {
    arrival.stall = cut.silent.unwrap_or(arrival.stall);
    let pair = || UnixStream::pair().unwrap();
    let ((sender_to, forth_in), (forth_out, receiver_in)) = (pair(), pair());
    let ((receiver_out, back_in), (back_out, sender_from)) = (pair(), pair());
    let all = [&forth_in, &forth_out, &back_in, &back_out].map(|end| end.try_clone().unwrap());
    let forth = Way {
        from: forth_in,
        to: forth_out,
        left: cut.forth,
        silent: cut.silent.is_some(),
    };
    let back = Way {
        from: back_in,
        to: back_out,
        left: cut.back,
        silent: false,
    };
    let all = &all;
    thread::scope(|scope| {
        let forth = scope.spawn(move || forth.carry(all));
        let back = scope.spawn(move || back.carry(all));
        let receiver = scope.spawn(move || {
            let quiet = Ear::with(&|_| {});
            let (input, output) = (file(receiver_in), file(receiver_out));
            let arrived =
                unless_it_dies(|| to.receive_guest(config, &arrival, input, output, &quiet));
            (arrived, quiet.lines.into_inner().unwrap())
        });
        let connection = Connection {
            to: file(sender_to),
            from: file(sender_from),
        };
        let left = unless_it_dies(|| from.move_guest(domid, options, connection, ear));
        let (arrived, told) = receiver.join().unwrap();
        for end in all {
            let _ = end.shutdown(Shutdown::Both);
        }
        Went {
            left,
            arrived,
            bytes: (forth.join().unwrap(), back.join().unwrap()),
            told,
        }
    })
}

/// Two hosts.
pub struct Pair {
    pub here: Host,
    pub there: Host,
}
