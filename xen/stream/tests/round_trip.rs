//! Every record, header and list comes back from bytes as it went, whatever is in it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{self, ErrorKind, IoSlice, Read};

use proptest::collection::vec;
use proptest::prelude::*;
use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::hvm::save;
use xen_abi::ids::{PAGE_SIZE, VcpuId};
use xen_stream::libxc::pv::{BASIC_BYTES_32, BASIC_BYTES_64};
use xen_stream::libxc::{
    DomainHeader, DomainKind, HvmParam, ImageHeader, Kind, P2mFrames, PageEntry, PageKind, Pfn,
    PvInfo, Record, TscInfo, VcpuPart, VcpuRecord,
};
use xen_stream::libxl::{self, Emulator, EmulatorId, LibxlHeader};
use xen_stream::xl_file::XlHeader;
use xen_stream::{Accord, Event, Layer, Mode, Reader, Writer};

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn context() -> impl Strategy<Value = Vec<u8>> {
    vec((1u16..22, any::<u16>(), bytes(200)), 0..10).prop_map(|parts| {
        let mut blob = vec![];
        save::append(&mut blob, save::HEADER, 0, &[3; 24]).unwrap();
        for (kind, instance, body) in parts {
            save::append(&mut blob, kind, instance, &body).unwrap();
        }
        save::finish(&mut blob);
        blob
    })
}

fn vcpu() -> impl Strategy<Value = VcpuRecord> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap();
    let state = prop_oneof![
        prop_oneof![Just(BASIC_BYTES_64), Just(BASIC_BYTES_32)]
            .prop_flat_map(move |bytes| vec(any::<u8>(), size(bytes)))
            .prop_map(|state| (VcpuPart::Basic, state)),
        vec(any::<u8>(), 0..=128).prop_map(|state| (VcpuPart::Extended, state)),
        vec(any::<u8>(), 16..2000).prop_map(|state| (VcpuPart::Xsave, state)),
        Just((VcpuPart::Xsave, vec![])),
        vec(any::<[u8; 16]>(), 0..20).prop_map(|state| (VcpuPart::Msrs, state.concat())),
    ];
    (0u32..8192, state).prop_map(|(vcpu, (part, state))| VcpuRecord {
        vcpu: VcpuId(vcpu),
        part,
        state,
    })
}

fn tsc() -> impl Strategy<Value = TscInfo> {
    any::<(u32, u32, u64, u32)>().prop_map(|(mode, khz, nsec, incarnation)| TscInfo {
        mode,
        khz,
        nsec,
        incarnation,
    })
}

fn leaf() -> impl Strategy<Value = Leaf> {
    any::<[u32; 6]>().prop_map(|[leaf, subleaf, a, b, c, d]| Leaf {
        leaf,
        subleaf,
        a,
        b,
        c,
        d,
    })
}

fn msr() -> impl Strategy<Value = Msr> {
    any::<(u32, u32, u64)>().prop_map(|(idx, flags, val)| Msr { idx, flags, val })
}

fn param() -> impl Strategy<Value = HvmParam> {
    any::<(u64, u64)>().prop_map(|(index, value)| HvmParam { index, value })
}

fn shared_info() -> impl Strategy<Value = Box<[u8; PAGE_SIZE]>> {
    vec(any::<u8>(), PAGE_SIZE).prop_map(|bytes| {
        let mut page = Box::new([0; PAGE_SIZE]);
        page.copy_from_slice(&bytes);
        page
    })
}

