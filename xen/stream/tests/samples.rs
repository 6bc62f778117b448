//! Streams of every shape come back as they were written, and the reader leaves the source just behind them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{Sample, as_version_2, context, page, registers, statics};
use xen_stream::libxc::{DomainKind, Kind, Record};
use xen_stream::{Event, Layer, Mode, Reader, libxl, verify};

const LAYERS: [Layer; 3] = [Layer::Xl, Layer::Libxl, Layer::Libxc];

#[test]
fn every_sample_is_read_from_every_layer() {
    for sample in Sample::ALL {
        for layer in LAYERS {
            let bytes = sample.bytes(layer);
            let verified = verify(&bytes[..], layer, sample.mode())
                .unwrap_or_else(|error| panic!("{sample:?} {layer:?}: {error}"));
            let summary = verified.summary;
            assert_eq!(summary.bytes, bytes.len() as u64);
            assert!(!verified.more);
            assert_eq!(verified.file.is_some(), layer == Layer::Xl);
            assert_eq!(summary.records(Kind::End), 1);
            assert_eq!(summary.skipped, 0);
            if layer != Layer::Libxc {
                assert_eq!(summary.outer(libxl::Kind::LibxcContext), 1);
            }
            let spans = common::walk(&bytes, layer);
            let records = spans
                .iter()
                .filter(|span| matches!(span.what, common::What::Record(_)));
            assert_eq!(summary.image_records, records.count() as u64);
        }
    }
}

#[test]
fn the_configuration_comes_back_without_its_nul() {
    let bytes = Sample::Pvh.bytes(Layer::Xl);
    let file = verify(&bytes[..], Layer::Xl, Mode::Plain)
        .unwrap()
        .file
        .unwrap();
    assert_eq!(file.config_text().unwrap(), common::CONFIG);
    assert_eq!((file.mandatory_flags(), file.optional_flags), (3, 0));
    assert_eq!(
        file.optional_length().unwrap() as usize,
        4 + common::CONFIG.len() + 1
    );
}

#[test]
fn a_summary_is_told_in_lines() {
    let bytes = Sample::Pv.bytes(Layer::Xl);
    let text = verify(&bytes[..], Layer::Xl, Mode::Plain)
        .unwrap()
        .summary
        .to_string();
    assert!(
        text.starts_with("image of version 3: PV domain of Xen 4.20\n"),
        "{text}"
    );
    assert!(text.contains("X86_PV_VCPU_BASIC         2\n"), "{text}");
    assert!(
        text.contains("5 pages, 2 with contents (8192 bytes)"),
        "{text}"
    );
}

/// All small records and all contents of pages, as a restorer would collect them.
fn collect(bytes: &[u8], layer: Layer, mode: Mode) -> (Vec<Record>, Vec<u8>) {
    let mut reader = Reader::new(bytes, layer, mode);
    let (mut records, mut contents) = (vec![], vec![]);
    loop {
        match reader.next().unwrap() {
            Event::Record(record) => records.push(record),
            Event::Pages(mut pages) => {
                for run in pages.runs() {
                    let mut piece = vec![0; run.bytes()];
                    pages.read(&mut piece).unwrap();
                    contents.extend(piece);
                }
                assert_eq!(pages.left(), 0);
            }
            Event::End => return (records, contents),
            _ => {}
        }
    }
}

#[test]
fn records_and_pages_are_what_was_written() {
    for sample in [Sample::Pv, Sample::Pvh] {
        let bytes = sample.bytes(Layer::Libxc);
        let (records, contents) = collect(&bytes, Layer::Libxc, Mode::Plain);
        let mut wanted = statics(sample.domain());
        wanted.extend(registers(sample.domain()));
        wanted.push(Record::End);
        assert_eq!(records, wanted);
        assert_eq!(contents, [page(1), page(101)].concat());
    }
}

#[test]
fn version_2_is_read_and_its_static_data_end_inferred() {
    for sample in [Sample::Pv, Sample::Hvm, Sample::HvmCheckpoints] {
        let old = as_version_2(&sample.bytes(Layer::Xl), Layer::Xl);
        let (records, _) = collect(&old, Layer::Xl, sample.mode());
        let inferred = records
            .iter()
            .position(|r| *r == Record::StaticDataEnd)
            .unwrap();
        let before = match sample.domain() {
            DomainKind::Pv => 1,
            DomainKind::Hvm => 0,
        };
        assert_eq!(inferred, before, "{sample:?}");
        let summary = verify(&old[..], Layer::Xl, sample.mode()).unwrap().summary;
        assert_eq!(
            summary.records(Kind::StaticDataEnd),
            0,
            "it is not in the stream"
        );
    }
}

