//! dom0-agent.

use dom0_agent::image;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The daemon starts itself again to unpack kernels: see `image::worker`.
    if std::env::args_os().nth(1).is_some_and(|first| first == image::WORKER_ARGUMENT) {
        return image::worker_main();
    }
    ExitCode::SUCCESS
}
