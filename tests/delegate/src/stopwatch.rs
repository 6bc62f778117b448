//! Times commands inside dom0, by its own monotonic clock, so that nothing of the rig is in the figure.
//!
//! Reads a [`lab_delegate::Measurement`] as JSON from standard input and prints [`lab_delegate::Timing`]s, one JSON object per line.

use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use lab_delegate::{Measurement, Timing};

/// Runs every command of every round, in order.
pub fn run() -> io::Result<ExitCode> {
    let measurement: Measurement = serde_json::from_reader(io::stdin().lock())?;
    for round in 0..measurement.rounds {
        for (step, argv) in measurement.steps.iter().enumerate() {
            let timing = time(round, step, argv)?;
            let failed = timing.code != 0;
            println!("{}", serde_json::to_string(&timing)?);
            if failed {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn time(round: u32, step: usize, argv: &[String]) -> io::Result<Timing> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an empty command",
        ));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let began = Instant::now();
    let status = command.status()?;
    let took = began.elapsed();
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    Ok(Timing {
        round,
        step,
        nanoseconds,
        code: status.code().unwrap_or(-1),
    })
}