#[test]
fn contents_that_nobody_wants_are_passed_over() {
    let bytes = Sample::Pv.bytes(Layer::Libxc);
    let mut reader = Reader::new(&bytes[..], Layer::Libxc, Mode::Plain);
    let mut batches = 0;
    loop {
        match reader.next().unwrap() {
            Event::Pages(mut pages) => {
                batches += 1;
                if pages.left() > 0 {
                    // Half a page, then one page less the half, the rest not at all.
                    pages.read(&mut [0; 2048]).unwrap();
                    let mut rest = [0; 2048];
                    pages.read(&mut rest).unwrap();
                    assert_eq!(rest[..], page(1)[2048..]);
                    assert_eq!(pages.left(), 4096);
                }
            }
            Event::End => break,
            _ => {}
        }
    }
    assert_eq!(batches, 2);
}

#[test]
fn more_contents_than_there_are_cannot_be_taken() {
    let bytes = Sample::Pv.bytes(Layer::Libxc);
    let mut reader = Reader::new(&bytes[..], Layer::Libxc, Mode::Plain);
    loop {
        if let Event::Pages(mut pages) = reader.next().unwrap() {
            assert!(pages.skip(3).is_err());
            break;
        }
    }
    let error = reader.next().unwrap_err().to_string();
    assert!(error.contains("after an error"), "{error}");
}

#[test]
fn after_an_error_there_is_nothing_more() {
    let bytes = Sample::Pv.bytes(Layer::Xl);
    let mut damaged = bytes.clone();
    // The type of a record in the middle; those behind it are as good as ever.
    let spans = common::walk(&bytes, Layer::Xl);
    damaged[spans[8].begin] = 0x77;
    let mut reader = Reader::new(&damaged[..], Layer::Xl, Mode::Plain);
    let error = loop {
        if let Err(error) = reader.next() {
            break error.to_string();
        }
    };
    assert!(error.contains("unknown type 0x77"), "{error}");
    let again = reader.next().unwrap_err().to_string();
    assert!(again.contains("not possible after an error"), "{again}");
}

#[test]
fn what_follows_the_end_is_left_in_the_source() {
    for sample in Sample::ALL {
        let mut bytes = sample.bytes(Layer::Xl);
        bytes.extend_from_slice(b"the rest");
        let mut reader = Reader::new(&bytes[..], Layer::Xl, sample.mode());
        while !matches!(reader.next().unwrap(), Event::End) {}
        assert!(
            matches!(reader.next().unwrap(), Event::End),
            "and it stays so"
        );
        assert_eq!(reader.into_source(), b"the rest");
        assert!(verify(&bytes[..], Layer::Xl, sample.mode()).unwrap().more);
    }
}

#[test]
fn pages_after_verify_are_to_be_compared() {
    let bytes = Sample::Verified.bytes(Layer::Libxc);
    let mut reader = Reader::new(&bytes[..], Layer::Libxc, Mode::Plain);
    let mut compare = vec![];
    loop {
        match reader.next().unwrap() {
            Event::Pages(pages) => compare.push(pages.compare),
            Event::End => break,
            _ => {}
        }
    }
    assert_eq!(compare, [false, false, true, true]);
}

#[test]
fn checkpoints_come_through_all_layers() {
    let bytes = Sample::HvmCheckpoints.bytes(Layer::Xl);
    let mut reader = Reader::new(&bytes[..], Layer::Xl, Mode::Checkpointed);
    let mut story = String::new();
    loop {
        match reader.next().unwrap() {
            Event::Record(Record::Checkpoint) => story.push('c'),
            Event::Record(Record::HvmContext(blob)) => {
                assert_eq!(blob, context());
                story.push('x');
            }
            Event::Outer(record) => story.push_str(&record.kind().number().to_string()),
            Event::End => break,
            _ => {}
        }
    }
    assert_eq!(story, "1xc234xc234x0");
}
