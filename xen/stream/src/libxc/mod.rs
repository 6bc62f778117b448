//! The inner layer: a domain's memory and registers, in libxc's image format.
//!
//! [`kind`] names the records, [`header`] is what stands before them, [`record`] holds the small ones whole ([`pv`], [`hvm`] and
//! [`policy`] their fields), [`pages`] the list in front of page contents, [`order`] what may follow what. Nothing here reads or
//! writes; bodies are slices in private memory.

pub mod header;
pub mod hvm;
pub mod kind;
pub mod order;
pub mod pages;
pub mod policy;
pub mod pv;
pub mod record;

pub use header::{DomainHeader, DomainKind, ImageHeader};
pub use hvm::HvmParam;
pub use kind::Kind;
pub use order::{Mode, Order, Refusal};
pub use pages::{PageEntry, PageKind, Pfn, Run, runs};
pub use policy::TscInfo;
pub use pv::{P2mFrames, PvInfo, VcpuPart, VcpuRecord};
pub use record::Record;
