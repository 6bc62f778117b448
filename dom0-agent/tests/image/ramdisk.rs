//! Ramdisks: what guests' kernels unpack is let through whole, and everything else is named with its place.

use crate::kernels::{Elf, pack};
use dom0_agent::image::ramdisk::{Container, Trouble, judge};
use dom0_agent::image::{Fault, Format, ImageError, Initrd};
use proptest::prelude::*;
use std::io;
use std::sync::LazyLock;

/// A cpio archive of these files, with its trailer.
pub fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = untrailed(files);
    entry(&mut archive, "TRAILER!!!", b"");
    archive
}

fn untrailed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        entry(&mut archive, name, content);
    }
    archive
}

fn entry(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut fields = [0; 13];
    fields[1] = 0o100_644;
    fields[6] = content.len();
    fields[11] = name.len() + 1;
    let fields: Vec<String> = fields.iter().map(|field| format!("{field:08X}")).collect();
    archive.extend(format!("070701{}{name}\0", fields.concat()).bytes());
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// A small root file system.
fn plain() -> Vec<u8> {
    cpio(&[
        ("init", b"#!/bin/sh\n"),
        ("bin", b""),
        ("bin/sh", &[7; 901]),
    ])
}

fn packed(format: Format) -> Vec<u8> {
    static ALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let one = |format: Format| match format {
            // A fixture; that there is a kernel in it is nobody's business here.
            Format::Xz => pack(Format::Xz, &Elf::debian().build()),
            format => pack(format, &plain()),
        };
        PACKINGS.into_iter().map(one).collect()
    });
    let place = PACKINGS.iter().position(|packing| *packing == format);
    ALL[place.unwrap()].clone()
}

