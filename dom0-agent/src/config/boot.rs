//! What a guest boots: kernel, ramdisk, command line, boot loader.

use serde::{Deserialize, Serialize};

/// The boot section of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootConfig {
    /// Path of the kernel image in dom0 (`kernel=`).
    pub kernel: Option<String>,
    /// Path of the initial ramdisk in dom0 (`ramdisk=`).
    pub ramdisk: Option<String>,
    /// Kernel command line: `cmdline=`, or `root=` and `extra=` joined.
    pub cmdline: Option<String>,
    /// Program that fetches the kernel out of the guest's disk (`bootloader=`).
    pub bootloader: Option<String>,
    /// Arguments for the boot loader (`bootloader_args=`).
    pub bootloader_args: Vec<String>,
}
