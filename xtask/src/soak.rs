//! `cargo xtask soak`: what a long run shows and a short one may not. Each run says its seed, and can be had again.

use std::process::ExitCode;

use anyhow::Result;
use stack_tests::product;
use stack_tests::rig::{Shape, nested};
use stack_tests::scenario::soak;
use stack_tests::timeline::Timeline;

/// How long, and which.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use target/dist as it is
    #[arg(long)]
    as_is: bool,
    /// Moves of one guest under load, to the host it is on; about half of them are cut
    #[arg(long, value_name = "N", default_value_t = 500)]
    moves: u32,
    /// Draws the places of the cuts [default: of the clock]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// Runs, and prints what became of it; the host's logs are kept if it is not as it must be.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    let seed = arguments.seed.unwrap_or_else(of_the_clock);
    let mut tally = None;
    timeline.step(&format!("{} moves, seed {seed}", arguments.moves), || {
        nested(&Shape::default(), |host| {
            product::start(host)?;
            tally = Some(soak::moves(host, arguments.moves, seed)?);
            product::clean(host)
        })
    })?;
    timeline.print();
    if let Some(tally) = tally {
        println!("\nseed {seed}: {tally}; nothing was left behind");
    }
    Ok(ExitCode::SUCCESS)
}

fn of_the_clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
