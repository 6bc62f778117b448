//! Directories whose list does not fit one message, fetched in parts.

use super::error::StoreError;
use super::translate::Subject;
use xen_abi::xs_wire::{Op, Request, reply};

/// Parts of one directory; a part holds up to 4096 bytes of names.
pub const MAX_PARTS: usize = 4096;
/// Times the directory may change under us before we give up.
pub const MAX_RESTARTS: usize = 64;

/// Reads all children of `path`; `ask` sends one request and gives the payload of its answer.
pub(super) fn list_in_parts(
    path: &str,
    mut ask: impl FnMut(&Request, &Subject) -> Result<Vec<u8>, StoreError>,
) -> Result<Vec<String>, StoreError> {
    let subject = Subject::new(Op::DirectoryPart, path);
    'restart: for _ in 0..MAX_RESTARTS {
        let (mut children, mut offset, mut generation) = (Vec::new(), 0, None);
        for _ in 0..MAX_PARTS {
            let request = Request::DirectoryPart(path.to_owned(), offset);
            let part = reply::directory_part(&ask(&request, &subject)?)
                .map_err(|error| subject.malformed(error))?;
            if *generation.get_or_insert(part.generation) != part.generation {
                continue 'restart;
            }
            children.extend(part.children);
            if part.last {
                return Ok(children);
            }
            if part.bytes == 0 {
                return Err(subject.malformed("a part without any name"));
            }
            offset += part.bytes;
        }
        return Err(subject.malformed(format!("more than {MAX_PARTS} parts")));
    }
    Err(subject.malformed(format!("changed {MAX_RESTARTS} times while it was read")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_changes_is_read_again_from_the_start() {
        let mut answers = vec![
            b"1\0a\0b\0".to_vec(),
            b"2\0c\0\0".to_vec(),
            b"2\0x\0".to_vec(),
            b"2\0y\0\0".to_vec(),
        ]
        .into_iter();
        let mut offsets = Vec::new();
        let children = list_in_parts("/d", |request, _| {
            let Request::DirectoryPart(_, offset) = request else {
                panic!("{request:?}")
            };
            offsets.push(*offset);
            Ok(answers.next().unwrap())
        });
        assert_eq!(children.unwrap(), ["x", "y"]);
        assert_eq!(offsets, [0, 4, 0, 2]);
    }

    #[test]
    fn endless_answers_come_to_an_end() {
        let empty = list_in_parts("/d", |_, _| Ok(b"1\0".to_vec()));
        assert!(matches!(empty, Err(StoreError::Malformed { .. })));
        let mut generation = 0;
        let restless = list_in_parts("/d", |_, _| {
            generation += 1;
            Ok(format!("{generation}\0a\0").into_bytes())
        });
        assert!(restless.unwrap_err().to_string().contains("changed"));
    }
}
