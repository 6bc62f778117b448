//! The base image: Debian packages turned into a dom0 root file system, kernel, hypervisor and modules.
//!
//! `mmdebstrap` does the work, as root or in a user namespace; nothing is mounted. The recipes are in `images/`. The result is
//! keyed by suite, recipe and mirror-independent inputs, and kept until they change.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::key::Key;
use super::{dirs, lock};

/// Environment variable that names a Debian archive, in place of the one that apt uses.
pub const MIRROR_VARIABLE: &str = "PARAPET_LAB_MIRROR";
/// Size of dom0's root file system: the packages and room for tests.
const ROOT_SIZE: &str = "2G";
/// Size of the Debian guest's.
const GUEST_SIZE: &str = "1G";

/// Images of one suite that are kept, the newest first.
const KEEP: usize = 2;

/// A finished base image.
#[derive(Debug, Clone)]
pub struct Base {
    /// Folder that holds the files below.
    pub dir: PathBuf,
    /// Names everything that went into it, and when.
    pub key: String,
}

impl Base {
    /// The uncompressed hypervisor.
    #[must_use]
    pub fn xen(&self) -> PathBuf {
        self.dir.join("xen")
    }

    /// Debian's kernel, for dom0 and guests.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// dom0's root file system, never written to.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root.raw")
    }

    /// The Debian guest's root file system, never written to.
    #[must_use]
    pub fn guest_root(&self) -> PathBuf {
        self.dir.join("guest.raw")
    }

    /// What is in it, as in [`manifest`](Self::manifest).
    #[must_use]
    pub fn guest_manifest(&self) -> PathBuf {
        self.dir.join("guest.manifest")
    }

    /// `package version architecture` per line.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        self.dir.join("manifest")
    }

    /// The same recipe built again puts its files on other blocks, and a snapshot's memory remembers the old ones.
    fn of_this_build(mut self) -> Result<Self> {
        let path = self.manifest();
        let built = fs::metadata(&path)
            .and_then(|about| about.modified())
            .with_context(|| format!("cannot read {}", path.display()))?;
        let since = built.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.key = Key::default()
            .with(self.key)
            .with(since.as_nanos().to_string())
            .digits();
        Ok(self)
    }
}

/// Xen's release in a Debian suite.
fn xen_release(suite: &str) -> Result<&'static str> {
    Ok(match suite {
        "bookworm" => "4.17",
        "trixie" | "forky" => "4.20",
        other => bail!("no recipe for the Debian suite {other}; known: bookworm, trixie, forky"),
    })
}

/// The base image of `suite`, built if it is not there.
///
/// # Errors
/// When a recipe cannot be read or `mmdebstrap` fails; its own words are printed as it goes.
pub fn base(suite: &str) -> Result<Base> {
    let release = xen_release(suite)?;
    let recipes = dirs::recipes();
    let read = |name: &str| {
        let path = recipes.join(name);
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))
    };
    let packages = lines(&read("dom0/packages")?.replace("@xen@", release));
    let excludes = lines(&read("dom0/exclude")?);
    let mut key = Key::default()
        .with(suite)
        .with(packages.join(" "))
        .with(excludes.join(" "))
        .with(ROOT_SIZE)
        .with(GUEST_SIZE);
    for name in [
        "dom0/customize",
        "dom0/modules",
        "guest/modules",
        "dom0/inittab",
        "guest-debian/customize",
        "guest-debian/packages",
        "guest-debian/mask",
        "guest-debian/shell.service",
    ] {
        key = key.with(read(name)?);
    }
    let key = key.digits();
    let base = Base {
        dir: dirs::part("images").join(format!("{suite}-{key}")),
        key,
    };
    if base.manifest().exists() {
        return base.of_this_build();
    }
    let _turn = lock::lock(
        &dirs::part("images").join(format!("{suite}.lock")),
        "another process building the image",
    )?;
    if !base.manifest().exists() {
        build(&base, suite, &packages, &excludes)?;
    }
    base.of_this_build()
}

fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect()
}

fn build(base: &Base, suite: &str, packages: &[String], excludes: &[String]) -> Result<()> {
    let began = Instant::now();
    eprintln!("lab: building the {suite} image (about two minutes, once)");
    let partial = base.dir.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    // In this order: the guest's root is dom0's with less in it.
    let hooks = ["dom0/customize", "guest-debian/customize"].map(|script| {
        let path = dirs::recipes().join(script);
        format!("--customize-hook=sh '{}' \"$1\"", path.display())
    });
    let mut command = Command::new("mmdebstrap");
    command
        .args([
            "--quiet",
            "--variant=minbase",
            "--format=null",
            "--aptopt=Acquire::Languages \"none\"",
        ])
        .arg(format!("--include={}", packages.join(",")))
        .args(hooks)
        .args(
            excludes
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .args(proxy().map(|proxy| format!("--aptopt=Acquire::http::Proxy \"{proxy}\"")))
        .args([suite, "-", &format!("deb {} {suite} main", mirror()?)])
        // Debian's own initrd is never used, and takes longer to make than everything else here.
        .env("INITRD", "No")
        .env("LAB_OUT", &partial)
        .env("LAB_RECIPES", dirs::recipes())
        .env("LAB_ROOT_SIZE", ROOT_SIZE)
        .env("LAB_GUEST_SIZE", GUEST_SIZE)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command
        .status()
        .context("cannot run mmdebstrap; `cargo xtask deps` installs it")?;
    ensure!(
        status.success(),
        "mmdebstrap could not build the {suite} image ({status}); its messages are above"
    );
    fs::rename(&partial, &base.dir)
        .with_context(|| format!("cannot put {} in place", base.dir.display()))?;
    dirs::keep_newest(&dirs::part("images"), &format!("{suite}-"), KEEP);
    eprintln!(
        "lab: image {} built in {:.0} s",
        base.dir.display(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The Debian mirror that is named in the environment, or that this machine's apt uses.
///
/// # Errors
/// When neither names one.
pub fn mirror() -> Result<String> {
    if let Ok(named) = std::env::var(MIRROR_VARIABLE) {
        return Ok(named.trim_end_matches('/').to_owned());
    }
    let targets = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(SITE)\t$(RELEASE)\t$(ORIGIN)",
            "Created-By: Packages",
        ])
        .stderr(Stdio::null())
        .output();
    let text = targets
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    mirror_in(&text).with_context(|| {
        format!("apt of this machine knows no Debian archive to make the image from: name one in {MIRROR_VARIABLE}")
    })
}

/// The first index of a Debian main archive; security and backports archives have suffixes and may live elsewhere.
fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let (site, suite, origin) = (fields.next()?, fields.next()?, fields.next()?);
        // Without an origin where `apt-get update` never ran.
        let main = matches!(origin, "Debian" | "")
            && !suite.contains('-')
            && site.trim_end_matches('/').ends_with("/debian");
        main.then(|| site.trim_end_matches('/').to_owned())
    })
}

/// apt's HTTP proxy, if it has one.
#[must_use]
pub fn proxy() -> Option<String> {
    let output = Command::new("apt-config")
        .args(["shell", "PROXY", "Acquire::http::Proxy"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = text.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "http://a.example/debian-security\tbookworm-security\tDebian\n\
                       http://b.example/node/\tnodistro\tnode\n\
                       http://m.example/debian/\tbookworm\tDebian\n";
        assert_eq!(
            mirror_in(targets).as_deref(),
            Some("http://m.example/debian")
        );
        assert_eq!(mirror_in(""), None);
    }

    #[test]
    fn comments_and_empty_lines_of_a_recipe_do_not_count() {
        assert_eq!(lines("# why\n\n a \nb\n"), ["a", "b"]);
    }
}
