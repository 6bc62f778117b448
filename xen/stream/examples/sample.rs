//! Writes small streams of every shape into a folder: input for the stock checker and for restorers.
//!
//! ```text
//!   sample DIR        DIR/pv.xl, DIR/pv.libxl, DIR/pv.libxc, DIR/pvh.xl ...
//!   verify-stream-v2 -v -f xl -i DIR/pv.xl
//! ```
//!
//! The guests in them are made up and would not run. What the stock checker of Xen 4.17 to 4.20 can judge: every `.libxc`, and of
//! the others those of `pv`, `pvh` and `verified`. It does not know that an image goes on after a checkpoint of the libxl
//! layer, and under Python 3 it takes no EMULATOR_XENSTORE_DATA (it compares a byte with a string).

use std::path::PathBuf;
use std::process::ExitCode;

use xen_stream::Layer;

#[path = "../tests/common/mod.rs"]
mod common;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: sample DIR");
        return ExitCode::FAILURE;
    };
    for sample in common::Sample::ALL {
        for (layer, ending) in [
            (Layer::Xl, "xl"),
            (Layer::Libxl, "libxl"),
            (Layer::Libxc, "libxc"),
        ] {
            let path = dir.join(format!("{}.{ending}", sample.name()));
            if let Err(error) = std::fs::write(&path, sample.bytes(layer)) {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
