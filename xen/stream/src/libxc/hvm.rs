//! Records that only images of PVH and HVM domains have: the context blob, and parameters.
//!
//! [`super::Record`] takes them apart. A context must hold together, since it is handed to Xen as a whole long after it was
//! read; which parameters may be set is for the restorer.

use crate::bytes::Fields;
use crate::error::{Expected, Problem};
use crate::limits;
use xen_abi::hvm::save;

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HvmParam {
    /// Which: a constant of [`xen_abi::hvm::params`], or one of another release.
    pub index: u64,
    /// What it is.
    pub value: u64,
}

/// Parameters; an empty list means nothing (Xen 4.6 to 4.8 sent some).
pub(crate) fn decode_params(body: &[u8]) -> Result<Vec<HvmParam>, Problem> {
    let mut fields = Fields::of(body);
    let count = u64::from(fields.u32()?);
    fields.zero32("the record")?;
    let (length, needs) = (body.len() as u64, 8 + 16 * count);
    if length != needs {
        return Err(Problem::Count {
            what: "parameters",
            count,
            needs,
            length,
        });
    }
    let mut params = vec![];
    for _ in 0..count {
        params.push(HvmParam {
            index: fields.u64()?,
            value: fields.u64()?,
        });
    }
    Ok(params)
}

/// Appends parameters.
pub(crate) fn encode_params(params: &[HvmParam], into: &mut Vec<u8>) -> Result<(), Problem> {
    let count = u32::try_from(params.len())
        .ok()
        .filter(|count| u64::from(*count) <= limits::HVM_PARAMS)
        .ok_or(Problem::Limit {
            what: "parameters",
            found: params.len() as u64,
            limit: limits::HVM_PARAMS,
        })?;
    into.extend_from_slice(&count.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    for param in params {
        into.extend_from_slice(&param.index.to_le_bytes());
        into.extend_from_slice(&param.value.to_le_bytes());
    }
    Ok(())
}

/// Whether a blob holds together: begins with Xen's header and ends with its end, right where the record does.
///
/// What the parts mean is for Xen to say when it loads them.
pub(crate) fn check_context(blob: &[u8]) -> Result<(), Problem> {
    let mut end = 0;
    let mut first = None;
    for record in save::records(blob) {
        first.get_or_insert((record.kind, record.body.len()));
        end = record.offset + record.body.len();
    }
    if blob.is_empty() {
        return Err(Problem::Length {
            found: 0,
            expected: Expected::AtLeast(8),
        });
    }
    if first != Some((save::HEADER, size_of::<save::SaveHeader>())) {
        return Err(Problem::Content(
            "the context does not begin with Xen's header",
        ));
    }
    // The last descriptor is that of the end: all zeros, as type, instance and length of the end are.
    if blob.get(end..) != Some(&[0; size_of::<save::Descriptor>()]) {
        return Err(Problem::Content(
            "the parts of the context do not end where it does",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_whole_or_refused() {
        let mut blob = vec![];
        save::append(&mut blob, save::HEADER, 0, &[1; 24]).unwrap();
        save::append(&mut blob, save::CPU, 0, &[2; 13]).unwrap();
        save::finish(&mut blob);
        check_context(&blob).unwrap();
        for length in 0..blob.len() {
            assert!(check_context(&blob[..length]).is_err(), "cut at {length}");
        }
        blob.push(0);
        assert!(check_context(&blob).is_err(), "one byte more");
    }
}
