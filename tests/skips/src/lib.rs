//! Checks that a machine cannot run are left out, and never in silence: a test says so here, and `cargo xtask test` prints all of it at its end.
//!
//! Runners hide what a passing test prints. So each line is also appended to the file that [`FILE`] names, which `xtask` reads.

#![forbid(unsafe_code)]

use std::io::Write;

/// The environment variable with the file's path; not set outside of `cargo xtask test`.
pub const FILE: &str = "PARAPET_SKIPPED";

/// Says that `check` was left out, and why.
pub fn skipped(check: &str, why: &str) {
    eprintln!("skipped: {check}: {why}");
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let line = format!("{check}: {why}\n");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    // One write, so that tests that run side by side do not mix their lines.
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("skipped checks cannot be noted: {error}");
    }
}

/// What `cargo xtask test` prints of that file's text; sorted, each line once. Nothing where nothing was skipped: the runner's summary is the last word then.
#[must_use]
pub fn summary(text: &str) -> String {
    let lines: std::collections::BTreeSet<&str> = text.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut summary = format!("{} checks were skipped:\n", lines.len());
    for line in lines {
        summary.push_str(&format!("  {line}\n"));
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_told_by_name_and_reason() {
        assert_eq!(summary(""), "");
        let told = summary("taps: no /dev/net/tun\nsandbox: needs root\nsandbox: needs root\n");
        assert_eq!(
            told,
            "2 checks were skipped:\n  sandbox: needs root\n  taps: no /dev/net/tun\n"
        );
    }

    /// Runs itself again with the variable set, as a test that skips under `xtask` is.
    #[test]
    fn a_check_that_is_left_out_stands_in_the_file() {
        const INSIDE: &str = "TEST_SKIPS_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            skipped("one", "it needs root");
            skipped("two", "it needs a moon");
            return;
        }
        let path = std::env::temp_dir().join(format!("skips-{}", std::process::id()));
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::a_check_that_is_left_out_stands_in_the_file",
            ])
            .env(INSIDE, "1")
            .env(FILE, &path)
            .status()
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(status.success());
        assert_eq!(text, "one: it needs root\ntwo: it needs a moon\n");
    }
}
