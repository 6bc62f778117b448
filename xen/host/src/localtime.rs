//! The time of day where this host is, as the C library knows it (`TZ`, `/etc/localtime`).

/// Hour, minute and second at `epoch` seconds; UTC's where the C library cannot say.
#[must_use]
pub fn time_of_day(epoch: u64) -> (u32, u32, u32) {
    local(epoch).unwrap_or_else(|| {
        let seconds = u32::try_from(epoch % 86_400).unwrap_or(0);
        (seconds / 3600, seconds / 60 % 60, seconds % 60)
    })
}

fn local(epoch: u64) -> Option<(u32, u32, u32)> {
    let time = libc::time_t::try_from(epoch).ok()?;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, which reads one time and fills one structure; zeroes are a valid `tm`.
    let parts = unsafe {
        if libc::localtime_r(&raw const time, parts.as_mut_ptr()).is_null() {
            return None;
        }
        parts.assume_init()
    };
    let part = |value: libc::c_int| u32::try_from(value).ok();
    Some((
        part(parts.tm_hour)?,
        part(parts.tm_min)?,
        part(parts.tm_sec)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs itself in a process of its own: the zone is the process's.
    #[test]
    fn the_zone_of_the_host_counts() {
        const ZONE: &str = "XEN_HOST_TEST_ZONE";
        if std::env::var_os(ZONE).is_some() {
            let (hour, minute, second) = time_of_day(1_000_000_000);
            return println!("{hour}:{minute}:{second}.");
        }
        for (zone, want) in [
            ("UTC0", "1:46:40."),
            ("XYZ-5:30", "7:16:40."),
            ("ABC3", "22:46:40."),
        ] {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "localtime::tests::the_zone_of_the_host_counts",
                    "--nocapture",
                ])
                .env(ZONE, "1")
                .env("TZ", zone)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains(want), "{zone}: {said}");
        }
    }
}
