//! Opens the medium of a disk, and says clearly why it cannot.

use crate::agent::error::AgentError;
use crate::config::disk::{DiskFormat, DiskSpec};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A medium's fresh open file description, made for one driver; nobody else may keep it, since its lock is the fence.
#[derive(Debug)]
pub struct Opened {
    /// The description.
    pub file: File,
    /// `O_DIRECT` does not work there.
    pub buffered: bool,
}

/// Checks what of a disk specification is served here.
///
/// # Errors
/// What is not, and what to do instead.
pub fn check(spec: &DiskSpec) -> Result<&Path, AgentError> {
    let not_yet = |what: String, detail: &str| AgentError::NotYet {
        what,
        detail: detail.to_owned(),
    };
    if spec.format != DiskFormat::Raw {
        return Err(not_yet(
            format!("disk {}: format {:?}", spec.vdev, spec.format).to_lowercase(),
            "convert it with `qemu-img convert -O raw`",
        ));
    }
    if spec.script.is_some() {
        return Err(not_yet(
            format!("disk {}: script=", spec.vdev),
            "attach the device first and name its node as target",
        ));
    }
    if spec
        .backend_domain
        .as_deref()
        .is_some_and(|domain| domain != "0" && domain != "Domain-0")
    {
        return Err(not_yet(
            format!("disk {}: backend=", spec.vdev),
            "driver domains are not supported; serve the disk from dom0",
        ));
    }
    let target = spec.target.as_deref().unwrap_or("");
    if target.is_empty() {
        return Err(not_yet(
            format!("disk {}: an empty drive", spec.vdev),
            "leave the drive out of the configuration",
        ));
    }
    Ok(Path::new(target))
}

/// Opens a disk's medium.
///
/// # Errors
/// The disk, the path, the cause and the way out.
pub fn open(spec: &DiskSpec) -> Result<Opened, AgentError> {
    let path = check(spec)?;
    let fail = |what: String| AgentError::Medium {
        vdev: spec.vdev.clone(),
        path: path.to_owned(),
        what,
    };
    let metadata = path
        .metadata()
        .map_err(|error| fail(missing(path, &error)))?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(fail("is neither a file nor a block device".into()));
    }
    if kind.is_file() && metadata.len() < 512 {
        return Err(fail(format!(
            "holds {} bytes; a disk needs at least one sector of 512",
            metadata.len()
        )));
    }
    if spec.writable && metadata.permissions().readonly() {
        return Err(fail(
            "is read-only, but the disk is opened for writing; make it writable or use access `r`"
                .into(),
        ));
    }
    match try_open(path, spec.writable, true) {
        Ok(file) => Ok(Opened {
            file,
            buffered: false,
        }),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) => {
            try_open(path, spec.writable, false)
                .map(|file| Opened {
                    file,
                    buffered: true,
                })
                .map_err(|error| fail(refused(&error, spec.writable)))
        }
        Err(error) => Err(fail(refused(&error, spec.writable))),
    }
}

fn try_open(path: &Path, writable: bool, direct: bool) -> io::Result<File> {
    let flags = if direct {
        nix::fcntl::OFlag::O_DIRECT.bits()
    } else {
        0
    };
    OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags)
        .open(path)
}

fn missing(path: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map(PathBuf::from);
        return match parent {
            Some(parent) if !parent.exists() => {
                format!("does not exist (nor does {})", parent.display())
            }
            _ => "does not exist".into(),
        };
    }
    error.to_string()
}

fn refused(error: &io::Error, writable: bool) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem if writable => {
            "lies on a read-only file system, but the disk is opened for writing; use access `r`"
                .into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &Path, writable: bool) -> DiskSpec {
        DiskSpec {
            target: Some(path.display().to_string()),
            vdev: "xvda".into(),
            writable,
            ..DiskSpec::default()
        }
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let dir = tempfile::tempdir().unwrap();
        let text = |spec: &DiskSpec| open(spec).unwrap_err().to_string();
        let path = dir.path().join("no.img");
        assert!(text(&spec(&path, true)).ends_with("no.img: does not exist"));
        assert!(text(&spec(&dir.path().join("x/no.img"), true)).contains("nor does"));
        assert!(text(&spec(dir.path(), true)).contains("neither a file nor a block device"));
        let small = dir.path().join("small");
        std::fs::write(&small, b"x").unwrap();
        assert!(text(&spec(&small, true)).contains("holds 1 bytes"));
        let fine = dir.path().join("fine");
        std::fs::write(&fine, vec![0; 4096]).unwrap();
        let mut qcow = spec(&fine, true);
        qcow.format = DiskFormat::Qcow2;
        assert!(text(&qcow).contains("qemu-img convert"));
        assert!(open(&spec(&fine, true)).is_ok());
    }

    #[test]
    fn a_read_only_image_is_not_opened_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("ro.img");
        std::fs::write(&image, vec![0; 4096]).unwrap();
        let mut permissions = image.metadata().unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&image, permissions).unwrap();
        assert!(
            open(&spec(&image, true))
                .unwrap_err()
                .to_string()
                .contains("use access `r`")
        );
        assert!(open(&spec(&image, false)).is_ok());
    }
}
