//! The image of a disk, read by the agent while the guest's driver writes to it.
//!
//! The agent has a descriptor of its own, without a lock: the driver's lock fences writers, and this is none. Where the medium can, it reads
//! past the page cache, as the driver does. A direct read first writes back whatever the page cache holds of its range and then asks the
//! medium, so it sees both a driver's direct writes and buffered ones, once they have ended; and a disk that is copied once does not push
//! everything else out of dom0's memory. A buffered read beside direct writes would depend on the kernel dropping, after each write, the pages
//! that such a read has just brought in. Where the medium cannot do direct I/O (tmpfs), driver and agent share one page cache.
//!
//! What a read sees of a write that has not ended does not matter: that write is noted when it ends, and its extents are read again.

use super::error::CopyError;
use super::extents::ExtentSet;
use super::limits::{BLOCK_BYTES, DIRECT_BYTES, MAX_DISK_BYTES, SECTOR_BYTES};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xen_abi::ids::PAGE_SIZE;
use xen_host::blockdev::Geometry;
use xen_host::region::SharedRegion;

/// See the module.
#[derive(Debug)]
pub struct Source {
    disk: u32,
    file: File,
    bytes: u64,
    /// Aligned memory, for direct reads.
    buffer: SharedRegion,
}

impl Source {
    /// Opens an image or block device for reading.
    ///
    /// # Errors
    /// It cannot be opened, or is no disk.
    pub fn open(disk: u32, path: &Path) -> Result<Self, CopyError> {
        let failed = |what| move |source| CopyError::Image { disk, what, source };
        let open = |flags: OFlag| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits())
                .open(path)
        };
        let file = match open(OFlag::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                open(OFlag::empty())
            }
            result => result,
        };
        let file = file.map_err(failed("open of the image"))?;
        let host =
            |error: xen_host::error::Error| io::Error::from(error.errno().unwrap_or(Errno::EIO));
        let geometry = Geometry::of(file.as_fd()).map_err(host);
        let geometry = geometry.map_err(failed("size of the image"))?;
        let bytes = geometry.bytes - geometry.bytes % SECTOR_BYTES;
        if bytes == 0 || bytes > MAX_DISK_BYTES {
            let what = format!("an image of {} bytes cannot be copied", geometry.bytes);
            return Err(CopyError::Unfit { disk, what });
        }
        let buffer = SharedRegion::anonymous(BLOCK_BYTES / PAGE_SIZE).map_err(host);
        Ok(Self {
            disk,
            file,
            bytes,
            buffer: buffer.map_err(failed("memory to read into"))?,
        })
    }

    /// Bytes of the disk: whole sectors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The extents that may hold something other than zeros. To be asked once writes are noted: what is written into a hole afterwards is
    /// noted, so nothing falls between.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn allocated(&mut self) -> Result<ExtentSet, CopyError> {
        let mut data = Vec::new();
        let mut at = 0;
        // Each turn ends an extent further at least.
        while at < self.bytes {
            let (start, end) = match self.data_from(at) {
                Ok(Some(range)) => (range.start, range.end),
                Ok(None) => break,
                // A block device has no holes that it would tell.
                Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY) => (at, self.bytes),
                Err(errno) => {
                    return Err(CopyError::Image {
                        disk: self.disk,
                        what: "search for holes",
                        source: errno.into(),
                    });
                }
            };
            let whole = ExtentSet::touching(std::iter::once(start..end));
            at = whole.ranges().last().map_or(self.bytes, |range| {
                range.end.saturating_mul(parapet_wire::dirty::EXTENT_BYTES)
            });
            data.push(start..end);
        }
        Ok(ExtentSet::touching(data))
    }

    /// The next range of data from `at` on.
    fn data_from(&self, at: u64) -> Result<Option<Range<u64>>, Errno> {
        let seek = |from: u64, whence| {
            let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
            lseek(&self.file, from, whence).map(|at| u64::try_from(at).unwrap_or(0))
        };
        match seek(at, Whence::SeekData) {
            Ok(start) => Ok(Some(start..seek(start, Whence::SeekHole)?.max(start + 1))),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Reads a range of the disk, of [`BLOCK_BYTES`] at most.
    ///
    /// # Errors
    /// The image cannot be read, or ends too early.
    pub fn read(&mut self, range: Range<u64>, into: &mut Vec<u8>) -> Result<(), CopyError> {
        let failed = |source| CopyError::Image {
            disk: self.disk,
            what: "read of the image",
            source,
        };
        let want = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let want = want.min(BLOCK_BYTES);
        // Windows begin where extents do; only the end of a disk may lie at odds with what direct I/O wants, and there it may ask for more than there is.
        let ask = want.next_multiple_of(DIRECT_BYTES);
        let mut have = 0;
        while have < want {
            let at = range.start + have as u64;
            self.file.seek(SeekFrom::Start(at)).map_err(failed)?;
            let read = self.buffer.read_in(self.file.as_fd(), have, ask - have);
            let got = match read {
                Ok(more) => have + more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            // Goes on where direct I/O may; a piece smaller than that is the end of the file.
            let whole = got - got % DIRECT_BYTES;
            if got < want && whole == have {
                let at = range.start + got as u64;
                return Err(CopyError::Shrunk {
                    disk: self.disk,
                    at,
                });
            }
            have = if got < want { whole } else { got };
        }
        into.resize(want, 0);
        self.buffer.read(0, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parapet_wire::dirty::EXTENT_BYTES;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_is_found_between_holes_and_the_odd_end_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let file = File::create(&path).unwrap();
        let bytes = 400 * EXTENT_BYTES + 1536;
        file.set_len(bytes + 100).unwrap();
        file.write_all_at(b"first", 70 * EXTENT_BYTES + 9).unwrap();
        file.write_all_at(&[7; 1536], bytes - 1536).unwrap();
        let mut source = Source::open(1, &path).unwrap();
        assert_eq!(source.bytes(), bytes);
        let found = source.allocated().unwrap();
        for wanted in [70, 400] {
            assert!(found.ranges().iter().any(|range| range.contains(&wanted)));
        }
        assert!(found.count() < 200, "{found:?}: are there no holes here?");
        let mut data = Vec::new();
        source
            .read(70 * EXTENT_BYTES..86 * EXTENT_BYTES, &mut data)
            .unwrap();
        assert_eq!((data.len(), &data[9..14]), (BLOCK_BYTES, &b"first"[..]));
        source.read(400 * EXTENT_BYTES..bytes, &mut data).unwrap();
        assert_eq!(data, [7; 1536]);
        file.set_len(EXTENT_BYTES).unwrap();
        let error = source
            .read(70 * EXTENT_BYTES..71 * EXTENT_BYTES, &mut data)
            .unwrap_err();
        assert!(error.to_string().contains("did it shrink"), "{error}");
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let text = |path: &Path| Source::open(1, path).unwrap_err().to_string();
        assert!(text(&path).contains("open of the image"));
        std::fs::write(&path, b"short").unwrap();
        assert!(text(&path).contains("an image of 5 bytes"));
        assert!(text(Path::new("/dev/null")).contains("of the image"));
    }
}
