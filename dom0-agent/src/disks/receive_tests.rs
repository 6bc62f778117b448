//! A receiver and whoever is at the other end: correct senders, broken lines, and hostile streams. Whatever comes, nothing is written where it
//! must not be, and nothing half-made is left.

use super::*;
use crate::disks::extents::ExtentSet;
use crate::disks::limits::BLOCK_BYTES;
use crate::disks::send::Sender;
use crate::disks::source::Source;
use parapet_wire::dirty::EXTENT_BYTES;
use proptest::prelude::*;
use std::io::Cursor;
use tempfile::TempDir;

const DISK: u32 = 51712;
const BYTES: u64 = 40 * EXTENT_BYTES + 512;

fn place(directory: &TempDir) -> Place {
    Place {
        disk: DISK,
        path: directory.path().join("disk.img"),
        bytes: Some(BYTES),
        replace: false,
    }
}

fn left(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A record and what follows it.
type Part = (Record, Vec<u8>);

/// A stream as its parts, so that a test can turn them over.
#[derive(Clone)]
struct Stream {
    header: Header,
    parts: Vec<Part>,
}

impl Stream {
    fn new() -> Self {
        let header = Header {
            disk: DISK,
            bytes: BYTES,
            continues: false,
        };
        Self {
            header,
            parts: Vec::new(),
        }
    }

    fn push(mut self, body: Body, data: &[u8]) -> Self {
        let number = self.parts.len() as u64;
        let crc = crc32fast::hash(data);
        self.parts
            .push((Record { number, crc, body }, data.to_vec()));
        self
    }

    fn data(self, at: u64, data: &[u8]) -> Self {
        self.push(Body::Data(at..at + data.len() as u64), data)
    }

    fn zeros(self, range: Range<u64>) -> Self {
        self.push(Body::Zeros(range), &[])
    }

    fn round(self, number: u64, records: u64) -> Self {
        self.push(Body::Round { number, records }, &[])
    }

    fn end(self) -> Self {
        let mut totals = Totals::default();
        self.parts
            .iter()
            .for_each(|(record, _)| totals.count(&record.body));
        self.push(Body::End, &totals.encode())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.encode().to_vec();
        for (record, data) in &self.parts {
            bytes.extend(record.encode());
            bytes.extend(data);
        }
        bytes
    }

    /// Numbers the records anew, so that only what a test means to be wrong is.
    fn renumbered(mut self) -> Self {
        for (number, (record, _)) in (0..).zip(&mut self.parts) {
            record.number = number;
        }
        self
    }
}

/// Two rounds: some data, some zeros, a part of both written over.
fn good() -> Stream {
    Stream::new()
        .data(512, &[1; 1024])
        .zeros(EXTENT_BYTES..8 * EXTENT_BYTES)
        .data(9 * EXTENT_BYTES, &vec![2; BLOCK_BYTES])
        .data(BYTES - 512, &[3; 512])
        .round(0, 4)
        .zeros(512..1024)
        .data(EXTENT_BYTES, &[4; 512])
        .zeros(10 * EXTENT_BYTES..11 * EXTENT_BYTES)
        .round(1, 3)
        .end()
}

fn expected() -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(BYTES).unwrap()];
    let extent = usize::try_from(EXTENT_BYTES).unwrap();
    disk[1024..1536].fill(1);
    disk[9 * extent..9 * extent + BLOCK_BYTES].fill(2);
    disk[10 * extent..11 * extent].fill(0);
    disk[extent..extent + 512].fill(4);
    let end = disk.len();
    disk[end - 512..].fill(3);
    disk
}

fn receive(receiver: &mut Receiver, bytes: &[u8]) -> (Result<Totals, ReceiveError>, Vec<u8>) {
    let mut reports = Vec::new();
    let result = receiver.run(&mut Cursor::new(bytes), &mut reports);
    (result, reports)
}

/// What a stream is refused with. Nothing is left of the disk.
fn refused(stream: &Stream) -> ReceiveError {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(place(&directory)).unwrap();
    let error = receive(&mut receiver, &stream.bytes()).0.unwrap_err();
    assert!(receiver.commit().is_err(), "{error}");
    assert_eq!(left(&directory), Vec::<String>::new());
    error
}

