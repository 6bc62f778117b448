//! The files libxl keeps about a domain, so that stock tools know our guests and we know theirs.
//!
//! `/var/lib/xen/userdata-d.<domid>.<uuid>.libxl-json` holds the configuration as JSON; stock `xl list -l`, `save` and `migrate` read it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use xen_abi::ids::DomId;

/// Where libxl keeps them.
pub const DIRECTORY: &str = "/var/lib/xen";
/// Largest file read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

fn path(directory: &Path, domid: DomId, uuid: Uuid) -> PathBuf {
    directory.join(format!("userdata-d.{domid}.{uuid}.libxl-json"))
}

/// Writes a domain's configuration, all or nothing.
///
/// # Errors
/// The directory is missing or not writable.
pub fn write(directory: &Path, domid: DomId, uuid: Uuid, json: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = path(directory, domid, uuid);
    let fresh = path.with_extension("libxl-json.new");
    fs::write(&fresh, json)?;
    fs::rename(&fresh, &path)
}

/// A domain's configuration; `None` when there is none.
///
/// # Errors
/// The file cannot be read, or is unreasonably long.
pub fn read(directory: &Path, domid: DomId, uuid: Uuid) -> io::Result<Option<Vec<u8>>> {
    let path = path(directory, domid, uuid);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => Err(io::Error::other("too long")),
        Ok(_) => fs::read(&path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes every file kept about a domain, including the lock that stock tools leave.
///
/// # Errors
/// The directory cannot be read.
pub fn remove(directory: &Path, domid: DomId, uuid: Uuid) -> io::Result<()> {
    for kind in ["libxl-json", "libxl-json.new", "domain-userdata-lock", "xl"] {
        match fs::remove_file(directory.join(format!("userdata-d.{domid}.{uuid}.{kind}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
