//! What the bytes are: Xen's public interface as plain types, for every supported release.
//!
//! ```text
//!   version-independent forms          layouts, by interface version          bytes
//!   domain.rs host.rs ids.rs   <---->  domctl/ sysctl/ memory.rs hvm/ pv/ ...  <---->  the hypervisor, the kernel
//! ```
//!
//! Every structure is declared once, with its size and offsets asserted beside it, and says which C structure it stands
//! for; `tests/header_check.rs` compiles Debian's own headers and compares. This crate does no I/O, makes no hypercall
//! and holds no `unsafe`. The layouts are those of x86-64, little-endian, and nothing else is supported.
//!
//! | header (`xen/...`) | here |
//! |---|---|
//! | `xen.h`, `version.h` | [`hypercall`], [`ids`], [`mmu`], [`xen_version`], [`pv`] |
//! | `domctl.h`, `sysctl.h` | [`domctl`], [`sysctl`] |
//! | `memory.h` | [`memory`] |
//! | `event_channel.h`, `grant_table.h`, `sched.h` | [`event`], [`grant_table`], [`sched`] |
//! | `hvm/*.h`, `arch-x86/hvm/*.h` | [`hvm`] |
//! | `arch-x86/*.h`, `elfnote.h` | [`cpuid`], [`pv`], [`elfnote`] |
//! | `io/*.h` | [`io`], [`xs_wire`] |
//! | headers changed by `xen-patches/` | [`extras`] |
//! | `sys/*.h` (the Linux drivers) | [`privcmd`], [`gntdev`], [`gntalloc`], [`evtchn`] |

#![forbid(unsafe_code)]
#![allow(
    missing_debug_implementations,
    reason = "zerocopy's derives leave hidden types without Debug; `layout!` derives it for every structure of ours"
)]

pub mod layout;

pub mod domain;
pub mod host;
pub mod ids;
pub mod version;

pub mod cpuid;
pub mod domctl;
pub mod elfnote;
pub mod event;
pub mod evtchn;
pub mod extras;
pub mod gntalloc;
pub mod gntdev;
pub mod grant_table;
pub mod hvm;
pub mod hypercall;
pub mod io;
pub mod memory;
pub mod mmu;
pub mod privcmd;
pub mod pv;
pub mod sched;
pub mod sysctl;
pub mod xen_version;
pub mod xs_wire;
