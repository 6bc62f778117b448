//! Which hosts this one is linked with, as far as a command must know that has nothing to do with the link itself.

use crate::paths;
use std::path::{Path, PathBuf};

/// Environment variable that names another folder than [`paths::LINK_DIR`].
pub const FOLDER_VARIABLE: &str = "PARAPET_LINK_DIR";
/// Longest name of a host, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The folder of this host's key and of the hosts it is linked with.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from(paths::LINK_DIR), PathBuf::from)
}

/// Whether a host may be called this: 1 to 64 letters, digits, dots, hyphens and underlines, the first one a letter or a digit. Such a name is safe as a
/// file's name and as a word of a shell.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    let first = name.as_bytes().first();
    name.len() <= MAX_NAME_BYTES
        && first.is_some_and(u8::is_ascii_alphanumeric)
        && name.as_bytes().iter().all(good)
}

/// The folder of the hosts that are trusted, below the link's own.
#[must_use]
pub fn hosts(folder: &Path) -> PathBuf {
    folder.join("hosts")
}

/// The file of one host; `None` where no host can be called so.
#[must_use]
pub fn host_file(folder: &Path, name: &str) -> Option<PathBuf> {
    is_name(name).then(|| hosts(folder).join(format!("{name}.toml")))
}

/// Whether a host of this name is linked with this one.
#[must_use]
pub fn is_linked(folder: &Path, name: &str) -> bool {
    host_file(folder, name).is_some_and(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_files_and_words() {
        for name in ["host2", "a", "10.0.0.7", "node-1.example_x"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "../a",
            "a b",
            "a;b",
            "root@host2",
            "a\n",
            "ä",
            &long,
        ] {
            assert!(!is_name(name), "{name}");
            assert_eq!(host_file(Path::new("/x"), name), None);
        }
    }
}
