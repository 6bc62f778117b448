//! What a host was doing when a test failed on it, written beside its logs before it is ended.
//!
//! ```text
//!   registers.txt   QEMU: where the CPUs and their interrupt controllers stand, some looks in a row
//!   serial.log      Xen's own debug keys, typed at its console: domains, run queues, timers, event channels
//!   dom0.txt        dom0's processes and kernel messages, if dom0 still answers
//! ```
//!
//! Each layer is asked without the help of those above it, so that the lowest one that no longer answers can be told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::port::{self, Conversation};
use super::qmp::Qmp;

/// Looks at the registers: enough to tell a loop from a halt.
const LOOKS: u32 = 4;
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(100);
/// Gives Xen's console to Xen.
const TO_XEN: &[u8] = b"\x01\x01\x01";
/// Xen's debug keys: every CPU's registers, domains, scheduler, timers, event channels.
const KEYS: &[u8] = b"dqrae";
/// Xen has finished when it says nothing for this long, or never began.
const QUIET: Duration = Duration::from_secs(5);
/// For dom0 to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// What is asked in dom0. Who computes shows in the difference of the two lists.
const IN_DOM0: &str = "uptime; /usr/sbin/xl vcpu-list; sleep 3; /usr/sbin/xl vcpu-list; \
    ps -eo pid,stat,wchan:24,time,args; xenstore-ls -fp; dmesg | tail -n 100";

/// Asks the three layers; what cannot be learned is said where it would have stood. The short of it goes to standard error, which outlives the files.
pub fn examine(dir: &Path, qmp: &mut Qmp) {
    let registers = registers(qmp);
    for line in registers.lines().filter(|line| line.contains("RIP=")) {
        eprintln!("cpu| {line}");
    }
    drop(fs::write(dir.join("registers.txt"), registers));
    let dom0 = dom0(dir).unwrap_or_else(|error| format!("dom0 does not answer: {error:#}"));
    eprintln!("dom0| {}", dom0.lines().next().unwrap_or("says nothing"));
    drop(fs::write(dir.join("dom0.txt"), dom0));
    if let Err(error) = debug_keys(dir) {
        eprintln!("lab: Xen was not asked what it does: {error:#}");
    }
}

fn registers(qmp: &mut Qmp) -> String {
    let mut said = Vec::new();
    for look in 0..LOOKS {
        for question in ["info status", "info registers -a", "info lapic", "info irq"] {
            let answer = qmp
                .monitor(question)
                .unwrap_or_else(|error| format!("{error:#}"));
            said.push(format!("== look {look}: {question}\n{answer}"));
        }
        std::thread::sleep(BETWEEN);
    }
    said.join("\n")
}

fn dom0(dir: &Path) -> Result<String> {
    let output = Conversation::open(dir, LIMIT)?.exec(&["sh", "-c", IN_DOM0], &[], LIMIT)?;
    Ok(output.text() + &output.errors())
}

fn debug_keys(dir: &Path) -> Result<()> {
    let mut console = port::connect(dir, "serial.sock")?;
    console.set_read_timeout(Some(QUIET))?;
    console.write_all(TO_XEN)?;
    console.write_all(KEYS)?;
    // QEMU writes the log; it is only to be known when Xen has finished.
    let mut said = [0; 4096];
    while console.read(&mut said).is_ok_and(|count| count > 0) {}
    Ok(())
}
