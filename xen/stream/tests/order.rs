//! The order of records: the pictures are the code, and whoever changes a good stream's order breaks it, but for what is free.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{Sample, Span, What, as_version_2, walk};
use xen_abi::ids::VcpuId;
use xen_stream::libxc::order::{Class, Phase, step};
use xen_stream::libxc::{
    DomainHeader, DomainKind, Kind, P2mFrames, PageEntry, PageKind, Pfn, PvInfo, Record, VcpuPart,
    VcpuRecord,
};
use xen_stream::{Layer, Mode, StreamError, Writer, libxl, verify};

#[test]
fn the_picture_of_the_image_is_the_code() {
    use Class as C;
    use Phase as P;
    let both = [
        (P::Static, C::Static, P::Static),
        (P::P2m, C::P2m, P::Memory),
        (P::Memory, C::Pages, P::Memory),
        (P::Between, C::Pages, P::Memory),
        (P::Verify, C::Pages, P::Verify),
        (P::Memory, C::Verify, P::Verify),
        (P::Memory, C::Tail, P::Tail),
        (P::Verify, C::Tail, P::Tail),
        (P::Tail, C::Tail, P::Tail),
        (P::Between, C::Tail, P::Tail),
        (P::Tail, C::Checkpoint, P::Between),
        (P::Tail, C::End, P::Ended),
        (P::Between, C::End, P::Ended),
    ];
    let phases = [
        P::Static,
        P::P2m,
        P::Memory,
        P::Verify,
        P::Tail,
        P::Between,
        P::Ended,
    ];
    let classes = [
        C::Static,
        C::StaticEnd,
        C::P2m,
        C::Pages,
        C::Verify,
        C::Tail,
        C::Checkpoint,
        C::End,
        C::Never,
    ];
    for (domain, after_static) in [(DomainKind::Pv, P::P2m), (DomainKind::Hvm, P::Memory)] {
        for phase in phases {
            for class in classes {
                let drawn = both
                    .into_iter()
                    .chain([(P::Static, C::StaticEnd, after_static)])
                    .find(|(from, by, _)| (*from, *by) == (phase, class))
                    .map(|(_, _, to)| to);
                assert_eq!(
                    step(phase, class, domain).ok(),
                    drawn,
                    "{phase:?} {class:?}"
                );
            }
        }
    }
}

/// What parts must have in common to change places.
type Freedom = (u64, Class);

/// A good stream in parts, with what is free about each: parts of the same freedom may change places.
struct Stream {
    sample: Sample,
    parts: Vec<(Span, Vec<u8>, Option<Freedom>)>,
}

impl Stream {
    fn of(sample: Sample, bytes: &[u8], layer: Layer) -> Self {
        let mut epoch = 0;
        let parts = walk(bytes, layer).into_iter().map(|span| {
            let free = match span.what {
                What::Record(number) => {
                    let kind = Kind::from_number(number).unwrap();
                    epoch += u64::from(kind == Kind::Checkpoint);
                    match xen_stream::libxc::order::class(kind) {
                        Class::Pages => Some((0, Class::Pages)),
                        class @ (Class::Static | Class::Tail) => Some((epoch, class)),
                        _ => None,
                    }
                }
                // A device model's keys and its context, in one place.
                What::Outer(2 | 3) => Some((epoch, Class::Never)),
                _ => None,
            };
            (span, bytes[span.begin..span.end].to_vec(), free)
        });
        Self {
            sample,
            parts: parts.collect(),
        }
    }

    fn all() -> Vec<Self> {
        let mut streams = vec![];
        for sample in Sample::ALL {
            for layer in [Layer::Xl, Layer::Libxc] {
                let bytes = sample.bytes(layer);
                streams.push(Self::of(sample, &bytes, layer));
                streams.push(Self::of(sample, &as_version_2(&bytes, layer), layer));
            }
        }
        streams
    }

