//! Small whole streams of every shape, made with the writer, and a walker that knows the formats on its own: it finds the
//! parts of a stream without the code under test.

#![allow(
    dead_code,
    reason = "each test and example takes what it needs of this"
)]
#![allow(
    clippy::unwrap_used,
    reason = "the samples are ours; an example shares them"
)]

use std::io::{IoSlice, Write};

use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::hvm::{params, save};
use xen_abi::ids::{PAGE_SIZE, VcpuId};
use xen_stream::libxc::pv::BASIC_BYTES_64;
use xen_stream::libxc::{
    DomainHeader, DomainKind, HvmParam, P2mFrames, PageEntry, PageKind, Pfn, PvInfo, Record,
    TscInfo, VcpuPart, VcpuRecord,
};
use xen_stream::libxl;
use xen_stream::libxl::{Emulator, EmulatorId};
use xen_stream::xl_file::XlHeader;
use xen_stream::{Layer, Mode, StreamError, Writer};

/// The configuration in the samples.
pub const CONFIG: &str = "{\n    \"c_info\": {\n        \"name\": \"sample\"\n    }\n}\n";

/// Which sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A PV domain.
    Pv,
    /// A PVH domain: no device model.
    Pvh,
    /// An HVM domain with the state of its device model.
    Hvm,
    /// A PV domain whose memory is sent twice, the second time to be compared.
    Verified,
    /// A PV domain in three checkpoints.
    PvCheckpoints,
    /// An HVM domain in three checkpoints.
    HvmCheckpoints,
}

impl Sample {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Pv,
        Self::Pvh,
        Self::Hvm,
        Self::Verified,
        Self::PvCheckpoints,
        Self::HvmCheckpoints,
    ];

    /// For file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::Verified => "verified",
            Self::PvCheckpoints => "pv-checkpoints",
            Self::HvmCheckpoints => "hvm-checkpoints",
        }
    }

    /// How it has to be read.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Pv | Self::Pvh | Self::Hvm | Self::Verified => Mode::Plain,
            Self::PvCheckpoints | Self::HvmCheckpoints => Mode::Checkpointed,
        }
    }

    /// Whose records it has.
    pub const fn domain(self) -> DomainKind {
        match self {
            Self::Pv | Self::Verified | Self::PvCheckpoints => DomainKind::Pv,
            Self::Pvh | Self::Hvm | Self::HvmCheckpoints => DomainKind::Hvm,
        }
    }

    /// Its bytes, from this layer on.
    pub fn bytes(self, from: Layer) -> Vec<u8> {
        let mut writer = Writer::new(vec![], from, self.mode());
        self.write(&mut writer, from).unwrap();
        writer.into_sink()
    }

    /// Writes it.
    pub fn write<W: Write>(self, writer: &mut Writer<W>, from: Layer) -> Result<(), StreamError> {
        if from == Layer::Xl {
            writer.file(&XlHeader::with_json(CONFIG))?;
        }
        if from != Layer::Libxc {
            writer.stream()?;
        }
        writer.image(DomainHeader {
            kind: self.domain(),
            xen_major: 4,
            xen_minor: 20,
        })?;
        for record in statics(self.domain()) {
            writer.record(&record)?;
        }
        memory(writer, self.domain(), 1)?;
        if self == Self::Verified {
            writer.record(&Record::Verify)?;
            memory(writer, self.domain(), 1)?;
        }
        for record in registers(self.domain()) {
            writer.record(&record)?;
        }
        if self.mode() == Mode::Checkpointed {
            for epoch in 2..4 {
                writer.record(&Record::Checkpoint)?;
                if from != Layer::Libxc {
                    emulator(self.domain(), writer)?;
                    writer.outer(&libxl::Record::CheckpointEnd)?;
                }
                memory(writer, self.domain(), epoch)?;
                for record in registers(self.domain()) {
                    writer.record(&record)?;
                }
            }
        }
        writer.record(&Record::End)?;
        if from != Layer::Libxc {
            if self == Self::Hvm {
                emulator(self.domain(), writer)?;
            }
            writer.outer(&libxl::Record::End)?;
        }
        Ok(())
    }
}

/// What does not change while the guest runs, and a PV guest's list of frames.
pub fn statics(domain: DomainKind) -> Vec<Record> {
    let mut records = vec![];
    if domain == DomainKind::Pv {
        records.push(Record::PvInfo(PvInfo::Bits64));
    }
    let leaf = |leaf| Leaf {
        leaf,
        subleaf: xen_abi::cpuid::NO_SUBLEAF,
        a: 13,
        b: 0x756e_6547,
        c: 0x6c65_746e,
        d: 0x4965_6e69,
    };
    records.push(Record::CpuidPolicy(vec![leaf(0), leaf(1)]));
    let msr = Msr {
        idx: 0xce,
        flags: 0,
        val: 0x8000_0000,
    };
    records.push(Record::MsrPolicy(vec![msr]));
    records.push(Record::StaticDataEnd);
    if domain == DomainKind::Pv {
        records.push(Record::P2mFrames(P2mFrames {
            first: 0,
            last: 1000,
            frames: vec![3, 4],
        }));
    }
    records
}

/// A page with something in it.
pub fn page(seed: u64) -> Vec<u8> {
    (0..PAGE_SIZE as u64)
        .map(|at| (at.wrapping_mul(seed.wrapping_mul(2) + 1) >> 3).to_le_bytes()[0] | 1)
        .collect()
}

