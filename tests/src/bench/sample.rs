//! One figure, measured several times.

use std::fmt;

use anyhow::{Result, ensure};
use serde::Serialize;

/// Median and spread of some rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// The median.
    pub median: f64,
    /// Largest less smallest, as a share of the median.
    pub spread: f64,
}

impl Sample {
    /// Of at least one value.
    ///
    /// # Errors
    /// When there is none, or one is not a positive number.
    pub fn of(mut values: Vec<f64>) -> Result<Self> {
        ensure!(
            !values.is_empty() && values.iter().all(|value| *value > 0.0 && value.is_finite()),
            "these are no figures: {values:?}"
        );
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        let spread = (values[values.len() - 1] - values[0]) / median;
        Ok(Self { median, spread })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} ±{:.1} %", self.median, self.spread * 50.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        let sample = Sample::of(vec![101.0, 99.0, 100.0]).expect("three figures");
        assert!((sample.median - 100.0).abs() < 1e-9 && (sample.spread - 0.02).abs() < 1e-9);
        assert!(Sample::of(Vec::new()).is_err() && Sample::of(vec![0.0]).is_err());
    }
}
