//! The ACPI tables of a PVH guest, by hand: just enough for a kernel to find its processors.
//!
//! ```text
//!   RSDP ─┬─▶ RSDT ─┬─▶ FADT ─┬─▶ DSDT   an empty \_SB
//!         └─▶ XSDT ─┤         └─▶ FACS
//!                   └─▶ MADT            one local APIC per vcpu, APIC id = 2 * vcpu
//! ```
//!
//! The fixed hardware of the FADT is what stock Xen tools announce, so that a guest sees no difference when it moves.
//! The guest shuts down by hypercall, not by ACPI. Pure. Source: ACPI 5.0 chapter 5; Xen `tools/libacpi`.

/// OEM and creator ids as stock tools write them, so that kernels' quirk tables match.
const OEM_ID: &[u8; 6] = b"Xen\0\0\0";
const OEM_TABLE_ID: &[u8; 8] = b"HVM\0\0\0\0\0";
const CREATOR_ID: &[u8; 4] = b"HVML";

/// Length of the header that every table but RSDP and FACS starts with.
const HEADER: usize = 36;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// FADT: WBINVD, PROC_C1, PWR_BUTTON, SLP_BUTTON, FIX_RTC, TMR_VAL_EXT, USE_PLATFORM_CLOCK.
const FADT_FLAGS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15;
/// FADT boot flags: no VGA, no CMOS clock.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;
/// Length of a revision 5 FADT.
const FADT: usize = 268;
/// `DefinitionBlock` body: `Scope (\_SB) {}`.
const EMPTY_SB: [u8; 7] = [0x10, 0x06, b'\\', b'_', b'S', b'B', b'_'];

/// The tables and their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acpi {
    /// The tables, the RSDP the last of them.
    pub bytes: Vec<u8>,
    /// Address of the RSDP within them.
    pub rsdp_address: u64,
    /// The RSDP again, for guests that look for it elsewhere; it is independent of its place.
    pub rsdp: Vec<u8>,
}

/// Tables for a guest with `max_vcpus` vcpus of which the first `online` start online, to be placed at `base` (below 4 GiB).
#[must_use]
pub fn tables(online: u32, max_vcpus: u32, base: u64) -> Acpi {
    let mut area = Area {
        base,
        bytes: Vec::new(),
    };
    let facs = area.add(&facs());
    let dsdt = area.add(&table(*b"DSDT", 2, &EMPTY_SB));
    let fadt = area.add(&fadt(facs, dsdt));
    let madt = area.add(&madt(online, max_vcpus));
    let pointers = [fadt, madt];
    let short: Vec<u8> = pointers
        .iter()
        .flat_map(|at| low(*at).to_le_bytes())
        .collect();
    let long: Vec<u8> = pointers.iter().flat_map(|at| at.to_le_bytes()).collect();
    let rsdt = area.add(&table(*b"RSDT", 1, &short));
    let xsdt = area.add(&table(*b"XSDT", 1, &long));
    let rsdp = rsdp(rsdt, xsdt);
    let rsdp_address = area.add(&rsdp);
    Acpi {
        bytes: area.bytes,
        rsdp_address,
        rsdp,
    }
}

/// Tables one behind the other, each aligned as the strictest of them (the FACS) wants.
struct Area {
    base: u64,
    bytes: Vec<u8>,
}

impl Area {
    fn add(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        at
    }
}

/// The low half of an address that is below 4 GiB by the contract of [`tables`].
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(0)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Sets the byte at `at` so that all bytes add up to 0.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// A table with its header and checksum.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(body);
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    put(&mut bytes, 0, &signature);
    put(&mut bytes, 4, &length.to_le_bytes());
    bytes[8] = revision;
    put(&mut bytes, 10, OEM_ID);
    put(&mut bytes, 16, OEM_TABLE_ID);
    put(&mut bytes, 28, CREATOR_ID);
    seal(&mut bytes, 9);
    bytes
}

fn facs() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    put(&mut bytes, 0, b"FACS");
    put(&mut bytes, 4, &64_u32.to_le_bytes());
    bytes[32] = 1;
    bytes
}

/// A generic address in I/O space.
fn io(port: u16, bits: u8) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = 1;
    bytes[1] = bits;
    bytes[4..6].copy_from_slice(&port.to_le_bytes());
    bytes
}

fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    let mut bytes = vec![0; FADT];
    let fields: [(usize, &[u8]); 23] = [
        (36, &low(facs).to_le_bytes()),
        (40, &low(dsdt).to_le_bytes()),
        (46, &9_u16.to_le_bytes()),      // SCI interrupt
        (56, &0xb000_u32.to_le_bytes()), // PM1a event block
        (64, &0xb004_u32.to_le_bytes()), // PM1a control block
        (80, &0xafe0_u32.to_le_bytes()), // GPE0 block
        (88, &[4]),                      // PM1 event length
        (89, &[2]),                      // PM1 control length
        (92, &[4]),                      // GPE0 length
        (96, &0x0fff_u16.to_le_bytes()), // no C2
        (98, &0x0fff_u16.to_le_bytes()), // no C3
        (109, &BOOT_ARCH.to_le_bytes()),
        (112, &FADT_FLAGS.to_le_bytes()),
        (116, &io(0xcf9, 8)), // reset register
        (128, &[6]),          // and what to write there
        (132, &facs.to_le_bytes()),
        (140, &dsdt.to_le_bytes()),
        (148, &io(0xb000, 32)),
        (172, &io(0xb004, 16)),
        (220, &io(0xafe0, 32)),
        (131, &[0]),
        (244, &[0; 12]), // no sleep control
        (256, &[0; 12]), // no sleep status
    ];
    for (at, value) in fields {
        put(&mut bytes, at, value);
    }
    table(*b"FACP", 5, &bytes[HEADER..])
}

fn madt(online: u32, max_vcpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    body.extend_from_slice(&1_u32.to_le_bytes()); // PC-AT compatible
    for vcpu in 0..max_vcpus.min(super::limits::MAX_PVH_VCPUS) {
        let id = u8::try_from(vcpu).unwrap_or(u8::MAX);
        body.extend_from_slice(&[0, 8, id, id.wrapping_mul(2)]);
        body.extend_from_slice(&u32::from(vcpu < online).to_le_bytes());
    }
    table(*b"APIC", 2, &body)
}

fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    put(&mut bytes, 0, b"RSD PTR ");
    put(&mut bytes, 9, OEM_ID);
    bytes[15] = 2;
    put(&mut bytes, 16, &low(rsdt).to_le_bytes());
    put(&mut bytes, 20, &36_u32.to_le_bytes());
    put(&mut bytes, 24, &xsdt.to_le_bytes());
    // The first 20 bytes have a checksum of their own.
    seal(&mut bytes[..20], 8);
    seal(&mut bytes, 32);
    bytes
}
