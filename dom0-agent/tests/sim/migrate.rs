//! Guests that are moved: whatever breaks, exactly one copy runs in the end, and it is the guest with all that it wrote.

use crate::save::{assert_runs, config_of, facts, running};
use crate::save_pv;
use crate::support::faults::{DEATHS, FAILURES, explain, mortal_calls};
use crate::support::line::{Cut, Ear, Pair, Went, travel};
use crate::support::reflex::Reflex;
use crate::support::{Host, Machine};
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::lock;
use dom0_agent::agent::migrate::{MoveError, MoveOptions};
use dom0_agent::agent::record::Stage;
use dom0_agent::agent::whereabouts::Whereabouts;
use dom0_agent::config::domain::DomainConfig;
use dom0_agent::save::Patience;
use dom0_agent::save::precopy::Why;
use parapet_wire::agent::GuestState;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::{Fault, FaultKind, Filter, exhaust};
use xen_stream::Accord;

pub const GUEST: DomId = DomId(1);
/// Longer than any pause the agent makes by itself.
const LATER: Duration = Duration::from_secs(60);

/// As to stock's toolstack. What ends of ours agree upon besides is in `accord.rs`.
pub fn options() -> MoveOptions {
    let short = Duration::from_millis(30);
    MoveOptions {
        patience: Patience {
            acknowledge: short,
            suspend: short,
        },
        offers: Accord::NONE,
        ..MoveOptions::default()
    }
}

fn config(host: &Host, kind: &str) -> DomainConfig {
    let shared = host.agent.by_domid(GUEST).unwrap();
    let config = lock(&shared).record.config.clone();
    assert_eq!(config.kind, config_of(host, kind).kind);
    config
}

pub fn pair_of(kind: &str) -> Pair {
    let here = if kind == "pvh" {
        running()
    } else {
        save_pv::running()
    };
    Pair {
        here,
        there: Host::new(),
    }
}

fn pair() -> Pair {
    pair_of("pvh")
}

pub fn go(pair: &Pair, options: &MoveOptions, cut: Cut, ear: &Ear<'_>) -> Went {
    let shared = pair.here.agent.by_domid(GUEST).unwrap();
    let config = lock(&shared).record.config.clone();
    let (from, to) = (&pair.here.agent, &pair.there.agent);
    travel(from, to, GUEST, config, options, cut, ear)
}

fn simply(pair: &Pair, cut: Cut) -> Went {
    go(pair, &options(), cut, &Ear::with(&|_| {}))
}

/// The one guest of a host, if it has one that may run.
fn guest_of(host: &Host) -> Option<DomId> {
    let mut guests = host.agent.guests();
    guests.retain(|guest| guest.state != parapet_wire::agent::GuestState::Leaving);
    assert!(guests.len() <= 1, "{guests:?}");
    guests.pop().map(|guest| guest.domid.unwrap())
}

fn is_away(host: &Host) -> bool {
    host.agent
        .by_domid(GUEST)
        .is_some_and(|guest| lock(&guest).record.stage == Stage::HandedOver)
}

fn rest(host: &mut Host) {
    host.settle();
    host.pass(LATER);
    host.settle();
}

/// Exactly one copy runs, or one is suspended and whoever knows says which; then exactly one does. True if it is on the other host.
#[track_caller]
pub fn settle_on_one(pair: &mut Pair) -> bool {
    rest(&mut pair.here);
    rest(&mut pair.there);
    let there = guest_of(&pair.there);
    if is_away(&pair.here) {
        assert!(guest_of(&pair.here).is_none());
        let whereabouts = match there {
            Some(_) => Whereabouts::There,
            None => Whereabouts::Here,
        };
        pair.here.agent.settle_move(GUEST, whereabouts).unwrap();
        rest(&mut pair.here);
    }
    match (guest_of(&pair.here), there) {
        (Some(domid), None) => {
            pair.there.assert_clean();
            assert_runs(&mut pair.here, domid);
            false
        }
        (None, Some(domid)) => {
            pair.here.assert_clean();
            assert_runs(&mut pair.there, domid);
            true
        }
        both => panic!("copies that run: {both:?}"),
    }
}

