//! The exact text and JSON that xl prints, from plain typed input.
//!
//! Nothing here asks Xen or xenstore anything, and nothing prints: functions take what was found and give a text. So
//! every column can be held against stock's own output in a test.

pub mod bitmap;
pub mod devices;
pub mod help;
pub mod info;
pub mod json;
pub mod list;
pub mod names;
pub mod uptime;
pub mod vcpus;
pub mod vms;
