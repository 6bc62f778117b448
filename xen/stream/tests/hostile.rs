//! Streams that somebody damaged or made up: an error that names the place, never a panic, never a domain out of nothing.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};

use common::{Sample, Span, What, as_version_2, walk};
use proptest::prelude::*;
use xen_stream::error::Part;
use xen_stream::{Event, Layer, Mode, Problem, Reader, StreamError, verify};

/// Everything that a restorer would act upon, contents of pages included, and how many records were skipped. Long parts
/// are cut and hashed, so that a failed test can be read.
fn all_of(bytes: &[u8], layer: Layer, mode: Mode) -> Result<(Vec<String>, u64), StreamError> {
    let mut reader = Reader::new(bytes, layer, mode);
    let mut parts = vec![];
    loop {
        let part = match reader.next()? {
            Event::Pages(mut pages) => {
                let mut contents = vec![0; usize::try_from(pages.left()).unwrap()];
                let entries = format!("{:?} {}", pages.entries, pages.compare);
                pages.read(&mut contents)?;
                let mut hash = DefaultHasher::new();
                contents.hash(&mut hash);
                format!("{entries} #{:x}", hash.finish())
            }
            Event::Skipped { .. } => continue,
            Event::End => return Ok((parts, reader.summary().skipped)),
            other => format!("{other:?}"),
        };
        let mut hash = DefaultHasher::new();
        part.hash(&mut hash);
        parts.push(format!("{part:.60} #{:x}", hash.finish()));
    }
}

fn samples() -> Vec<(Sample, Vec<u8>)> {
    let mut found = vec![];
    for sample in [Sample::Pv, Sample::Hvm, Sample::HvmCheckpoints] {
        let bytes = sample.bytes(Layer::Xl);
        found.push((sample, as_version_2(&bytes, Layer::Xl)));
        found.push((sample, bytes));
    }
    found
}

/// The part of a stream at a byte, and how many bytes of it are before that.
fn span_at(spans: &[Span], at: usize) -> (usize, Span) {
    let index = spans.iter().position(|span| at < span.end).unwrap();
    (index, spans[index])
}

#[test]
fn a_stream_cut_anywhere_is_cut_and_the_error_names_the_record() {
    for (sample, bytes) in samples() {
        let spans = walk(&bytes, Layer::Xl);
        for cut in 0..bytes.len() {
            let error = verify(&bytes[..cut], Layer::Xl, sample.mode()).unwrap_err();
            let (index, span) = span_at(&spans, cut);
            assert!(
                matches!(error.problem, Problem::Truncated { .. }),
                "{cut}: {error}"
            );
            let in_header = cut < span.begin + 8;
            let known = |kind| if in_header { None } else { Some(kind) };
            let counted = |outer| {
                let before = spans[..=index].iter();
                before
                    .filter(|span| matches!(span.what, What::Outer(_)) == outer)
                    .filter(|span| matches!(span.what, What::Outer(_) | What::Record(_)))
                    .count() as u64
            };
            let part = match span.what {
                What::File => Part::XlHeader,
                What::Stream => Part::LibxlHeader,
                What::Image if cut < span.begin + 24 => Part::ImageHeader,
                What::Image => Part::DomainHeader,
                What::Outer(kind) => Part::LibxlRecord {
                    number: counted(true),
                    kind: known(kind),
                },
                What::Record(kind) => Part::LibxcRecord {
                    number: counted(false),
                    kind: known(kind),
                },
            };
            assert_eq!(error.place.part, part, "{cut}: {error}");
            let begin = span.begin + if part == Part::DomainHeader { 24 } else { 0 };
            assert_eq!(error.place.offset, begin as u64, "{cut}: {error}");
        }
    }
}

/// What a flip of one bit may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The stream is refused.
    Refused,
    /// It means the same, but for words that are only told: Xen's version, optional flags.
    Told,
    /// Zeros of the padding after an opaque body became part of it: the format cannot tell.
    Padded,
    /// A record without which a domain can be restored became one that may be skipped, and was.
    Skipped,
}

