//! One domain's image on its way out: headers, what never changes, rounds of pages, the rest, the end.
//!
//! ```text
//!   begin ──▶ Static ──memory──▶ where pages are ──send, send ...──▶ Pages ──finish──▶ complete
//! ```
//!
//! The order is the stream writer's to enforce. PVH: CPU policy, pages, clock, vcpus and devices, parameters. PV: width, CPU policy, where
//! the list of frames is, pages, clock, shared info, vcpus.

use super::error::{SaveError, Step};
use super::pages::{But, Sender, Sent};
use super::pv::PvState;
use super::rounds::{Bitmap, PageSet};
use super::{policy, pv, pvh};
use crate::build::Hypervisor;
use crate::peer::Outgoing;
use std::fs::File;
use std::io::ErrorKind;
use xen_abi::domain::DomainKind;
use xen_abi::ids::DomId;
use xen_stream::libxc::{self, DomainHeader, PvInfo, Record};
use xen_stream::{Accord, Layer, Mode, Summary, Writer, libxl};

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

/// What whoever reads the image is offered beyond stock's format.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// It.
    pub what: Accord,
    /// What was taken, as far as that is known by now.
    pub answered: &'a dyn Fn() -> Accord,
}

impl std::fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

/// Writes one image.
pub struct Saver<'a> {
    pub(super) host: &'a dyn Hypervisor,
    pub(super) subject: Subject,
    pub(super) writer: Writer<Outgoing<'a>>,
    /// What a PV guest says of its memory, once that was read.
    pv: Option<PvState>,
    all: PageSet,
    offer: Option<Offer<'a>>,
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
    /// Writes what comes before any page: the libxl stream's header, the image's headers, an offer, the CPU policy.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn begin(
        host: &'a dyn Hypervisor,
        subject: Subject,
        out: Outgoing<'a>,
        offer: Option<Offer<'a>>,
        waits: &'a dyn Fn() -> bool,
    ) -> Result<Self, SaveError> {
        let mut writer = Writer::new(out, Layer::Libxl, Mode::Plain);
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
            all: PageSet::default(),
            offer,
            waits,
        };
        if let Some(offer) = offer {
            saver.writer.record(&Record::Offer(offer.what))?;
        }
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
        let pages = if self.subject.kind == DomainKind::Pv {
            let state = pv::read(self)?;
            let pages = PageSet::of(std::iter::once(0..state.p2m.pages()));
            self.pv = Some(state);
            pages
        } else {
            pvh::pages(self.subject.max_memory_kib)
        };
        self.all.clone_from(&pages);
        Ok(pages)
    }

    /// Writes those of `pages` that are there; answers how many, and how many of them were named only.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn send(&mut self, pages: &PageSet) -> Result<Sent, SaveError> {
        self.send_but(pages, &|| Ok(Bitmap::default()))
    }

    /// As [`Saver::send`], without pages that are among those that `but` names when their turn comes. They must be sent later.
    ///
    /// # Errors
    /// As [`Saver::send`], or those of `but`.
    pub fn send_but(&mut self, pages: &PageSet, but: &But<'_>) -> Result<Sent, SaveError> {
        let sender = Sender {
            host: self.host,
            domid: self.subject.domid,
            p2m: self.pv.as_ref().map(|state| &state.p2m),
            offer: self.offer,
            waits: self.waits,
        };
        sender.send(&mut self.writer, pages, but)
    }

    /// Every page the guest may have; nothing before [`Saver::memory`].
    #[must_use]
    pub fn everything(&self) -> PageSet {
        self.all.clone()
    }

    /// Writes that pages which follow are there already, to be compared.
    ///
    /// # Errors
    /// The file refuses.
    pub fn verify(&mut self) -> Result<(), SaveError> {
        Ok(self.writer.record(&Record::Verify)?)
    }

    /// Writes what is not memory, and the end; the file is complete and on its medium then.
    ///
    /// # Errors
    /// The file refuses, or Xen does.
    pub fn finish(mut self) -> Result<(Summary, Outgoing<'a>), SaveError> {
        self.tail()?;
        self.writer.record(&Record::End)?;
        self.writer.outer(&libxl::Record::End)?;
        self.writer.flush()?;
        let summary = self.writer.summary();
        let out = self.writer.into_sink();
        durable(out.file())?;
        Ok((summary, out))
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
