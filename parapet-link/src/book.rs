//! The hosts that are trusted: a file for each, `hosts/NAME.toml` in the link's folder.
//!
//! Everybody may read them, the listener's user does: there is nothing secret in a fingerprint. Only root can write them. They are read anew for every
//! connection, so that a host that is forgotten is not let in any more, and no program has to be told.

use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::limits::{MAX_FILE_BYTES, MAX_HOSTS};
use crate::token::Address;
use parapet_wire::link;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A host that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What it is called here.
    pub name: String,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// Where its listener is; `None`: where its name leads, at the usual port.
    pub address: Option<Address>,
}

impl Host {
    /// Where its listener is.
    #[must_use]
    pub fn reached_at(&self) -> Address {
        self.address.clone().unwrap_or_else(|| Address {
            host: self.name.clone(),
            port: crate::limits::PORT,
        })
    }
}

/// What stands in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Book {
    folder: PathBuf,
}

impl Book {
    /// The hosts of this folder, the link's own.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn file(&self, name: &str) -> Result<PathBuf, LinkError> {
        link::host_file(&self.folder, name).ok_or_else(|| LinkError::Name(name.to_owned()))
    }

    /// Everybody who is trusted, by name.
    ///
    /// # Errors
    /// A file that cannot be read or understood, which is named: nobody is let in on a guess.
    pub fn hosts(&self) -> Result<Vec<Host>, LinkError> {
        let folder = link::hosts(&self.folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LinkError::file("cannot read", &folder, error)),
        };
        let mut hosts = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| LinkError::file("cannot read", &folder, error))?;
            let file_name = entry.file_name();
            let name = file_name
                .to_str()
                .and_then(|name| name.strip_suffix(".toml"));
            let Some(name) = name.filter(|name| link::is_name(name)) else {
                continue;
            };
            // Forgotten since the folder was read.
            if let Some(host) = self.read(name)? {
                hosts.push(host);
            }
            if hosts.len() > MAX_HOSTS {
                return Err(LinkError::TooMany(MAX_HOSTS));
            }
        }
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(hosts)
    }

    /// One of them.
    ///
    /// # Errors
    /// Nobody is called so, or its file cannot be used.
    pub fn host(&self, name: &str) -> Result<Host, LinkError> {
        let host = self.read(name)?;
        host.ok_or_else(|| LinkError::NotLinked(name.to_owned()))
    }

    fn read(&self, name: &str) -> Result<Option<Host>, LinkError> {
        let path = self.file(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LinkError::file("cannot read", &path, error)),
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| LinkError::file("cannot read", &path, error))?;
        let wrong = |error: &dyn std::fmt::Display| {
            LinkError::Content(path.clone(), error.to_string().replace('\n', " "))
        };
        let entry: Entry = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let fingerprint = entry.fingerprint.parse().map_err(|error| wrong(&error))?;
        let address = entry.address.map(|address| address.parse()).transpose();
        Ok(Some(Host {
            name: name.to_owned(),
            fingerprint,
            address: address.map_err(|error| wrong(&error))?,
        }))
    }

    /// Trusts a host from now on. Its address may be changed in this way, its certificate not.
    ///
    /// # Errors
    /// Its name is none, or has another certificate; the file cannot be written.
    pub fn trust(&self, host: &Host) -> Result<(), LinkError> {
        let path = self.file(&host.name)?;
        let known = self.read(&host.name)?;
        match known.map(|known| known.fingerprint) {
            Some(pinned) if pinned != host.fingerprint => {
                let name = host.name.clone();
                return Err(LinkError::Pinned { name, pinned });
            }
            Some(_) => {}
            None => {
                let hosts = self.hosts()?.len();
                if hosts >= MAX_HOSTS {
                    return Err(LinkError::TooMany(hosts));
                }
            }
        }
        let entry = Entry {
            fingerprint: host.fingerprint.to_string(),
            address: host.address.as_ref().map(ToString::to_string),
        };
        let text = toml::to_string(&entry)
            .map_err(|error| LinkError::Content(path.clone(), error.to_string()))?;
        self.write(&path, &text)
            .map_err(|error| LinkError::file("cannot write", &path, error))
    }

    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let folder = link::hosts(&self.folder);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        // Not a name of a host's file, even if it stays.
        let partial = folder.join(format!(".new.{}", std::process::id()));
        let _ = fs::remove_file(&partial);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }

    /// Trusts it no more. Lines that are open stay until they end.
    ///
    /// # Errors
    /// Nobody is called so, or the file cannot be removed.
    pub fn forget(&self, name: &str) -> Result<(), LinkError> {
        let path = self.file(name)?;
        fs::remove_file(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => LinkError::NotLinked(name.to_owned()),
            _ => LinkError::file("cannot remove", &path, error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn host(name: &str, seed: &[u8], address: Option<&str>) -> Host {
        Host {
            name: name.to_owned(),
            fingerprint: Fingerprint::of(seed),
            address: address.map(|address| address.parse().unwrap()),
        }
    }

    #[test]
    fn hosts_are_trusted_listed_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        assert_eq!(book.hosts().unwrap(), []);
        let two = host("host2", b"2", Some("192.0.2.2:99"));
        let one = host("host1", b"1", None);
        book.trust(&two).unwrap();
        book.trust(&one).unwrap();
        assert_eq!(book.hosts().unwrap(), [one.clone(), two.clone()]);
        assert_eq!(book.host("host2").unwrap(), two);
        assert_eq!(one.reached_at().to_string(), "host1:8402");
        let moved = host("host2", b"2", Some("[2001:db8::2]:8402"));
        book.trust(&moved).unwrap();
        assert_eq!(book.host("host2").unwrap(), moved);
        book.forget("host2").unwrap();
        assert!(matches!(book.host("host2"), Err(LinkError::NotLinked(_))));
        assert!(matches!(book.forget("host2"), Err(LinkError::NotLinked(_))));
        assert_eq!(book.hosts().unwrap(), [one]);
    }

    #[test]
    fn a_pinned_certificate_is_not_replaced_by_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        book.trust(&host("host2", b"2", None)).unwrap();
        let error = book.trust(&host("host2", b"other", None)).unwrap_err();
        assert!(matches!(error, LinkError::Pinned { .. }), "{error}");
        assert_eq!(book.host("host2").unwrap(), host("host2", b"2", None));
    }

    #[test]
    fn the_listeners_user_can_read_what_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        book.trust(&host("host2", b"2", None)).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(link::hosts(dir.path())), 0o755);
        assert_eq!(mode(book.file("host2").unwrap()), 0o644);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        for name in ["../x", "", ".x", "a/b", "-x"] {
            assert!(matches!(
                book.trust(&host(name, b"", None)),
                Err(LinkError::Name(_))
            ));
            assert!(matches!(book.forget(name), Err(LinkError::Name(_))));
        }
    }

    #[test]
    fn a_broken_file_is_named_and_nobody_is_let_in_on_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        book.trust(&host("host2", b"2", None)).unwrap();
        for text in [
            "fingerprint = \"12\"",
            "address = \"x\"",
            &format!("fingerprint = \"{}\"\naddres = \"x\"", Fingerprint::of(b"")),
            &format!(
                "fingerprint = \"{}\"\naddress = \"a b\"",
                Fingerprint::of(b"")
            ),
        ] {
            fs::write(book.file("host3").unwrap(), text).unwrap();
            let error = book.hosts().unwrap_err().to_string();
            assert!(error.contains("host3.toml"), "{error}");
        }
        // What is not a host's file is nobody's business.
        book.forget("host3").unwrap();
        fs::write(link::hosts(dir.path()).join("README"), "x").unwrap();
        assert_eq!(book.hosts().unwrap().len(), 1);
    }

    #[test]
    fn there_is_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::of(dir.path());
        for n in 0..MAX_HOSTS {
            book.trust(&host(&format!("h{n}"), b"", None)).unwrap();
        }
        assert!(matches!(
            book.trust(&host("one-more", b"", None)),
            Err(LinkError::TooMany(_))
        ));
        book.trust(&host("h7", b"", Some("a"))).unwrap();
    }
}
