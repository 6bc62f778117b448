//! A disk between a simulated frontend and a real driver: threads, io_uring and an image file, only Xen is not real.

use super::{PATIENCE, gref, number, port, read, write};
use parapet_wire::driver::{
    ConnectDisk, DriverFault, OpenDisk, Order, OrderBody, Outcome, Protocol, Ring,
};
use split_drivers::blk::{features, journal};
use split_drivers::control::driver::Driver;
use split_drivers::control::pool::Pool;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use tempfile::NamedTempFile;
use xen_host::memfd::MemFd;
use xen_sim::frontend::blk::{Answer, BlkFront, BlkOptions, BlkRequest};
use xen_sim::frontend::xenbus::DeviceAddress;
use xen_sim::{Guest, SimHost, World};

pub const DEVID: u32 = 51712;
pub const SECTORS: u64 = 8192;

pub struct Disk {
    pub front: BlkFront,
    pub driver: Driver,
    pub image: NamedTempFile,
    pub at: DeviceAddress,
    pub order: ConnectDisk,
    pub read_only: bool,
    agent: SimHost,
    journal: MemFd,
    world: World,
}

pub fn order(
    driver: &mut Driver,
    body: OrderBody,
    fds: Vec<OwnedFd>,
) -> Result<Outcome, DriverFault> {
    driver.obey(Order { id: 1, body }, fds)
}

pub fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(SECTORS * 512).unwrap();
    image
}

pub fn open_order(read_only: bool) -> OpenDisk {
    // A temporary directory may be on a filesystem without direct I/O.
    OpenDisk {
        devid: DEVID,
        read_only,
        discard: true,
        buffered: true,
        lock_timeout_ms: 0,
    }
}

pub fn opened(image: &NamedTempFile) -> OwnedFd {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(image.path())
        .unwrap()
        .into()
}

impl Disk {
    /// Up and connected.
    pub fn connected(world: &World, guest: &Guest, options: BlkOptions) -> Self {
        Self::with(world, guest, options, false)
    }

    pub fn with(world: &World, guest: &Guest, options: BlkOptions, read_only: bool) -> Self {
        let agent = world.host("agent");
        let at = world.plug_disk(guest.domu(), DEVID, &[("mode", "w")]);
        let mut driver =
            Driver::new(Pool::open(&world.host("driver"), guest.domid()).unwrap()).unwrap();
        let image = image();
        let Ok(Outcome::Medium(medium)) = order(
            &mut driver,
            OrderBody::OpenDisk(open_order(read_only)),
            vec![opened(&image)],
        ) else {
            panic!("no medium")
        };
        for (key, value) in features::nodes(&medium, read_only) {
            write(&agent, &at.backend(), key, &value);
        }
        write(&agent, &at.backend(), "state", "2");
        let mut front = BlkFront::new(guest.domu(), at.clone(), options);
        front.step();
        let order = agreed(&agent, &at);
        let journal = MemFd::create("journal", journal::bytes(4, 512)).unwrap();
        let mut disk = Self {
            front,
            driver,
            image,
            at,
            order,
            read_only,
            agent,
            journal,
            world: world.clone(),
        };
        assert_eq!(disk.connect().unwrap(), Outcome::Disk { redone: 0 });
        write(&disk.agent, &disk.at.backend(), "state", "4");
        disk.front.step();
        disk
    }

    pub fn connect(&mut self) -> Result<Outcome, DriverFault> {
        let journal = self.journal.as_fd().try_clone_to_owned().unwrap();
        order(
            &mut self.driver,
            OrderBody::ConnectDisk(self.order.clone()),
            vec![journal],
        )
    }

    /// A planned replacement by another process.
    pub fn replace(&mut self) {
        self.replace_with(|_| {});
    }

    /// The same; `prepare` is done when the medium is open and before the rings are connected.
    pub fn replace_with(&mut self, prepare: impl FnOnce(&mut Driver)) {
        order(&mut self.driver, OrderBody::Quiesce, Vec::new()).unwrap();
        assert!(self.driver.is_finished());
        let host = self.world.host("successor");
        self.driver = Driver::new(Pool::open(&host, self.at.domid).unwrap()).unwrap();
        // The kernel lets go of a finished ring's files in its own time.
        let open = OpenDisk {
            lock_timeout_ms: 10_000,
            ..open_order(self.read_only)
        };
        order(
            &mut self.driver,
            OrderBody::OpenDisk(open),
            vec![opened(&self.image)],
        )
        .unwrap();
        prepare(&mut self.driver);
        self.order.resume = true;
        self.connect().unwrap();
    }

    /// Submits and waits.
    pub fn ask(&mut self, request: &BlkRequest) -> Answer {
        let id = self.front.submit(request);
        let answers = self.front.wait_answers(1, PATIENCE);
        answers
            .into_iter()
            .find(|answer| answer.id == id)
            .expect("an answer")
    }

    pub fn file(&self) -> &File {
        self.image.as_file()
    }

    /// Takes everything down in order; what the frontend could not free is a leak.
    pub fn close(self) {
        assert_eq!(self.front.leaked_bytes(), 0, "bytes beside the responses");
        self.end();
    }

    /// As [`Disk::close`], of a guest that wrote into its own ring's answers.
    pub fn end(mut self) {
        self.front.close();
        order(
            &mut self.driver,
            OrderBody::DisconnectDisk { devid: DEVID },
            Vec::new(),
        )
        .unwrap();
        order(
            &mut self.driver,
            OrderBody::CloseDisk { devid: DEVID },
            Vec::new(),
        )
        .unwrap();
        write(&self.agent, &self.at.backend(), "state", "6");
        self.front.step();
        assert_eq!(self.front.free(), 0, "grants that the driver still holds");
    }
}

/// The order for what a frontend wrote.
pub fn agreed(agent: &SimHost, at: &DeviceAddress) -> ConnectDisk {
    let dir = at.frontend();
    let queues = number(agent, &dir, "multi-queue-num-queues").unwrap_or(1);
    let pages = 1 << number(agent, &dir, "ring-page-order").unwrap_or(0);
    let ring = |dir: &str| Ring {
        refs: match pages {
            1 => vec![gref(agent, dir, "ring-ref")],
            more => (0..more)
                .map(|page| gref(agent, dir, &format!("ring-ref{page}")))
                .collect(),
        },
        port: port(agent, dir, "event-channel"),
    };
    let rings = match queues {
        1 => vec![ring(&dir)],
        more => (0..more)
            .map(|queue| ring(&format!("{dir}/queue-{queue}")))
            .collect(),
    };
    let protocol = match read(agent, &dir, "protocol").as_deref() {
        Some("x86_32-abi") => Protocol::X86_32,
        _ => Protocol::X86_64,
    };
    let persistent = read(agent, &dir, "feature-persistent").as_deref() == Some("1");
    ConnectDisk {
        devid: at.devid,
        protocol,
        persistent,
        rings,
        resume: false,
    }
}
