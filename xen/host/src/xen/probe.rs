//! Why Xen cannot be reached, in one sentence, and which interface it speaks.

use super::Xen;
use crate::error::{Error, HostProblem};
use crate::seam::{DomainControl, HostControl};
use nix::errno::Errno;
use std::path::Path;
use xen_abi::ids::DomId;

/// Looks for the reason why a device of Xen cannot be opened. Costs nothing unless something is wrong.
pub(crate) fn explain(path: &'static str, errno: Errno) -> Error {
    explain_under(Path::new("/"), path, errno)
}

fn explain_under(root: &Path, path: &'static str, errno: Errno) -> Error {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let on_xen = read("sys/hypervisor/type").trim() == "xen" || root.join("proc/xen").exists();
    let capabilities = read("proc/xen/capabilities");
    if !on_xen {
        return HostProblem::NotXen.into();
    }
    if matches!(errno, Errno::EACCES | Errno::EPERM) {
        return HostProblem::NotRoot { path }.into();
    }
    if !capabilities.is_empty() && !capabilities.contains("control_d") {
        return HostProblem::NotControlDomain.into();
    }
    Error::Device { path, errno }
}

impl Xen {
    /// Proves with two harmless calls that the hypervisor speaks the interface its release promises and that we may use it.
    ///
    /// # Errors
    /// The domctl or the sysctl is refused: another interface (`EACCES`), or this is not the control domain (`EPERM`).
    pub fn check_interface(&self) -> Result<(), Error> {
        self.domain_info(DomId::DOM0)?;
        self.physinfo()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "/dev/xen/privcmd";

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn each_cause_has_its_own_sentence() {
        let xen = ("sys/hypervisor/type", "xen\n");
        for (files, errno, expected) in [
            (vec![], Errno::ENOENT, "not running under Xen"),
            (vec![xen], Errno::EACCES, "needs root"),
            (
                vec![xen, ("proc/xen/capabilities", "\n")],
                Errno::ENOENT,
                "not the control domain",
            ),
            (
                vec![xen, ("proc/xen/capabilities", "control_d\n")],
                Errno::ENOENT,
                "module loaded",
            ),
            (
                vec![xen, ("proc/xen/capabilities", "control_d\n")],
                Errno::EMFILE,
                DEVICE,
            ),
        ] {
            let root = host(&files);
            let error = explain_under(root.path(), DEVICE, errno).to_string();
            assert!(error.contains(expected), "{files:?}: {error}");
        }
    }
}
