//! Two things at the same time: compiling fills the cores only now and then, installing packages and emulating a CPU fill one.

use anyhow::{Result, anyhow};

/// Does both; what `main` says of a failure comes first.
///
/// # Errors
/// Those of either.
pub fn beside(
    other: impl FnOnce() -> Result<()> + Send,
    main: impl FnOnce() -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let done = main();
        let other = other
            .join()
            .unwrap_or_else(|_| Err(anyhow!("what was done beside ended in a panic")));
        done.and(other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_may_fail_and_both_are_done() {
        let fails = || Err(anyhow!("no"));
        assert!(beside(|| Ok(()), || Ok(())).is_ok());
        assert!(beside(fails, || Ok(())).is_err());
        assert!(beside(|| Ok(()), fails).is_err());
    }
}