    fn read(&self, parts: &[&[u8]]) -> Result<(), String> {
        let layer = match self.parts[0].0.what {
            What::File => Layer::Xl,
            _ => Layer::Libxc,
        };
        match verify(&parts.concat()[..], layer, self.sample.mode()) {
            Ok(verified) if verified.more => Err("more follows".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.parts.iter().map(|(_, bytes, _)| &bytes[..]).collect()
    }

    /// VERIFY may stand anywhere after the first page.
    fn verify_moves_among_pages(&self, left: usize, right: usize) -> bool {
        let kind = |at: usize| match self.parts[at].0.what {
            What::Record(number) => Kind::from_number(number),
            _ => None,
        };
        let first_page = (0..left).any(|at| kind(at) == Some(Kind::PageData));
        let both = [kind(left), kind(right)];
        first_page && both.contains(&Some(Kind::Verify)) && both.contains(&Some(Kind::PageData))
    }

    /// Whether a domain can be restored without this record.
    fn spare(what: What) -> bool {
        match what {
            What::Record(number) => matches!(
                Kind::from_number(number),
                Some(
                    Kind::PageData
                        | Kind::CpuidPolicy
                        | Kind::MsrPolicy
                        | Kind::TscInfo
                        | Kind::HvmParams
                        | Kind::VcpuExtended
                        | Kind::VcpuXsave
                        | Kind::VcpuMsrs
                        | Kind::Verify
                )
            ),
            What::Outer(number) => matches!(
                libxl::Kind::from_number(number),
                Some(libxl::Kind::EmulatorXenstoreData | libxl::Kind::EmulatorContext)
            ),
            What::File | What::Stream | What::Image => false,
        }
    }
}

#[test]
fn two_records_that_change_places_are_found_unless_their_order_is_free() {
    let (mut refused, mut free) = (0, 0);
    for stream in Stream::all() {
        stream.read(&stream.slices()).unwrap();
        for left in 0..stream.parts.len() {
            for right in left + 1..stream.parts.len() {
                let (a, b) = (&stream.parts[left], &stream.parts[right]);
                let mut parts = stream.slices();
                parts.swap(left, right);
                let allowed = a.1 == b.1
                    || (a.2.is_some() && a.2 == b.2)
                    || stream.verify_moves_among_pages(left, right);
                let result = stream.read(&parts);
                let (sample, a, b) = (stream.sample, a.0.what, b.0.what);
                assert_eq!(
                    result.is_ok(),
                    allowed,
                    "{sample:?}: {a:?}, {b:?}: {result:?}"
                );
                *if allowed { &mut free } else { &mut refused } += 1;
            }
        }
    }
    assert!(
        refused > 1000 && free > 100,
        "{refused} refused, {free} free"
    );
}

#[test]
fn a_record_that_is_missing_is_missed_unless_the_domain_can_do_without() {
    for stream in Stream::all() {
        for gone in 0..stream.parts.len() {
            let mut parts = stream.slices();
            parts.remove(gone);
            let (what, sample) = (stream.parts[gone].0.what, stream.sample);
            let result = stream.read(&parts);
            assert_eq!(
                result.is_ok(),
                Stream::spare(what),
                "{sample:?}: {what:?}: {result:?}"
            );
        }
    }
}

#[test]
fn a_domain_without_memory_or_without_vcpus_is_refused() {
    let vcpus = [
        Kind::VcpuBasic,
        Kind::VcpuExtended,
        Kind::VcpuXsave,
        Kind::VcpuMsrs,
    ];
    for stream in Stream::all() {
        for gone in [&[Kind::PageData][..], &vcpus] {
            let is_gone = |what| gone.iter().any(|kind| what == What::Record(kind.number()));
            let parts = stream.parts.iter().filter(|part| !is_gone(part.0.what));
            let parts: Vec<&[u8]> = parts.map(|part| &part.1[..]).collect();
            if parts.len() < stream.parts.len() {
                stream.read(&parts).unwrap_err();
            }
        }
    }
}

#[test]
fn a_record_that_comes_twice_is_refused_but_for_pages() {
    for stream in Stream::all() {
        for twice in 0..stream.parts.len() {
            let mut parts = stream.slices();
            parts.insert(twice, parts[twice]);
            let (what, sample) = (stream.parts[twice].0.what, stream.sample);
            let result = stream.read(&parts);
            let pages = what == What::Record(Kind::PageData.number());
            assert_eq!(result.is_ok(), pages, "{sample:?}: {what:?}: {result:?}");
        }
    }
}

#[test]
fn checkpoints_are_for_those_who_agreed_to_them() {
    for sample in [Sample::PvCheckpoints, Sample::HvmCheckpoints] {
        let bytes = sample.bytes(Layer::Xl);
        let error = verify(&bytes[..], Layer::Xl, Mode::Plain)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("(CHECKPOINT)") && error.contains("a plain one"),
            "{error}"
        );
    }
    let bytes = Sample::Verified.bytes(Layer::Xl);
    let error = verify(&bytes[..], Layer::Xl, Mode::Checkpointed)
        .unwrap_err()
        .to_string();
    assert!(error.contains("(VERIFY)"), "{error}");
    // One that agreed is also content with a stream that has none.
    let bytes = Sample::Pv.bytes(Layer::Xl);
    verify(&bytes[..], Layer::Xl, Mode::Checkpointed).unwrap();
}

#[test]
fn a_stream_may_end_right_after_a_checkpoint_but_not_in_the_middle_of_one() {
    let bytes = Sample::PvCheckpoints.bytes(Layer::Libxc);
    let stream = Stream::of(Sample::PvCheckpoints, &bytes, Layer::Libxc);
    let end = stream.parts.last().unwrap().1.clone();
    let mut good = vec![];
    for length in 0..stream.parts.len() {
        let mut parts = stream.slices()[..length].to_vec();
        parts.push(&end);
        if stream.read(&parts).is_ok() {
            good.push(stream.parts[length].0.what);
        }
    }
    // Before or after a checkpoint, and in the second vcpu's parts that a domain can do without.
    assert!(good.contains(&What::Record(Kind::Checkpoint.number())));
    assert!(good.contains(&What::Record(Kind::PageData.number())));
    let whole = [
        Kind::Checkpoint,
        Kind::PageData,
        Kind::End,
        Kind::VcpuBasic,
        Kind::VcpuExtended,
        Kind::VcpuXsave,
        Kind::VcpuMsrs,
    ];
    for what in good {
        assert!(
            whole.iter().any(|kind| what == What::Record(kind.number())),
            "{what:?}"
        );
    }
}

#[test]
fn each_kind_of_domain_has_its_own_records() {
    let told = [
        (
            Sample::Pv,
            "(X86_PV_INFO) at byte 40: has no place in the image of a PVH or HVM domain",
        ),
        (
            Sample::Pvh,
            "(STATIC_DATA_END) at byte 120: comes before X86_PV_INFO",
        ),
    ];
    for (sample, text) in told {
        let mut bytes = sample.bytes(Layer::Libxc);
        bytes[24] ^= 3;
        let error = verify(&bytes[..], Layer::Libxc, Mode::Plain)
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{error}");
    }
    let mut bytes = Sample::Hvm.bytes(Layer::Libxl);
    let good = walk(&bytes, Layer::Libxl);
    // A PV domain's image, and then the device model of an HVM domain.
    let device_model = good
        .iter()
        .find(|span| span.what == What::Outer(2))
        .unwrap()
        .begin;
    let pv = Sample::Pv.bytes(Layer::Libxl);
    bytes.splice(..device_model, pv[..pv.len() - 8].iter().copied());
    let error = verify(&bytes[..], Layer::Libxl, Mode::Plain)
        .unwrap_err()
        .to_string();
    assert!(error.contains("beside the image of a PV domain"), "{error}");
}

/// A PV image of this width with a list of frames of `frames` pages and a vcpu of `registers` bytes.
fn pv_of_width(info: PvInfo, frames: usize, registers: u64) -> Result<Vec<u8>, StreamError> {
    let mut writer = Writer::new(vec![], Layer::Libxc, Mode::Plain);
    writer.image(DomainHeader {
        kind: DomainKind::Pv,
        xen_major: 4,
        xen_minor: 20,
    })?;
    writer.record(&Record::PvInfo(info))?;
    writer.record(&Record::StaticDataEnd)?;
    // 512 entries of 8 bytes or 1024 of 4 are a page of the list.
    writer.record(&Record::P2mFrames(P2mFrames {
        first: 0,
        last: 2047,
        frames: vec![1; frames],
    }))?;
    let invalid = PageEntry {
        pfn: Pfn(1),
        kind: PageKind::Invalid,
    };
    writer.pages(&[invalid], &[])?;
    writer.record(&Record::SharedInfo(Box::new([0; 4096])))?;
    writer.record(&Record::Vcpu(VcpuRecord {
        vcpu: VcpuId(0),
        part: VcpuPart::Basic,
        state: vec![0; usize::try_from(registers).unwrap()],
    }))?;
    writer.record(&Record::End)?;
    Ok(writer.into_sink())
}

#[test]
fn records_of_a_pv_guest_agree_about_its_width() {
    for (info, frames, registers) in [(PvInfo::Bits64, 4, 5168), (PvInfo::Bits32, 2, 2800)] {
        let bytes = pv_of_width(info, frames, registers).unwrap();
        verify(&bytes[..], Layer::Libxc, Mode::Plain).unwrap();
        let other = 5168 + 2800 - registers;
        for (wrong, name) in [
            (
                pv_of_width(info, frames + 1, registers),
                "X86_PV_P2M_FRAMES",
            ),
            (
                pv_of_width(info, frames - 1, registers),
                "X86_PV_P2M_FRAMES",
            ),
            (pv_of_width(info, frames, other), "X86_PV_VCPU_BASIC"),
        ] {
            let text = wrong.unwrap_err().to_string();
            let width = format!("does not fit a guest of width {}", info.width());
            assert!(text.contains(name) && text.contains(&width), "{text}");
        }
    }
}
