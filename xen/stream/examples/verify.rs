//! Reads a whole xl save file and prints what it holds, or the first thing that is wrong with it.
//!
//! ```text
//!   verify FILE [xl|libxl|libxc] [checkpointed]
//! ```

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use xen_stream::{Layer, Mode, verify};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (path, layer, mode) = match arguments[..] {
        [path] => (path, "xl", Mode::Plain),
        [path, layer] => (path, layer, Mode::Plain),
        [path, layer, "checkpointed"] => (path, layer, Mode::Checkpointed),
        _ => ("", "", Mode::Plain),
    };
    let layer = match layer {
        "xl" => Layer::Xl,
        "libxl" => Layer::Libxl,
        "libxc" => Layer::Libxc,
        _ => {
            eprintln!("usage: verify FILE [xl|libxl|libxc] [checkpointed]");
            return ExitCode::FAILURE;
        }
    };
    match summary(path, layer, mode) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{path}: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                eprintln!("  {next}");
                cause = next.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn summary(path: &str, layer: Layer, mode: Mode) -> Result<String, Box<dyn Error>> {
    let verified = verify(File::open(path)?, layer, mode)?;
    let more = if verified.more {
        "something follows the end\n"
    } else {
        ""
    };
    Ok(format!("{}{more}", verified.summary))
}
