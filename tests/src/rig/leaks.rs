//! What guests and their makers may leave behind in dom0, listed, so that a test can prove there is nothing.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::deadline;
use super::host::Host;

/// One line per thing, each starting with its kind. Processes are those of a toolstack; files those in its run-time folders. Links that dom0 itself
/// drives as a frontend are nobody's leak: Debian's script starts a QEMU for dom0's disks, which also offers it an interface, and udev takes its time.
const LIST: &str = r#"
xl list | tail -n +2 | while read -r name id rest; do [ "$id" = 0 ] || echo "domain $id $name"; done
for d in /sys/class/net/*; do case $(cat $d/device/nodename 2>/dev/null) in device/*) continue ;; esac; d=${d##*/}; case $d in lo|eth0|xenbr0|tunl0|sit0) ;; *) echo "link $d" ;; esac; done
losetup -a | sed 's/^/loop /'
xenstore-ls -f / 2>/dev/null | sed -n -E 's,^/(local/domain/[1-9][0-9]*|vm/[^ /]+|libxl/[1-9][0-9]*) = .*,store \1,p'
xenstore-ls -f /local/domain/0/backend 2>/dev/null | sed -n -E 's,^/local/domain/0/backend/([^/]+/[0-9]+/[0-9]+) = .*,backend \1,p'
ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n -E 's,.*/proc/([0-9]+)/exe -> (.*/(split-driver|qemu-system-[^/]*|xl))$,process \1 \2,p'
true
"#;

/// A set of such lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeSet<String>);

impl Inventory {
    /// What is there now.
    ///
    /// # Errors
    /// When dom0 cannot be asked.
    pub fn of(host: &Host) -> Result<Self> {
        Ok(Self(host.sh(LIST)?.lines().map(String::from).collect()))
    }

    /// What `self` has and `before` had not.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
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
                "left behind in dom0:\n  {}",
                left.join("\n  ")
            );
        }
    }
}
