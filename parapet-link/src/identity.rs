//! This host's key and its certificate, in one file: made once, whole or not at all.
//!
//! The certificate says nothing about the host: it is the form in which TLS carries a public key. Nobody signs it but its own key.

use crate::error::LinkError;
use crate::fingerprint::Fingerprint;
use crate::limits::MAX_FILE_BYTES;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the file, in the link's folder and among systemd's credentials.
pub const FILE: &str = "identity.pem";
/// Rights of the file: its owner's only.
const MODE: u32 = 0o600;
/// Rights that nobody else may have.
const OTHERS: u32 = 0o077;

/// A key and its certificate.
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl Identity {
    /// What this host is known by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Where it is, in the link's folder.
    #[must_use]
    pub fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads the key of this folder.
    ///
    /// # Errors
    /// There is none, others can read it, or it cannot be used.
    pub fn load(folder: &Path) -> Result<Self, LinkError> {
        let path = Self::file(folder);
        let file = open(&path)?;
        let mode = file
            .metadata()
            .map_err(|error| LinkError::file("cannot read", &path, error))?
            .permissions()
            .mode();
        if mode & OTHERS != 0 {
            return Err(LinkError::Exposed(path, mode & 0o7777));
        }
        read(&path, file)
    }

    /// Reads a key that systemd passed as a credential. Its rights are systemd's matter.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn load_credential(folder: &Path) -> Result<Self, LinkError> {
        let path = Self::file(folder);
        read(&path, open(&path)?)
    }

    /// Reads the key of this folder, or makes one; `true` if it was made.
    ///
    /// # Errors
    /// As [`Identity::load`], or the folder cannot be written.
    pub fn load_or_make(folder: &Path) -> Result<(Self, bool), LinkError> {
        match Self::load(folder) {
            Err(LinkError::NoIdentity(_)) => {}
            other => return other.map(|identity| (identity, false)),
        }
        // What is not secret, the hosts that are trusted, is read by the listener's user.
        let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| LinkError::file("cannot make", folder, error))?;
        let made = write(folder, &generate()?)?;
        Ok((Self::load(folder)?, made))
    }
}

fn open(path: &Path) -> Result<File, LinkError> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => LinkError::NoIdentity(path.to_owned()),
        _ => LinkError::file("cannot read", path, error),
    })
}

fn read(path: &Path, file: File) -> Result<Identity, LinkError> {
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| LinkError::file("cannot read", path, error))?;
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        LinkError::Content(path.to_owned(), format!("{what}: {error}"))
    };
    let certificate = CertificateDer::from_pem_slice(&text)
        .map_err(|error| wrong("it holds no certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| wrong("it holds no private key", &error))?;
    Ok(Identity { certificate, key })
}

/// A new key (ECDSA, P-256) and its certificate, as the file's text.
fn generate() -> Result<String, LinkError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Parapet link");
    parameters.distinguished_name = name;
    let certificate = parameters.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// Puts the file in place; `false` if somebody else was faster, whose file stays.
fn write(folder: &Path, text: &str) -> Result<bool, LinkError> {
    let path = Identity::file(folder);
    let partial = folder.join(format!("{FILE}.{}", std::process::id()));
    let failed = |error| LinkError::file("cannot write", &path, error);
    // Left by a process of the same number that died here.
    let _ = fs::remove_file(&partial);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&partial)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    // A link, unlike a change of name, never takes the place of what is there.
    let placed = written.and_then(|()| fs::hard_link(&partial, &path));
    let _ = fs::remove_file(&partial);
    match placed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc/link");
        let (made, fresh) = Identity::load_or_make(&folder).unwrap();
        assert!(fresh);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&Identity::file(&folder)), 0o600);
        let (again, fresh) = Identity::load_or_make(&folder).unwrap();
        assert!(!fresh);
        assert_eq!(made.fingerprint(), again.fingerprint());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let text = fs::read_to_string(Identity::file(&folder)).unwrap();
        assert!(!write(&folder, "another").unwrap());
        assert_eq!(fs::read_to_string(Identity::file(&folder)).unwrap(), text);
    }

    #[test]
    fn every_host_has_its_own() {
        let one = || {
            let dir = tempfile::tempdir().unwrap();
            let (identity, _) = Identity::load_or_make(dir.path()).unwrap();
            identity.fingerprint()
        };
        assert_ne!(one(), one());
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_make(dir.path()).unwrap();
        let file = Identity::file(dir.path());
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
            assert!(Identity::load_or_make(dir.path()).is_err());
        }
        Identity::load_credential(dir.path()).unwrap();
    }

    #[test]
    fn a_broken_file_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = Identity::file(dir.path());
        write(dir.path(), "nonsense").unwrap();
        let error = Identity::load_or_make(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"nonsense");
    }
}
