//! Where a disk is to be, what may be there already, and the file that it grows in beside that place.

use super::error::ReceiveError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a disk is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Device number.
    pub disk: u32,
    /// The file.
    pub path: PathBuf,
    /// How large the disk must be, if that is known.
    pub bytes: Option<u64>,
    /// A file that is there and holds something may be replaced.
    pub replace: bool,
}

/// Which file a disk grew in, and which one it takes the place of: enough to undo that, and to touch nothing else.
///
/// ```text
///   set_aside: NAME ─▶ .NAME.replaced      (the disk gets its name)
///   keep: .NAME.replaced goes              take_away: the disk goes, under either of its names; .NAME.replaced ─▶ NAME
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landed {
    path: PathBuf,
    grown: Identity,
    replaced: Option<Identity>,
}

/// A file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }

    /// Whether that is what is called so.
    fn is_at(self, path: &Path) -> Result<bool, ReceiveError> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_file() && Self::of(&found) == self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed("look at", path)(source)),
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReceiveError {
    let path = path.to_owned();
    move |source| ReceiveError::File { what, path, source }
}

impl Landed {
    /// What grows for this place.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn of(path: &Path, file: &File) -> io::Result<Self> {
        let replaced = match fs::symlink_metadata(path) {
            Ok(found) => Some(Identity::of(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            grown: Identity::of(&file.metadata()?),
            replaced,
        })
    }

    /// Makes the place free, in a way that [`Landed::take_away`] undoes.
    ///
    /// # Errors
    /// It cannot be made free.
    pub fn set_aside(&self) -> Result<(), ReceiveError> {
        match self.replaced {
            Some(file) if file.is_at(&self.path)? => {
                let aside = beside(&self.path, "replaced")?;
                fs::rename(&self.path, aside).map_err(failed("rename of", &self.path))
            }
            _ => Ok(()),
        }
    }

    /// The disk stays: what it replaced goes.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn keep(&self) -> Result<(), ReceiveError> {
        let aside = beside(&self.path, "replaced")?;
        match self.replaced {
            Some(file) if file.is_at(&aside)? => {
                fs::remove_file(&aside).map_err(failed("remove", &aside))
            }
            _ => Ok(()),
        }
    }

    /// Removes it, and puts back what it replaced; fine when it is gone. A file of the same name that is another one stays.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn take_away(&self) -> Result<(), ReceiveError> {
        for path in [incoming(&self.path)?, self.path.clone()] {
            if self.grown.is_at(&path)? {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        let aside = beside(&self.path, "replaced")?;
        match self.replaced {
            Some(file) if file.is_at(&aside)? && !self.path.exists() => {
                fs::rename(&aside, &self.path).map_err(failed("rename of", &aside))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a disk may be put there.
pub(super) fn look(place: &Place) -> Result<(), ReceiveError> {
    let refuse = |what: &str| {
        Err(ReceiveError::Place {
            path: place.path.clone(),
            what: what.to_owned(),
        })
    };
    match fs::symlink_metadata(&place.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ReceiveError::File {
            what: "look at",
            path: place.path.clone(),
            source,
        }),
        Ok(there) if !there.is_file() => {
            refuse("is there, and no regular file; choose another place")
        }
        Ok(there) if there.len() > 0 && !place.replace => {
            refuse("is there and not empty; move it away, or allow that it is replaced")
        }
        Ok(there) if there.len() > 0 && is_in_use(&place.path) => {
            refuse("is in use; shut down the guest that has it, or choose another place")
        }
        Ok(_) => Ok(()),
    }
}

/// Drivers lock what they serve. On this host, and on others where the file system tells them.
fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Where it grows: beside its place, so that it can be renamed.
pub(super) fn incoming(path: &Path) -> Result<PathBuf, ReceiveError> {
    beside(path, "incoming")
}

fn beside(path: &Path, what: &str) -> Result<PathBuf, ReceiveError> {
    match path.file_name() {
        Some(name) => Ok(parent(path).join(format!(".{}.{what}", name.to_string_lossy()))),
        None => Err(ReceiveError::Place {
            path: path.to_owned(),
            what: "names no file".to_owned(),
        }),
    }
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the file, and holds its lock: one that a receiver left that was killed has none, and is removed.
pub(super) fn create(path: &Path) -> Result<File, ReceiveError> {
    let failed = |what| {
        move |source| ReceiveError::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("look at")(source)),
        Ok(old) => match old.try_lock() {
            Ok(()) => fs::remove_file(path).map_err(failed("remove"))?,
            Err(TryLockError::WouldBlock) => {
                return Err(ReceiveError::Place {
                    path: path.to_owned(),
                    what: "is being received by somebody else".to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock of")(source)),
        },
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("make"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ReceiveError::Place {
            path: path.to_owned(),
            what: "is being received by somebody else".to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed("lock of")(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn land(path: &Path, text: &str) -> Landed {
        let grows = incoming(path).unwrap();
        let file = create(&grows).unwrap();
        fs::write(&grows, text).unwrap();
        let landed = Landed::of(path, &file).unwrap();
        landed.set_aside().unwrap();
        fs::rename(&grows, path).unwrap();
        landed
    }

    #[test]
    fn what_landed_goes_and_what_it_replaced_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let text = || fs::read_to_string(&path).unwrap();
        let files = || fs::read_dir(directory.path()).unwrap().count();
        let first = land(&path, "first");
        first.keep().unwrap();
        let second = land(&path, "second");
        assert_eq!((text().as_str(), files()), ("second", 2));
        // The first is somebody else's by now: only what is its own goes.
        first.take_away().unwrap();
        assert_eq!(files(), 2);
        second.take_away().unwrap();
        assert_eq!((text().as_str(), files()), ("first", 1));
        let third = land(&path, "third");
        third.keep().unwrap();
        assert_eq!((text().as_str(), files()), ("third", 1));
        third.take_away().unwrap();
        assert_eq!(files(), 0);
        // It died before the disk had its name.
        let grows = incoming(&path).unwrap();
        let landed = Landed::of(&path, &create(&grows).unwrap()).unwrap();
        landed.take_away().unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn what_is_in_use_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        fs::write(&path, b"a guest's").unwrap();
        let place = Place {
            disk: 1,
            path: path.clone(),
            bytes: None,
            replace: true,
        };
        look(&place).unwrap();
        let driver = File::open(&path).unwrap();
        driver.try_lock().unwrap();
        assert!(look(&place).unwrap_err().to_string().contains("is in use"));
    }
}
