//! A Linux watchdog device, in a Xen guest the driver `xen_wdt`: when nobody pets it, Xen shuts the guest down.
//!
//! The timeout belongs to the driver (`modprobe xen_wdt timeout=N`): setting it on an open device takes an ioctl, and this program
//! holds no `unsafe`. When there is no device yet the driver is loaded with the wanted timeout; when there is one with a longer timeout, that
//! is said and used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where Linux tells the timeout of the first watchdog, in seconds.
const TIMEOUT_ATTRIBUTE: &str = "/sys/class/watchdog/watchdog0/timeout";

/// An armed watchdog. Dropping it without [`Watchdog::disarm`] leaves it armed: that is the point.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Arms the watchdog at `path`, loading `xen_wdt` with `timeout` when there is no such device.
    ///
    /// # Errors
    /// One line naming the device, the cause and what helps.
    pub fn arm(path: &Path, timeout: Duration) -> Result<Self, String> {
        if !path.exists() {
            load_driver(timeout)?;
        }
        let device = OpenOptions::new().write(true).open(path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "; `modprobe xen_wdt` makes it in a Xen guest",
                io::ErrorKind::ResourceBusy => "; another program pets it already",
                _ => "",
            };
            format!("watchdog {}: {error}{hint}", path.display())
        })?;
        if let Some(warning) = mismatch(
            timeout,
            fs::read_to_string(TIMEOUT_ATTRIBUTE).ok().as_deref(),
        ) {
            eprintln!("parapet-guest: {warning}");
        }
        Ok(Self { device })
    }

    /// Tells the watchdog that we live.
    ///
    /// # Errors
    /// The device's.
    pub fn pet(&mut self) -> io::Result<()> {
        self.device.write_all(b"\n")
    }

    /// Closes it so that it stays quiet ("magic close").
    ///
    /// # Errors
    /// The device's; it is then still armed.
    pub fn disarm(mut self) -> io::Result<()> {
        self.device.write_all(b"V")
    }
}

/// What to say when the device's timeout is not the one asked for.
fn mismatch(wanted: Duration, actual: Option<&str>) -> Option<String> {
    let actual: u64 = actual?.trim().parse().ok()?;
    (actual != wanted.as_secs()).then(|| {
        format!(
            "the watchdog's timeout is {actual} s, not {} s: it was loaded before; \
             `modprobe -r xen_wdt` first, or load it with timeout={}",
            wanted.as_secs(),
            wanted.as_secs()
        )
    })
}

fn load_driver(timeout: Duration) -> Result<(), String> {
    let status = Command::new("modprobe")
        .args(["xen_wdt", &format!("timeout={}", timeout.as_secs())])
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(
            "no watchdog device, and `modprobe xen_wdt` failed ({status})"
        )),
        Err(error) => Err(format!(
            "no watchdog device, and modprobe cannot be run: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("parapet-guest-{}-{name}", std::process::id()));
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn a_disarmed_watchdog_got_the_magic_byte_last() {
        let path = scratch("magic");
        let mut dog = Watchdog::arm(&path, Duration::from_secs(60)).unwrap();
        dog.pet().unwrap();
        dog.disarm().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\nV");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_dropped_watchdog_stays_armed() {
        let path = scratch("armed");
        let mut dog = Watchdog::arm(&path, Duration::from_secs(60)).unwrap();
        dog.pet().unwrap();
        drop(dog);
        assert!(!fs::read(&path).unwrap().contains(&b'V'));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_another_timeout_is_worth_a_word() {
        assert_eq!(mismatch(Duration::from_secs(15), Some("15\n")), None);
        assert_eq!(mismatch(Duration::from_secs(15), None), None);
        assert!(
            mismatch(Duration::from_secs(15), Some("60\n"))
                .unwrap()
                .contains("60 s, not 15 s")
        );
    }
}
