//! The writer: few system calls, no copies of pages, and nothing that a reader would refuse.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use common::{Sample, page, registers, statics};
use xen_stream::libxc::{DomainHeader, DomainKind, PageEntry, PageKind, Pfn, Record};
use xen_stream::xl_file::XlHeader;
use xen_stream::{Event, Layer, Mode, Problem, Reader, StreamError, Writer, libxl, verify};

/// A sink that counts, and takes as much at a time as it is told.
#[derive(Debug, Default)]
struct Sink {
    bytes: Vec<u8>,
    calls: usize,
    /// Bytes of one call, if bounded.
    most: Option<usize>,
    /// Every second call is interrupted.
    interrupts: bool,
    /// No space after so many bytes.
    space: Option<usize>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(slices.len() <= 1024, "the kernel takes no more");
        self.calls += 1;
        if self.interrupts && self.calls.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.space.is_some_and(|space| self.bytes.len() >= space) {
            return Err(ErrorKind::StorageFull.into());
        }
        let before = self.bytes.len();
        for slice in slices {
            let room = self.most.unwrap_or(usize::MAX) - (self.bytes.len() - before);
            self.bytes
                .extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Ok(self.bytes.len() - before)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const PVH: DomainHeader = DomainHeader {
    kind: DomainKind::Hvm,
    xen_major: 4,
    xen_minor: 20,
};

/// A writer of a PVH image that is ready for pages.
fn ready_for_pages() -> Writer<Sink> {
    let mut writer = Writer::new(Sink::default(), Layer::Libxc, Mode::Plain);
    writer.image(PVH).unwrap();
    for record in statics(DomainKind::Hvm) {
        writer.record(&record).unwrap();
    }
    writer
}

fn batch(first: u64) -> Vec<PageEntry> {
    (first..first + 1024)
        .map(|pfn| PageEntry::normal(Pfn(pfn)))
        .collect()
}

#[test]
fn a_batch_of_pages_is_one_write_and_the_small_records_before_it_cost_none() {
    let contents = vec![7; 1024 * 4096];
    let mut writer = ready_for_pages();
    assert_eq!(writer.sink().calls, 0, "small records wait");
    for round in 0..4 {
        writer
            .pages(&batch(round * 1024), &[IoSlice::new(&contents)])
            .unwrap();
    }
    assert_eq!(writer.sink().calls, 4);
    for record in registers(DomainKind::Hvm) {
        writer.record(&record).unwrap();
    }
    assert_eq!(writer.sink().calls, 4);
    writer.record(&Record::End).unwrap();
    assert_eq!(writer.sink().calls, 5, "the end goes out by itself");
    let bytes = writer.into_sink().bytes;
    let summary = verify(&bytes[..], Layer::Libxc, Mode::Plain)
        .unwrap()
        .summary;
    assert_eq!(summary.contents, 4096);
}

#[test]
fn scattered_pages_are_as_few_writes_as_the_kernel_allows() {
    let contents = vec![7; 1024 * 4096];
    let slices: Vec<_> = contents.chunks(4096).map(IoSlice::new).collect();
    let mut writer = ready_for_pages();
    writer.pages(&batch(0), &slices).unwrap();
    assert_eq!(writer.sink().calls, 2, "1025 slices");
}

#[test]
fn reading_a_batch_is_four_reads_of_which_one_goes_straight_to_the_guest() {
    struct Counted<'a>(&'a [u8], usize);
    impl Read for Counted<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.read(into)
        }
    }
    let contents: Vec<u8> = (0..1024).flat_map(page).collect();
    let mut writer = ready_for_pages();
    writer.pages(&batch(0), &[IoSlice::new(&contents)]).unwrap();
    let bytes = writer.into_sink().bytes;
    let mut reader = Reader::new(Counted(&bytes, 0), Layer::Libxc, Mode::Plain);
    let mut guest = vec![0; contents.len()];
    let before = loop {
        let before = reader.source().1;
        if let Event::Pages(mut pages) = reader.next().unwrap() {
            let runs: Vec<_> = pages.runs().collect();
            assert_eq!((runs.len(), runs[0].pages), (1, 1024));
            let mut at = 0;
            pages
                .read_with(pages.left(), |source, left| {
                    assert_eq!(left, (guest.len() - at) as u64);
                    let got = source.read(&mut guest[at..])?;
                    at += got;
                    Ok(got)
                })
                .unwrap();
            break before;
        }
    };
    assert_eq!(reader.source().1 - before, 4);
    assert!(guest == contents);
}

#[test]
fn a_sink_that_takes_little_at_a_time_gets_everything() {
    for sample in Sample::ALL {
        let whole = sample.bytes(Layer::Xl);
        for most in [1, 7, 4096, 5000] {
            let sink = Sink {
                most: Some(most),
                interrupts: true,
                ..Sink::default()
            };
            let mut writer = Writer::new(sink, Layer::Xl, sample.mode());
            sample.write(&mut writer, Layer::Xl).unwrap();
            assert_eq!(writer.summary().bytes, whole.len() as u64);
            assert!(writer.into_sink().bytes == whole, "{sample:?} {most}");
        }
    }
}

