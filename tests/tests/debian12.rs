//! The same binaries on Debian 12: Xen 4.17 and a 6.1 kernel, in dom0 and in the guests.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Shape, nested};
use stack_tests::scenario::{harm, main_job};
use stack_tests::timeline::Timeline;

#[test]
fn guests_boot_work_and_come_back_on_xen_4_17() -> Result<()> {
    nested(&Shape::debian12(), |host| {
        product::start(host)?;
        ensure!(host.ok(&[XL, "info", "xen_version"])?.starts_with("4.17"));
        let guests = product::pair();
        for guest in &guests {
            product::create(host, guest, main_job::PROTECTED)?;
            host.guest(&guest.name).wait_up()?;
            main_job::disk_keeps_data(host, &guest.name)?;
        }
        main_job::network_carries_data(host, &guests)?;
        let [pv, pvh] = &guests;
        harm::kill_driver(host, &pvh.name)?;
        main_job::disk_keeps_data(host, &pvh.name)?;
        harm::injure(host, pv, harm::CRASH, &mut Timeline::default())?;
        for guest in &guests {
            product::destroy(host, guest)?;
        }
        product::clean(host)
    })
}