fn p2m() -> impl Strategy<Value = P2mFrames> {
    (any::<(u32, u32)>(), vec(any::<u64>(), 1..50)).prop_map(|((a, b), frames)| P2mFrames {
        first: a.min(b),
        last: a.max(b),
        frames,
    })
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        Just(Record::End),
        Just(Record::Verify),
        Just(Record::Checkpoint),
        Just(Record::StaticDataEnd),
        prop_oneof![Just(PvInfo::Bits32), Just(PvInfo::Bits64)].prop_map(Record::PvInfo),
        p2m().prop_map(Record::P2mFrames),
        vcpu().prop_map(Record::Vcpu),
        shared_info().prop_map(Record::SharedInfo),
        tsc().prop_map(Record::TscInfo),
        context().prop_map(Record::HvmContext),
        vec(param(), 0..40).prop_map(Record::HvmParams),
        bytes(100).prop_map(Record::Toolstack),
        vec(any::<u64>(), 0..50).prop_map(Record::CheckpointDirtyPfnList),
        vec(leaf(), 1..50).prop_map(Record::CpuidPolicy),
        vec(msr(), 1..50).prop_map(Record::MsrPolicy),
        any::<u64>().prop_map(|bits| Record::Offer(Accord::from_bits(bits))),
    ]
}

fn emulator() -> impl Strategy<Value = Emulator> {
    let id = prop_oneof![
        Just(EmulatorId::Unknown),
        Just(EmulatorId::QemuTraditional),
        Just(EmulatorId::QemuUpstream),
    ];
    (id, any::<u32>()).prop_map(|(id, index)| Emulator { id, index })
}

fn outer() -> impl Strategy<Value = libxl::Record> {
    let text = |least| vec(1u8..=255, least..20);
    let key = text(1).prop_filter("relative", |key| key[0] != b'/');
    prop_oneof![
        Just(libxl::Record::End),
        Just(libxl::Record::LibxcContext),
        Just(libxl::Record::CheckpointEnd),
        (0u32..4).prop_map(libxl::Record::CheckpointState),
        (emulator(), vec((key, text(0)), 0..10)).prop_map(|(emulator, nodes)| {
            libxl::Record::EmulatorXenstoreData { emulator, nodes }
        }),
        (emulator(), bytes(300))
            .prop_map(|(emulator, state)| { libxl::Record::EmulatorContext { emulator, state } }),
    ]
}

fn entry() -> impl Strategy<Value = PageEntry> {
    let kind = (0u8..16).prop_filter_map("a type", PageKind::from_bits);
    (0u64..1 << 52, kind).prop_map(|(pfn, kind)| PageEntry {
        pfn: Pfn(pfn),
        kind,
    })
}

fn domain() -> impl Strategy<Value = DomainHeader> {
    let kind = prop_oneof![Just(DomainKind::Pv), Just(DomainKind::Hvm)];
    (kind, any::<(u32, u32)>()).prop_map(|(kind, (xen_major, xen_minor))| DomainHeader {
        kind,
        xen_major,
        xen_minor,
    })
}

fn file() -> impl Strategy<Value = XlHeader> {
    (
        any::<bool>(),
        any::<u32>(),
        proptest::option::of(bytes(500)),
    )
        .prop_map(|(json, optional_flags, mut config)| {
            if let (true, Some(config)) = (json, &mut config) {
                config.push(0);
            }
            XlHeader {
                json,
                optional_flags,
                config,
            }
        })
}

/// A source that gives a few bytes at a time, and is interrupted in between.
struct Crumbs<'a> {
    bytes: &'a [u8],
    most: usize,
    calls: usize,
}

impl Read for Crumbs<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(ErrorKind::Interrupted.into());
        }
        let most = self.most.min(into.len());
        self.bytes.read(&mut into[..most])
    }
}

