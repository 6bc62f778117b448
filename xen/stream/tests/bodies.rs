//! Bodies of records that mean nothing, each with what is said about it.

#![allow(clippy::unwrap_used, reason = "a test may")]

use xen_stream::libxc::{Kind, Record};
use xen_stream::libxl;

/// Bodies with what is said about them.
fn check(cases: &[(Kind, Vec<u8>, &str)]) {
    for (kind, body, text) in cases {
        let found = Record::decode(*kind, body).unwrap_err().to_string();
        assert!(
            found.contains(text),
            "{kind}: {found}\n  instead of\n{text}"
        );
    }
}

/// A vcpu's record with this number and so many bytes of state.
fn of_vcpu(vcpu: u32, bytes: usize) -> Vec<u8> {
    [&vcpu.to_le_bytes()[..], &[0; 4], &vec![0; bytes]].concat()
}

#[test]
fn bodies_of_a_pv_image_that_mean_nothing_are_refused() {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let cases = [
        (
            Kind::PvInfo,
            vec![8, 3, 0, 0, 0, 0, 0, 0],
            "levels of page tables of a guest of width 8 is 0x3",
        ),
        (
            Kind::PvInfo,
            vec![4, 4, 0, 0, 0, 0, 0, 0],
            "levels of page tables of a guest of width 4 is 0x4",
        ),
        (
            Kind::PvInfo,
            vec![2, 4, 0, 0, 0, 0, 0, 0],
            "the guest's width is 0x2",
        ),
        (
            Kind::PvInfo,
            vec![8, 4, 0, 0],
            "is 4 bytes long, expected 8",
        ),
        (
            Kind::P2mFrames,
            words(&[5, 4, 0, 0]),
            "the last page of the list is 0x4",
        ),
        (
            Kind::P2mFrames,
            words(&[4, 5]),
            "is 8 bytes long, expected 8 and a multiple of 8",
        ),
        (
            Kind::P2mFrames,
            words(&[4, 5, 6]),
            "is 12 bytes long, expected 8 and a multiple of 8",
        ),
        (
            Kind::P2mFrames,
            words(&[4]),
            "is 4 bytes long, expected 8 or more",
        ),
    ];
    check(&cases);
}

#[test]
fn bodies_of_vcpus_that_mean_nothing_are_refused() {
    let cases = [
        (
            Kind::VcpuBasic,
            of_vcpu(0, 0),
            "is 8 bytes long, expected 5176",
        ),
        (
            Kind::VcpuBasic,
            of_vcpu(0, 5167),
            "is 5175 bytes long, expected 5176",
        ),
        (
            Kind::VcpuExtended,
            of_vcpu(0, 129),
            "137 bytes, 136 is the limit",
        ),
        (
            Kind::VcpuXsave,
            of_vcpu(0, 15),
            "is 23 bytes long, expected 24 or more",
        ),
        (
            Kind::VcpuMsrs,
            of_vcpu(0, 15),
            "is 23 bytes long, expected 8 and a multiple of 16",
        ),
        (
            Kind::VcpuMsrs,
            of_vcpu(8192, 16),
            "8192 is the number of the vcpu, 8191 is the limit",
        ),
        (
            Kind::VcpuMsrs,
            vec![0; 7],
            "is 7 bytes long, expected 8 or more",
        ),
    ];
    check(&cases);
}

#[test]
fn other_bodies_of_an_image_that_mean_nothing_are_refused() {
    let cases = [
        (
            Kind::SharedInfo,
            vec![0; 4095],
            "is 4095 bytes long, expected 4096",
        ),
        (
            Kind::CpuidPolicy,
            vec![0; 23],
            "is 23 bytes long, expected a multiple of 24, not 0",
        ),
        (
            Kind::CpuidPolicy,
            vec![],
            "is 0 bytes long, expected a multiple of 24, not 0",
        ),
        (
            Kind::MsrPolicy,
            vec![0; 17],
            "is 17 bytes long, expected a multiple of 16, not 0",
        ),
        (
            Kind::HvmContext,
            vec![],
            "is 0 bytes long, expected 8 or more",
        ),
        (
            Kind::HvmContext,
            vec![0; 8],
            "does not begin with Xen's header",
        ),
        (Kind::CheckpointDirtyPfnList, vec![0; 9], "is 9 bytes long"),
        (Kind::StaticDataEnd, vec![0], "is 1 bytes long, expected 0"),
        (Kind::PageData, vec![0; 8], "without its pages"),
    ];
    check(&cases);
}

#[test]
fn bodies_of_the_libxl_layer_that_mean_nothing_are_refused() {
    let nodes = |text: &str| [&[2, 0, 0, 0, 0, 0, 0, 0], text.as_bytes()].concat();
    let xenstore = libxl::Kind::EmulatorXenstoreData;
    let cases = [
        (xenstore, nodes("key\0value"), "does not end in a NUL"),
        (xenstore, nodes("key\0"), "the last key has no value"),
        (xenstore, nodes("\0value\0"), "a key is empty"),
        (xenstore, nodes("/local\0value\0"), "a key is not relative"),
        (
            xenstore,
            vec![3, 0, 0, 0, 0, 0, 0, 0],
            "the device model is 0x3",
        ),
        (
            libxl::Kind::EmulatorContext,
            vec![2, 0, 0, 0],
            "is 4 bytes long, expected 8 or more",
        ),
        (
            libxl::Kind::CheckpointState,
            vec![4, 0, 0, 0],
            "the state is 0x4",
        ),
        (
            libxl::Kind::CheckpointState,
            vec![1, 0, 0, 0, 0, 0, 0, 1],
            "reserved bits",
        ),
        (
            libxl::Kind::CheckpointEnd,
            vec![0; 8],
            "is 8 bytes long, expected 0",
        ),
    ];
    for (kind, body, text) in cases {
        let found = libxl::Record::decode(kind, &body).unwrap_err().to_string();
        assert!(
            found.contains(text),
            "{kind}: {found}\n  instead of\n{text}"
        );
    }
}
