//! Hangs the machine it runs in, with interrupts off: how the lab breaks a guest without touching its kernel.
//!
//! ```text
//!   a loop as a BPF program ── attached many times ──▶ tracepoint hrtimer_expire_entry (runs in the timer interrupt)
//!   each tick now takes longer than a tick: the CPU never leaves the interrupt again
//! ```
//!
//! Needs root, a stock kernel with `bpf(2)`, and one CPU. Nothing brings the machine back but its destruction. It lives beside `xen-host` because it
//! makes a system call that no safe wrapper offers; nothing of the product uses it.

use std::io;
use std::process::ExitCode;

/// `BPF_PROG_LOAD` (`linux/bpf.h`).
const PROG_LOAD: i64 = 5;
/// `BPF_RAW_TRACEPOINT_OPEN`.
const RAW_TRACEPOINT_OPEN: i64 = 17;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const TYPE_RAW_TRACEPOINT: u32 = 17;
/// Rounds of the loop. The verifier walks through all of them, so this is bounded by its million instructions and by patience.
const ROUNDS: u32 = 60_000;
/// Times the loop is attached: each tick runs it this often.
const ATTACHMENTS: usize = 400;

/// One BPF instruction.
fn instruction(opcode: u8, destination: u8, offset: i16, immediate: u32) -> [u8; 8] {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [opcode, destination, o0, o1, i0, i1, i2, i3]
}

/// `r0 = 0; do { r0 += 1 } while (r0 < ROUNDS); r0 = 0; exit`
fn program() -> Vec<u8> {
    [
        instruction(0xb7, 0, 0, 0),
        instruction(0x07, 0, 0, 1),
        instruction(0xa5, 0, -2, ROUNDS),
        instruction(0xb7, 0, 0, 0),
        instruction(0x95, 0, 0, 0),
    ]
    .concat()
}

/// The head of `union bpf_attr` for a load.
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// `union bpf_attr` for a raw tracepoint.
#[repr(C)]
struct TracepointAttr {
    name: u64,
    program: u32,
    pad: u32,
}

fn bpf<T>(command: i64, attr: &T) -> io::Result<u32> {
    // SAFETY: bpf(2) reads size_of::<T>() bytes of the attribute, which lives through the call; pointers in it point to live buffers of the callers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn wedge() -> io::Result<()> {
    let code = program();
    let license = c"GPL";
    let count = u32::try_from(code.len() / 8).map_err(io::Error::other)?;
    let load = LoadAttr {
        kind: TYPE_RAW_TRACEPOINT,
        count,
        instructions: code.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
    };
    let program = bpf(PROG_LOAD, &load)?;
    let name = c"hrtimer_expire_entry";
    let attach = TracepointAttr {
        name: name.as_ptr().expose_provenance() as u64,
        program,
        pad: 0,
    };
    println!("hanging now");
    for _ in 0..ATTACHMENTS {
        bpf(RAW_TRACEPOINT_OPEN, &attach)?;
    }
    // The links go with this process, and it will not be scheduled again.
    loop {
        std::thread::park();
    }
}

fn main() -> ExitCode {
    match wedge() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wedge: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_whole_instructions_and_ends_with_exit() {
        let code = program();
        assert_eq!(code.len() % 8, 0);
        assert_eq!(code[code.len() - 8], 0x95);
    }
}
