//! `xl vm-list`: identity, number and name of every guest, dom0 included.

use uuid::Uuid;

use super::list::{NULL, put};

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRow {
    /// Identity.
    pub uuid: Uuid,
    /// Number.
    pub domid: u32,
    /// Name.
    pub name: Option<String>,
}

/// The whole list, header first.
#[must_use]
pub fn vm_list(rows: &[VmRow]) -> String {
    let mut out = String::from("UUID                                  ID    name\n");
    for row in rows {
        let name = row.name.as_deref().unwrap_or(NULL);
        put(
            &mut out,
            format_args!("{}  {}    {name:<30}\n", row.uuid.hyphenated(), row.domid),
        );
    }
    out
}
