//! `lab-probe` on a lab host: the calls of a patched hypervisor, tried and timed by themselves.

use anyhow::{Context, Result};

use crate::rig::{Host, statics};

/// Where it is put in dom0.
const PLACE: &str = "/run/lab-probe";
const NAME: &str = "lab-probe";

/// How long a crash took to be noticed, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noticed {
    /// By Xen's own event, where there is one.
    pub xen: Option<f64>,
    /// By xenstored's watch, unless it never came.
    pub xenstored: Option<f64>,
}

/// Builds it and puts it into dom0.
///
/// # Errors
/// When it cannot be built or copied.
pub fn put(host: &Host) -> Result<()> {
    statics::build(&[NAME], &[NAME])?;
    host.put(&statics::program(NAME), PLACE)?;
    host.ok(&["chmod", "755", PLACE]).map(drop)
}

/// Compares the pages of a domain, mapped and copied, and times both; what it says.
///
/// # Errors
/// When a page differs.
pub fn copy(host: &Host, domid: u32) -> Result<String> {
    host.ok(&[PLACE, "copy", &domid.to_string()])
}

/// Crashes a domain.
///
/// # Errors
/// When the probe fails.
pub fn crash(host: &Host, domid: u32) -> Result<Noticed> {
    let said = host.ok(&[PLACE, "crash", &domid.to_string()])?;
    noticed(&said).with_context(|| format!("the probe says {said:?}"))
}

/// Crashes a domain without asking xenstored anything.
///
/// # Errors
/// When Xen refuses.
pub fn stop(host: &Host, domid: u32) -> Result<()> {
    host.ok(&[PLACE, "stop", &domid.to_string()]).map(drop)
}

/// `xen NANOSECONDS xenstored NANOSECONDS`, each of them perhaps `absent`.
fn noticed(said: &str) -> Option<Noticed> {
    let mut words = said.split_whitespace();
    let mut next = |name: &str| -> Option<Option<f64>> {
        (words.next()? == name).then_some(())?;
        match words.next()? {
            "absent" => Some(None),
            number => Some(Some(number.parse::<f64>().ok()? / 1000.0)),
        }
    };
    Some(Noticed {
        xen: next("xen")?,
        xenstored: next("xenstored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_says_is_read_in_microseconds() {
        let told = noticed("xen 1500 xenstored absent\n").unwrap();
        assert_eq!((told.xen, told.xenstored), (Some(1.5), None));
        assert_eq!(noticed("xen 1 xenstore 2"), None);
        assert_eq!(noticed("xen x xenstored 2"), None);
    }
}