#[test]
fn a_disk_that_came_whole_gets_its_name_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(place(&directory)).unwrap();
    assert_eq!(left(&directory), [".disk.img.incoming"]);
    let (totals, reports) = receive(&mut receiver, &good().bytes());
    assert_eq!(totals.unwrap().rounds, 2);
    let report = |at: usize| Report::decode(&reports[at * 28..(at + 1) * 28], BYTES).unwrap();
    assert_eq!((report(0).round, report(1).round), (0, 1));
    assert!(!report(1).complete && report(2).complete);
    receiver.commit().unwrap();
    assert_eq!(left(&directory), ["disk.img"]);
    let path = directory.path().join("disk.img");
    assert!(fs::read(&path).unwrap() == expected());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_there_is_not_written_over_unless_that_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, b"precious").unwrap();
    let error = Receiver::new(place(&directory)).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    let replacing = Place {
        replace: true,
        ..place(&directory)
    };
    // It stays until all of the other is there.
    let mut receiver = Receiver::new(replacing.clone()).unwrap();
    let bytes = good().bytes();
    assert!(receive(&mut receiver, &bytes[..bytes.len() - 1]).0.is_err());
    drop(receiver);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(left(&directory), ["disk.img"]);
    let mut receiver = Receiver::new(replacing).unwrap();
    receive(&mut receiver, &bytes).0.unwrap();
    receiver.commit().unwrap();
    assert!(fs::read(&path).unwrap() == expected());
    // An empty file is nothing to be sorry for; one that came meanwhile is.
    fs::write(&path, b"").unwrap();
    let mut receiver = Receiver::new(place(&directory)).unwrap();
    receive(&mut receiver, &bytes).0.unwrap();
    fs::write(&path, b"precious").unwrap();
    assert!(receiver.commit().is_err());
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(left(&directory), ["disk.img"]);
    let error = Receiver::new(Place {
        path: directory.path().to_owned(),
        ..place(&directory)
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn one_receives_at_a_time_and_what_a_killed_one_left_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".disk.img.incoming"), b"half").unwrap();
    let first = Receiver::new(place(&directory)).unwrap();
    let error = Receiver::new(place(&directory)).unwrap_err().to_string();
    assert!(error.contains("somebody else"), "{error}");
    drop(first);
    assert!(Receiver::new(place(&directory)).is_ok());
    assert_eq!(left(&directory), Vec::<String>::new());
}

#[test]
fn a_stream_cut_anywhere_is_no_disk_and_may_be_taken_up_again() {
    let bytes = good().bytes();
    let mut cuts: Vec<usize> = (0..80).step_by(3).collect();
    cuts.extend((80..bytes.len()).step_by(37_003));
    cuts.extend((bytes.len() - 80..bytes.len()).step_by(7));
    for cut in cuts {
        let directory = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(place(&directory)).unwrap();
        let error = receive(&mut receiver, &bytes[..cut]).0.unwrap_err();
        assert!(error.is_resumable(), "{cut}: {error}");
        let mut again = good();
        again.header.continues = cut >= HEADER_BYTES;
        receive(&mut receiver, &again.bytes()).0.unwrap();
        assert!(fs::read(&receiver.incoming).unwrap() == expected());
    }
}

#[test]
fn records_out_of_order_twice_missing_or_overlapping_end_the_copy() {
    let said = |stream: &Stream, what: &str| {
        let error = refused(stream);
        assert!(error.to_string().contains(what), "{error}");
        assert!(!error.is_resumable(), "{error}");
    };
    let change = |act: &dyn Fn(&mut Vec<Part>)| {
        let mut stream = good();
        act(&mut stream.parts);
        stream
    };
    let swapped = change(&|parts| parts.swap(0, 2));
    said(&swapped, "is numbered 2");
    said(&swapped.renumbered(), "comes after byte");
    said(&change(&|parts| drop(parts.remove(1))), "is numbered 2");
    said(
        &change(&|parts| drop(parts.remove(1))).renumbered(),
        "4 records of which 3 came",
    );
    let twice = change(&|parts| parts.insert(1, parts[0].clone()));
    said(&twice, "is numbered 0");
    said(&twice.renumbered(), "comes after byte");
    said(
        &Stream::new().zeros(0..1024).zeros(512..2048),
        "comes after byte 1024",
    );
    said(&Stream::new().round(1, 0), "round 1 ends where 0 was due");
    said(&Stream::new().zeros(0..512).end(), "the end within a round");
    said(
        &change(&|parts| parts.truncate(9)).push(Body::End, &Totals::default().encode()),
        "were sent",
    );
    let many = (0..=MAX_ROUNDS).fold(Stream::new(), |stream, round| stream.round(round, 0));
    said(&many, "more than 256 rounds");
}

