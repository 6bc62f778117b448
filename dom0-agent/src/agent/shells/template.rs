//! What is kept in advance: a configuration without its devices, and how many. On disk as one file, replaced by rename.

use crate::agent::handle;
use crate::agent::request::build_request;
use crate::build::BuildRequest;
use crate::config::domain::DomainConfig;
use crate::image::FileKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How the names of shells begin; guests may not be called so.
pub const NAME_PREFIX: &str = "parapet-shell-";
/// Most kinds of shell.
pub const MAX_TEMPLATES: usize = 16;
/// Most shells of all kinds together.
pub const MAX_SHELLS: u32 = 64;
/// Largest file of templates read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Format of the file.
const VERSION: u32 = 1;

/// One kind of shell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// How many are kept.
    pub count: u32,
    /// What they are built from. Nothing of it that is furnished later counts.
    pub config: DomainConfig,
}

impl Template {
    /// A template for guests like this one.
    #[must_use]
    pub fn new(mut config: DomainConfig, count: u32) -> Self {
        config.uuid = Uuid::nil();
        config.disks.clear();
        config.vifs.clear();
        Self { count, config }
    }

    /// Its name: that of the configuration it was made from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether a domain built from it is, page for page, what would be built for this guest.
    #[must_use]
    pub fn fits(&self, config: &DomainConfig) -> bool {
        built_from(&self.config) == built_from(config)
    }

    /// Keys of the files that are built into a domain, as they are now.
    ///
    /// # Errors
    /// One is not there.
    pub fn files(&self) -> io::Result<Vec<FileKey>> {
        let boot = &self.config.boot;
        let paths = boot.kernel.iter().chain(&boot.ramdisk);
        paths.map(|path| FileKey::at(Path::new(path))).collect()
    }
}

/// All of a configuration that shows in a domain before its devices.
fn built_from(config: &DomainConfig) -> (BuildRequest, Option<&str>, Option<&str>) {
    (
        build_request(config, handle(Uuid::nil())),
        config.boot.kernel.as_deref(),
        config.boot.ramdisk.as_deref(),
    )
}

/// The file of templates.
#[derive(Debug)]
pub(super) struct Templates {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    version: u32,
    templates: Vec<Template>,
}

impl Templates {
    pub(super) fn below(state: &Path) -> Self {
        Self {
            path: state.join("shells.json"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of them, all or nothing; none is no file.
    pub(super) fn save(&self, templates: Vec<Template>) -> io::Result<()> {
        if templates.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let contents = Contents {
            version: VERSION,
            templates,
        };
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(&contents)?)?;
        fs::rename(fresh, &self.path)
    }

    /// All of them. A damaged file is set aside: without it no shell is kept, and no guest is harmed.
    pub(super) fn load(&self) -> io::Result<Vec<Template>> {
        let size = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            metadata => metadata?.len(),
        };
        match self.read(size) {
            Ok(templates) => Ok(templates),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "templates of shells cannot be used; set aside as .bad");
                fs::rename(&self.path, self.path.with_extension("bad"))?;
                Ok(Vec::new())
            }
        }
    }

    fn read(&self, size: u64) -> io::Result<Vec<Template>> {
        if size > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("{size} bytes is too long")));
        }
        let contents: Contents = serde_json::from_slice(&fs::read(&self.path)?)?;
        if contents.version != VERSION {
            let version = contents.version;
            let why = format!("version {version} (this agent knows {VERSION})");
            return Err(io::Error::other(why));
        }
        Ok(contents.templates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::interpret::{Ambient, load};

    fn config(lines: &str) -> DomainConfig {
        let text = format!("name=\"a\"\ntype=\"pvh\"\nkernel=\"/k\"\nmemory=64\n{lines}\n");
        let ambient = Ambient::new("a.cfg", Uuid::from_u128(1), 4);
        load(text.as_bytes(), &[], &ambient).unwrap().config
    }

    #[test]
    fn what_shows_in_the_domain_decides_and_nothing_else() {
        let template = Template::new(config("disk=['/d,raw,xvda,rw']"), 1);
        for same in [
            "",
            "name=\"b\"",
            "vif=['mac=00:16:3e:00:00:01']",
            "on_crash=\"restart\"",
            "uuid=\"0d8e8c1c-0000-0000-0000-000000000000\"",
            "protect=\"restart\"",
        ] {
            assert!(template.fits(&config(same)), "{same}");
        }
        for other in [
            "memory=65",
            "maxmem=65",
            "vcpus=2",
            "maxvcpus=2",
            "type=\"pv\"",
            "kernel=\"/l\"",
            "ramdisk=\"/r\"",
            "extra=\"quiet\"",
            "tsc_mode=\"native\"",
            "cpus=\"1\"",
            "cpu_weight=512",
            "cap=50",
            "max_grant_frames=64",
        ] {
            assert!(!template.fits(&config(other)), "{other}");
        }
    }

    #[test]
    fn templates_outlive_the_agent_and_damaged_ones_harm_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = Templates::below(dir.path());
        assert_eq!(file.load().unwrap(), []);
        let kept = vec![Template::new(config(""), 3)];
        file.save(kept.clone()).unwrap();
        assert_eq!(file.load().unwrap(), kept);
        for damaged in [b"{".as_slice(), b"{\"version\":7,\"templates\":[]}"] {
            fs::write(file.path(), damaged).unwrap();
            assert_eq!(file.load().unwrap(), []);
            assert!(file.path().with_extension("bad").exists());
        }
        file.save(Vec::new()).unwrap();
        assert!(!file.path().exists());
    }
}
