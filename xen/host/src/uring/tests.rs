//! The ring on temporary files, pipes and event counters.

use super::*;
use crate::eventfd::EventFd;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

const PATIENCE: Duration = Duration::from_secs(10);

fn next(ring: &mut DiskRing) -> Completion {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        assert!(Instant::now() < deadline, "no completion");
        ring.submit_and_wait(Some(PATIENCE)).unwrap();
    }
}

fn whole(pool_offset: usize, len: u32, file_offset: u64) -> Transfer {
    Transfer {
        file: 0,
        pool_offset,
        len,
        file_offset,
    }
}

#[test]
fn what_is_written_is_read_back_through_other_slots() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let mut ring = DiskRing::new(&[file.as_fd()], 16, 32).unwrap();
    for slot in 0..8_u8 {
        let offset = usize::from(slot) * 4096;
        ring.pool().fill(offset, 4096, slot + 1);
        ring.write(
            whole(offset, 4096, 65536 - offset as u64),
            slot == 3,
            u64::from(slot),
        )
        .unwrap();
    }
    let mut tokens: Vec<u64> = (0..8)
        .map(|_| {
            let done = next(&mut ring);
            assert_eq!(done.into_result(), Ok(4096));
            done.token
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..8).collect::<Vec<_>>());
    ring.flush(0, true, 100).unwrap();
    assert_eq!(
        next(&mut ring),
        Completion {
            token: 100,
            result: 0,
            more: false
        }
    );
    ring.read(whole(8 * 4096, 4096, 65536 - 2 * 4096), 7)
        .unwrap();
    assert_eq!(next(&mut ring).into_result(), Ok(4096));
    assert_eq!(ring.pool().load_u8(8 * 4096 + 5), 3);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 65536).unwrap();
    assert_eq!(byte, [1]);
    assert_eq!(ring.transfers_in_flight(), 0);
}

#[test]
fn a_discarded_range_reads_as_zero() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0xaa; 16384], 0).unwrap();
    let mut ring = DiskRing::new(&[file.as_fd()], 1, 4).unwrap();
    ring.discard(0, Discard::PunchHole, 4096, 8192, 1).unwrap();
    let done = next(&mut ring);
    if done.into_result() == Err(Errno::EOPNOTSUPP) {
        let why = "the temporary directory's file system cannot punch holes";
        return test_skips::skipped("a_discarded_range_reads_as_zero", why);
    }
    assert_eq!(done.into_result(), Ok(0));
    let mut bytes = [1; 16384];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[4096..12288].iter().all(|byte| *byte == 0));
    assert!(
        bytes[..4096]
            .iter()
            .chain(&bytes[12288..])
            .all(|byte| *byte == 0xaa)
    );
}

#[test]
fn requests_outside_of_pool_and_files_are_refused_before_the_kernel_sees_them() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = DiskRing::new(&[file.as_fd()], 1, 2).unwrap();
    let refused = |result: Result<(), Error>| result.unwrap_err().errno().unwrap();
    assert_eq!(refused(ring.read(whole(1, 4096, 0), 0)), Errno::EINVAL);
    assert_eq!(
        refused(ring.read(whole(usize::MAX, 2, 0), 0)),
        Errno::EINVAL
    );
    let elsewhere = Transfer {
        file: 1,
        ..whole(0, 1, 0)
    };
    assert_eq!(refused(ring.write(elsewhere, false, 0)), Errno::EINVAL);
    assert_eq!(refused(ring.poll(1, 0)), Errno::EINVAL);
    assert_eq!(refused(ring.flush(0, false, TOKEN_LIMIT)), Errno::EINVAL);
    ring.flush(0, false, 0).unwrap();
    ring.flush(0, false, 1).unwrap();
    assert_eq!(
        refused(ring.flush(0, false, 2)),
        Errno::EBUSY,
        "the ring holds two"
    );
    assert!(ring.drain(PATIENCE, |_| ()).unwrap());
    ring.flush(0, false, 2).unwrap();
    assert!(ring.drain(PATIENCE, |_| ()).unwrap());
}

#[test]
fn an_event_wakes_the_ring_once_per_arming_or_again_and_again() {
    let file = tempfile::tempfile().unwrap();
    let event = EventFd::new().unwrap();
    let mut ring = DiskRing::new(&[file.as_fd(), event.as_fd()], 1, 8).unwrap();
    ring.poll(1, 42).unwrap();
    ring.submit_and_wait(Some(Duration::from_millis(1)))
        .unwrap();
    assert_eq!(ring.next_completion(), None, "nobody signalled");
    event.signal().unwrap();
    let done = next(&mut ring);
    assert_eq!((done.token, done.more), (42, false));
    ring.poll(1, 43).unwrap();
    assert_eq!(
        next(&mut ring).token,
        43,
        "still readable: armed polls complete at once"
    );

    event.take().unwrap();
    ring.poll_repeatedly(1, 44).unwrap();
    ring.submit().unwrap();
    for _ in 0..3 {
        event.signal().unwrap();
        let done = next(&mut ring);
        assert_eq!((done.token, done.more), (44, true));
        event.take().unwrap();
    }
    assert_eq!(ring.transfers_in_flight(), 0, "polls are no transfers");
}

#[test]
fn a_ring_dropped_with_a_read_in_flight_keeps_its_pool() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut ring = DiskRing::new(&[reader.as_fd()], 1, 4).unwrap();
    ring.read(whole(0, 16, 0), 1).unwrap();
    ring.submit().unwrap();
    assert!(
        !ring.drain(Duration::from_millis(5), |_| ()).unwrap(),
        "an empty pipe gives nothing"
    );
    let address = ring.pool().as_ptr().addr();
    drop(ring);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let still_mapped = maps.lines().any(|line| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let parse = |hex| usize::from_str_radix(hex, 16).unwrap();
        (parse(from)..parse(to)).contains(&address)
    });
    assert!(still_mapped);
    drop(writer);
}

#[test]
fn short_and_failed_transfers_say_so() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(100).unwrap();
    let path = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(path.path()).unwrap();
    let mut ring = DiskRing::new(&[file.as_fd(), read_only.as_fd()], 1, 4).unwrap();
    ring.read(whole(0, 512, 0), 1).unwrap();
    assert_eq!(next(&mut ring).into_result(), Ok(100));
    ring.write(
        Transfer {
            file: 1,
            ..whole(0, 16, 0)
        },
        false,
        2,
    )
    .unwrap();
    assert_eq!(next(&mut ring).into_result(), Err(Errno::EBADF));
}

#[test]
fn the_ring_refuses_everything_that_was_not_foreseen() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = DiskRing::new(&[file.as_fd()], 1, 4).unwrap();
    let nop = opcode::Nop::new().build();
    ring.push(&nop, 9, Kind::Transfer).unwrap();
    assert_eq!(next(&mut ring).into_result(), Err(Errno::EACCES));
    let plain = opcode::Fsync::new(io_uring::types::Fd(file.as_raw_fd())).build();
    ring.push(&plain, 10, Kind::Transfer).unwrap();
    assert_eq!(
        next(&mut ring).into_result(),
        Err(Errno::EACCES),
        "only registered files"
    );
    assert!(ring.ring.submitter().register_files_sparse(1).is_err());
}
