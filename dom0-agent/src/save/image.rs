//! One domain's image on its way out: headers, what never changes, rounds of pages, the rest, the end.
//!
//! ```text
//!   begin ──▶ Static ──memory──▶ where pages are ──rounds──▶ Pages ──finish──▶ complete
//! ```
//!
//! The order is the stream writer's to enforce. PVH: CPU policy, pages, clock, vcpus and devices, parameters. PV: width, CPU policy, where
//! the list of frames is, pages, clock, shared info, vcpus.

use super::error::{SaveError, Step};
use super::pages::Sender;
use super::pv::PvState;
use super::rounds::{PageSet, PageSource};
use super::{policy, pv, pvh};
use crate::build::Hypervisor;
use std::fs::File;
use std::io::ErrorKind;
use xen_abi::domain::DomainKind;
use xen_abi::ids::DomId;
use xen_stream::libxc::{self, DomainHeader, PvInfo, Record};
use xen_stream::{Layer, Mode, Summary, Writer, libxl};

/// Whom to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Which domain.
    pub domid: DomId,
    /// Its kind.
    pub kind: DomainKind,
    /// Memory it may ever have, in KiB.
    pub max_memory_kib: u64,
}

/// Writes one image.
pub struct Saver<'a> {
    pub(super) host: &'a dyn Hypervisor,
    pub(super) subject: Subject,
    pub(super) writer: Writer<File>,
    /// What a PV guest says of its memory, once that was read.
    pv: Option<PvState>,
    /// Whether the image is still wanted.
    pub(super) waits: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Saver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saver")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl<'a> Saver<'a> {
    /// Writes what comes before any page: the libxl stream's header, the image's headers, the CPU policy.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn begin(
        host: &'a dyn Hypervisor,
        subject: Subject,
        file: File,
        waits: &'a dyn Fn() -> bool,
    ) -> Result<Self, SaveError> {
        let mut writer = Writer::new(file, Layer::Libxl, Mode::Plain);
        let version = host.version();
        writer.stream()?;
        let pv = subject.kind == DomainKind::Pv;
        writer.image(DomainHeader {
            kind: if pv {
                libxc::DomainKind::Pv
            } else {
                libxc::DomainKind::Hvm
            },
            xen_major: version.major.into(),
            xen_minor: version.minor.into(),
        })?;
        let mut saver = Self {
            host,
            subject,
            writer,
            pv: None,
            waits,
        };
        if pv {
            // Only 64-bit guests are built and restored.
            saver.writer.record(&Record::PvInfo(PvInfo::Bits64))?;
        }
        saver.static_data()?;
        saver.writer.flush()?;
        Ok(saver)
    }

    fn static_data(&mut self) -> Result<(), SaveError> {
        let known = self
            .host
            .domain_cpu_policy(self.subject.domid)
            .step("reading the guest's CPU policy")?;
        let (leaves, msrs) = (policy::leaves(&known), policy::msrs(&known));
        // An empty list has no record.
        if !leaves.is_empty() {
            self.writer.record(&Record::CpuidPolicy(leaves))?;
        }
        if !msrs.is_empty() {
            self.writer.record(&Record::MsrPolicy(msrs))?;
        }
        Ok(self.writer.record(&Record::StaticDataEnd)?)
    }

    /// Every page the guest may have, once it has suspended; of a PV guest, its list of frames is read for that.
    ///
    /// # Errors
    /// The file refuses, Xen does, or the guest does not say where its memory is.
    pub fn memory(&mut self) -> Result<PageSet, SaveError> {
        if self.subject.kind != DomainKind::Pv {
            return Ok(pvh::pages(self.subject.max_memory_kib));
        }
        let state = pv::read(self)?;
        let pages = PageSet::of(std::iter::once(0..state.p2m.pages()));
        self.pv = Some(state);
        Ok(pages)
    }

    /// Writes every round that `source` has.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn rounds(&mut self, source: &mut dyn PageSource) -> Result<(), SaveError> {
        let mut fresh = true;
        while let Some(set) = source.next_round()? {
            let sender = Sender {
                host: self.host,
                domid: self.subject.domid,
                p2m: self.pv.as_ref().map(|state| &state.p2m),
                fresh,
                waits: self.waits,
            };
            sender.send(&mut self.writer, &set)?;
            fresh = false;
        }
        Ok(())
    }

    /// Writes what is not memory, and the end; the file is complete and on its medium then.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn finish(mut self) -> Result<Summary, SaveError> {
        self.tail()?;
        self.writer.record(&Record::End)?;
        self.writer.outer(&libxl::Record::End)?;
        self.writer.flush()?;
        let summary = self.writer.summary();
        durable(&self.writer.into_sink())?;
        Ok(summary)
    }

    fn tail(&mut self) -> Result<(), SaveError> {
        let info = self
            .host
            .tsc_info(self.subject.domid)
            .step("reading the guest's clock")?;
        self.writer.record(&Record::TscInfo((&info).into()))?;
        match self.pv.take() {
            Some(state) => pv::tail(self, state),
            None => pvh::tail(self),
        }
    }
}

/// Waits until the bytes are on the medium: a disk that is full may say so only now. Pipes and sockets have none.
fn durable(file: &File) -> Result<(), SaveError> {
    match file.sync_data() {
        Err(error) if error.kind() != ErrorKind::InvalidInput => Err(SaveError::Sync(error)),
        _ => Ok(()),
    }
}
