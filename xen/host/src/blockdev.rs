//! Facts of a block device, and its discard. Source: `linux/fs.h`.

use crate::error::Error;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Size and sectors of a block device or an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes.
    pub bytes: u64,
    /// Smallest unit of I/O in bytes.
    pub logical_sector: u32,
    /// Unit that is written without reading first, in bytes.
    pub physical_sector: u32,
    /// Whether the device refuses writes, whatever the descriptor allows.
    pub read_only: bool,
    /// A block device; otherwise a regular file.
    pub block_device: bool,
}

/// Sector size of a file.
const FILE_SECTOR_BYTES: u32 = 512;

impl Geometry {
    /// Asks the kernel about an open block device or regular file.
    ///
    /// # Errors
    /// It is neither (`ENOTBLK`), or the device is gone.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let refused = |errno| Error::refused("geometry of a disk", errno);
        let stat = nix::sys::stat::fstat(fd).map_err(refused)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Ok(Self {
                bytes: u64::try_from(stat.st_size).unwrap_or(0),
                logical_sector: FILE_SECTOR_BYTES,
                physical_sector: FILE_SECTOR_BYTES,
                read_only: false,
                block_device: false,
            }),
            libc::S_IFBLK => of_device(fd).map_err(refused),
            _ => Err(refused(Errno::ENOTBLK)),
        }
    }
}

fn of_device(fd: BorrowedFd<'_>) -> Result<Geometry, Errno> {
    let fd = fd.as_raw_fd();
    let (mut bytes, mut logical, mut physical, mut read_only) = (0_u64, 0_i32, 0_u32, 0_i32);
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which lives through the call.
    unsafe { ioctl::size(fd, &raw mut bytes) }?;
    // SAFETY: BLKSSZGET writes one int through the pointer.
    unsafe { ioctl::logical_sector(fd, &raw mut logical) }?;
    // SAFETY: BLKPBSZGET writes one unsigned int through the pointer.
    unsafe { ioctl::physical_sector(fd, &raw mut physical) }?;
    // SAFETY: BLKROGET writes one int through the pointer.
    unsafe { ioctl::read_only(fd, &raw mut read_only) }?;
    Ok(Geometry {
        bytes,
        logical_sector: u32::try_from(logical).map_err(|_| Errno::EINVAL)?,
        physical_sector: physical,
        read_only: read_only != 0,
        block_device: true,
    })
}

/// Tells a block device that a range is not needed any more. Blocks; what is read there afterwards is undefined.
///
/// # Errors
/// The device cannot (`EOPNOTSUPP`), or the range is not of whole sectors (`EINVAL`).
pub fn discard(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Error> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two u64 through the pointer, which lives through the call.
    unsafe { ioctl::discard(fd.as_raw_fd(), &raw const range) }
        .map(drop)
        .map_err(|errno| Error::refused("discard on a block device", errno))
}

mod ioctl {
    //! Numbers of `linux/fs.h`.
    nix::ioctl_read!(size, 0x12, 114, u64);
    nix::ioctl_read_bad!(logical_sector, nix::request_code_none!(0x12, 104), i32);
    nix::ioctl_read_bad!(physical_sector, nix::request_code_none!(0x12, 123), u32);
    nix::ioctl_read_bad!(read_only, nix::request_code_none!(0x12, 94), i32);
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_has_its_length_and_a_character_device_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(12_345).unwrap();
        let geometry = Geometry::of(file.as_fd()).unwrap();
        assert_eq!((geometry.bytes, geometry.block_device), (12_345, false));
        let null = File::open("/dev/null").unwrap();
        assert_eq!(
            Geometry::of(null.as_fd()).unwrap_err().errno(),
            Some(Errno::ENOTBLK)
        );
        assert!(discard(file.as_fd(), 0, 512).is_err());
    }

    /// The kernel's own figure stands in sysfs, in sectors of 512 bytes.
    #[test]
    fn a_block_device_says_what_sysfs_says() {
        let mut seen = 0;
        for entry in std::fs::read_dir("/sys/block")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let Ok(device) = File::open(std::path::Path::new("/dev").join(&name)) else {
                continue;
            };
            let Ok(text) = std::fs::read_to_string(entry.path().join("size")) else {
                continue;
            };
            let Ok(geometry) = Geometry::of(device.as_fd()) else {
                continue;
            };
            assert_eq!(geometry.bytes, text.trim().parse::<u64>().unwrap() * 512);
            assert!(geometry.block_device && geometry.logical_sector.is_power_of_two());
            seen += 1;
        }
        if seen == 0 {
            let why = "no block device can be opened here";
            test_skips::skipped("a_block_device_says_what_sysfs_says", why);
        }
    }
}
