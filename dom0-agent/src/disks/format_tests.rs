//! The format: what is written is read, and no byte of it can be changed unnoticed.

use super::*;
use proptest::prelude::*;

const DISK: u64 = 1 << 30;

fn bodies() -> impl Strategy<Value = Body> {
    let sectors = DISK / SECTOR_BYTES;
    let block = BLOCK_BYTES as u64 / SECTOR_BYTES;
    let at = move |first: u64, len: u64| {
        let end = (first + len).min(sectors);
        first * SECTOR_BYTES..end * SECTOR_BYTES
    };
    prop_oneof![
        (0..sectors, 1..=block).prop_map(move |(first, len)| Body::Data(at(first, len))),
        (0..sectors, 1..=sectors).prop_map(move |(first, len)| Body::Zeros(at(first, len))),
        any::<(u64, u64)>().prop_map(|(number, records)| Body::Round { number, records }),
        Just(Body::End),
    ]
}

fn reports() -> impl Strategy<Value = Report> {
    let range = (0..DISK / 512 - 1, 1_u64..100)
        .prop_map(|(first, len)| first * 512..((first + len) * 512).min(DISK));
    (
        any::<u64>(),
        any::<bool>(),
        prop::collection::vec(range, 0..20),
    )
        .prop_map(|(round, complete, damaged)| Report {
            round,
            complete,
            damaged,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(disk: u32, sectors in 1..MAX_DISK_BYTES / 512, continues: bool, number: u64, crc: u32, body in bodies(), report in reports()) {
        let header = Header { disk, bytes: sectors * 512, continues };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        let record = Record { number, crc, body };
        prop_assert_eq!(Record::decode(&record.encode(), DISK), Ok(record));
        prop_assert_eq!(Report::decode(&report.encode(), DISK), Ok(report));
    }

    #[test]
    fn a_flipped_bit_is_found(number: u64, crc: u32, body in bodies(), report in reports(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = Record { number, crc, body }.encode();
        bytes[at.index(RECORD_BYTES)] ^= 1 << bit;
        prop_assert_eq!(Record::decode(&bytes, DISK), Err(FormatError::Checksum));
        let mut bytes = Header { disk: crc, bytes: 512, continues: false }.encode();
        bytes[at.index(HEADER_BYTES)] ^= 1 << bit;
        prop_assert!(Header::decode(&bytes).is_err());
        let mut bytes = report.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Report::decode(&bytes, DISK).is_err());
    }

    #[test]
    fn no_bytes_make_a_range_that_the_disk_does_not_have(mut bytes: [u8; RECORD_BYTES], sectors in 1_u64..5000, kind in 0_u32..6, small: bool) {
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[32..36].fill(0);
        if small {
            // Near the end of the disk.
            bytes[18..24].fill(0);
            bytes[26..32].fill(0);
        }
        seal(&mut bytes);
        if let Ok(record) = Record::decode(&bytes, sectors * 512) {
            prop_assert!(record.payload() <= BLOCK_BYTES);
            if let Body::Data(range) | Body::Zeros(range) = record.body {
                prop_assert!(range.start < range.end && range.end <= sectors * 512);
                prop_assert!(range.start % 512 == 0 && range.end % 512 == 0);
            }
        }
    }

    #[test]
    fn no_bytes_make_a_report_that_names_more_than_there_is(mut bytes in prop::collection::vec(any::<u8>(), REPORT_BYTES..200)) {
        bytes[..8].copy_from_slice(&REPORT_MAGIC);
let count = u32::try_from((bytes.len() - REPORT_BYTES) / 16).unwrap();
        bytes[20..24].copy_from_slice(&count.to_le_bytes());
        seal(&mut bytes);
        if let Ok(report) = Report::decode(&bytes, 1 << 20) {
            prop_assert!(report.damaged.iter().all(|range| range.start < range.end && range.end <= 1 << 20));
        }
    }
}

#[test]
fn each_fault_has_its_name() {
    let header = Header {
        disk: 1,
        bytes: 1 << 20,
        continues: false,
    };
    let told = |change: &dyn Fn(&mut [u8; HEADER_BYTES])| {
        let mut bytes = header.encode();
        change(&mut bytes);
        seal(&mut bytes);
        Header::decode(&bytes).unwrap_err().to_string()
    };
    assert!(told(&|bytes| bytes[0] = b'Q').contains("not a disk section"));
    assert!(told(&|bytes| bytes[8] = 2).contains("version 2"));
    assert!(told(&|bytes| bytes[10] = 2).contains("flags 0x2"));
    assert!(told(&|bytes| bytes[16] = 1).contains("a disk of 1048577 bytes"));
    assert!(told(&|bytes| bytes[23] = 0xff).contains("a disk of"));
    assert!(told(&|bytes| bytes[24] = 1).contains("reserved"));
    let told = |first: u64, len: u64, kind: u32| {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[16..24].copy_from_slice(&first.to_le_bytes());
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        seal(&mut bytes);
        Record::decode(&bytes, 1 << 20).unwrap_err().to_string()
    };
    assert!(told(1 << 20, 512, ZEROS).contains("beyond the end"));
    assert!(told(u64::MAX - 511, 512, ZEROS).contains("beyond the end"));
    assert!(told(0, 0, ZEROS).contains("whole sectors"));
    assert!(told(1, 512, DATA).contains("whole sectors"));
    assert!(told(0, 2 << 20, DATA).contains("at most 1048576"));
    assert!(told(0, 512, 9).contains("kind 9"));
    assert!(told(0, 31, END).contains("another shape"));
    let mut start = [0; REPORT_BYTES];
    start[..8].copy_from_slice(&REPORT_MAGIC);
    start[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(
        Report::rest(&start)
            .unwrap_err()
            .to_string()
            .contains("damaged ranges")
    );
}
