//! An operator's desk: the `xl` command on a simulated host, and the agent's socket.

use super::Host;
use dom0_agent::build::Hypervisor;
use dom0_agent::cli::agent::AgentClient;
use dom0_agent::cli::dispatch_as;
use dom0_agent::cli::extras::Program;
use dom0_agent::cli::reach::{Failure, Reach, Wire};
use dom0_agent::daemon::{Shared, server};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use xen_abi::ids::DomId;
use xen_host::seam::{DomainControl, HostControl, Store};
use xen_sim::SimHost;

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: u8,
    pub out: String,
    pub err: String,
}

/// A command's way to a simulated host.
#[derive(Debug)]
pub struct SimReach {
    pub xen: Result<SimHost, Failure>,
    pub socket: PathBuf,
    pub userdata: PathBuf,
    /// Standard input and output of the one command that wants them.
    pub wire: Mutex<Option<Wire>>,
    /// The one host that is linked, and the command that leads there.
    pub link: Option<(String, String)>,
}

impl SimReach {
    fn xen(&self) -> Result<&SimHost, Failure> {
        self.xen.as_ref().map_err(Clone::clone)
    }
}

impl Reach for SimReach {
    fn host(&self) -> Result<&dyn HostControl, Failure> {
        Ok(self.xen()?)
    }

    fn domains(&self) -> Result<&dyn DomainControl, Failure> {
        Ok(self.xen()?)
    }

    fn hypervisor(&self) -> Result<&dyn Hypervisor, Failure> {
        Ok(self.xen()?)
    }

    fn store(&self) -> Result<&dyn Store, Failure> {
        Ok(self.xen()?)
    }

    fn watching_store(&self) -> Result<Arc<dyn Store>, Failure> {
        Ok(Arc::new(self.xen()?.clone()))
    }

    fn agent(&self) -> Result<AgentClient, Failure> {
        AgentClient::connect_to(&self.socket)
    }

    fn userdata(&self) -> PathBuf {
        self.userdata.clone()
    }

    fn wire(&self) -> Result<Wire, Failure> {
        let none = || Failure::new("this test has no line");
        let wire = self.wire.lock().unwrap().take();
        wire.ok_or_else(none)
    }

    fn link(&self, host: &str) -> Option<String> {
        let (name, command) = self.link.as_ref()?;
        (name == host).then(|| command.clone())
    }
}

pub fn say(reach: &SimReach, arguments: &[&str]) -> Said {
    say_as(Program::Xl, reach, arguments)
}

/// As [`say`], by the name of a program.
pub fn say_as(program: Program, reach: &SimReach, arguments: &[&str]) -> Said {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = dispatch_as(program, reach, &arguments, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        code,
        out: text(out),
        err: text(err),
    }
}

/// A host whose agent answers on a socket.
pub struct Desk {
    pub host: Host,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Desk {
    pub fn new() -> Self {
        let host = Host::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (events, _) = tokio::sync::broadcast::channel(16);
        let shared = Shared {
            agent: Arc::clone(&host.agent),
            events,
            xen: "4.20".into(),
            bell: None,
            look: Arc::default(),
        };
        let socket = host.file("agent.sock");
        let listener = runtime.block_on(async { server::listen(&socket) }).unwrap();
        runtime.spawn(server::accept(shared, listener));
        Self {
            host,
            runtime: Some(runtime),
        }
    }

    pub fn reach(&self) -> SimReach {
        SimReach {
            xen: Ok(self.host.world.host("xl")),
            socket: self.host.file("agent.sock"),
            userdata: self.host.dirs.userdata.clone(),
            wire: Mutex::default(),
            link: None,
        }
    }

    pub fn xl(&self, line: &str) -> Said {
        let arguments: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        say(&self.reach(), &arguments)
    }

    /// The agent goes away.
    pub fn stop_agent(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(self.host.file("agent.sock"));
    }

    /// A configuration file of a small guest.
    pub fn config(&self, name: &str, lines: &str) -> PathBuf {
        let config = self.host.config("pvh", name, "");
        let kernel = config.boot.kernel.unwrap();
        let path = self.host.file(&format!("{name}.cfg"));
        let text =
            format!("name=\"{name}\"\ntype=\"pvh\"\nkernel=\"{kernel}\"\nmemory=16\n{lines}\n");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A running guest, made by the command.
    pub fn guest(&mut self, name: &str) -> DomId {
        let image = self.host.image(&format!("{name}.img"), 64);
        let lines = format!("disk=['{},raw,xvda,rw']\nvif=['']", image.display());
        let path = self.config(name, &lines);
        let said = self.xl(&format!("create -q {}", path.display()));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        self.host.settle();
        let guest = self.host.agent.guests();
        guest
            .into_iter()
            .find(|guest| guest.name == name)
            .unwrap()
            .domid
            .unwrap()
    }
}

/// One line of a table: what is typed, the exit code, a piece of stdout, a piece of stderr. An empty piece: nothing at all on that stream.
pub type Row<'a> = (&'a str, u8, &'a str, &'a str);

pub fn check(desk: &Desk, rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for (line, code, out, err) in rows {
        let said = desk.xl(line);
        let fits = |said: &str, piece: &str| {
            if piece.is_empty() {
                said.is_empty()
            } else {
                said.contains(piece)
            }
        };
        if said.code != *code || !fits(&said.out, out) || !fits(&said.err, err) {
            wrong.push(format!("xl {line}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
