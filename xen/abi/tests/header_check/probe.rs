//! Asks a C compiler.
//!
//! For the machine's own layout a program is compiled and run; for 32-bit guests, whose programs need not run here, the
//! same table becomes static assertions that are only compiled.

use super::debian::run;
use super::registry::{Structure, Table};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Headers of Xen, in an order in which they compile.
const HEADERS: &[&str] = &[
    "xen/xen.h",
    "xen/arch-x86/cpuid.h",
    "xen/domctl.h",
    "xen/elfnote.h",
    "xen/event_channel.h",
    "xen/features.h",
    "xen/grant_table.h",
    "xen/memory.h",
    "xen/sched.h",
    "xen/sysctl.h",
    "xen/version.h",
    "xen/hvm/hvm_op.h",
    "xen/hvm/params.h",
    "xen/hvm/save.h",
    "xen/arch-x86/hvm/start_info.h",
    "xen/io/blkif.h",
    "xen/io/console.h",
    "xen/io/netif.h",
    "xen/io/xenbus.h",
    "xen/io/xs_wire.h",
    "xen/sys/evtchn.h",
    "xen/sys/gntalloc.h",
    "xen/sys/gntdev.h",
    "xen/sys/privcmd.h",
];

/// Compares the whole table; gives the count of numbers compared. `declarations` is C that the headers do not have.
pub fn compare(
    table: &Table,
    declarations: &str,
    include: &Path,
    scratch: &Path,
) -> Result<usize, String> {
    let ours = numbers(table);
    let (source, program) = (scratch.join("probe.c"), scratch.join("probe"));
    std::fs::write(&source, program_text(declarations, &ours))
        .map_err(|error| error.to_string())?;
    run(Command::new("gcc")
        .args(["-std=gnu11", "-w", "-I"])
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&program))?;
    let theirs = run(&mut Command::new(&program))?;
    let theirs: Vec<&str> = theirs.lines().collect();
    if theirs.len() != ours.len() {
        return Err(format!(
            "the program printed {} numbers of {}",
            theirs.len(),
            ours.len()
        ));
    }
    let wrong: Vec<String> = ours
        .iter()
        .zip(theirs)
        .filter(|((_, our), their)| our.to_string() != **their)
        .map(|((what, our), their)| format!("{what} is {their} in C, {our} here"))
        .collect();
    if wrong.is_empty() {
        Ok(ours.len())
    } else {
        Err(format!(
            "{} differs from this crate:\n{}",
            include.display(),
            wrong.join("\n")
        ))
    }
}

/// Every C expression with the number we think it has, each once.
fn numbers(table: &Table) -> Vec<(String, u64)> {
    let mut numbers: Vec<(String, u64)> = Vec::new();
    for structure in &table.structures {
        numbers.extend(structure_numbers(structure));
    }
    numbers.extend(
        table
            .constants
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value)),
    );
    numbers
}

fn structure_numbers(structure: &Structure) -> Vec<(String, u64)> {
    let mut numbers = Vec::new();
    if structure.whole {
        numbers.push((
            format!("sizeof({})", structure.c_type),
            structure.size as u64,
        ));
    }
    for (field, offset) in structure.fields {
        numbers.push((
            format!("offsetof({}, {field})", structure.c_type),
            *offset as u64,
        ));
    }
    numbers
}

fn program_text(declarations: &str, numbers: &[(String, u64)]) -> String {
    let mut text = String::from(
        "#define __XEN_TOOLS__ 1\n#include <errno.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n\
         #include <string.h>\n#include <sys/ioctl.h>\n",
    );
    for header in HEADERS {
        let _ = writeln!(text, "#include <{header}>");
    }
    text.push_str(declarations);
    text.push_str("int main(void)\n{\n");
    for (expression, _) in numbers {
        let _ = writeln!(
            text,
            "    printf(\"%llu\\n\", (unsigned long long)({expression}));"
        );
    }
    text.push_str("    return 0;\n}\n");
    text
}

/// Compares a table with the layouts of a 32-bit guest, without a C library for one.
pub fn compare_32_bit(table: &Table, include: &Path, scratch: &Path) -> Result<(), String> {
    let mut text = String::from("#include <stddef.h>\n#include <stdint.h>\n");
    for header in ["xen/xen.h", "xen/io/blkif.h", "xen/io/netif.h"] {
        let _ = writeln!(text, "#include <{header}>");
    }
    let numbers: BTreeMap<String, u64> = numbers(table).into_iter().collect();
    for (expression, value) in &numbers {
        let _ = writeln!(
            text,
            "_Static_assert({expression} == {value}, \"is not {value}\");"
        );
    }
    let source = scratch.join("probe32.c");
    std::fs::write(&source, text).map_err(|error| error.to_string())?;
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-m32",
        "-std=gnu11",
        "-w",
        "-ffreestanding",
        "-fsyntax-only",
        "-I",
    ]);
    run(gcc.arg(include).arg(&source)).map(drop)
}
