//! Builds the delegate, statically, so that one binary runs in every dom0 whatever its libc.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::key::Key;
use super::{dirs, lock, statics};

/// The program's bytes, built when its source has changed.
///
/// # Errors
/// When cargo fails; its own words are printed.
pub fn program() -> Result<Vec<u8>> {
    let source = dirs::workspace().join("tests/delegate");
    let mut key = Key::default();
    for name in [
        "Cargo.toml",
        "src/lib.rs",
        "src/main.rs",
        "src/port.rs",
        "src/job.rs",
        "src/console.rs",
        "src/stopwatch.rs",
    ] {
        key = key.with(
            fs::read(source.join(name))
                .with_context(|| format!("cannot read the delegate's {name}"))?,
        );
    }
    let kept = dirs::part("delegate").join(key.digits());
    if !kept.exists() {
        let _turn = lock::lock(
            &dirs::part("delegate").join("lock"),
            "another process building the delegate",
        )?;
        if !kept.exists() {
            build(&kept)?;
        }
    }
    fs::read(&kept).with_context(|| format!("cannot read {}", kept.display()))
}

fn build(kept: &Path) -> Result<()> {
    eprintln!("lab: building the delegate");
    let name = "lab-delegate";
    statics::build(&[name], &[name])?;
    let built = statics::program(name);
    let partial = kept.with_extension("partial");
    fs::copy(&built, &partial).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&partial, kept)?;
    Ok(())
}
