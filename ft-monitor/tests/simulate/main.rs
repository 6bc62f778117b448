//! The whole monitor against a simulated host: seeds times faults, promises checked at each step.
//!
//! ```text
//!   never    restarts a guest that is well, was shut down on purpose, or is not protected
//!   never    restarts more often than the limit, twice at a time, or without an intent in the journal
//!   always   restarts a failed protected guest while agent and monitor live
//!   always   knows after a kill what it knew before
//! ```
//!
//! Mutants of the two decisions must each break a promise: a check that nothing can trip checks nothing.

mod agent;
mod faults;
mod guest;
mod mutants;
mod rng;
mod world;

use faults::Faults;
use ft_monitor::monitor::Rules;
use world::World;

fn keeps_its_promises(seeds: std::ops::Range<u64>, turns: u32, faults: Faults) -> (u32, u32) {
    let (mut restarts, mut kills) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed, faults, Rules::default());
        if let Err(violation) = world.run(turns) {
            panic!("seed {seed}: {}\n{}", violation.0, world.story());
        }
        restarts += world.restarts;
        kills += world.kills;
        world.calm();
        if let Err(violation) = world.run(1500) {
            panic!("seed {seed}, calm: {}\n{}", violation.0, world.story());
        }
        let wrong = world.disagreements();
        assert!(
            wrong.is_empty(),
            "seed {seed}: {wrong:?}\n{}",
            world.story()
        );
        assert_eq!(
            world.open_intents(),
            0,
            "seed {seed}: {:?}\n{}",
            world.states(),
            world.story()
        );
    }
    (restarts, kills)
}

#[test]
fn every_fault_together() {
    let (restarts, kills) = keeps_its_promises(0..12, 4000, Faults::ALL);
    assert!(
        restarts > 40 && kills > 100,
        "the run was too quiet: {restarts}, {kills}"
    );
}

#[test]
fn failed_guests_come_back_again_and_again() {
    let (restarts, _) = keeps_its_promises(400..408, 4000, Faults::GUESTS);
    assert!(restarts > 50, "{restarts}");
}

#[test]
fn a_flapping_guest_is_given_up_and_never_more_than_the_limit() {
    let faults = Faults {
        flapping: true,
        guest: 5,
        ..Faults::ALL
    };
    let (restarts, _) = keeps_its_promises(100..107, 8000, faults);
    assert!(restarts > 15, "{restarts}");
}

#[test]
fn a_monitor_that_dies_all_the_time_still_finishes_what_it_meant_to_do() {
    let faults = Faults {
        monitor_kill: 500,
        agent_loss: 0,
        ..Faults::ALL
    };
    let (restarts, kills) = keeps_its_promises(200..207, 4000, faults);
    assert!(restarts > 15 && kills > 500, "{restarts}, {kills}");
}

#[test]
fn a_bad_network_restarts_nobody() {
    let quiet = Faults {
        guest: 0,
        network_loss: 200,
        probe_loss: 300,
        ..Faults::ALL
    };
    let (restarts, _) = keeps_its_promises(300..308, 4000, quiet);
    assert_eq!(restarts, 0);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::new(7, Faults::ALL, Rules::default());
        world
            .run(2000)
            .unwrap_or_else(|violation| panic!("{}", violation.0));
        (world.restarts, world.kills, world.story())
    };
    assert_eq!(run(), run());
}
