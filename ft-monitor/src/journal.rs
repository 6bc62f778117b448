//! The journal on disk: one line per entry, a checksum in each, made durable before anybody acts on it.
//!
//! ```text
//!   journal      9f2c01aa {"seq":41,"at":{...},"record":{"what":"intent",...}}
//!   journal.1    the one before, journal.2 ... older still; read only for `parapet events`
//!   journal.new  a rotation under way; worthless until it is renamed
//! ```
//!
//! A line is the CRC-32 of its JSON in eight hexadecimal digits, a blank, the JSON, a newline. A torn last line is cut off when the journal is opened; a damaged line elsewhere is skipped
//! and counted. The journal is rotated when it grows: the new one starts with a snapshot of the whole book, is made durable, and replaces
//! the old one by a rename. This module knows nothing about what the entries mean beyond [`Book::apply`].

use crate::book::Book;
use crate::limits::{EVENTS_KEPT_MAX, JOURNAL_LINE_MAX_BYTES, JOURNAL_ROTATE_BYTES, JOURNALS_KEPT};
use crate::record::{Entry, Record};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// What went wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("journal {path}: cannot {doing}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Another monitor holds it.
    #[error("journal {0}: another ft-monitor is running with this state directory")]
    Locked(PathBuf),
    /// An entry that cannot be written.
    #[error("journal: an entry cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    size: u64,
    /// Size at which it is rotated.
    rotate_at: u64,
    /// Held for as long as the journal is open.
    _lock: nix::fcntl::Flock<File>,
}

/// What an opened journal said.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// The fold of all entries.
    pub book: Book,
    /// The last entries, oldest first, at most [`EVENTS_KEPT_MAX`].
    pub events: VecDeque<Entry>,
    /// Damaged lines that were skipped, over all files.
    pub damaged: u64,
    /// Bytes of a torn last line that were cut off.
    pub torn_bytes: u64,
}

impl Journal {
    /// Opens the journal in `dir`, made when it is not there, and reads it back.
    ///
    /// # Errors
    /// [`JournalError::Locked`] when another monitor has it open, otherwise what the file system says. Damaged content is no error.
    pub fn open(dir: &Path) -> Result<(Self, ReadBack), JournalError> {
        fs::create_dir_all(dir).map_err(|source| fail(dir, "make the directory", source))?;
        let lock = lock(dir)?;
        let mut back = ReadBack::default();
        for number in (1..=JOURNALS_KEPT).rev() {
            // Old journals feed the list of events; the book starts from the snapshot in the present one.
            if let Ok(file) = File::open(numbered(dir, number)) {
                let (_, damaged) =
                    read_entries(file, &mut |entry| keep(&mut back.events, entry))
                        .map_err(|source| fail(&numbered(dir, number), "read", source))?;
                back.damaged += damaged;
            }
        }
        let path = dir.join("journal");
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| fail(&path, "open", source))?;
        let reader = file
            .try_clone()
            .map_err(|source| fail(&path, "open", source))?;
        let ReadBack { book, events, .. } = &mut back;
        let (good, damaged) = read_entries(reader, &mut |entry| {
            book.apply(&entry);
            keep(events, entry);
        })
        .map_err(|source| fail(&path, "read", source))?;
        back.damaged += damaged;
        if let Some(last) = back.events.back() {
            back.book.seq = back.book.seq.max(last.seq);
        }
        let length = file
            .metadata()
            .map_err(|source| fail(&path, "look at", source))?
            .len();
        if length > good {
            back.torn_bytes = length - good;
            file.set_len(good)
                .map_err(|source| fail(&path, "cut the torn tail off", source))?;
        }
        file.sync_all()
            .map_err(|source| fail(&path, "make durable", source))?;
        let journal = Self {
            dir: dir.to_owned(),
            file,
            size: good,
            rotate_at: JOURNAL_ROTATE_BYTES,
            _lock: lock,
        };
        journal.sync_dir()?;
        Ok((journal, back))
    }

    /// Appends an entry; a [durable](Record::durable) one is on disk when this returns.
    ///
    /// # Errors
    /// What the file system says. A line that was written in part is cut off again, so that the next one starts clean.
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let line = encode(entry)?;
        let path = self.dir.join("journal");
        if let Err(source) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.size);
            return Err(fail(&path, "append", source));
        }
        self.size += line.len() as u64;
        if entry.record.durable() {
            self.file
                .sync_data()
                .map_err(|source| fail(&path, "make durable", source))?;
        }
        Ok(())
    }

    /// Whether it is time for [`Self::rotate`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.size >= self.rotate_at
    }

    /// Starts a new journal with `snapshot` as its first lines; the present one becomes `journal.1`.
    ///
    /// # Errors
    /// What the file system says; the present journal then goes on, and is tried again when it has doubled.
    pub fn rotate(&mut self, snapshot: &[Entry]) -> Result<(), JournalError> {
        let rotated = self.try_rotate(snapshot);
        // Also after a success: a snapshot that fills the journal must not rotate it with each entry.
        self.rotate_at = JOURNAL_ROTATE_BYTES.max(self.size.saturating_mul(2));
        rotated
    }

    fn try_rotate(&mut self, snapshot: &[Entry]) -> Result<(), JournalError> {
        let (path, next) = (self.dir.join("journal"), self.dir.join("journal.new"));
        let mut lines = Vec::new();
        for entry in snapshot {
            lines.extend_from_slice(&encode(entry)?);
        }
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail(&next, "remove", error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .append(true)
            .read(true)
            .create_new(true)
            .open(&next)
            .map_err(|source| fail(&next, "create", source))?;
        file.write_all(&lines)
            .map_err(|source| fail(&next, "write", source))?;
        file.sync_all()
            .map_err(|source| fail(&next, "make durable", source))?;
        for number in (1..JOURNALS_KEPT).rev() {
            let _ = fs::rename(numbered(&self.dir, number), numbered(&self.dir, number + 1));
        }
        // A second name first: at no moment is there no journal.
        let old = numbered(&self.dir, 1);
        let _ = fs::remove_file(&old);
        fs::hard_link(&path, &old).map_err(|source| fail(&old, "link", source))?;
        fs::rename(&next, &path).map_err(|source| fail(&path, "replace", source))?;
        self.sync_dir()?;
        self.file = file;
        self.size = lines.len() as u64;
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), JournalError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| fail(&self.dir, "make durable", source))
    }
}

