//! The delegate: serves the lab's ports in dom0, and types commands into guest consoles.
//!
//! `lab-delegate serve` never returns. `lab-delegate console-exec TTY SECONDS COMMAND` runs one shell command on the shell that
//! waits at a guest's console and exits with its code. `lab-delegate time` measures commands. It never listens on a network.

#![forbid(unsafe_code)]

mod console;
mod job;
mod port;
mod stopwatch;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["serve"] => port::serve().map(|never| match never {}),
        ["time"] => stopwatch::run(),
        ["console-exec", tty, seconds, command] => console::exec(tty, seconds, command),
        _ => {
            eprintln!(
                "usage: lab-delegate serve | time < MEASUREMENT | console-exec TTY SECONDS COMMAND"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab-delegate: {error}");
            ExitCode::from(125)
        }
    }
}