// ---- what arrives ----

fn moves_whole(kind: &str) {
    let mut pair = pair_of(kind);
    let domu = pair.here.machine(GUEST).kernel.domu().clone();
    for gfn in [7, 700, 3000] {
        domu.page_at(gfn).unwrap().write(100, &gfn.to_le_bytes());
    }
    let uuid = pair.here.agent.guests()[0].uuid;
    let before = (kind == "pvh").then(|| facts(&pair.here, GUEST));
    let went = simply(&pair, Cut::NEVER);
    let moved = went.left.unwrap().unwrap();
    let domid = went.arrived.unwrap().unwrap();
    assert_eq!(moved.bytes, went.bytes.0 - 44);
    if let Some(before) = before {
        assert_eq!(facts(&pair.there, domid), before);
    }
    let guest = &pair.there.agent.guests()[0];
    assert_eq!((guest.name.as_str(), guest.uuid), ("web1", uuid));
    let name = format!("/local/domain/{domid}/name");
    assert_eq!(pair.there.world.xs_read(&name).as_deref(), Some("web1"));
    let vm = format!("/vm/{uuid}");
    assert_eq!(
        pair.there.world.xs_read(&format!("{vm}/name")).as_deref(),
        Some("web1")
    );
    assert_eq!(pair.there.world.domain(domid).unwrap().handle, uuid);
    assert!(settle_on_one(&mut pair));
}

#[test]
fn a_pvh_guest_arrives_whole() {
    moves_whole("pvh");
}

#[test]
fn a_pv_guest_arrives_whole() {
    moves_whole("pv");
}

#[test]
fn a_guest_is_moved_to_the_host_it_is_on() {
    for kind in ["pvh", "pv"] {
        let mut host = pair_of(kind).here;
        let (uuid, config) = (host.agent.guests()[0].uuid, config(&host, kind));
        let ear = Ear::with(&|_| {});
        let (agent, options) = (&host.agent, options());
        let went = travel(agent, agent, GUEST, config, &options, Cut::NEVER, &ear);
        went.left.unwrap().unwrap();
        let domid = went.arrived.unwrap().unwrap();
        assert_ne!(domid, GUEST);
        let guests = host.agent.guests();
        assert_eq!((guests.len(), guests[0].uuid), (1, uuid));
        // Nobody is told that it is gone.
        let gone = parapet_wire::agent::Event::Gone { uuid };
        assert!(!host.events().contains(&gone));
        assert_runs(&mut host, domid);
    }
}

#[test]
fn a_copy_that_nobody_knows_of_beside_the_guest_is_named_and_never_runs() {
    let mut host = pair_of("pvh").here;
    let (uuid, config) = (host.agent.guests()[0].uuid, config(&host, "pvh"));
    let ear = Ear::with(&|_| {});
    // In the last word: it runs, on this very host, and the sender has not heard so.
    let cut = Cut {
        back: 60,
        ..Cut::NEVER
    };
    let (agent, options) = (&host.agent, options());
    let went = travel(agent, agent, GUEST, config, &options, cut, &ear);
    assert!(went.left.unwrap().is_err());
    let domid = guest_of(&host).unwrap();
    assert_ne!(domid, GUEST);
    host.settle();
    let guests = host.agent.guests();
    let named = |name: &str| guests.iter().find(|guest| guest.name == name).unwrap();
    let (left, arrived) = (named("web1--migratedaway"), named("web1"));
    assert_eq!((left.domid, left.state), (Some(GUEST), GuestState::Leaving));
    assert_eq!((arrived.domid, arrived.uuid), (Some(domid), uuid));
    assert_ne!(left.uuid, uuid);
    let twice = host
        .agent
        .settle_move(GUEST, Whereabouts::Here)
        .unwrap_err();
    assert!(
        twice.to_string().contains("web1 has arrived on this host"),
        "{twice}"
    );
    host.agent.settle_move(GUEST, Whereabouts::There).unwrap();
    assert_runs(&mut host, domid);
}

