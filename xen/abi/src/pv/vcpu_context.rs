//! Registers of a PV vcpu. Source: `xen/arch-x86/xen.h`, `xen/arch-x86/xen-x86_64.h`, `struct vcpu_guest_context`.
//!
//! Control registers hold page table roots as `mfn << 12`; cr3 for the kernel is at index 3, that of user mode at 1.

use crate::layout;

/// Bytes of a [`VcpuGuestContext`], the buffer of the context calls.
pub const BYTES: usize = size_of::<VcpuGuestContext>();

crate::constants! {
    /// [`VcpuGuestContext::flags`]: the FPU state means something.
    pub const VGCF_I387_VALID: u64 = 1 << 0 => "VGCF_i387_valid";
    /// [`VcpuGuestContext::flags`]: in the kernel.
    pub const VGCF_IN_KERNEL: u64 = 1 << 2 => "VGCF_in_kernel";
    /// [`VcpuGuestContext::flags`]: online.
    pub const VGCF_ONLINE: u64 = 1 << 5 => "VGCF_online";
    /// Flat kernel code segment.
    pub const FLAT_KERNEL_CS: u16 = 0xe033 => "FLAT_KERNEL_CS";
    /// Flat kernel stack segment.
    pub const FLAT_KERNEL_SS: u16 = 0xe02b => "FLAT_KERNEL_SS";
}

layout! {
    /// General registers.
    pub struct UserRegs: "struct cpu_user_regs", 200 {
        /// r15.
        pub r15: u64 = 0 => "r15",
        /// r14.
        pub r14: u64 = 8 => "r14",
        /// r13.
        pub r13: u64 = 16 => "r13",
        /// r12.
        pub r12: u64 = 24 => "r12",
        /// rbp.
        pub rbp: u64 = 32 => "rbp",
        /// rbx.
        pub rbx: u64 = 40 => "rbx",
        /// r11.
        pub r11: u64 = 48 => "r11",
        /// r10.
        pub r10: u64 = 56 => "r10",
        /// r9.
        pub r9: u64 = 64 => "r9",
        /// r8.
        pub r8: u64 = 72 => "r8",
        /// rax: return value of the hypercall a vcpu waits in.
        pub rax: u64 = 80 => "rax",
        /// rcx.
        pub rcx: u64 = 88 => "rcx",
        /// rdx: the start info frame when a guest suspended.
        pub rdx: u64 = 96 => "rdx",
        /// rsi: the start info address at start.
        pub rsi: u64 = 104 => "rsi",
        /// rdi.
        pub rdi: u64 = 112 => "rdi",
        /// Xen's own.
        pub error_code: u32 = 120 => "error_code",
        /// Xen's own.
        pub entry_vector: u32 = 124 => "entry_vector",
        /// Instruction pointer.
        pub rip: u64 = 128 => "rip",
        /// Code segment.
        pub cs: u16 = 136 => "cs",
        /// Padding.
        pub pad0: u16 = 138,
        /// Events were masked.
        pub saved_upcall_mask: u8 = 140 => "saved_upcall_mask",
        /// Padding.
        pub pad1: [u8; 3] = 141,
        /// Flags.
        pub rflags: u64 = 144 => "rflags",
        /// Stack pointer.
        pub rsp: u64 = 152 => "rsp",
        /// Stack segment.
        pub ss: u16 = 160 => "ss",
        /// Padding.
        pub pad2: [u16; 3] = 162,
        /// Data segment es.
        pub es: u16 = 168 => "es",
        /// Padding.
        pub pad3: [u16; 3] = 170,
        /// Data segment ds.
        pub ds: u16 = 176 => "ds",
        /// Padding.
        pub pad4: [u16; 3] = 178,
        /// Data segment fs.
        pub fs: u16 = 184 => "fs",
        /// Padding.
        pub pad5: [u16; 3] = 186,
        /// Data segment gs.
        pub gs: u16 = 192 => "gs",
        /// Padding.
        pub pad6: [u16; 3] = 194,
    }
}

layout! {
    /// One trap handler.
    pub struct TrapInfo: "struct trap_info", 16 {
        /// Vector.
        pub vector: u8 = 0 => "vector",
        /// Privilege and mask.
        pub flags: u8 = 1 => "flags",
        /// Segment.
        pub cs: u16 = 2 => "cs",
        /// Padding.
        pub pad: u32 = 4,
        /// Address.
        pub address: u64 = 8 => "address",
    }
}

layout! {
    /// All of a vcpu.
    pub struct VcpuGuestContext: "struct vcpu_guest_context", 5168 {
        /// FXSAVE area.
        pub fpu_ctxt: [u8; 512] = 0 => "fpu_ctxt",
        /// `VGCF_*`.
        pub flags: u64 = 512 => "flags",
        /// General registers.
        pub user_regs: UserRegs = 520 => "user_regs",
        /// Trap handlers.
        pub trap_ctxt: [TrapInfo; 256] = 720 => "trap_ctxt",
        /// Local descriptors: address.
        pub ldt_base: u64 = 4816 => "ldt_base",
        /// Local descriptors: entries.
        pub ldt_ents: u64 = 4824 => "ldt_ents",
        /// Global descriptors: machine frames.
        pub gdt_frames: [u64; 16] = 4832 => "gdt_frames",
        /// Global descriptors: entries.
        pub gdt_ents: u64 = 4960 => "gdt_ents",
        /// Kernel stack segment.
        pub kernel_ss: u64 = 4968 => "kernel_ss",
        /// Kernel stack pointer.
        pub kernel_sp: u64 = 4976 => "kernel_sp",
        /// Control registers 0 to 7.
        pub ctrlreg: [u64; 8] = 4984 => "ctrlreg",
        /// Debug registers 0 to 7.
        pub debugreg: [u64; 8] = 5048 => "debugreg",
        /// Where events go.
        pub event_callback_eip: u64 = 5112 => "event_callback_eip",
        /// Where failed returns go.
        pub failsafe_callback_eip: u64 = 5120 => "failsafe_callback_eip",
        /// Where system calls go.
        pub syscall_callback_eip: u64 = 5128 => "syscall_callback_eip",
        /// Helps the guest asked for.
        pub vm_assist: u64 = 5136 => "vm_assist",
        /// Base of fs.
        pub fs_base: u64 = 5144 => "fs_base",
        /// Base of gs in the kernel.
        pub gs_base_kernel: u64 = 5152 => "gs_base_kernel",
        /// Base of gs in user mode.
        pub gs_base_user: u64 = 5160 => "gs_base_user",
    }
}

/// A frame as a control register holds it.
#[must_use]
pub const fn cr3_of(mfn: crate::ids::Mfn) -> u64 {
    mfn.0 << 12
}

/// The frame a control register holds.
#[must_use]
pub const fn frame_of_cr3(cr3: u64) -> crate::ids::Mfn {
    crate::ids::Mfn(cr3 >> 12)
}