/// The bits of a good stream that are structure: marks, versions, flags, types, lengths, counts, reserved bits, padding.
///
/// Left out are values that are contents: the configuration, page numbers and types, registers, parameters.
fn structure(bytes: &[u8]) -> Vec<(usize, u8, Fate)> {
    let mut bits = vec![];
    let mut push = |range: std::ops::Range<usize>, fate: &dyn Fn(usize, u8) -> Fate| {
        for at in range {
            for bit in 0..8 {
                bits.push((at, bit, fate(at, bit)));
            }
        }
    };
    let refused = |_, _| Fate::Refused;
    for span in walk(bytes, Layer::Xl) {
        let Span {
            what,
            begin,
            end,
            body,
        } = span;
        match what {
            What::File => {
                // Mandatory flag 0 tells how the configuration is written.
                push(begin..52, &|at, bit| match (at - begin, bit) {
                    (36, 0) | (40..44, _) => Fate::Told,
                    _ => Fate::Refused,
                });
            }
            What::Stream => push(begin..end, &refused),
            // Xen's version is 4.20; major version 0 is that of a converter.
            What::Image => push(begin..end, &|at, bit| match (at - begin, bit) {
                (32, 2) => Fate::Refused,
                (32..40, _) => Fate::Told,
                _ => Fate::Refused,
            }),
            What::Outer(kind) => {
                let spare = matches!(kind, 2 | 3);
                push(begin..begin + 8, &record_header(span, spare, kind == 3));
                push(begin + 8 + body..end, &refused);
            }
            What::Record(kind) => {
                // Records that a domain can do without; of pages, those that are not the only ones.
                let spare = matches!(kind, 1 | 5 | 6 | 8 | 0xa | 0xc | 0x11 | 0x12);
                push(
                    begin..begin + 8,
                    &record_header(span, spare, matches!(kind, 5 | 6)),
                );
                push(begin + 8 + body..end, &refused);
                match kind {
                    1 => push(begin + 8..begin + 16, &refused),
                    2 => push(begin + 8..begin + 16, &refused),
                    4..=6 | 0xc => push(begin + 12..begin + 16, &refused),
                    8 => push(begin + 28..begin + 32, &refused),
                    0xa => push(begin + 8..begin + 16, &refused),
                    _ => {}
                }
            }
        }
    }
    bits
}

/// The header of a record: bit 31 of its type makes it one that may be skipped, and an opaque body may grow into its padding.
fn record_header(span: Span, spare: bool, opaque: bool) -> impl Fn(usize, u8) -> Fate {
    move |at, bit| match (at - span.begin, bit) {
        (3, 7) if spare => Fate::Skipped,
        (4, 0..3) if opaque => {
            let body = span.body ^ 1 << bit;
            if body > span.body && body.next_multiple_of(8) == span.body.next_multiple_of(8) {
                return Fate::Padded;
            }
            Fate::Refused
        }
        _ => Fate::Refused,
    }
}

#[test]
fn a_flipped_bit_of_structure_is_refused_or_changes_nothing_that_matters() {
    for (sample, bytes) in samples() {
        let (good, _) = all_of(&bytes, Layer::Xl, sample.mode()).unwrap();
        let spans = walk(&bytes, Layer::Xl);
        for (at, bit, fate) in structure(&bytes) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let found = all_of(&bad, Layer::Xl, sample.mode());
            let (_, span) = span_at(&spans, at);
            let what = format!(
                "{sample:?}, byte {at} bit {bit}, {:?}: {found:?}",
                span.what
            );
            match (fate, found) {
                (Fate::Refused, Err(_)) => {}
                (Fate::Told | Fate::Padded, Ok((parts, 0))) => {
                    let differ = good.iter().zip(&parts).filter(|(a, b)| a != b).count();
                    assert_eq!((parts.len(), differ), (good.len(), 1), "{what}");
                }
                (Fate::Skipped, Ok((parts, 1))) => {
                    assert_eq!(parts.len(), good.len() - 1, "{what}");
                    assert!(parts.iter().all(|part| good.contains(part)), "{what}");
                }
                (fate, _) => panic!("not {fate:?}: {what}"),
            }
        }
    }
}

/// A source that remembers the largest buffer it was asked to fill, and says yes to everything with zeros.
struct Asked<'a> {
    bytes: &'a [u8],
    largest: usize,
}

impl Read for Asked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.largest = self.largest.max(into.len());
        self.bytes.read(into)
    }
}