#[test]
fn a_guest_that_came_goes_back_and_is_restarted_like_any_other() {
    let mut pair = pair();
    simply(&pair, Cut::NEVER).left.unwrap().unwrap();
    rest(&mut pair.here);
    rest(&mut pair.there);
    let domid = guest_of(&pair.there).unwrap();
    pair.there.next_agent();
    rest(&mut pair.there);
    assert!(pair.there.machine(domid).is_connected());
    pair.there.reflex(domid, Reflex::Suspend);
    let shared = pair.there.agent.by_domid(domid).unwrap();
    let config = lock(&shared).record.config.clone();
    let (from, to) = (&pair.there.agent, &pair.here.agent);
    let ear = Ear::with(&|_| {});
    let went = travel(from, to, domid, config, &options(), Cut::NEVER, &ear);
    went.left.unwrap().unwrap();
    let back = went.arrived.unwrap().unwrap();
    rest(&mut pair.there);
    pair.there.assert_clean();
    rest(&mut pair.here);
    let uuid = uuid::Uuid::from_bytes(pair.here.agent.guests()[0].uuid.0);
    let again = pair.here.agent.restart(uuid, Some(back), "a test").unwrap();
    rest(&mut pair.here);
    assert_runs(&mut pair.here, again.unwrap());
}

#[test]
fn what_a_guest_writes_while_it_is_sent_arrives() {
    const WRITTEN: std::ops::Range<u64> = 1000..1300;
    let mut pair = pair();
    let (domu, world) = (
        pair.here.machine(GUEST).kernel.domu().clone(),
        pair.here.world.clone(),
    );
    let writes = AtomicU32::new(0);
    // The agent asks again and again whether it is still wanted; the guest writes then, as long as it runs.
    let wanted = || {
        if Machine::runs(&world, GUEST) {
            let turn = u64::from(writes.fetch_add(1, Ordering::SeqCst) + 1);
            for gfn in WRITTEN {
                let page = domu.page_at(gfn).unwrap();
                page.write(8, &(turn << 32 | gfn).to_le_bytes());
            }
        }
        true
    };
    let mut chosen = options();
    chosen.max_downtime = Duration::ZERO;
    let ear = Ear {
        wanted: &wanted,
        ..Ear::with(&|_| {})
    };
    let went = go(&pair, &chosen, Cut::NEVER, &ear);
    let moved = went.left.unwrap().unwrap();
    assert!(moved.rounds > 3, "{moved:?} {:?}", ear.lines);
    assert_eq!(moved.why, Why::NoProgress);
    let domid = went.arrived.unwrap().unwrap();
    let last = u64::from(writes.load(Ordering::SeqCst));
    for gfn in WRITTEN {
        let bytes = pair.there.world.read_guest(domid, gfn, 8, 8).unwrap();
        assert_eq!(bytes, (last << 32 | gfn).to_le_bytes(), "page {gfn}");
    }
    assert!(settle_on_one(&mut pair));
}

#[test]
fn memory_that_goes_twice_is_still_one_guest() {
    let mut pair = pair();
    let mut wanted = options();
    wanted.verify = true;
    let went = go(&pair, &wanted, Cut::NEVER, &Ear::with(&|_| {}));
    went.left.unwrap().unwrap();
    assert!(settle_on_one(&mut pair));
}

#[test]
fn a_host_without_a_dirty_log_moves_its_guests_all_the_same() {
    let mut pair = pair();
    let fault = FaultKind::Fail(nix::errno::Errno::EOPNOTSUPP);
    let filter = Filter::process("agent").ops(&["shadow_op"]);
    pair.here.world.inject(Fault::at(0, fault).of(filter));
    let ear = Ear::with(&|_| {});
    let went = go(&pair, &options(), Cut::NEVER, &ear);
    let moved = went.left.unwrap().unwrap();
    assert_eq!((moved.rounds, moved.why), (1, Why::NotLive));
    let lines = ear.lines.into_inner().unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("no live move on this host"))
    );
    pair.here.world.clear_faults();
    assert!(settle_on_one(&mut pair));
}

