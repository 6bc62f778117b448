//! What an image holds besides memory, gathered until the end: the last word of the stream counts. Pure.

use super::error::RestoreError;
use std::collections::BTreeMap;
use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::domain::DomainKind;
use xen_abi::domctl;
use xen_abi::hvm::params::{CONSOLE_PFN, SAVED, STORE_PFN};
use xen_abi::ids::{PAGE_SIZE, VcpuId};
use xen_host::seam::VcpuPart as Part;
use xen_stream::libxc::{
    self, DomainHeader, HvmParam, P2mFrames, PvInfo, Record, VcpuPart, VcpuRecord,
};

/// Everything but memory.
#[derive(Debug, Default)]
pub struct Collected {
    max_vcpus: u32,
    leaves: Vec<Leaf>,
    msrs: Vec<Msr>,
    tsc: Option<domctl::TscInfo>,
    context: Vec<u8>,
    params: Vec<(u32, u64)>,
    list: Option<P2mFrames>,
    shared_info: Option<Box<[u8; PAGE_SIZE]>>,
    vcpus: BTreeMap<VcpuId, VcpuState>,
}

/// State of one PV vcpu, by parts. Empty parts mean nothing.
#[derive(Debug, Default)]
pub struct VcpuState {
    /// Registers, with page numbers in place of frames.
    pub basic: Vec<u8>,
    /// Everything else, as Xen gave it.
    pub parts: BTreeMap<Part, Vec<u8>>,
}

/// Whether the image is of the kind that the configuration says.
///
/// # Errors
/// It is not.
pub fn check_kind(header: DomainHeader, kind: DomainKind) -> Result<(), RestoreError> {
    let wanted = match kind {
        DomainKind::Pv => libxc::DomainKind::Pv,
        DomainKind::Pvh | DomainKind::Hvm => libxc::DomainKind::Hvm,
    };
    if header.kind == wanted {
        return Ok(());
    }
    Err(RestoreError::Kind {
        found: header.kind.name(),
        wanted: kind.as_str(),
    })
}

impl Collected {
    /// Nothing yet, of a domain that may have so many vcpus.
    #[must_use]
    pub fn of(max_vcpus: u32) -> Self {
        Self {
            max_vcpus,
            ..Self::default()
        }
    }