/// A file system image: its size, and bytes at places.
fn file_system(size: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; size];
    for (at, bytes) in parts {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

fn look(bytes: &[u8]) -> Result<(), Fault> {
    let read = |into: &mut [u8], offset: u64| {
        let from = bytes.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    judge(bytes.len() as u64, &read).map_err(|trouble| match trouble {
        Trouble::Fault(fault) => fault,
        Trouble::Io(error) => panic!("it read beyond the end: {error}"),
    })
}

const PACKINGS: [Format; 7] = [
    Format::Gzip,
    Format::Bzip2,
    Format::Xz,
    Format::Zstd,
    Format::Lz4,
    Format::Lzo,
    Format::Lzma,
];

#[test]
fn whatever_a_kernel_unpacks_is_let_through() {
    for format in PACKINGS {
        let mut bytes = packed(format);
        look(&bytes).unwrap_or_else(|fault| panic!("{format}: {fault}"));
        bytes.resize(bytes.len() + 513, 0);
        look(&bytes).unwrap_or_else(|fault| panic!("{format} with padding: {fault}"));
    }
    look(&plain()).unwrap();
    look(&untrailed(&[("init", b"x")])).unwrap();
    let mut checked = plain();
    checked[5] = b'2';
    look(&checked).unwrap();
}

#[test]
fn archives_may_follow_one_another_with_zeros_between() {
    let microcode = cpio(&[("kernel/x86/microcode/AuthenticAMD.bin", &[0xa5; 3000])]);
    for format in PACKINGS {
        let mut bytes = microcode.clone();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(packed(format));
        look(&bytes).unwrap_or_else(|fault| panic!("microcode and {format}: {fault}"));
        // The main part first, something of the operator's behind. lz4 needs four zeros to know its end.
        let mut bytes = packed(format);
        bytes.resize((bytes.len() + 4).next_multiple_of(4), 0);
        bytes.extend(cpio(&[("etc/more", b"1")]));
        look(&bytes).unwrap_or_else(|fault| panic!("{format} and more: {fault}"));
    }
}

#[test]
fn raw_file_systems_are_let_through_if_they_are_all_there() {
    let romfs: &[(usize, &[u8])] = &[(0, b"-rom1fs-"), (8, &4096_u32.to_be_bytes())];
    let squashfs: &[(usize, &[u8])] = &[(0, b"hsqs"), (40, &4096_u64.to_le_bytes())];
    let cramfs_magic = [0x45, 0x3d, 0xcd, 0x28];
    let (size, flags) = (4096_u32.to_le_bytes(), 3_u32.to_le_bytes());
    let cramfs: &[(usize, &[u8])] = &[(0, &cramfs_magic), (4, &size), (8, &flags)];
    let behind_boot: &[(usize, &[u8])] = &[(512, &cramfs_magic), (516, &size), (520, &flags)];
    let blocks = 4_u32.to_le_bytes();
    let ext2: &[(usize, &[u8])] = &[(1028, &blocks), (1080, &[0x53, 0xef])];
    for (kind, parts) in [
        (Container::Romfs, romfs),
        (Container::Squashfs, squashfs),
        (Container::Cramfs, cramfs),
        (Container::Cramfs, behind_boot),
        (Container::Ext2, ext2),
    ] {
        look(&file_system(4096, parts)).unwrap_or_else(|fault| panic!("{kind}: {fault}"));
        let short = look(&file_system(4095, parts)).unwrap_err();
        let expected = Fault::RamdiskCut {
            container: kind,
            promised: 4096,
            have: 4095,
        };
        assert_eq!(short, expected);
    }
    let minix: &[(usize, &[u8])] = &[(1040, &[0x8f, 0x13])];
    look(&file_system(4096, minix)).unwrap();
}

#[test]
fn what_no_kernel_unpacks_is_named_with_its_place() {
    let position_of = |bytes: &[u8]| match look(bytes) {
        Err(Fault::NotARamdisk { position, .. }) => Some(position),
        _ => None,
    };
    assert_eq!(position_of(b"#!/bin/sh\necho no ramdisk\n"), Some(0));
    assert_eq!(position_of(&[0xa7; 70_000]), Some(0));
    assert_eq!(position_of(&[0; 70_000]), Some(0));
    assert_eq!(position_of(b"x"), Some(0));
    // Kernels, old archives, and lz4 as the command writes it unless it is told `-l`.
    assert_eq!(position_of(&Elf::debian().build()), Some(0));
    assert_eq!(position_of(b"070707 and so on"), Some(0));
    assert_eq!(position_of(&[0x04, 0x22, 0x4d, 0x18, 0x64]), Some(0));
    // The first part is whole, the second is not what it was.
    let mut bytes = plain();
    bytes.resize(1536, 0);
    bytes.extend([0xa7; 900]);
    assert_eq!(position_of(&bytes), Some(1536));
}

#[test]
fn a_ramdisk_that_contradicts_itself_is_damaged() {
    let spoilt = |bytes: &[u8], at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        match look(&bytes) {
            Err(Fault::RamdiskDamaged { container, .. }) => container,
            other => panic!("byte {at}: {other:?}"),
        }
    };
    let second = untrailed(&[("init", b"#!/bin/sh\n")]).len();
    for (what, at) in [("a size", 56), ("a name's size", 96), ("a magic", second)] {
        assert_eq!(spoilt(&plain(), at, b'x'), Container::Cpio, "{what}");
    }
    // A name of 65 MB.
    assert_eq!(spoilt(&plain(), 95, b'4'), Container::Cpio);
    assert_eq!(spoilt(&packed(Format::Gzip), 2, 7), Container::Gzip);
    assert_eq!(spoilt(&packed(Format::Gzip), 3, 0x80), Container::Gzip);
    assert_eq!(spoilt(&packed(Format::Xz), 7, 0), Container::Xz);
    assert_eq!(spoilt(&packed(Format::Zstd), 4, 0x0c), Container::Zstd);
    assert_eq!(spoilt(&packed(Format::Lz4), 7, 0x7f), Container::Lz4);
}

#[test]
fn a_cut_anywhere_is_noticed_where_the_format_tells_its_length() {
    let microcode = cpio(&[("kernel/x86/microcode/GenuineIntel.bin", &[0xa5; 300])]);
    for format in [Format::Zstd, Format::Lz4, Format::Xz] {
        let whole = [microcode.clone(), packed(format)].concat();
        for length in microcode.len() + 8..whole.len() {
            // Between two blocks of lz4 there is no telling.
            let between = format == Format::Lz4 && look(&whole[..length]).is_ok();
            let told = matches!(
                look(&whole[..length]),
                Err(Fault::RamdiskCut { have, .. }) if have == length as u64
            );
            assert!(told || between, "{format}, {length} bytes");
        }
    }
    let ends: Vec<usize> = (1..=3)
        .map(|count| {
            let files: [(&str, &[u8]); 3] = [
                ("init", b"#!/bin/sh\n"),
                ("bin", b""),
                ("bin/sh", &[7; 901]),
            ];
            untrailed(&files[..count]).len()
        })
        .collect();
    let whole = plain();
    for length in 8..whole.len() - 3 {
        let at_an_end = ends.iter().any(|end| length + 4 > *end && length <= *end);
        let told = matches!(look(&whole[..length]), Err(Fault::RamdiskCut { .. }));
        assert!(told || at_an_end, "cpio, {length} bytes");
    }
}

#[test]
fn a_file_is_judged_when_it_is_opened_and_read_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = plain();
    let initrd = Initrd::open(&file("good", &whole)).unwrap();
    let mut bytes = vec![0; whole.len()];
    initrd.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, whole);
    let bad = file("bad", b"nonsense, and more of it");
    let said = Initrd::open(&bad).unwrap_err().to_string();
    let start = format!(
        "initrd {} is not a ramdisk: at byte 0 it has 6e 6f 6e 73 65 6e 73 65, ",
        bad.display()
    );
    assert!(said.starts_with(&start), "{said}");
    let cut = file("cut", &whole[..400]);
    let said = Initrd::open(&cut).unwrap_err();
    assert!(matches!(said, ImageError::Bad { .. }));
    let promised = whole.len() - untrailed(&[("TRAILER!!!", b"")]).len();
    assert_eq!(
        said.to_string(),
        format!(
            "initrd {} is cut short: its cpio data goes on to byte {} at least, the file ends at byte 400; copy the file again",
            cut.display(),
            promised - 3
        )
    );
}

proptest! {
    /// Whatever stands in a file: an answer, and no byte read from beyond its end (`look` panics).
    #[test]
    fn no_bytes_lead_astray(
        start in prop::sample::select(vec![0_usize, 1, 2, 3, 4, 5, 6, 7]),
        at in 0_usize..2000,
        noise in prop::collection::vec(any::<u8>(), 0..64),
        length in 0_usize..2000,
    ) {
        let mut bytes = match start {
            0 => noise.clone(),
            n => PACKINGS.get(n).map_or_else(plain, |format| packed(*format)),
        };
        let at = at.min(bytes.len());
        let until = (at + noise.len()).min(bytes.len());
        bytes.splice(at..until, noise);
        bytes.truncate(length.max(1));
        let _ = look(&bytes);
    }
}