// ---- what does not arrive ----

#[test]
fn a_guest_that_is_not_wanted_there_runs_on_here() {
    let refused = |prepare: &dyn Fn(&mut Pair), words: &str| {
        let mut pair = pair();
        prepare(&mut pair);
        let went = simply(&pair, Cut::NEVER);
        went.left.unwrap().unwrap_err();
        let why = went.arrived.unwrap().unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
        pair.there.world.clear_faults();
        for guest in pair.there.agent.guests() {
            pair.there.agent.destroy(guest.domid.unwrap()).unwrap();
        }
        assert!(!settle_on_one(&mut pair));
    };
    refused(
        &|pair| {
            let mut other = pair.there.config("pvh", "web1", "");
            other.uuid = uuid::Uuid::from_u128(0xabc);
            pair.there.start(other);
        },
        "exists here already",
    );
    refused(
        &|pair| {
            let other = pair.there.config("pvh", "web1--incoming", "");
            pair.there.start(other);
        },
        "exists already",
    );
    refused(
        &|pair| {
            let filter = Filter::process("agent").ops(&["set_cpu_policy"]);
            let fault = FaultKind::Fail(nix::errno::Errno::EINVAL);
            pair.there.world.inject(Fault::at(0, fault).of(filter));
        },
        "CPU",
    );
}

#[test]
fn a_host_without_memory_refuses_before_it_takes_a_page() {
    let mut pair = pair();
    let small = crate::support::Setup {
        memory_mib: 8,
        ..crate::support::Setup::default()
    };
    pair.there = Host::with(small);
    let went = simply(&pair, Cut::NEVER);
    went.left.unwrap().unwrap_err();
    let why = went.arrived.unwrap().unwrap_err().to_string();
    assert!(why.contains("memory"), "{why}");
    assert!(!settle_on_one(&mut pair));
}

#[test]
fn a_guest_that_does_not_suspend_runs_on() {
    for reflex in [Reflex::Acknowledge, Reflex::Crash] {
        let mut pair = pair();
        pair.here.reflex(GUEST, reflex);
        let error = simply(&pair, Cut::NEVER).left.unwrap().unwrap_err();
        assert!(matches!(error, AgentError::Save(_)), "{error}");
        rest(&mut pair.here);
        pair.there.assert_clean();
        match reflex {
            Reflex::Acknowledge => assert_runs(&mut pair.here, GUEST),
            _ => pair.here.assert_clean(),
        }
    }
}

#[test]
fn whoever_asked_may_change_their_mind_until_the_guest_is_given_away() {
    for most in [0, 1, 3, 5] {
        let mut pair = pair();
        let asked = AtomicU32::new(0);
        let wanted = || asked.fetch_add(1, Ordering::SeqCst) < most;
        let ear = Ear {
            wanted: &wanted,
            ..Ear::with(&|_| {})
        };
        let went = go(&pair, &options(), Cut::NEVER, &ear);
        let arrived = settle_on_one(&mut pair);
        assert_eq!(went.left.unwrap().is_ok(), arrived);
    }
}

// ---- the line breaks ----

/// How long the stream of a move is, and what comes back.
fn lengths() -> (u64, u64) {
    let mut pair = pair();
    let went = simply(&pair, Cut::NEVER);
    assert!(settle_on_one(&mut pair));
    went.bytes
}

fn broken_at(cut: Cut) -> bool {
    broken(&options(), cut)
}

/// Moves a guest over a line that is cut; answers whether it arrived.
pub fn broken(options: &MoveOptions, cut: Cut) -> bool {
    let mut pair = pair();
    let went = go(&pair, options, cut, &Ear::with(&|_| {}));
    let arrived = settle_on_one(&mut pair);
    match went.left.unwrap() {
        Ok(_) => assert!(arrived),
        Err(AgentError::Move(MoveError::Unknown { .. })) => {}
        Err(_) => assert!(!arrived, "{cut:?}"),
    }
    arrived
}