#[test]
fn what_is_written_is_counted_as_what_is_read() {
    for sample in Sample::ALL {
        let mut writer = Writer::new(vec![], Layer::Xl, sample.mode());
        sample.write(&mut writer, Layer::Xl).unwrap();
        let written = writer.summary();
        let bytes = writer.into_sink();
        assert_eq!(
            verify(&bytes[..], Layer::Xl, sample.mode())
                .unwrap()
                .summary,
            written
        );
    }
}

#[test]
fn whoever_holds_the_pages_may_write_them() {
    let held = [page(1), page(2)].concat();
    let entries = [PageEntry::normal(Pfn(1)), PageEntry::normal(Pfn(2))];
    let mut by_slices = ready_for_pages();
    by_slices.pages(&entries, &[IoSlice::new(&held)]).unwrap();
    let mut by_hand = ready_for_pages();
    let mut heads = vec![];
    by_hand
        .pages_with(&entries, |sink, head, from| {
            heads.push((head.len(), from));
            let from = usize::try_from(from).unwrap();
            // 500 bytes after what has to go first: never more than there is to do.
            let end = (from + 500).min(held.len());
            sink.write_vectored(&[IoSlice::new(head), IoSlice::new(&held[from..end])])
        })
        .unwrap();
    assert!(heads[0].0 > 0 && heads[1] == (0, 500), "{heads:?}");
    assert!(by_slices.into_sink().bytes == by_hand.into_sink().bytes);
}

#[test]
fn a_mover_that_claims_too_much_is_found() {
    let entries = [PageEntry::normal(Pfn(1))];
    let error = ready_for_pages()
        .pages_with(&entries, |_, head, _| Ok(head.len() + 4097))
        .unwrap_err();
    assert!(matches!(error.problem, Problem::Mover { .. }), "{error}");
    let bytes = Sample::Pvh.bytes(Layer::Libxc);
    let mut reader = Reader::new(&bytes[..], Layer::Libxc, Mode::Plain);
    loop {
        if let Event::Pages(mut pages) = reader.next().unwrap() {
            let error = pages.read_with(4096, |_, _| Ok(4097)).unwrap_err();
            assert!(matches!(error.problem, Problem::Mover { .. }), "{error}");
            break;
        }
    }
}

#[test]
fn a_full_disk_is_told_with_the_record_and_the_cause() {
    let whole = Sample::Pv.bytes(Layer::Xl).len();
    for space in (0..whole).step_by(89) {
        let sink = Sink {
            space: Some(space),
            most: Some(97),
            ..Sink::default()
        };
        let mut writer = Writer::new(sink, Layer::Xl, Mode::Plain);
        let error = Sample::Pv.write(&mut writer, Layer::Xl).unwrap_err();
        assert!(error.to_string().ends_with("cannot be written"), "{error}");
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(
            cause.to_string(),
            io::Error::from(ErrorKind::StorageFull).to_string()
        );
    }
}

/// What the writer says about a call.
fn refusal(call: impl FnOnce(&mut Writer<Sink>) -> Result<(), StreamError>) -> String {
    let mut writer = ready_for_pages();
    let text = call(&mut writer).unwrap_err().to_string();
    let after = writer.record(&Record::End).unwrap_err().to_string();
    assert!(after.contains("after an error"), "{after}");
    text
}

#[test]
fn nothing_is_written_that_a_reader_would_refuse() {
    let entry = |pfn, kind| PageEntry {
        pfn: Pfn(pfn),
        kind,
    };
    let cases = [
        (
            refusal(|w| w.record(&Record::StaticDataEnd)),
            "(STATIC_DATA_END) at byte 128: comes twice",
        ),
        (
            refusal(|w| w.record(&Record::End)),
            "(END) at byte 128: ends a domain without PAGE_DATA",
        ),
        (refusal(|w| w.record(&Record::Checkpoint)), "a plain one"),
        (
            refusal(|w| w.record(&Record::HvmContext(vec![1; 24]))),
            "does not begin with Xen's header",
        ),
        (refusal(|w| w.pages(&[], &[])), "the number of pages is 0x0"),
        (
            refusal(|w| w.pages(&[entry(1 << 52, PageKind::Invalid)], &[])),
            "the page number is 0x10000000000000",
        ),
        (
            refusal(|w| {
                let table = PageKind::Table {
                    level: 5,
                    pinned: false,
                };
                w.pages(&[entry(1, table)], &[IoSlice::new(&page(1))])
            }),
            "the page type",
        ),
        (
            refusal(|w| w.pages(&[entry(1, PageKind::Normal)], &[])),
            "contents of another size",
        ),
        (
            refusal(|w| w.pages(&[entry(1, PageKind::Zero)], &[])),
            "the page type is 0x7",
        ),
        (
            refusal(|w| w.image(PVH)),
            "the image is not possible inside of the image",
        ),
        (
            refusal(|w| w.file(&XlHeader::default())),
            "the xl file header is not possible inside",
        ),
        (
            refusal(|w| w.outer(&libxl::Record::End)),
            "a record of the libxl layer is not possible inside",
        ),
    ];
    for (found, text) in cases {
        assert!(found.contains(text), "{found}\n  instead of\n{text}");
    }
    let mut too_long = Writer::new(Sink::default(), Layer::Xl, Mode::Plain);
    let header = XlHeader {
        config: Some(vec![b' '; 5 << 20]),
        ..XlHeader::default()
    };
    let error = too_long.file(&header).unwrap_err().to_string();
    assert!(
        error.contains("5242884 bytes of configuration, 4194304 is the limit"),
        "{error}"
    );
}
