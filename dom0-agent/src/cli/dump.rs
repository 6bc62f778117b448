//! dump-core: read here, with the caller's rights; no agent is needed, and any toolstack's domain can be dumped.

use super::reach::Failure;
use super::{Call, domain};
use crate::dump;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

/// A guest's memory is nobody's to read but the caller's.
const FILE_MODE: u32 = 0o600;

/// `dump-core`.
///
/// # Errors
/// No such domain, a file that cannot be written, a guest whose memory cannot be found; all end with 1, and nothing is left of a regular file.
pub fn dump_core(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = domain::resolve(call.reach, call.operand(0))?;
    let path = call.operand(1).to_owned();
    let failed = |why: String| Failure::new(format!("core dump to {path} failed: {why}"));
    let host = call.reach.hypervisor()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(|error| failed(error.to_string()))?;
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !regular {
        return Err(failed("it is not a regular file".to_owned()));
    }
    match dump::dump(host, domid, &mut file) {
        Ok(_) => Ok(0),
        Err(error) => {
            // Left behind is only untidy.
            drop(std::fs::remove_file(&path));
            Err(failed(error.to_string()))
        }
    }
}