#[test]
fn a_line_that_breaks_anywhere_on_the_way_there_leaves_one_guest() {
    let (forth, _) = lengths();
    // Headers and small records at each word, pages in strides, the tail and the word that gives it away.
    let early = (0..600).step_by(24);
    let pages = (600..forth).step_by(3_333_333);
    let tail = (forth - 2000..forth - 44).step_by(331);
    let word = [forth - 44, forth - 43, forth - 20, forth - 1];
    for at in early.chain(pages).chain(tail).chain(word) {
        let cut = Cut {
            forth: at,
            ..Cut::NEVER
        };
        explain(&format!("cut at {at} of {forth}"), || {
            assert!(!broken_at(cut));
        });
    }
}

#[test]
fn a_sender_that_goes_silent_is_given_up_and_keeps_its_guest() {
    /// Much longer than a sender of these tests takes between two words.
    const BORNE: Duration = Duration::from_millis(500);
    let (forth, _) = lengths();
    // Before a word of it, in its headers, in its pages, and in what follows them.
    for at in [0, 100, 500, forth / 3, forth - 1500, forth - 60] {
        let mut pair = pair();
        let cut = Cut {
            forth: at,
            silent: Some(BORNE),
            ..Cut::NEVER
        };
        let went = simply(&pair, cut);
        explain(&format!("silent after {at} of {forth}"), || {
            let why = went.arrived.unwrap().unwrap_err().to_string();
            assert!(why.contains("the sender went silent"), "{why}");
            assert!(why.contains("did not move for"), "{why}");
            assert!(went.left.unwrap().is_err());
            assert!(!settle_on_one(&mut pair));
        });
    }
}

#[test]
fn a_line_that_breaks_on_the_way_back_leaves_one_guest() {
    let (_, back) = lengths();
    // "ready" is 34 bytes long, the report 39 and one.
    for at in [0, 1, 33, 34, 35, 60, 73] {
        let cut = Cut {
            back: at,
            ..Cut::NEVER
        };
        explain(&format!("cut at {at} of {back}"), || {
            let arrived = broken_at(cut);
            assert!(at >= 34 || !arrived);
        });
    }
}

// ---- a host fails a call, or an agent dies ----

pub fn with_each_fault(
    options: &MoveOptions,
    side: fn(&mut Pair) -> &mut Host,
    kinds: &[FaultKind],
    deadly: bool,
) {
    for kind in kinds {
        let filter = if deadly {
            mortal_calls(*kind)
        } else {
            Filter::process("agent")
        };
        exhaust(*kind, &filter, |fault| {
            let mut pair = pair();
            let place = format!("{kind:?} at {}", fault.at);
            if deadly {
                side(&mut pair).mortal_agent();
            }
            side(&mut pair).world.inject(fault);
            let went = go(&pair, options, Cut::NEVER, &Ear::with(&|_| {}));
            side(&mut pair).world.clear_faults();
            explain(&place, || {
                if went.left.is_none() {
                    pair.here.next_agent();
                }
                if went.arrived.is_none() {
                    pair.there.next_agent();
                }
                let arrived = settle_on_one(&mut pair);
                match went.left {
                    Some(Ok(_)) => assert!(arrived),
                    Some(Err(AgentError::Move(MoveError::Unknown { .. }))) | None => {}
                    Some(Err(_)) => assert!(!arrived),
                }
            });
            side(&mut pair).world.clone()
        });
    }
}

#[test]
fn whatever_fails_where_it_leaves_there_is_one_guest() {
    with_each_fault(&options(), |pair| &mut pair.here, &FAILURES, false);
}

#[test]
fn whatever_fails_where_it_arrives_there_is_one_guest() {
    with_each_fault(&options(), |pair| &mut pair.there, &FAILURES, false);
}

#[test]
fn an_agent_that_dies_where_it_leaves_costs_nobody_a_guest() {
    with_each_fault(&options(), |pair| &mut pair.here, &DEATHS, true);
}

#[test]
fn an_agent_that_dies_where_it_arrives_costs_nobody_a_guest() {
    with_each_fault(&options(), |pair| &mut pair.there, &DEATHS, true);
}
