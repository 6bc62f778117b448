//! The ACPI tables, read back the way a kernel reads them: from the root pointer, checking every checksum.

use dom0_agent::build::acpi::{Acpi, tables};
use std::collections::BTreeMap;

const BASE: u64 = 0xfc00_0000;

fn bytes(acpi: &Acpi, address: u64, length: usize) -> &[u8] {
    let at = (address - BASE) as usize;
    &acpi.bytes[at..at + length]
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn table(acpi: &Acpi, address: u64) -> &[u8] {
    let length = half(bytes(acpi, address, 8), 4) as usize;
    let table = bytes(acpi, address, length);
    if &table[..4] != b"FACS" {
        assert_eq!(
            sum(table),
            0,
            "checksum of {}",
            String::from_utf8_lossy(&table[..4])
        );
        assert_eq!(&table[10..16], b"Xen\0\0\0");
    }
    table
}

/// All tables that the root names, by signature.
fn all(acpi: &Acpi) -> BTreeMap<&str, &[u8]> {
    let rsdp = bytes(acpi, acpi.rsdp_address, 36);
    assert_eq!(
        (&rsdp[..8], rsdp[15], rsdp),
        (b"RSD PTR ".as_slice(), 2, acpi.rsdp.as_slice())
    );
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    let rsdt = table(acpi, half(rsdp, 16).into());
    let xsdt = table(acpi, word(rsdp, 24));
    assert_eq!(
        (&rsdt[..4], &xsdt[..4]),
        (b"RSDT".as_slice(), b"XSDT".as_slice())
    );
    let short: Vec<u64> = rsdt[36..]
        .chunks_exact(4)
        .map(|pointer| half(pointer, 0).into())
        .collect();
    let long: Vec<u64> = xsdt[36..]
        .chunks_exact(8)
        .map(|pointer| word(pointer, 0))
        .collect();
    assert_eq!(short, long);
    let fadt = table(acpi, long[0]);
    assert_eq!(
        (u64::from(half(fadt, 36)), u64::from(half(fadt, 40))),
        (word(fadt, 132), word(fadt, 140))
    );
    let found = [
        fadt,
        table(acpi, long[1]),
        table(acpi, word(fadt, 132)),
        table(acpi, word(fadt, 140)),
    ];
    found
        .into_iter()
        .map(|table| (std::str::from_utf8(&table[..4]).unwrap(), table))
        .collect()
}

#[test]
fn every_table_is_found_and_sound() {
    for (online, vcpus) in [(1, 1), (2, 4), (128, 128)] {
        let acpi = tables(online, vcpus, BASE);
        let all = all(&acpi);
        assert_eq!(
            all.keys().copied().collect::<Vec<_>>(),
            ["APIC", "DSDT", "FACP", "FACS"]
        );
        assert_eq!(
            (all["FACP"].len(), all["FACP"][8], all["FACS"].len()),
            (268, 5, 64)
        );
        let facs = word(all["FACP"], 132);
        assert!(facs.is_multiple_of(64), "the FACS is at {facs:#x}");
    }
}

#[test]
fn every_vcpu_has_a_local_apic_and_the_first_are_enabled() {
    let acpi = tables(3, 5, BASE);
    let all = all(&acpi);
    let madt = all["APIC"];
    assert_eq!((half(madt, 36), half(madt, 40)), (0xfee0_0000, 1));
    let entries: Vec<_> = madt[44..]
        .chunks_exact(8)
        .map(|entry| (entry[0], entry[1], entry[2], entry[3], half(entry, 4)))
        .collect();
    assert_eq!(
        entries,
        [
            (0, 8, 0, 0, 1),
            (0, 8, 1, 2, 1),
            (0, 8, 2, 4, 1),
            (0, 8, 3, 6, 0),
            (0, 8, 4, 8, 0)
        ]
    );
}
