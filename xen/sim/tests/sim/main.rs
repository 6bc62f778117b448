//! The simulation keeps Xen's rules, and its frontends find out who does not.

mod blkfront;
mod devices;
mod grub;
mod hostile;
mod lifecycle;
mod netfront;
mod support;
