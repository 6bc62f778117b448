//! What two of our ends agree upon: stock's readers pass over the offer, and nothing that was not agreed is written or read.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{Sample, page, registers, statics};
use std::io::IoSlice;
use xen_stream::libxc::{DomainHeader, DomainKind, PageEntry, PageKind, Pfn, Record};
use xen_stream::{Accord, Event, Layer, Mode, Reader, Writer, verify};

const ZERO: PageEntry = PageEntry {
    pfn: Pfn(2),
    kind: PageKind::Zero,
};

/// An image with an offer, and after it a page of zeroes that is named only.
fn image() -> Vec<u8> {
    let mut writer = Writer::new(vec![], Layer::Libxc, Mode::Plain);
    writer
        .image(DomainHeader {
            kind: DomainKind::Hvm,
            xen_major: 4,
            xen_minor: 20,
        })
        .unwrap();
    writer.record(&Record::Offer(Accord::ALL)).unwrap();
    for record in statics(DomainKind::Hvm) {
        writer.record(&record).unwrap();
    }
    writer.agree(Accord::ZERO_PAGES);
    let (one, three) = (page(1), page(3));
    let entries = [1, 2, 3].map(|pfn| match pfn {
        2 => ZERO,
        pfn => PageEntry::normal(Pfn(pfn)),
    });
    writer
        .pages(&entries, &[IoSlice::new(&one), IoSlice::new(&three)])
        .unwrap();
    for record in registers(DomainKind::Hvm) {
        writer.record(&record).unwrap();
    }
    writer.record(&Record::End).unwrap();
    writer.into_sink()
}

#[test]
fn a_page_of_zeroes_takes_a_place_in_the_list_and_no_contents() {
    let bytes = image();
    let mut reader = Reader::new(&bytes[..], Layer::Libxc, Mode::Plain);
    let (mut offered, mut found) = (None, vec![]);
    loop {
        match reader.next().unwrap() {
            Event::Record(Record::Offer(offer)) => {
                offered = Some(offer);
                reader.agree(offer.and(Accord::ZERO_PAGES));
            }
            Event::Pages(mut pages) => {
                assert_eq!((pages.entries.len(), pages.left()), (3, 2 * 4096));
                assert_eq!(pages.entries[1], ZERO);
                found.resize(2 * 4096, 0);
                pages.read(&mut found).unwrap();
            }
            Event::End => break,
            _ => {}
        }
    }
    assert_eq!(offered, Some(Accord::ALL));
    assert_eq!(found, [page(1), page(3)].concat());
    assert_eq!(reader.summary().contents, 2);
}

#[test]
fn whoever_did_not_agree_refuses_it_by_name() {
    let error = verify(&image()[..], Layer::Libxc, Mode::Plain).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("PAGE_DATA") && error.contains("the page type is 0x7"),
        "{error}"
    );
}

#[test]
fn an_offer_comes_once_and_before_memory() {
    let bytes = Sample::Pvh.bytes(Layer::Libxc);
    // Behind the headers of the image.
    let headers = 24 + 16;
    let offer = [
        &0x8050_0001u32.to_le_bytes()[..],
        &8u32.to_le_bytes(),
        &[1; 8],
    ]
    .concat();
    let with = |times: usize, at: usize| {
        let offers = offer.repeat(times);
        let bytes = [&bytes[..at], &offers, &bytes[at..]].concat();
        verify(&bytes[..], Layer::Libxc, Mode::Plain).map(drop)
    };
    with(1, headers).unwrap();
    let twice = with(2, headers).unwrap_err().to_string();
    assert!(
        twice.contains("OFFER") && twice.contains("twice"),
        "{twice}"
    );
    let late = with(1, bytes.len() - 8).unwrap_err().to_string();
    assert!(late.contains("comes after STATIC_DATA_END"), "{late}");
}
