//! Names of the xenstore nodes that belong to a guest.

use xen_abi::ids::{DomId, Handle};

/// `/local/domain/D`
#[must_use]
pub fn domain(domid: DomId) -> String {
    format!("/local/domain/{domid}")
}

/// `/vm/<uuid>`
#[must_use]
pub fn vm(uuid: Handle) -> String {
    format!("/vm/{uuid}")
}

/// `/libxl/D`
#[must_use]
pub fn libxl(domid: DomId) -> String {
    format!("/libxl/{domid}")
}

/// Says of which guest a stopped domain is kept: `/libxl/D/parapet-kept`
#[must_use]
pub fn kept(domid: DomId) -> String {
    format!("{}/parapet-kept", libxl(domid))
}

/// Where all backends of one kind for one guest live: `/local/domain/0/backend/<kind>/D`.
#[must_use]
pub fn backends(kind: &str, domid: DomId) -> String {
    format!("/local/domain/0/backend/{kind}/{domid}")
}

/// A device's backend directory.
#[must_use]
pub fn backend(kind: &str, domid: DomId, devid: u32) -> String {
    format!("/local/domain/0/backend/{kind}/{domid}/{devid}")
}

/// A device's frontend directory; the primary console is special.
#[must_use]
pub fn frontend(kind: &str, domid: DomId, devid: u32) -> String {
    if kind == "console" && devid == 0 {
        return format!("/local/domain/{domid}/console");
    }
    format!("/local/domain/{domid}/device/{kind}/{devid}")
}

/// The toolstack's own copy of a device.
#[must_use]
pub fn library(kind: &str, domid: DomId, devid: u32) -> String {
    format!("/libxl/{domid}/device/{kind}/{devid}")
}
