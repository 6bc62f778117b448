//! The log of a console: a file that never grows beyond a bound. When it would, its newest half moves to the front and the rest is cut off.
//!
//! The driver has no filesystem, so it cannot rename; a reader that follows the file sees it shrink, as with any truncated log.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// See the module.
#[derive(Debug)]
pub struct Log {
    file: File,
    len: u64,
    bound: u64,
}

impl Log {
    /// Goes on at the end of `file`; at most `bound` bytes are kept.
    ///
    /// # Errors
    /// It is no file that has a length, or it stays in append mode: then every write would go to its end, wherever it is meant for.
    pub fn append_to(file: File, bound: u64) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        if flags.contains(OFlag::O_APPEND) {
            fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_APPEND))?;
        }
        let len = file.metadata()?.len();
        Ok(Self { file, len, bound })
    }

    /// Appends. Of more than half the bound, the end.
    ///
    /// # Errors
    /// The filesystem's (it is full). The log goes on with the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let half = self.bound / 2;
        let newest = &bytes[bytes
            .len()
            .saturating_sub(usize::try_from(half).unwrap_or(usize::MAX))..];
        let more = newest.len() as u64;
        if self.len + more > self.bound {
            self.keep_newest(half.min(self.len))?;
        }
        self.file.write_all_at(newest, self.len)?;
        self.len += more;
        Ok(())
    }

    fn keep_newest(&mut self, count: u64) -> io::Result<()> {
        let mut tail = vec![0; usize::try_from(count).unwrap_or(0)];
        self.file.read_exact_at(&mut tail, self.len - count)?;
        self.file.write_all_at(&tail, 0)?;
        self.file.set_len(count)?;
        self.len = count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_bounded_and_ends_with_the_newest() {
        let file = tempfile::tempfile().unwrap();
        let mut log = Log::append_to(file.try_clone().unwrap(), 100).unwrap();
        let mut all = Vec::new();
        for i in 0..200_u8 {
            let line = [i; 7];
            log.write(&line).unwrap();
            all.extend(line);
            let len = file.metadata().unwrap().len();
            assert!(len <= 100);
            let mut kept = vec![0; usize::try_from(len).unwrap()];
            file.read_exact_at(&mut kept, 0).unwrap();
            assert!(all.ends_with(&kept));
        }
        log.write(&[1; 1000]).unwrap();
        assert!(file.metadata().unwrap().len() <= 100);
    }

    #[test]
    fn the_newest_is_kept_of_a_file_that_was_opened_for_appending() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let appending = || {
            File::options()
                .create(true)
                .read(true)
                .append(true)
                .open(&path)
        };
        let mut log = Log::append_to(appending().unwrap(), 10).unwrap();
        for line in [b"one.", b"two.", b"six.", b"end."] {
            log.write(line).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept.len() <= 10 && kept.ends_with("six.end."), "{kept}");
    }

    #[test]
    fn a_successor_goes_on_at_the_end() {
        let file = tempfile::tempfile().unwrap();
        Log::append_to(file.try_clone().unwrap(), 100)
            .unwrap()
            .write(b"one ")
            .unwrap();
        Log::append_to(file.try_clone().unwrap(), 100)
            .unwrap()
            .write(b"two")
            .unwrap();
        let mut kept = [0; 7];
        file.read_exact_at(&mut kept, 0).unwrap();
        assert_eq!(&kept, b"one two");
    }
}