proptest! {
    #[test]
    fn every_record_of_an_image(record in record()) {
        let mut body = vec![];
        record.encode(&mut body).unwrap();
        prop_assert_eq!(Record::decode(record.kind(), &body).unwrap(), record);
    }

    #[test]
    fn every_record_of_a_libxl_stream(record in outer()) {
        let mut body = vec![];
        record.encode(&mut body).unwrap();
        prop_assert_eq!(libxl::Record::decode(record.kind(), &body).unwrap(), record);
    }

    #[test]
    fn a_body_that_decodes_is_the_one_that_is_encoded(
        kind in proptest::sample::select(&Kind::ALL[..]),
        body in bytes(100),
    ) {
        if let Ok(record) = Record::decode(kind, &body) {
            let mut again = vec![];
            record.encode(&mut again).unwrap();
            prop_assert_eq!(again, body);
        }
    }

    #[test]
    fn a_body_of_the_libxl_layer_that_decodes_is_the_one_that_is_encoded(
        kind in proptest::sample::select(&libxl::Kind::ALL[..]),
        body in vec(0u8..3, 0..30),
    ) {
        if let Ok(record) = libxl::Record::decode(kind, &body) {
            let mut again = vec![];
            record.encode(&mut again).unwrap();
            // The specification pads COLO's number, stock does not.
            let padded = kind == libxl::Kind::CheckpointState && body.len() == 8;
            prop_assert_eq!(&again[..], if padded { &body[..4] } else { &body[..] });
        }
    }

    #[test]
    fn headers(domain in domain(), version in 2u32..4, converted: bool) {
        let mut bytes = vec![];
        domain.encode(&mut bytes);
        prop_assert_eq!(DomainHeader::decode(&bytes).unwrap(), domain);
        let image = ImageHeader { version };
        let mut bytes = vec![];
        image.encode(&mut bytes);
        prop_assert_eq!(ImageHeader::decode(&bytes).unwrap(), image);
        let stream = LibxlHeader { converted };
        let mut bytes = vec![];
        stream.encode(&mut bytes);
        prop_assert_eq!(LibxlHeader::decode(&bytes).unwrap(), stream);
    }

    /// A whole file of a PVH domain, through a source that gives crumbs.
    #[test]
    fn a_whole_file(
        file in file(),
        policy in vec(leaf(), 1..20),
        batches in vec(vec(entry(), 1..20), 1..5),
        tsc in tsc(),
        context in context(),
        params in vec(param(), 0..20),
        seed: u64,
        most in 1usize..3000,
    ) {
        let domain = DomainHeader { kind: DomainKind::Hvm, xen_major: 4, xen_minor: 17 };
        let mut writer = Writer::new(vec![], Layer::Xl, Mode::Plain);
        writer.file(&file).unwrap();
        writer.stream().unwrap();
        writer.image(domain).unwrap();
        let offer = Record::Offer(Accord::ALL);
        let mut records = vec![offer, Record::CpuidPolicy(policy), Record::StaticDataEnd];
        writer.agree(Accord::ALL);
        for record in &records {
            writer.record(record).unwrap();
        }
        let mut pages = vec![];
        for entries in &batches {
            let count = entries.iter().filter(|entry| entry.kind.has_contents()).count();
            let contents: Vec<_> = (0..count as u64).map(|n| common::page(seed ^ n)).collect();
            let slices: Vec<_> = contents.iter().map(|page| IoSlice::new(page)).collect();
            writer.pages(entries, &slices).unwrap();
            pages.push((entries.clone(), contents.concat()));
        }
        let tail = [Record::TscInfo(tsc), Record::HvmContext(context), Record::HvmParams(params), Record::End];
        for record in tail {
            writer.record(&record).unwrap();
            records.push(record);
        }
        writer.outer(&libxl::Record::End).unwrap();
        let bytes = writer.into_sink();

        let source = Crumbs { bytes: &bytes, most, calls: 0 };
        let mut reader = Reader::new(source, Layer::Xl, Mode::Plain);
        reader.agree(Accord::ALL);
        let (mut records, mut pages) = (records.into_iter(), pages.into_iter());
        loop {
            match reader.next().unwrap() {
                Event::File(found) => prop_assert_eq!(&found, &file),
                Event::Image(image, found) => prop_assert_eq!((image.version, found), (3, domain)),
                Event::Record(found) => prop_assert_eq!(Some(found), records.next()),
                Event::Pages(mut found) => {
                    let (entries, contents) = pages.next().unwrap();
                    prop_assert_eq!(found.entries, &entries[..]);
                    let mut read = vec![0; contents.len()];
                    found.read(&mut read).unwrap();
                    prop_assert!(read == contents);
                }
                Event::End => break,
                Event::Stream(_) | Event::Outer(_) | Event::Skipped { .. } => {}
            }
        }
        prop_assert!(records.next().is_none() && pages.next().is_none());
    }
}
