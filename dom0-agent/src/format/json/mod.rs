//! libxl's JSON form of a guest: what `create -n` prints, what `list -l` prints, and what the file says that stock
//! tools need beside each guest (`/var/lib/xen/userdata-d.<domid>.<uuid>.libxl-json`).
//!
//! ```text
//!  DomainConfig ──dry_run──▶ text of `create -n`
//!       │
//!       ├──stored──▶ userdata file ──┐
//!       ▲                            │ stock's or ours, the same form
//!       └────read────────────────────┤
//!                                    └──long_list + Live──▶ text of `list -l`
//! ```
//!
//! A member equal to libxl's default is left out, structures are always there. The shapes are checked against stock
//! xl 4.20's own output in the tests. Not written, because nothing here needs their typed form yet: CPUID policies,
//! vNUMA nodes, SMBIOS strings, vsnd and virtio devices, reserved memory regions; the configuration carries them.

mod build;
mod carried;
mod create;
mod devices;
mod fields;
mod hvm;
mod live;
mod read;
mod value;

pub use live::{Live, Scheduler};
pub use read::{ReadError, read};
pub use value::{Json, Map};

use crate::config::domain::DomainConfig;
use crate::config::protect::ProtectConfig;
use crate::config::xlconf::XlConf;

/// Member of a save file's header that holds how the guest is protected, as JSON in a string.
const PROTECT: &str = "parapet_protect";

/// Which of the two moments of a guest's life a form shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The configuration as it was parsed: `create -n`.
    Parsed,
    /// The guest as it was created: the userdata file. Stock fills a few members in by then.
    Created,
}

/// The libxl form of a guest.
#[must_use]
pub fn domain_config(config: &DomainConfig, conf: &XlConf, moment: Moment) -> Json {
    create::domain_config(config, conf, moment)
}

/// What `create -n` prints on standard output.
#[must_use]
pub fn dry_run(config: &DomainConfig, conf: &XlConf) -> String {
    domain_config(config, conf, Moment::Parsed).to_string()
}

/// The content of a guest's userdata file: JSON and the zero byte that stock keeps behind it.
#[must_use]
pub fn userdata(config: &DomainConfig, conf: &XlConf) -> Vec<u8> {
    let mut bytes = domain_config(config, conf, Moment::Created)
        .to_string()
        .into_bytes();
    bytes.push(0);
    bytes
}

/// The content of a save file's header: the stored form, and what libxl has no member for and its reader passes over.
#[must_use]
pub fn saved(config: &DomainConfig, conf: &XlConf) -> String {
    let mut form = domain_config(config, conf, Moment::Created);
    if let Json::Map(whole) = &mut form
        && config.protect != ProtectConfig::default()
        && let Ok(protect) = serde_json::to_string(&config.protect)
    {
        whole.put(PROTECT, protect);
    }
    form.to_string()
}

/// Parses the content of a userdata file, with or without the zero byte.
///
/// # Errors
/// The content is no JSON.
pub fn parse_userdata(bytes: &[u8]) -> Result<Json, ReadError> {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    serde_json::from_slice(text).map_err(|e| ReadError::NotJson(e.to_string()))
}

/// What `list -l` prints: for each guest its number and its stored form, which `Live` brings up to date.
#[must_use]
pub fn long_list(guests: impl IntoIterator<Item = (Json, Live)>) -> String {
    let entries = guests
        .into_iter()
        .map(|(stored, live)| live.entry(stored))
        .collect();
    format!("{}\n", Json::List(entries))
}

/// What `block-attach -N` prints.
#[must_use]
pub fn disk_dry_run(disk: &crate::config::disk::DiskSpec) -> String {
    format!("disk: {}\n", Json::Map(devices::disk(disk, Moment::Parsed)))
}

/// What `network-attach -N` prints.
#[must_use]
pub fn vif_dry_run(vif: &crate::config::vif::VifSpec) -> String {
    format!(
        "vif: {}\n",
        Json::Map(devices::vif(vif, None, Moment::Parsed))
    )
}
