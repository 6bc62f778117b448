//! Entries of a CPU policy as they cross the interface. Source: `xen/arch-x86/xen.h`.
//!
//! What the bits mean is for the processor's manuals; which of them a guest may have is for Xen.

use crate::layout;

crate::constants! {
    /// [`Leaf::subleaf`] of a leaf that has none.
    pub const NO_SUBLEAF: u32 = 0xffff_ffff => "XEN_CPUID_NO_SUBLEAF";
}

layout! {
    /// One CPUID leaf (`xen_cpuid_leaf`).
    pub struct Leaf: "xen_cpuid_leaf_t", 24 {
        /// EAX in.
        pub leaf: u32 = 0 => "leaf",
        /// ECX in, or [`NO_SUBLEAF`].
        pub subleaf: u32 = 4 => "subleaf",
        /// EAX out.
        pub a: u32 = 8 => "a",
        /// EBX out.
        pub b: u32 = 12 => "b",
        /// ECX out.
        pub c: u32 = 16 => "c",
        /// EDX out.
        pub d: u32 = 20 => "d",
    }
}

layout! {
    /// One model specific register (`xen_msr_entry`).
    pub struct Msr: "xen_msr_entry_t", 16 {
        /// Which.
        pub idx: u32 = 0 => "idx",
        /// Zero.
        pub flags: u32 = 4 => "flags",
        /// What it holds.
        pub val: u64 = 8 => "val",
    }
}
