//! Restoring a domain: from the bytes of a libxl stream to a paused domain that lacks only its devices.
//!
//! ```text
//!   stream ─▶ reader ─▶ Collected (pure: what is not memory, judged)
//!                │ STATIC_DATA_END: the CPU policy is set
//!                ├ pages: populated where they are new, then filled                                    memory.rs, window.rs
//!                │ END: clock, parameters or list of frames, ports, vcpus                              pvh.rs, pv.rs
//!                └ END of the outer stream ─▶ Built          any error, a panic ─▶ destroydomain
//! ```
//!
//! The configuration is not in here: the domain is made in its shape before a byte of the stream is read. Streams are untrusted; what
//! a page number may be and what a parameter may be is judged here, all the rest by `xen-stream`.

pub mod collect;
pub mod compare;
pub mod error;
pub mod limits;

mod buffered;
mod copied;
mod mapped;
mod memory;
mod moved;
mod pv;
mod pvh;
mod window;

pub use error::RestoreError;

use crate::build::newborn::Newborn;
use crate::build::{BuildRequest, Built, Hypervisor};
use crate::peer::Incoming;
use crate::save::policy;
use collect::Collected;
use compare::Compared;
use error::Step;
use memory::Memory;
use std::fs::File;
use xen_abi::domain::DomainKind;
use xen_abi::ids::DomId;
use xen_stream::libxc::Record;
use xen_stream::{Accord, Event, Layer, Mode, Reader};

/// A domain that was restored.
#[derive(Debug, Clone, Copy)]
pub struct Restored {
    /// It.
    pub built: Built,
    /// How its memory compares that came twice.
    pub compared: Option<Compared>,
}

/// Answers a sender's offer with what is taken of it; what it returns is agreed upon then.
pub type Answer<'a> = dyn FnMut(Accord) -> std::io::Result<Accord> + 'a;

/// Restores a domain, paused, without devices, from a file or connection that stands at the libxl stream's header. `made` is told which one it is while its memory is
/// still to come.
///
/// # Errors
/// See [`RestoreError`]. No domain is left then, except for [`RestoreError::LeftBehind`].
pub fn restore(
    host: &dyn Hypervisor,
    request: &BuildRequest,
    from: Incoming<'_>,
    answer: &mut Answer<'_>,
    made: &mut dyn FnMut(DomId),
) -> Result<Restored, RestoreError> {
    let file = from.share().map_err(RestoreError::Source)?;
    let mut reader = Reader::new(from, Layer::Libxl, Mode::Plain);
    // A file that is no image at all is refused before there is a domain.
    begin(&mut reader, request.kind)?;
    let newborn = Newborn::create(host, request)?;
    let domid = newborn.domid;
    made(domid);
    match fill(&newborn, &mut reader, &file, answer) {
        Ok(restored) => {
            newborn.finish();
            Ok(restored)
        }
        Err(cause) => match newborn.destroy() {
            Ok(()) => Err(cause),
            Err(destroy) => Err(RestoreError::LeftBehind {
                domid,
                cause: Box::new(cause),
                destroy,
            }),
        },
    }
}

/// Reads up to the image's headers.
fn begin(reader: &mut Reader<Incoming<'_>>, kind: DomainKind) -> Result<(), RestoreError> {
    loop {
        match reader.next()? {
            Event::Image(_, header) => return collect::check_kind(header, kind),
            Event::Stream(_) | Event::Outer(_) | Event::Skipped { .. } => {}
            Event::File(_) | Event::Record(_) | Event::Pages(_) | Event::End => {
                return Err(RestoreError::NoImage);
            }
        }
    }
}

fn fill(
    newborn: &Newborn<'_>,
    reader: &mut Reader<Incoming<'_>>,
    from: &File,
    answer: &mut Answer<'_>,
) -> Result<Restored, RestoreError> {
    let ports = newborn.ports()?;
    let pv = newborn.request.kind == DomainKind::Pv;
    if pv {
        pv::prepare(newborn)?;
    } else {
        pvh::prepare(newborn)?;
    }
    let mut memory = Memory::new(newborn, from)?;
    let mut collected = Collected::of(newborn.request.max_vcpus);
    loop {
        match reader.next()? {
            Event::Pages(pages) => memory.load(pages)?,
            Event::Record(Record::Offer(offered)) => {
                let taken = answer(offered).map_err(RestoreError::Answer)?;
                reader.agree(taken);
            }
            Event::Record(Record::StaticDataEnd) => set_policy(newborn, &collected)?,
            Event::Record(record) => collected.take(record)?,
            Event::End => break,
            Event::Outer(record) => tracing::debug!(kind = %record.kind(), "passed over"),
            Event::Skipped { kind, .. } => tracing::info!(kind, "an optional record is not known"),
            Event::File(_) | Event::Stream(_) | Event::Image(..) => {
                return Err(RestoreError::NoImage);
            }
        }
    }
    let memory = memory.close()?;
    let compared = memory.compared;
    let built = if pv {
        pv::complete(newborn, &memory, &collected, ports)
    } else {
        pvh::complete(newborn, &collected, ports)
    };
    built.map(|built| Restored { built, compared })
}

/// The CPU that the guest had where it was saved; images older than Xen 4.14 do not say, and their guests get that of a new guest.
fn set_policy(newborn: &Newborn<'_>, collected: &Collected) -> Result<(), RestoreError> {
    let (leaves, msrs) = collected.policy();
    if leaves.is_empty() && msrs.is_empty() {
        return Ok(newborn.apply_cpu_policy()?);
    }
    newborn
        .host
        .set_cpu_policy(newborn.domid, &policy::policy(leaves, msrs))
        .map_err(RestoreError::Policy)
}

/// What a call of the seam was for.
fn step<T>(
    result: Result<T, xen_host::error::Error>,
    what: &'static str,
) -> Result<T, RestoreError> {
    result.step(what)
}
