//! `cargo xtask image`: the dom0 image and the booted hosts, made before anything needs them.

use std::process::ExitCode;

use anyhow::{Context, Result};
use stack_tests::rig::{Shape, image, snapshot};

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kinds of host to boot as well: plain, measured, systemd, debian12, patched, timed-patched
    #[arg(value_name = "SHAPE")]
    shapes: Vec<String>,
    /// Debian suite of the image
    #[arg(long, default_value = "trixie")]
    suite: String,
}

/// Makes them and says where they are.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    crate::deps::ensure_installed()?;
    let base = image::base(&arguments.suite)?;
    println!("image      {}", base.dir.display());
    println!("packages   {}", base.manifest().display());
    println!("           {}", base.guest_manifest().display());
    for name in &arguments.shapes {
        let shape =
            Shape::named(name).with_context(|| format!("no kind of host is called {name}"))?;
        println!("snapshot   {}", snapshot::of(&shape)?.dir.display());
    }
    Ok(ExitCode::SUCCESS)
}