/// Two records of pages.
fn memory<W: Write>(
    writer: &mut Writer<W>,
    domain: DomainKind,
    epoch: u64,
) -> Result<(), StreamError> {
    let table = PageKind::Table {
        level: 4,
        pinned: true,
    };
    let second = match domain {
        DomainKind::Pv => table,
        DomainKind::Hvm => PageKind::Normal,
    };
    let entry = |pfn, kind| PageEntry {
        pfn: Pfn(pfn),
        kind,
    };
    let entries = [
        entry(0, PageKind::Normal),
        entry(1, second),
        entry(2, PageKind::Invalid),
        entry(epoch, PageKind::Allocate),
    ];
    let contents = [page(epoch), page(epoch + 100)].concat();
    writer.pages(&entries, &[IoSlice::new(&contents)])?;
    writer.pages(&[entry(9, PageKind::Broken)], &[])
}

/// A context blob as Xen would give it.
pub fn context() -> Vec<u8> {
    let mut blob = vec![];
    save::append(&mut blob, save::HEADER, 0, &[7; 24]).unwrap();
    save::append(&mut blob, save::CPU, 0, &page(5)[..300]).unwrap();
    save::append(&mut blob, save::MTRR, 0, &page(6)[..37]).unwrap();
    save::finish(&mut blob);
    blob
}

/// Registers and devices.
pub fn registers(domain: DomainKind) -> Vec<Record> {
    let mut records = vec![Record::TscInfo(TscInfo {
        mode: 2,
        khz: 2_900_000,
        nsec: 123_456_789,
        incarnation: 1,
    })];
    if domain == DomainKind::Hvm {
        records.push(Record::HvmContext(context()));
        let param = |index: u32, value| HvmParam {
            index: index.into(),
            value,
        };
        records.push(Record::HvmParams(vec![
            param(params::STORE_PFN, 0xfeffc),
            param(params::CONSOLE_PFN, 0xfeffb),
        ]));
        return records;
    }
    let mut shared_info = Box::new([0; PAGE_SIZE]);
    shared_info.copy_from_slice(&page(7));
    records.push(Record::SharedInfo(shared_info));
    for vcpu in 0..2 {
        let part = |part, bytes: u64| {
            let size = usize::try_from(bytes).unwrap();
            let state = page(u64::from(vcpu)).into_iter().cycle().take(size);
            Record::Vcpu(VcpuRecord {
                vcpu: VcpuId(vcpu),
                part,
                state: state.collect(),
            })
        };
        records.push(part(VcpuPart::Basic, BASIC_BYTES_64));
        records.push(part(VcpuPart::Extended, 61));
        records.push(part(VcpuPart::Xsave, 835));
        records.push(part(VcpuPart::Msrs, 32));
    }
    records
}

fn emulator<W: Write>(domain: DomainKind, writer: &mut Writer<W>) -> Result<(), StreamError> {
    if domain == DomainKind::Pv {
        return Ok(());
    }
    let emulator = Emulator {
        id: EmulatorId::QemuUpstream,
        index: 0,
    };
    writer.outer(&libxl::Record::EmulatorXenstoreData {
        emulator,
        nodes: vec![(b"physmap/f0000000/size".to_vec(), b"1000000".to_vec())],
    })?;
    writer.outer(&libxl::Record::EmulatorContext {
        emulator,
        state: page(8)[..77].to_vec(),
    })
}

/// The same image as version 2 had it: without policies and STATIC_DATA_END. `from` is the layer of `bytes`.
pub fn as_version_2(bytes: &[u8], from: Layer) -> Vec<u8> {
    let mut old = vec![];
    for span in walk(bytes, from) {
        let part = &bytes[span.begin..span.end];
        match span.what {
            What::Image => {
                old.extend_from_slice(&part[..15]);
                old.push(2);
                old.extend_from_slice(&part[16..]);
            }
            What::Record(0x10..=0x12) => {}
            _ => old.extend_from_slice(part),
        }
    }
    old
}

/// A part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Header of the file, with the configuration.
    File,
    /// Header of the libxl stream.
    Stream,
    /// Record of the libxl layer.
    Outer(u32),
    /// Both headers of the image.
    Image,
    /// Record of the image.
    Record(u32),
}

/// Where it is.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// What it is.
    pub what: What,
    /// First byte.
    pub begin: usize,
    /// Behind the last byte, padding included.
    pub end: usize,
    /// Bytes of the body of a record.
    pub body: usize,
}

/// Takes a good stream apart, knowing nothing but headers.
pub fn walk(bytes: &[u8], from: Layer) -> Vec<Span> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut spans = vec![];
    let mut push = |what, begin, end, body| {
        spans.push(Span {
            what,
            begin,
            end,
            body,
        });
        end
    };
    let mut at = 0;
    if from == Layer::Xl {
        at = push(What::File, 0, 48 + word(44) as usize, 0);
    }
    if from != Layer::Libxc {
        at = push(What::Stream, at, at + 16, 0);
    }
    let (mut in_image, mut seen_image) = (from == Layer::Libxc, false);
    while at < bytes.len() {
        if in_image && !seen_image {
            at = push(What::Image, at, at + 40, 0);
            seen_image = true;
        }
        let (kind, body) = (word(at), word(at + 4) as usize);
        let end = at + 8 + body.next_multiple_of(8);
        let what = if in_image {
            What::Record(kind)
        } else {
            What::Outer(kind)
        };
        at = push(what, at, end, body);
        in_image = match what {
            What::Record(0 | 0x0e) => from == Layer::Libxc,
            What::Outer(kind) => matches!(kind, 1 | 4),
            _ => in_image,
        };
    }
    assert_eq!(at, bytes.len(), "the walker lost its way");
    spans
}