/// Keeps an entry for `parapet events`, unless it is bookkeeping.
pub fn keep(events: &mut VecDeque<Entry>, entry: Entry) {
    if matches!(
        entry.record,
        Record::Alive | Record::Continued { .. } | Record::Page(_)
    ) {
        return;
    }
    // A rotation that was cut short leaves the same entries under two names.
    if events.back().is_some_and(|last| entry.seq <= last.seq) {
        return;
    }
    if events.len() == EVENTS_KEPT_MAX {
        events.pop_front();
    }
    events.push_back(entry);
}

fn fail(path: &Path, doing: &'static str, source: io::Error) -> JournalError {
    JournalError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}

fn numbered(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("journal.{number}"))
}

fn lock(dir: &Path) -> Result<nix::fcntl::Flock<File>, JournalError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| fail(&path, "open", source))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
        |(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => JournalError::Locked(dir.to_owned()),
            other => fail(&path, "lock", other.into()),
        },
    )
}

/// The line of an entry, newline included.
fn encode(entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let json = serde_json::to_vec(entry)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The entry of a line without its newline; `None` when it is damaged.
fn decode(line: &[u8]) -> Option<Entry> {
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    if line[8] != b' ' {
        return None;
    }
    // Compared as text: a digit in the other case would be damage too.
    if format!("{:08x}", crc32fast::hash(json)).as_bytes() != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Feeds every good line to `each`; answers where the last whole line ends, and how many lines were damaged.
fn read_entries(file: File, each: &mut dyn FnMut(Entry)) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut end, mut damaged) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = JOURNAL_LINE_MAX_BYTES as u64 + 1;
        let count = reader.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
        let whole = line.last() == Some(&b'\n');
        if count < limit && !whole {
            // The end of the file, or a line that was being written when the power went.
            return Ok((end, damaged));
        }
        end += count;
        match decode(&line[..line.len() - usize::from(whole)]) {
            Some(entry) => each(entry),
            None => damaged += 1,
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