#[test]
fn a_forged_length_allocates_next_to_nothing() {
    let good = Sample::Pvh.bytes(Layer::Libxc);
    for span in walk(&good, Layer::Libxc).into_iter().skip(1) {
        for length in [0x10_000_u32, 0x40_0000, 0x7ff_fff8, 0x800_0000, u32::MAX] {
            let mut bytes = good[..span.begin + 8].to_vec();
            bytes[span.begin + 4..].copy_from_slice(&length.to_le_bytes());
            // Where pages are listed, as many as are believed.
            bytes.extend_from_slice(&32_768_u32.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            let mut source = Asked {
                bytes: &bytes,
                largest: 0,
            };
            verify(&mut source, Layer::Libxc, Mode::Plain).unwrap_err();
            assert!(
                source.largest <= 64 * 1024,
                "{:?} {}",
                span.what,
                source.largest
            );
        }
    }
    let mut file = Sample::Pvh.bytes(Layer::Xl)[..48].to_vec();
    file[44..].copy_from_slice(&(4_u32 << 20).to_le_bytes());
    let mut source = Asked {
        bytes: &file,
        largest: 0,
    };
    verify(&mut source, Layer::Xl, Mode::Plain).unwrap_err();
    assert!(source.largest <= 64 * 1024, "{}", source.largest);
}

/// A PVH image up to its memory, and then this record.
fn after_statics(record: &[u8]) -> String {
    let good = Sample::Pvh.bytes(Layer::Libxc);
    let spans = walk(&good, Layer::Libxc);
    let first_page = spans
        .iter()
        .find(|span| span.what == What::Record(1))
        .unwrap();
    let bytes = [&good[..first_page.begin], record].concat();
    verify(&bytes[..], Layer::Libxc, Mode::Plain)
        .unwrap_err()
        .to_string()
}

fn record(kind: u32, length: u32, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), &length.to_le_bytes(), body].concat()
}

/// Records with what is said about them.
fn check(cases: &[(Vec<u8>, &str)]) {
    for (bytes, text) in cases {
        let (error, text) = (after_statics(bytes), format!("libxc record 4 {text}"));
        assert!(error.starts_with(&text), "{error}\n  instead of\n{text}");
    }
}

#[test]
fn errors_about_pages_name_the_record_the_place_and_the_numbers() {
    let list =
        |count: u32, word: u64| [&count.to_le_bytes()[..], &[0; 4], &word.to_le_bytes()].concat();
    let cases = [
        (
            record(1, 8, &[0; 8]),
            "(PAGE_DATA) at byte 128: the number of pages is 0x0, expected 1 or more",
        ),
        (
            record(1, 8216, &[&1025_u32.to_le_bytes()[..], &[0; 4]].concat()),
            "(PAGE_DATA) at byte 128: the stream ends after 0 of 8200 bytes of its list of pages",
        ),
        (
            record(1, 8200, &list(1025, 0)),
            "(PAGE_DATA) at byte 128: is 8200 bytes long, expected 8208 or more",
        ),
        (
            record(1, 16, &list(1, 7)),
            "(PAGE_DATA) at byte 128: 1 pages, 1 with contents, take 4112 bytes, the record says 16",
        ),
        (
            record(1, 1 << 20, &list(32_769, 0)),
            "(PAGE_DATA) at byte 128: 32769 pages, 32768 is the limit",
        ),
        (
            record(1, 16, &list(1, 5 << 60)),
            "(PAGE_DATA) at byte 128: entry 0: the page type is 0x5, expected 0 to 4 or 9 to 0xf",
        ),
        (
            record(1, 16, &list(1, 1 << 52)),
            "(PAGE_DATA) at byte 128: entry 0: a reserved bit of the page is 0x10000000000000, expected 0",
        ),
        (
            record(1, 0x0800_0001, &[]),
            "(PAGE_DATA) at byte 128: 134217729 bytes, 134217728 is the limit",
        ),
    ];
    check(&cases);
}

#[test]
fn errors_about_other_records_do_so_too() {
    let cases = [
        (
            record(0x13, 0, &[]),
            "(type 0x13) at byte 128: a mandatory record of unknown type 0x13; a newer program made it",
        ),
        (
            record(0, 0, &[]),
            "(END) at byte 128: ends a domain without PAGE_DATA",
        ),
        (
            record(2, 8, &[]),
            "(X86_PV_INFO) at byte 128: has no place in the image of a PVH or HVM domain",
        ),
        (
            record(0xb, 0, &[]),
            "(TOOLSTACK) at byte 128: has no place in an image",
        ),
        (
            record(0x11, 24, &[]),
            "(X86_CPUID_POLICY) at byte 128: comes after STATIC_DATA_END",
        ),
        (
            record(8, 16, &[0; 16]),
            "(X86_TSC_INFO) at byte 128: is 16 bytes long, expected 24",
        ),
        (
            record(8, 25, &[]),
            "(X86_TSC_INFO) at byte 128: 25 bytes, 24 is the limit",
        ),
        (
            record(0xa, 9, &[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0]),
            "(HVM_PARAMS) at byte 128: the 7 bytes after its body are 0x100, not 0",
        ),
        (
            record(0xa, 16, &[3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0]),
            "(HVM_PARAMS) at byte 128: 3 parameters take 56 bytes, the record says 16",
        ),
        (
            record(0xa, 8, &[0, 0, 0, 0, 5, 0, 0, 0]),
            "(HVM_PARAMS) at byte 128: reserved bits of the record are 0x5, not 0",
        ),
        (
            vec![1, 2, 3],
            "(its header) at byte 128: the stream ends after 3 of 8 bytes of the header of a record",
        ),
    ];
    check(&cases);
}

