//! The simulated hypervisor: domctl, memory and HVM operations over [`crate::state::State`], with Xen's own refusals.
//!
//! ```text
//!   createdomain ─▶ max_vcpus ─▶ max_mem ─▶ populate ─▶ contexts ─▶ unpause     finished
//!        │                                                            │
//!        └──────────────── destroydomain ◀────────────────────────────┘
//!                               │ frames mapped by others stay: a zombie
//!                               ▼
//!                      last mapping gone ─▶ the domain id is free
//! ```
//!
//! Every function answers with the errno Xen 4.20 gives. What differs per release (the next-id answer of `getdomaininfo`, the
//! wildcard of `createdomain`) is in [`release`]. Nothing here knows about faults or processes.

pub(crate) mod dirty;
pub(crate) mod domain;
pub(crate) mod extras;
pub(crate) mod host;
pub(crate) mod hvm;
pub(crate) mod lifecycle;
pub(crate) mod memory;
pub(crate) mod pagetable;
pub(crate) mod release;
pub(crate) mod saving;
pub(crate) mod vcpu;

use nix::errno::Errno;

/// What an operation answers.
pub(crate) type Outcome<T> = Result<T, Errno>;
