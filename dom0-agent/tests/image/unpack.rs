//! Unpacking: every format, every way to be broken.

use crate::kernels::{Elf, PACKED, PAYLOAD_START, bzimage, pack, payload};
use dom0_agent::image::unpack::unpack;
use dom0_agent::image::{Fault, Format};
use proptest::prelude::*;
use std::sync::LazyLock;

const LIMIT: u64 = 1 << 20;

#[test]
fn every_format_unpacks_to_the_same_kernel() {
    let elf = Elf::debian().build();
    for format in PACKED {
        for file in [bzimage(&payload(format, &elf)), pack(format, &elf)] {
            let unpacked = unpack(&file, LIMIT).unwrap();
            assert_eq!(unpacked.format, format);
            assert!(unpacked.elf == elf, "{format} differs");
        }
    }
    assert!(unpack(&elf, LIMIT).unwrap().elf == elf);
}

#[test]
fn a_file_cut_anywhere_is_refused_and_the_format_named() {
    let elf = Elf::debian().build();
    for format in PACKED {
        let whole = bzimage(&payload(format, &elf));
        for cut in PAYLOAD_START + 8..whole.len() {
            let fault = unpack(&whole[..cut], LIMIT).unwrap_err();
            let promised = whole.len() as u64;
            assert_eq!(
                fault,
                Fault::CutShort {
                    format: Some(format),
                    promised,
                    have: cut as u64
                }
            );
        }
        assert!(
            unpack(&whole[..0x230], LIMIT)
                .unwrap_err()
                .to_string()
                .contains("is cut short")
        );
    }
}

#[test]
fn packed_data_cut_inside_of_a_whole_file_is_refused_with_its_position() {
    let elf = Elf::debian().build();
    for format in PACKED {
        let packed = pack(format, &elf);
        // bzip2 and xz may be cut inside of bytes that say nothing; what matters is that no cut is accepted.
        for cut in (12..packed.len()).step_by(7) {
            let mut part = packed[..cut].to_vec();
            if format != Format::Gzip {
                part.extend_from_slice(&(elf.len() as u32).to_le_bytes());
            }
            let file = bzimage(&part);
            match unpack(&file, LIMIT).unwrap_err() {
                Fault::Truncated {
                    format: named,
                    position,
                }
                | Fault::Damaged {
                    format: named,
                    position,
                    ..
                } => {
                    assert_eq!(named, format);
                    assert!(
                        position > PAYLOAD_START as u64 && position <= file.len() as u64,
                        "{position}"
                    );
                }
                Fault::WrongSize { format: named, .. } => assert_eq!(named, format),
                other => panic!("{format} cut at {cut}: {other}"),
            }
        }
    }
}

#[test]
fn a_truncated_zstd_says_so_with_format_and_byte() {
    let elf = Elf::debian().build();
    let packed = pack(Format::Zstd, &elf);
    let mut part = packed[..packed.len() / 2].to_vec();
    part.extend_from_slice(&(elf.len() as u32).to_le_bytes());
    let position = (PAYLOAD_START + packed.len() / 2) as u64;
    let fault = unpack(&bzimage(&part), LIMIT).unwrap_err();
    assert_eq!(
        fault,
        Fault::Truncated {
            format: Format::Zstd,
            position
        }
    );
    assert_eq!(
        fault.to_string(),
        format!("has truncated zstd data: it breaks off at byte {position}; copy the file again")
    );
}

#[test]
fn a_flipped_bit_in_checked_formats_is_found() {
    let elf = Elf::debian().build();
    for format in [Format::Gzip, Format::Bzip2, Format::Xz, Format::Zstd] {
        let whole = bzimage(&payload(format, &elf));
        for at in (PAYLOAD_START + 20..whole.len()).step_by(11) {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            if let Ok(unpacked) = unpack(&bad, LIMIT) {
                assert!(
                    unpacked.elf == elf,
                    "{format}: a flip at {at} changed the kernel unseen"
                );
            }
        }
    }
}

#[test]
fn the_cap_on_the_result_holds() {
    let mut elf = Elf::debian().build();
    elf.resize(2 << 20, 0);
    for format in [Format::Gzip, Format::Bzip2, Format::Zstd, Format::Lz4] {
        for file in [bzimage(&payload(format, &elf)), pack(format, &elf)] {
            assert_eq!(
                unpack(&file, LIMIT).unwrap_err(),
                Fault::UnpacksTooBig { limit: LIMIT },
                "{format}"
            );
        }
    }
    assert_eq!(
        unpack(&elf, LIMIT).unwrap_err(),
        Fault::UnpacksTooBig { limit: LIMIT }
    );
}

#[test]
fn a_trailer_that_lies_is_found() {
    let elf = Elf::debian().build();
    for format in [Format::Bzip2, Format::Xz, Format::Zstd, Format::Lz4] {
        for lie in [elf.len() as u32 - 1, elf.len() as u32 + 1, 0] {
            let mut payload = pack(format, &elf);
            payload.extend_from_slice(&lie.to_le_bytes());
            let fault = unpack(&bzimage(&payload), LIMIT).unwrap_err();
            assert!(
                matches!(fault, Fault::WrongSize { .. } | Fault::Damaged { .. }),
                "{format}: {fault}"
            );
        }
        let mut payload = pack(format, &elf);
        payload.extend_from_slice(&u32::MAX.to_le_bytes());
        let fault = unpack(&bzimage(&payload), LIMIT).unwrap_err();
        assert_eq!(fault, Fault::UnpacksTooBig { limit: LIMIT });
    }
}

#[test]
fn what_is_no_kernel_is_called_so() {
    for (file, says) in [
        (b"".to_vec(), "is empty"),
        (
            b"#!/bin/sh\nexit 0\n".to_vec(),
            "is not a kernel: it starts with 23 21 2f 62 69 6e 2f 73",
        ),
        (
            pack(Format::Lzo, b""),
            "is packed with lzo, which is not supported",
        ),
        (
            bzimage(&pack(Format::Lzma, b"")),
            "is packed with lzma, which is not supported",
        ),
        (
            pack(Format::Gzip, b"hello"),
            "the gzip payload does not start with the ELF magic",
        ),
    ] {
        let said = unpack(&file, LIMIT).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let mut old = bzimage(&payload(Format::Gzip, &Elf::debian().build()));
    old[0x206] = 7;
    assert!(
        unpack(&old, LIMIT)
            .unwrap_err()
            .to_string()
            .contains("boot protocol 2.07")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(mut file in prop::collection::vec(any::<u8>(), 0..2000), magic in 0_usize..9) {
        let magics: [&[u8]; 9] = [
            b"", b"\x7fELF", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd",
            &[0x02, 0x21, 0x4c, 0x18], b"\x89LZO", b"\x5d\0\0",
        ];
        let magic = magics[magic];
        let length = magic.len().min(file.len());
        file[..length].copy_from_slice(&magic[..length]);
        for file in [bzimage(&file), file] {
            if let Ok(unpacked) = unpack(&file, LIMIT) {
                prop_assert!(unpacked.elf.len() as u64 <= LIMIT);
            }
        }
    }

}

/// Whole kernels in each packing, made once: packing takes longer than everything else here.
static WHOLE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let elf = Elf::debian().build();
    let pack = |format: &Format| bzimage(&payload(*format, &elf));
    PACKED.iter().map(pack).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_damage_makes_it_panic(which in 0_usize..5, hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut file = WHOLE[which].clone();
        for (at, value) in hits {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Ok(unpacked) = unpack(&file, LIMIT) {
            prop_assert!(unpacked.elf.len() as u64 <= LIMIT);
        }
    }
}
