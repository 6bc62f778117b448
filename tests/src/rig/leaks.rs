//! What guests and their makers may leave behind in dom0 and in Xen, listed, so that a test can prove there is nothing.
//!
//! Not listed is what cannot be had cheaply, and shows here all the same: a page of a guest that is still mapped keeps its domain from going, and its
//! memory from becoming free.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::deadline;
use super::host::Host;

/// One line per thing, each starting with its kind; the last says how much memory of Xen is free, in MiB. Processes are those of a toolstack, and workers
/// that unpack kernels or move pages; files those that Parapet keeps; event channels those between dom0 and guests. Links that dom0 itself
/// drives as a frontend are nobody's leak: Debian's script starts a QEMU for dom0's disks, which also offers it an interface, and udev takes its time.
const LIST: &str = r#"
xl list | tail -n +2 | while read -r name id rest; do [ "$id" = 0 ] || echo "domain $id $name"; done
for d in /sys/class/net/*; do case $(cat $d/device/nodename 2>/dev/null) in device/*) continue ;; esac; d=${d##*/}; case $d in lo|eth0|xenbr0|tunl0|sit0) ;; *) echo "link $d" ;; esac; done
losetup -a | sed 's/^/loop /'
xenstore-ls -f / 2>/dev/null | sed -n -E 's,^/(local/domain/[1-9][0-9]*|vm/[^ /]+|libxl/[1-9][0-9]*) = .*,store \1,p'
xenstore-ls -f /local/domain/0/backend 2>/dev/null | sed -n -E 's,^/local/domain/0/backend/([^/]+/[0-9]+/[0-9]+) = .*,backend \1,p'
ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n -E 's,.*/proc/([0-9]+)/exe -> (.*/(split-driver|qemu-system-[^/]*|xl))$,process \1 \2,p'
pgrep -f '[u]npack-kernel' | sed 's/$/ unpacks a kernel/; s/^/process /'
pgrep -f '[m]ove-pages' | sed 's/$/ moves pages/; s/^/process /'
find /run/parapet /var/lib/parapet ! -type d 2>/dev/null | sed 's/^/file /'
for l in /usr/lib/xen-*/bin/lsevtchn; do [ -x "$l" ] && "$l" 0 | sed -n -E 's/.*Interdomain.*Remote Domain: *([1-9][0-9]*).*/channel to domain \1/p' | sort -u; done
echo "free $(xl info free_memory)"
"#;
/// How much less memory of Xen may be free than before, in MiB: Xen's own heap grows and shrinks with what it is asked.
const MEMORY_TOLERANCE_MIB: u64 = 4;

/// A set of such lines, and Xen's free memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    things: BTreeSet<String>,
    free_mib: u64,
}

impl Inventory {
    /// What is there now.
    ///
    /// # Errors
    /// When dom0 cannot be asked.
    pub fn of(host: &Host) -> Result<Self> {
        Self::read(&host.sh(LIST)?)
    }

    fn read(list: &str) -> Result<Self> {
        let mut things: BTreeSet<String> = list.lines().map(String::from).collect();
        let free = list
            .lines()
            .last()
            .filter(|line| line.starts_with("free "))
            .with_context(|| format!("the list does not end with Xen's free memory: {list}"))?;
        let free_mib = free["free ".len()..].trim().parse();
        let free_mib = free_mib.with_context(|| format!("Xen's free memory is {free:?}"))?;
        things.remove(free);
        Ok(Self { things, free_mib })
    }

    /// What `self` has and `before` had not.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut left: Vec<String> = self.things.difference(&before.things).cloned().collect();
        if self.free_mib + MEMORY_TOLERANCE_MIB < before.free_mib {
            left.push(format!(
                "memory: {} MiB are free, {} MiB were",
                self.free_mib, before.free_mib
            ));
        }
        left
    }

    /// Waits until nothing is there that was not in `self`.
    ///
    /// # Errors
    /// When something stays for [`deadline::SETTLE`]: it is listed.
    pub fn assert_nothing_new(&self, host: &Host) -> Result<()> {
        let give_up = std::time::Instant::now() + deadline::scaled(deadline::SETTLE);
        loop {
            let left = Self::of(host)?.beyond(self);
            if left.is_empty() {
                return Ok(());
            }
            ensure!(
                std::time::Instant::now() < give_up,
                "left behind:\n  {}",
                left.join("\n  ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_things_and_memory_that_is_gone_are_named() {
        let read = |list: &str| Inventory::read(list).unwrap();
        let before = read("link a\nfree 900\n");
        assert_eq!(read("link a\nfree 896\n").beyond(&before), [""; 0]);
        assert_eq!(read("free 2000\n").beyond(&before), [""; 0]);
        assert_eq!(
            read("link a\nfile /run/parapet/x\nfree 895\n").beyond(&before),
            [
                "file /run/parapet/x",
                "memory: 895 MiB are free, 900 MiB were"
            ]
        );
        for bad in ["", "link a", "free \n", "free 900\nlink a"] {
            assert!(Inventory::read(bad).is_err(), "{bad:?}");
        }
    }
}