    /// Takes one record.
    ///
    /// # Errors
    /// A record that this kind of guest has no use for.
    pub fn take(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::CpuidPolicy(leaves) => self.leaves = leaves,
            Record::MsrPolicy(msrs) => self.msrs = msrs,
            Record::TscInfo(info) => self.tsc = Some((&info).into()),
            Record::HvmContext(blob) => self.context = blob,
            Record::HvmParams(params) => self.take_params(&params),
            Record::StaticDataEnd | Record::End | Record::Verify | Record::Offer(_) => {}
            Record::PvInfo(PvInfo::Bits64) => {}
            Record::PvInfo(PvInfo::Bits32) => {
                let why = "it is a 32-bit PV guest; only 64-bit ones are run";
                return Err(RestoreError::Unfit(why.to_owned()));
            }
            Record::P2mFrames(list) => self.list = Some(list),
            Record::SharedInfo(page) => self.shared_info = Some(page),
            Record::Vcpu(record) if record.vcpu.0 < self.max_vcpus => self.take_vcpu(record),
            Record::Vcpu(record) => {
                let (vcpu, most) = (record.vcpu.0, self.max_vcpus);
                let why = format!("it has state of vcpu {vcpu}, and the domain {most} vcpus");
                return Err(RestoreError::Unfit(why));
            }
            // The reader's order lets none of these into an image.
            Record::Toolstack(_) | Record::Checkpoint | Record::CheckpointDirtyPfnList(_) => {
                return Err(RestoreError::NoImage);
            }
        }
        Ok(())
    }

    fn take_vcpu(&mut self, record: VcpuRecord) {
        let vcpu = self.vcpus.entry(record.vcpu).or_default();
        let part = match record.part {
            VcpuPart::Basic => {
                vcpu.basic = record.state;
                return;
            }
            VcpuPart::Extended => Part::Extended,
            VcpuPart::Xsave => Part::Xsave,
            VcpuPart::Msrs => Part::Msrs,
        };
        if !record.state.is_empty() {
            vcpu.parts.insert(part, record.state);
        }
    }

    /// Where a PV guest's list of frames is.
    ///
    /// # Errors
    /// The image does not say.
    pub fn list(&self) -> Result<&P2mFrames, RestoreError> {
        let list = self.list.as_ref().filter(|list| list.first == 0);
        list.ok_or(RestoreError::Missing(
            "the place of the guest's list of frames",
        ))
    }

    /// A PV guest's shared info.
    ///
    /// # Errors
    /// There is none.
    pub fn shared_info(&self) -> Result<&[u8; PAGE_SIZE], RestoreError> {
        let page = self.shared_info.as_deref();
        page.ok_or(RestoreError::Missing("the guest's shared info"))
    }

    /// A PV guest's vcpus.
    #[must_use]
    pub const fn vcpus(&self) -> &BTreeMap<VcpuId, VcpuState> {
        &self.vcpus
    }

    /// Only parameters that a toolstack saves: the others are Xen's or the builder's to set.
    fn take_params(&mut self, params: &[HvmParam]) {
        for param in params {
            match u32::try_from(param.index) {
                Ok(index) if SAVED.contains(&index) => {
                    self.params.retain(|(known, _)| *known != index);
                    self.params.push((index, param.value));
                }
                _ => tracing::warn!(index = param.index, "a platform parameter is passed over"),
            }
        }
    }

    /// The CPU policy: leaves and registers.
    #[must_use]
    pub fn policy(&self) -> (&[Leaf], &[Msr]) {
        (&self.leaves, &self.msrs)
    }

    /// The clock, if the image has one.
    #[must_use]
    pub const fn tsc(&self) -> Option<&domctl::TscInfo> {
        self.tsc.as_ref()
    }

    /// Parameters as (index, value).
    #[must_use]
    pub fn params(&self) -> &[(u32, u64)] {
        &self.params
    }

    /// State of vcpus and devices.
    ///
    /// # Errors
    /// There is none.
    pub fn context(&self) -> Result<&[u8], RestoreError> {
        if self.context.is_empty() {
            return Err(RestoreError::Missing("the state of the vcpus"));
        }
        Ok(&self.context)
    }

    /// Frames of the xenstore and the console page.
    ///
    /// # Errors
    /// One of them is not said.
    pub fn rings(&self) -> Result<(u64, u64), RestoreError> {
        let value = |wanted| {
            let found = self.params.iter().find(|(index, _)| *index == wanted);
            found.map(|(_, value)| *value)
        };
        let store = value(STORE_PFN).ok_or(RestoreError::Missing("the place of its xenstore page"));
        let console =
            value(CONSOLE_PFN).ok_or(RestoreError::Missing("the place of its console page"));
        Ok((store?, console?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::hvm::params::{IDENT_PT, STORE_EVTCHN};

    fn param(index: u32, value: u64) -> HvmParam {
        let index = index.into();
        HvmParam { index, value }
    }

    #[test]
    fn the_last_word_counts_and_ports_are_not_the_streams_to_set() {
        let mut collected = Collected::of(1);
        let params = [
            param(STORE_PFN, 1),
            param(STORE_EVTCHN, 7),
            param(IDENT_PT, 9),
        ];
        collected.take(Record::HvmParams(params.to_vec())).unwrap();
        let again = vec![param(STORE_PFN, 2), param(CONSOLE_PFN, 3)];
        collected.take(Record::HvmParams(again)).unwrap();
        assert_eq!(
            collected.params(),
            [(IDENT_PT, 9), (STORE_PFN, 2), (CONSOLE_PFN, 3)]
        );
        assert_eq!(collected.rings().unwrap(), (2, 3));
    }

    #[test]
    fn what_lacks_is_named() {
        let mut collected = Collected::of(1);
        let said = |error: RestoreError| error.to_string();
        assert!(said(collected.context().unwrap_err()).contains("vcpus"));
        assert!(said(collected.rings().unwrap_err()).contains("xenstore page"));
        let params = vec![param(STORE_PFN, 2)];
        collected.take(Record::HvmParams(params)).unwrap();
        assert!(said(collected.rings().unwrap_err()).contains("console page"));
    }

    #[test]
    fn state_of_vcpus_that_the_domain_has_not_is_refused_by_number() {
        let state = |vcpu| {
            Record::Vcpu(VcpuRecord {
                vcpu: VcpuId(vcpu),
                part: VcpuPart::Basic,
                state: vec![0; 8],
            })
        };
        let mut collected = Collected::of(2);
        collected.take(state(1)).unwrap();
        let refused = collected.take(state(2)).unwrap_err().to_string();
        assert!(refused.contains("vcpu 2"), "{refused}");
        assert_eq!(collected.vcpus().len(), 1);
    }

    #[test]
    fn a_kind_of_guest_is_no_other() {
        let header = DomainHeader {
            kind: libxc::DomainKind::Pv,
            xen_major: 4,
            xen_minor: 20,
        };
        let error = check_kind(header, DomainKind::Pvh).unwrap_err().to_string();
        assert!(
            error.contains("PV guest") && error.contains("pvh"),
            "{error}"
        );
        check_kind(header, DomainKind::Pv).unwrap();
    }
}