#[test]
fn streams_of_others_are_told_apart() {
    let xl = |at: usize, byte: u8| {
        let mut bytes = Sample::Pvh.bytes(Layer::Xl);
        bytes[at] ^= byte;
        verify(&bytes[..], Layer::Xl, Mode::Plain)
            .unwrap_err()
            .to_string()
    };
    let stream = walk(&Sample::Pvh.bytes(Layer::Xl), Layer::Xl)[1].begin;
    let image = stream + 16 + 8;
    let cases = [
        (
            xl(0, 1),
            "xl file header at byte 0: does not begin with the mark of an xl save file",
        ),
        (
            xl(36, 2),
            "xl file header at byte 0: the image is of the kind of Xen 4.5 and older",
        ),
        (
            xl(36, 4),
            "xl file header at byte 0: needs features 0x4, which this program does not know",
        ),
        (xl(stream, 1), "libxl stream header at byte"),
        (
            xl(stream + 11, 1),
            "a libxl stream of version 3 is newer than version 2, the newest",
        ),
        (xl(stream + 15, 1), "the stream is big-endian"),
        (
            xl(stream + 15, 2),
            "was converted from an image of Xen 4.5 or older",
        ),
        (xl(image + 32, 4), "libxc domain header at byte"),
        (
            xl(image, 1),
            "the marker is 0xfeffffffffffffff where 0xffffffffffffffff is the mark of a libxc image",
        ),
        (
            xl(image + 15, 7),
            "a libxc image of version 4 is newer than version 3, the newest",
        ),
        (xl(image + 17, 1), "the image is big-endian"),
        (xl(image + 28, 1), "the page shift is 0xd, expected 0xc"),
    ];
    for (error, text) in cases {
        assert!(error.contains(text), "{error}\n  instead of\n{text}");
    }
}

#[test]
fn optional_records_are_skipped_and_counted_in_both_layers() {
    let good = Sample::Hvm.bytes(Layer::Libxl);
    let extra = record(
        0x8000_0077,
        11,
        &[9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0],
    );
    let mut spans = walk(&good, Layer::Libxl);
    spans.retain(|span| {
        matches!(span.what, What::Record(_)) || matches!(span.what, What::Outer(2..))
    });
    for span in spans {
        let mut bytes = good.clone();
        bytes.splice(span.begin..span.begin, extra.iter().copied());
        let summary = verify(&bytes[..], Layer::Libxl, Mode::Plain)
            .unwrap()
            .summary;
        assert_eq!(summary.skipped, 1, "before {:?}", span.what);
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for layer in [Layer::Xl, Layer::Libxl, Layer::Libxc] {
            prop_assert!(all_of(&bytes, layer, Mode::Checkpointed).is_err());
        }
    }

    #[test]
    fn no_bytes_after_a_good_beginning_are_a_panic(
        sample in proptest::sample::select(&Sample::ALL[..]),
        keep in 0.0..1.0f64,
        kind in 0u32..0x20,
        length in prop_oneof![0u32..64, any::<u32>()],
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let good = sample.bytes(Layer::Libxl);
        let spans = walk(&good, Layer::Libxl);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let begin = spans[(keep * spans.len() as f64) as usize].begin;
        let bytes = [&good[..begin], &record(kind, length, &bytes)].concat();
        // A record that goes well may be followed by nothing, which is an error too.
        prop_assert!(all_of(&bytes, Layer::Libxl, sample.mode()).is_err() || bytes.len() > begin + 8);
    }

    #[test]
    fn no_damage_is_a_panic(
        sample in proptest::sample::select(&Sample::ALL[..]),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = sample.bytes(Layer::Xl);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Good or not is chance; what counts is that it ends.
        let _ = all_of(&bytes, Layer::Xl, sample.mode());
    }
}
