//! Guests made by Debian's own `xl`: the peer in every comparison, and the proof that the lab itself works.

use anyhow::{Context, Result};

use crate::rig::{Host, deadline};

/// Debian's own tool, by its full name: the product has an `xl` too.
pub const XL: &str = "/usr/sbin/xl";

/// How a guest is virtualised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtual.
    Pv,
    /// Hardware-virtual with a paravirtual boot.
    Pvh,
}

/// The configuration of a guest, written to dom0 when it is created.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Last byte of its address in 10.77.0.0/24.
    pub address: usize,
    /// With a disk and a network interface, or with nothing.
    pub devices: bool,
}

impl Guest {
    /// A minimal guest with a 32 MiB disk and an interface on dom0's bridge.
    #[must_use]
    pub fn minimal(name: &str, kind: Kind, address: usize) -> Self {
        Self {
            name: name.into(),
            kind,
            address,
            devices: true,
        }
    }

    /// The same without devices.
    #[must_use]
    pub fn bare(name: &str, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            address: 0,
            devices: false,
        }
    }

    /// Its `xl.cfg`.
    ///
    /// PVH guests read the TSC natively: intercepting every read makes them crawl under emulation.
    #[must_use]
    pub fn config(&self) -> String {
        let Self { name, address, .. } = self;
        let mut text = format!(
            "name=\"{name}\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd\"\nmemory=128\n"
        );
        if self.kind == Kind::Pvh {
            text += "type=\"pvh\"\ntsc_mode=\"native\"\n";
        }
        if self.devices {
            text += &format!(
                "extra=\"console=hvc0 quiet ip=10.77.0.{address}/24\"\nvif=[\"bridge=xenbr0\"]\n\
                 disk=[\"{},raw,xvda,rw\"]\n",
                self.disk()
            );
        } else {
            text += "extra=\"console=hvc0 quiet\"\n";
        }
        text
    }

    /// Where its disk lies in dom0.
    #[must_use]
    pub fn disk(&self) -> String {
        format!("/tmp/{}.raw", self.name)
    }

    /// Where its configuration lies in dom0.
    #[must_use]
    pub fn config_path(&self) -> String {
        format!("/tmp/{}.cfg", self.name)
    }

    /// Writes configuration and disk.
    ///
    /// # Errors
    /// When dom0 cannot be written to.
    pub fn prepare(&self, host: &Host) -> Result<()> {
        host.write(&self.config_path(), self.config().as_bytes(), 0o644)?;
        if self.devices {
            host.ok(&["truncate", "-s", "32M", &self.disk()])?;
        }
        Ok(())
    }

    /// Writes its files and has stock `xl` create it.
    ///
    /// # Errors
    /// When that fails; `xl`'s words are in the error.
    pub fn create(&self, host: &Host) -> Result<()> {
        self.prepare(host)?;
        host.ok(&[XL, "create", "-q", &self.config_path()])?;
        Ok(())
    }

    /// Has stock `xl` destroy it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn destroy(&self, host: &Host) -> Result<()> {
        host.ok(&[XL, "destroy", &self.name])?;
        Ok(())
    }
}

/// `xl console`, stock's or ours: what is typed reaches the guest's shell, the answer comes back, and `^]` ends it. Stock's listens to terminals only, so
/// `script` holds one between it and our pipe.
///
/// # Errors
/// When the answer does not come, or the command ends with anything but 0.
pub fn console_types_and_reads(host: &Host, xl: &str, guest: &str) -> Result<()> {
    host.sh(&format!(
        "rm -f /tmp/typed /tmp/said /tmp/left; mkfifo /tmp/typed; \
         (exec 3<>/tmp/typed; script -q -e -c '{xl} console {guest}' /dev/null < /tmp/typed > /tmp/said 2>&1; echo $? > /tmp/left) > /dev/null 2>&1 & \
         printf 'echo typed-$((40+2))\n' > /tmp/typed"
    ))?;
    let answered = host.wait_until("grep -aq typed-42 /tmp/said", deadline::SETTLE);
    let said = host.sh("cat -v /tmp/said")?;
    answered.with_context(|| format!("the console of {guest} said: {said}"))?;
    host.sh("printf '\\035' > /tmp/typed")?;
    host.wait_until("test -s /tmp/left", deadline::SETTLE)?;
    host.sh("rm /tmp/typed /tmp/said; test $(cat /tmp/left) = 0; rm /tmp/left")
        .map(drop)
}