#[test]
fn what_is_said_of_the_disk_must_be_what_was_agreed() {
    let said = |header: Header, what: &str| {
        let error = refused(&Stream { header, ..good() }).to_string();
        assert!(error.contains(what), "{error}");
    };
    let header = good().header;
    said(Header { disk: 7, ..header }, "is about disk 7");
    said(
        Header {
            bytes: BYTES + 512,
            ..header
        },
        "were agreed",
    );
    said(
        Header {
            continues: true,
            ..header
        },
        "of which nothing has come",
    );
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(Place {
        bytes: None,
        ..place(&directory)
    })
    .unwrap();
    // Beyond the end of a smaller disk than it was.
    let small = Stream {
        header: Header {
            bytes: EXTENT_BYTES,
            ..header
        },
        ..good()
    };
    let error = receive(&mut receiver, &small.bytes()).0.unwrap_err();
    assert!(error.to_string().contains("beyond the end"), "{error}");
    let error = receive(&mut receiver, &good().bytes()).0.unwrap_err();
    assert!(error.to_string().contains("begins anew"), "{error}");
}

#[test]
fn damaged_data_is_asked_for_again_and_never_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(place(&directory)).unwrap();
    let mut stream = good();
    stream.parts[2].1[70_000] ^= 1;
    let (result, reports) = receive(&mut receiver, &stream.bytes());
    // A part of it is written over by the second round; the rest is missing still.
    assert!(matches!(
        result,
        Err(ReceiveError::Incomplete { ranges: 2, .. })
    ));
    let report = Report::decode(&reports[..44], BYTES).unwrap();
    let range = 9 * EXTENT_BYTES..9 * EXTENT_BYTES + BLOCK_BYTES as u64;
    assert_eq!(report.damaged, std::slice::from_ref(&range));
    let mut hole = [9; 512];
    receiver.file.read_exact_at(&mut hole, range.start).unwrap();
    assert_eq!(hole, [0; 512]);
    // More damage than a line that works has.
    let mut stream = Stream::new();
    for at in 0..=MAX_DAMAGED as u64 {
        stream = stream.data(at * 1024, &[5; 512]);
    }
    stream.parts.iter_mut().for_each(|(_, data)| data[0] = 6);
    let error = refused(&stream);
    assert!(error.to_string().contains("ranges are damaged"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Flips, cuts and repeats anywhere: the disk is right, or there is none.
    #[test]
    fn a_stream_with_anything_wrong_makes_no_wrong_disk(
        harm in prop::collection::vec((0_u8..3, any::<prop::sample::Index>(), any::<u8>(), 0_usize..3000), 1..4),
    ) {
        let mut bytes = good().bytes();
        let whole = bytes.clone();
        for (what, at, value, len) in harm {
            let at = at.index(bytes.len().max(1));
            match what {
                0 => if let Some(byte) = bytes.get_mut(at) { *byte ^= value; },
                1 => bytes.truncate(at),
                _ => {
                    let piece = bytes[at..bytes.len().min(at + len)].to_vec();
                    let to = at.saturating_sub(usize::from(value));
                    bytes.splice(to..to, piece);
                }
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(place(&directory)).unwrap();
        let result = receive(&mut receiver, &bytes).0;
        let named = receiver.commit().is_ok();
        prop_assert_eq!(result.is_ok(), named);
        if named {
            prop_assert!(fs::read(directory.path().join("disk.img")).unwrap() == expected());
            prop_assert!(bytes.starts_with(&whole) || bytes[..HEADER_BYTES] == whole[..HEADER_BYTES]);
        } else {
            prop_assert!(left(&directory).is_empty());
        }
    }

    /// Well-formed records with any numbers in them: never beyond the disk, never a wrong size, never a panic.
    #[test]
    fn a_hostile_sender_reaches_nothing_but_its_disk(
        records in prop::collection::vec((0_u8..4, 0_u64..60, 0_u64..60, any::<bool>(), 0_u64..4), 0..20),
    ) {
        let mut stream = Stream::new();
        for (kind, first, len, true_crc, number) in records {
            let range = first * EXTENT_BYTES..first.saturating_add(len) * EXTENT_BYTES;
            let data = vec![7; usize::try_from(len * EXTENT_BYTES).unwrap()];
            stream = match kind {
                0 => stream.push(Body::Data(range), &data),
                1 => stream.zeros(range),
                2 => stream.round(number, len),
                _ => stream.end(),
            };
            if !true_crc && let Some((record, _)) = stream.parts.last_mut() {
                record.crc ^= 1;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(place(&directory)).unwrap();
        let _ = receive(&mut receiver, &stream.bytes());
        prop_assert_eq!(receiver.file.metadata().unwrap().len(), BYTES);
        drop(receiver);
        prop_assert!(left(&directory).is_empty());
    }
}

/// The real sender into a pipe whose bytes are damaged now and then, and which breaks: the image arrives.
#[test]
fn a_sender_on_a_bad_line_gets_everything_across() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source.img");
    let mut image = vec![0_u8; usize::try_from(BYTES).unwrap()];
    for (at, byte) in image.iter_mut().enumerate() {
        if !(at >> 16).is_multiple_of(3) {
            *byte = (at * 7 + at / 4096).to_le_bytes()[0];
        }
    }
    fs::write(&path, &image).unwrap();
    let mut sender = Sender::new(DISK, Source::open(DISK, &path).unwrap());
    let mut receiver = Receiver::new(place(&directory)).unwrap();
    let mut left = ExtentSet::all(BYTES);
    let mut continues = false;
    // Each section breaks off a little later than the one before, and has a damaged byte in it.
    for spoilt in (50_000..).step_by(300_000) {
        let (result, received) =
            over_a_line(&mut sender, &mut receiver, &mut left, continues, spoilt);
        continues = true;
        match received {
            Ok(totals) => {
                assert_eq!(result.unwrap(), totals);
                break;
            }
            Err(error) => assert!(error.is_resumable(), "{error}"),
        }
        assert!(spoilt < 20_000_000, "it does not get through");
    }
    receiver.commit().unwrap();
    assert!(fs::read(directory.path().join("disk.img")).unwrap() == image);
}

type Ends = (
    Result<Totals, crate::disks::CopyError>,
    Result<Totals, ReceiveError>,
);

/// One connection: the byte in its middle is wrong, and it breaks after `most` bytes.
fn over_a_line(
    sender: &mut Sender,
    receiver: &mut Receiver,
    left: &mut ExtentSet,
    continues: bool,
    most: usize,
) -> Ends {
    let (from, to) = std::io::pipe().unwrap();
    let (mut reports, mut says) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let mut line = Bad {
                from,
                at: 0,
                spoilt: most / 2,
                most,
            };
            let result = receiver.run(&mut line, &mut says);
            drop((line, says));
            result
        });
        let mut out = to;
        let mut send = || {
            sender.begin(continues, &mut out)?;
            for _ in 0..10 {
                let (_, damaged) = sender.round(left, &mut out, &mut reports)?;
                *left = damaged;
                if left.is_empty() {
                    return sender.end(&mut out, &mut reports);
                }
            }
            panic!("damage does not end");
        };
        let result = send();
        drop(out);
        (result, receiving.join().unwrap())
    })
}

struct Bad {
    from: std::io::PipeReader,
    at: usize,
    spoilt: usize,
    most: usize,
}

impl Read for Bad {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = into.len().min(self.most - self.at);
        let got = self.from.read(&mut into[..room])?;
        // Only in the middle of data, which is most of it: a damaged head would end the section.
        if got > 40 && (self.at..self.at + got).contains(&self.spoilt) {
            into[self.spoilt - self.at] ^= 0x80;
        }
        self.at += got;
        Ok(got)
    }
}
