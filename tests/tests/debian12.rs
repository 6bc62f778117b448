//! The same binaries on Debian 12: Xen 4.17 and a 6.1 kernel, in dom0 and in the guests.
//!
//! PV guests only: under emulation, PVH guests of this Xen's own `xl` end in an exception before their kernel says a word, whatever kernel it is.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Shape, nested};
use stack_tests::scenario::{harm, main_job};
use stack_tests::stock::{Guest, Kind};
use stack_tests::timeline::Timeline;

#[test]
fn guests_boot_work_and_come_back_on_xen_4_17() -> Result<()> {
    nested(&Shape::debian12(), |host| {
        product::start(host)?;
        ensure!(host.ok(&[XL, "info", "xen_version"])?.starts_with("4.17"));
        let guests = [
            Guest::minimal("old1", Kind::Pv, 11),
            Guest::minimal("old2", Kind::Pv, 12),
        ];
        for guest in &guests {
            product::create(host, guest, main_job::PROTECTED)?;
            host.guest(&guest.name).wait_up()?;
            main_job::disk_keeps_data(host, &guest.name)?;
        }
        main_job::network_carries_data(host, &guests)?;
        let [first, second] = &guests;
        harm::kill_driver(host, &second.name)?;
        main_job::disk_keeps_data(host, &second.name)?;
        harm::injure(host, first, harm::CRASH, &mut Timeline::default())?;
        for guest in &guests {
            product::destroy(host, guest)?;
        }
        product::clean(host)
    })
}
