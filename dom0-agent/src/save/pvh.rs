//! What a PVH guest has besides memory: vcpus and virtual devices as one blob, and its platform's parameters.

use super::error::{SaveError, Step};
use super::image::Saver;
use super::rounds::PageSet;
use crate::build::plan_pvh;
use xen_abi::hvm::params::SAVED;
use xen_stream::libxc::{HvmParam, Record};

/// Every page a PVH guest may have.
pub(super) fn pages(max_memory_kib: u64) -> PageSet {
    PageSet::of(plan_pvh::possible_pages(max_memory_kib))
}

/// Vcpus and devices, then parameters: the order of stock's code.
pub(super) fn tail(saver: &mut Saver<'_>) -> Result<(), SaveError> {
    let domid = saver.subject.domid;
    let blob = saver
        .host
        .hvm_context(domid)
        .step("reading the guest's vcpus")?;
    saver.writer.record(&Record::HvmContext(blob))?;
    let mut params = Vec::with_capacity(SAVED.len());
    for index in SAVED {
        let value = saver
            .host
            .hvm_param(domid, index)
            .step("reading a platform parameter")?;
        if value != 0 {
            params.push(HvmParam {
                index: index.into(),
                value,
            });
        }
    }
    saver.writer.record(&Record::HvmParams(params))?;
    Ok(())
}
