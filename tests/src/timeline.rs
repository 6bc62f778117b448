//! What happened when, told while it happens and again as a table at the end.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Steps in the order in which they were done.
#[derive(Debug)]
pub struct Timeline {
    began: Instant,
    steps: Vec<Step>,
    facts: Vec<(String, String)>,
}

#[derive(Debug)]
struct Step {
    name: String,
    at: Duration,
    took: Duration,
    failed: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            steps: Vec::new(),
            facts: Vec::new(),
        }
    }
}

impl Timeline {
    /// Does one step and remembers how long it took; its name is shown at once.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let at = self.began.elapsed();
        eprintln!("[{:7.1} s] {name} …", at.as_secs_f64());
        let outcome = work();
        let took = self.began.elapsed().saturating_sub(at);
        let failed = outcome.is_err();
        eprintln!(
            "[{:7.1} s] {name}: {} after {:.1} s",
            (at + took).as_secs_f64(),
            word(failed),
            took.as_secs_f64()
        );
        self.steps.push(Step {
            name: name.into(),
            at,
            took,
            failed,
        });
        outcome
    }

    /// Remembers a measured fact for the table.
    pub fn fact(&mut self, name: &str, value: impl fmt::Display) {
        eprintln!("            {name}: {value}");
        self.facts.push((name.into(), value.to_string()));
    }

    /// Prints the table on standard output.
    pub fn print(&self) {
        // A reader that went away does not change what was done.
        drop(std::io::stdout().write_all(self.to_string().as_bytes()));
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:>9} {:>9}  step", "at", "took")?;
        for step in &self.steps {
            let note = if step.failed { "  FAILED" } else { "" };
            let (at, took) = (step.at.as_secs_f64(), step.took.as_secs_f64());
            writeln!(f, "{at:>7.1} s {took:>7.1} s  {}{note}", step.name)?;
        }
        writeln!(
            f,
            "{:>7.1} s            everything",
            self.began.elapsed().as_secs_f64()
        )?;
        if !self.facts.is_empty() {
            writeln!(f)?;
        }
        let width = self
            .facts
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        for (name, value) in &self.facts {
            writeln!(f, "{name:<width$}  {value}")?;
        }
        Ok(())
    }
}

fn word(failed: bool) -> &'static str {
    if failed { "failed" } else { "done" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_stays_in_the_table_and_its_error_comes_back() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.step("good", || Ok(4)).ok(), Some(4));
        assert!(
            timeline
                .step("bad", || -> Result<()> { anyhow::bail!("no") })
                .is_err()
        );
        timeline.fact("pause", "3 ms");
        let text = timeline.to_string();
        let failed: Vec<&str> = text
            .lines()
            .filter(|line| line.ends_with("FAILED"))
            .collect();
        assert!(failed.len() == 1 && failed[0].contains("bad"), "{text}");
        assert!(text.contains("pause  3 ms"), "{text}");
    }
}
