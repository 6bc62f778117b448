//! Runs a test on a fork, keeps the logs when it fails, and ends by proving that nothing leaked.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::Result;

use super::host::Host;
use super::leaks::Inventory;
use super::shape::Shape;

/// Forks a host of `shape`, runs `test` on it and checks that dom0 holds nothing afterwards that it did not hold before.
///
/// # Errors
/// Those of the rig and of the test.
///
/// # Panics
/// When the test does.
pub fn nested(shape: &Shape, test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    let host = Host::fork(shape)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let before = Inventory::of(&host)?;
        test(&host)?;
        before.assert_nothing_new(&host)
    }));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            host.keep_as_failed();
            Err(error)
        }
        Err(panic) => {
            host.keep_as_failed();
            resume_unwind(panic)
        }
    }
}
