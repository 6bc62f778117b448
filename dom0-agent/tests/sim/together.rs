//! Agent, drivers and monitor together, all three the real ones: a guest that works on its disk, network and console while it, its driver and the
//! agent fail in every combination, and some call on the way fails as well.

use crate::support::{Host, Setup};
use crate::watch::Watchman;
use ft_monitor::monitor::Input;
use nix::errno::Errno;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::frontend::blk::{Answer, BlkRequest};
use xen_sim::frontend::console::ConsoleFront;
use xen_sim::frontend::net::Frame;
use xen_sim::{Fault, FaultKind, Filter};

const DISK: u32 = 51712;
/// Longest a test waits for threads that are only slow.
const MOST: Duration = Duration::from_secs(30);
/// Requests in flight when the harm is done.
const IN_FLIGHT: u8 = 6;

/// What is done to a guest at work.
#[derive(Debug, Clone, Copy)]
enum Harm {
    GuestCrashes,
    DriverDies,
    Both,
}

fn protected(seed: u64) -> (Host, Watchman) {
    let mut host = Host::with(Setup {
        seed,
        real_drivers: true,
        ..Setup::default()
    });
    let config = host.equipped("pvh", "web1", "protect=\"restart\"");
    host.start(config);
    let mut watchman = Watchman::new(&mut host);
    watchman.turns(&mut host, 4);
    assert!(watchman.orders.is_empty());
    (host, watchman)
}

fn write(sector: u64, byte: u8) -> BlkRequest {
    BlkRequest::Write {
        sector,
        data: vec![byte; 4096],
    }
}

/// The guest uses every device, and finds what it wrote.
#[track_caller]
fn work(host: &mut Host, domid: DomId, byte: u8) {
    let at = u64::from(byte) * 8;
    let read = BlkRequest::Read {
        sector: at,
        len: 4096,
    };
    for request in [write(at, byte), BlkRequest::Flush, read] {
        host.machine(domid)
            .disks
            .get_mut(&DISK)
            .unwrap()
            .submit(&request);
        let answers = answers(host, domid, 1);
        assert_eq!(answers.len(), 1, "{request:?}");
        assert_eq!(answers[0].status, 0, "{request:?}");
        if let Some(data) = &answers[0].data {
            assert!(data.iter().all(|it| *it == byte), "sector {at}");
        }
    }
    let net = host.machine(domid).nets.get_mut(&0).unwrap();
    net.reap();
    assert!(net.send(&Frame::plain(&[byte; 90])));
    let tap = format!("vif{domid}.0");
    let out = |host: &mut Host| {
        let frames = host.yard.frames_out(&tap);
        frames.iter().any(|frame| frame[12..] == [byte; 90])
    };
    assert!(host.tend_until(MOST, out), "no frame");
    let mut console = ConsoleFront::primary(&host.machine(domid).kernel).unwrap();
    let line = format!("still here {byte}\r\n");
    assert_eq!(console.write(line.as_bytes()), line.len());
    let log = host.dirs.logs.join("console-web1.log");
    let logged = |_: &mut Host| {
        let log = std::fs::read(&log).unwrap_or_default();
        log.windows(line.len()).any(|it| it == line.as_bytes())
    };
    assert!(host.tend_until(MOST, logged), "no line");
}

/// What the disk answers, until so many have come: a driver that died late is replaced meanwhile.
fn answers(host: &mut Host, domid: DomId, count: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    host.tend_until(MOST, |host| {
        let disk = host.machine(domid).disks.get_mut(&DISK).unwrap();
        answers.extend(disk.answers());
        answers.len() >= count || disk.disabled().is_some()
    });
    answers
}

/// One life with one harm and one fault in it; whether the fault was met.
fn live(seed: u64, harm: Harm, fault: Fault) -> bool {
    let (mut host, mut watchman) = protected(seed);
    let first = DomId(1);
    work(&mut host, first, 9);
    host.mortal_agent();
    host.world.inject(fault);
    let disk = host.machine(first).disks.get_mut(&DISK).unwrap();
    for n in 1..=IN_FLIGHT {
        disk.submit(&write(u64::from(n) * 8, n));
    }
    if matches!(harm, Harm::DriverDies | Harm::Both) {
        // Unless the fault has killed it already.
        let uuid = host.uuid(first);
        if host.yard.pid_of(uuid).is_some() {
            host.yard.kill_driver(uuid);
        }
    }
    if matches!(harm, Harm::GuestCrashes | Harm::Both) {
        host.machine(first).kernel.crash();
    }
    let survived = host.unless_it_dies(|host| watchman.turns(host, 3));
    let met = host.world.faults_fired() > 0;
    host.world.clear_faults();
    if survived.is_none() {
        let why = "it died".into();
        watchman.hear(&host, Input::AgentDown { why });
        host.next_agent();
        watchman.replace(&mut host);
    }
    let now = watchman.until_it_runs(&mut host);
    if now == first {
        let answers = answers(&mut host, now, usize::from(IN_FLIGHT));
        assert_eq!(answers.len(), usize::from(IN_FLIGHT), "none is lost");
        assert!(answers.iter().all(|answer| answer.status == 0));
    }
    assert_eq!(now == first, matches!(harm, Harm::DriverDies));
    work(&mut host, now, 7);
    // What was flushed before is there after everything.
    let image = std::fs::read(host.file("web1.img")).unwrap();
    assert!(image[9 * 4096..][..4096].iter().all(|byte| *byte == 9));
    assert!(image[7 * 4096..][..4096].iter().all(|byte| *byte == 7));
    for guest in host.guests() {
        host.agent.give_up(dom0_agent::agent::lock(&guest)).unwrap();
    }
    host.settle();
    host.assert_clean();
    met
}

/// Says where it was before a panic goes on.
fn told(seed: u64, harm: Harm, fault: Fault) -> bool {
    let mut met = false;
    let place = format!("seed {seed}, {harm:?}, {fault:?}");
    crate::support::faults::explain(&place, || met = live(seed, harm, fault));
    met
}

const HARMS: [Harm; 3] = [Harm::GuestCrashes, Harm::DriverDies, Harm::Both];

/// Every `step`th call of `who` goes wrong in this way, each in a life of its own.
fn with_faults(who: &str, kind: FaultKind, step: usize, most: u64) {
    let (mut lives, mut met) = (0_u32, 0_u32);
    for (harm, seed) in HARMS.into_iter().zip(1..) {
        for at in (seed..most).step_by(step) {
            let fault = Fault::at(at, kind).of(Filter::process(who));
            met += u32::from(told(seed * 100 + at, harm, fault));
            lives += 1;
        }
    }
    assert!(
        met * 3 >= lives,
        "only {met} of {lives} lives met their fault"
    );
}

#[test]
fn a_call_of_the_agent_that_fails_costs_nobody_the_guest() {
    with_faults("agent", FaultKind::Fail(Errno::EIO), 11, 80);
    with_faults("agent", FaultKind::FailAfter(Errno::EIO), 17, 80);
}

#[test]
fn an_agent_that_dies_in_the_middle_costs_nobody_the_guest() {
    with_faults("agent", FaultKind::Crash, 13, 80);
}

#[test]
fn a_driver_that_dies_at_its_work_costs_nobody_the_guest() {
    with_faults("driver", FaultKind::Crash, 7, 50);
}
