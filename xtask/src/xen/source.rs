//! Debian's source of Xen from the package mirror, with Debian's patches and ours.
//!
//! The suite's index is fetched by `apt-get` into a folder of its own and believed for its signature; the archives are believed for their checksums in
//! that index. A mirror may have a newer index than archives, or lack the `.dsc` that `apt-get source` wants: the two archives are all that is taken, and
//! when those of the index are not there, those of the release that is recorded in `xen-patches/source`, with their checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use stack_tests::rig::key::Key;
use stack_tests::rig::{dirs, image};

use super::quietly;
use crate::deps::KEYRING;

/// The suite the series is made for.
const SUITE: &str = "trixie";
const PACKAGE: &str = "xen";
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
/// Where each release of the package says who and what it is.
const RECORD: &str = "source";
/// Source trees that are kept, the newest first; each is 1 GiB once built.
const KEEP: usize = 2;
/// File whose being there says that a tree is complete.
const COMPLETE: &str = ".complete";

/// A source tree with all patches applied.
#[derive(Debug)]
pub struct Tree {
    /// Its top.
    pub dir: PathBuf,
}

/// One release of the source package, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Release {
    version: String,
    /// Folder on the mirror.
    directory: String,
    /// Upstream's source, then Debian's part.
    archives: [Archive; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Archive {
    name: String,
    sha256: String,
}

/// The patched source, fetched and patched if it is not there.
pub fn patched(folder: &Path) -> Result<Tree> {
    let series = series()?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let archives = archives(folder)?;
    let mut key = Key::default().with(&archives.version);
    for (_, patch) in &series {
        key = key.with(changes_in(patch));
    }
    let dir = folder.join(format!("tree-{}", key.digits()));
    if !dir.join(COMPLETE).exists() {
        eprintln!(
            "xen: unpacking {PACKAGE} {} and applying {} patches of ours",
            archives.version,
            series.len()
        );
        let partial = dir.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        unpack(&archives, &partial)?;
        for (name, _) in &series {
            apply(&partial, &dirs::xen_patches().join(name)).with_context(|| {
                format!("the series does not fit {PACKAGE} {}", archives.version)
            })?;
        }
        fs::write(partial.join(COMPLETE), &archives.version)?;
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::rename(&partial, &dir)?;
        dirs::keep_newest(folder, "tree-", KEEP);
    }
    Ok(Tree { dir })
}

/// Our patches in their order.
fn series() -> Result<Vec<(String, Vec<u8>)>> {
    let folder = dirs::xen_patches();
    let path = folder.join("series");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    names_in(&text)
        .map(|name| {
            let path = folder.join(name);
            let patch =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((name.to_owned(), patch))
        })
        .collect()
}

/// A patch without the words before it, so that a sentence that changes is no reason to build anew.
fn changes_in(patch: &[u8]) -> &[u8] {
    let mark = b"\ndiff --git ";
    let start = patch.windows(mark.len()).position(|bytes| bytes == mark);
    start.map_or(patch, |start| &patch[start..])
}

/// The names in a `series` file.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
}

/// Both archives on this machine, checked.
struct Archives {
    version: String,
    files: [PathBuf; 2],
}

fn archives(folder: &Path) -> Result<Archives> {
    let record = dirs::xen_patches().join(RECORD);
    let recorded = fs::read_to_string(&record)
        .with_context(|| format!("cannot read {}", record.display()))
        .and_then(|text| parse_record(&text).context("xen-patches/source is damaged"))?;
    let mirror = image::mirror()?;
    let current = match current(&folder.join("apt"), &mirror) {
        Ok(current) => Some(current),
        Err(error) => {
            eprintln!("xen: the index of {SUITE} cannot be had: {error:#}; going on without it");
            None
        }
    };
    if let Some(current) = current.filter(|current| *current != recorded) {
        match download(folder, &mirror, &current) {
            Ok(archives) => return Ok(archives),
            Err(error) => eprintln!(
                "xen: the mirror's index names {PACKAGE} {}, whose source it does not give ({error:#}); taking {}, which the series was made with",
                current.version, recorded.version
            ),
        }
    }
    download(folder, &mirror, &recorded).with_context(|| {
        format!(
            "the source of {PACKAGE} {} is not to be had either",
            recorded.version
        )
    })
}

/// The release that the suite's signed index names.
fn current(state: &Path, mirror: &str) -> Result<Release> {
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(state.join(part))?;
    }
    let list = state.join("sources.list");
    fs::write(
        &list,
        format!("deb-src [signed-by={}] {mirror} {SUITE} main\n", KEYRING.0),
    )?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        for (option, path) in [
            ("Dir::State", state),
            ("Dir::State::lists", &state.join("lists")),
            ("Dir::Cache", &state.join("cache")),
            ("Dir::Etc::sourcelist", &list),
            ("Dir::Etc::sourceparts", Path::new("/dev/null")),
        ] {
            command.args(["-o", &format!("{option}={}", path.display())]);
        }
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    };
    quietly(apt("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))?;
    let stanza = quietly(apt("apt-cache").args(["showsrc", "--only-source", PACKAGE]))?;
    parse_stanza(&stanza).with_context(|| format!("{SUITE} has no source package {PACKAGE}"))
}

/// The first release in what `apt-cache showsrc` prints.
fn parse_stanza(text: &str) -> Option<Release> {
    let stanza = text.trim_start().split("\n\n").next()?;
    let field = |name: &str| {
        let mut lines = stanza.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some((value.trim().to_owned(), lines))
    };
    let (_, sums) = field("Checksums-Sha256")?;
    let files: Vec<Archive> = sums
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (sha256, _size, name) = (words.next()?, words.next()?, words.next()?);
            Some(Archive {
                name: name.to_owned(),
                sha256: sha256.to_owned(),
            })
        })
        .collect();
    Some(Release {
        version: field("Version")?.0,
        directory: field("Directory")?.0,
        archives: archives_among(&files)?,
    })
}

/// `version`, `directory` and two `sha256 SUM NAME`, one a line.
fn parse_record(text: &str) -> Option<Release> {
    let lines = || {
        let plain = |line: &&str| !line.is_empty() && !line.starts_with('#');
        text.lines().map(str::trim).filter(plain)
    };
    let value = |name: &str| {
        lines().find_map(|line| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(' ')?
                    .trim()
                    .to_owned(),
            )
        })
    };
    let files: Vec<Archive> = lines()
        .filter_map(|line| {
            let (sha256, name) = line.strip_prefix("sha256 ")?.split_once(' ')?;
            Some(Archive {
                name: name.trim().to_owned(),
                sha256: sha256.to_owned(),
            })
        })
        .collect();
    Some(Release {
        version: value("version")?,
        directory: value("directory")?,
        archives: archives_among(&files)?,
    })
}

fn archives_among(files: &[Archive]) -> Option<[Archive; 2]> {
    let ending = |end: &str| files.iter().find(|file| file.name.ends_with(end)).cloned();
    let both = [ending(".orig.tar.xz")?, ending(".debian.tar.xz")?];
    both.iter().all(Archive::is_sound).then_some(both)
}

impl Archive {
    /// A plain file name and a whole checksum: the name becomes a path, and an empty checksum would be no check.
    fn is_sound(&self) -> bool {
        !self.name.contains('/')
            && self.sha256.len() == 64
            && self.sha256.bytes().all(|digit| digit.is_ascii_hexdigit())
    }
}

/// Fetches what is not there yet; apt checks the sums.
fn download(folder: &Path, mirror: &str, release: &Release) -> Result<Archives> {
    let downloads = folder.join("archives");
    fs::create_dir_all(&downloads)?;
    let fetch = |archive: &Archive| {
        let file = downloads.join(&archive.name);
        if file.exists() && has_sum(&file, &archive.sha256)? {
            return Ok(file);
        }
        eprintln!("xen: fetching {}", archive.name);
        let partial = downloads.join(format!("{}.partial", archive.name));
        let url = format!("{mirror}/{}/{}", release.directory, archive.name);
        let mut command = Command::new(APT_HELPER);
        if let Some(proxy) = image::proxy() {
            command.args(["-o", &format!("Acquire::http::Proxy={proxy}")]);
        }
        command
            .args(["-o", "APT::Sandbox::User=root", "download-file", &url])
            .arg(&partial)
            .arg(format!("SHA256:{}", archive.sha256));
        quietly(&mut command)?;
        ensure!(
            has_sum(&partial, &archive.sha256)?,
            "{} has another checksum than the index says",
            archive.name
        );
        fs::rename(&partial, &file)?;
        Ok(file)
    };
    let [upstream, debian] = &release.archives;
    Ok(Archives {
        version: release.version.clone(),
        files: [fetch(upstream)?, fetch(debian)?],
    })
}

fn has_sum(file: &Path, sha256: &str) -> Result<bool> {
    let said = quietly(Command::new("sha256sum").arg("--").arg(file))?;
    Ok(said.split_whitespace().next() == Some(sha256))
}

/// Unpacks both archives and applies Debian's patches.
fn unpack(archives: &Archives, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let [upstream, debian] = &archives.files;
    let tar = |file: &Path, strip: &str| {
        let mut command = Command::new("tar");
        command.arg("-xJf").arg(file).arg("-C").arg(dir);
        quietly(command.arg(strip).arg("--no-same-owner"))
    };
    tar(upstream, "--strip-components=1")?;
    tar(debian, "--strip-components=0")?;
    let patches = dir.join("debian/patches");
    let series = fs::read_to_string(patches.join("series"))
        .context("the archives are not what Debian's source package holds")?;
    for name in names_in(&series) {
        apply(dir, &patches.join(name)).context("one of Debian's own patches does not apply")?;
    }
    Ok(())
}

/// Applies one patch to the tree.
fn apply(tree: &Path, patch: &Path) -> Result<()> {
    let file = fs::File::open(patch).with_context(|| format!("cannot read {}", patch.display()))?;
    let output = Command::new("patch")
        .args(["-p1", "--forward", "--batch", "--no-backup-if-mismatch"])
        .current_dir(tree)
        .stdin(Stdio::from(file))
        .output()
        .context("cannot run patch")?;
    if !output.status.success() {
        bail!(
            "{} does not apply: {}",
            patch.display(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn archives_and_sums_are_read_from_the_index() {
        let text = format!(
            "\nPackage: xen\nVersion: 4.20.9-1\nFiles:\n 00 1 xen_4.dsc\nChecksums-Sha256:\n {SUM} 1 xen_4.dsc\n {SUM} 2 xen_4.orig.tar.xz\n \
             {SUM} 3 xen_4-1.debian.tar.xz\nHomepage: x\nDirectory: pool/x\n\nPackage: xen\nVersion: 1\n"
        );
        let release = parse_stanza(&text).unwrap();
        assert_eq!(release.version, "4.20.9-1");
        assert_eq!(release.directory, "pool/x");
        let names = release.archives.map(|archive| archive.name);
        assert_eq!(names, ["xen_4.orig.tar.xz", "xen_4-1.debian.tar.xz"]);
    }

    #[test]
    fn a_record_without_a_whole_checksum_is_no_record() {
        let record = |sum: &str| {
            format!(
                "# why\nversion 4\ndirectory pool/x\nsha256 {SUM} xen.orig.tar.xz\nsha256 {sum} xen.debian.tar.xz\n"
            )
        };
        assert!(parse_record(&record(SUM)).is_some());
        for bad in [&SUM[1..], "", "-"] {
            assert_eq!(parse_record(&record(bad)), None, "{bad}");
        }
        let elsewhere = record(SUM).replace("xen.debian", "../xen.debian");
        assert_eq!(parse_record(&elsewhere), None);
    }

    #[test]
    fn the_record_that_is_shipped_can_be_read_and_every_patch_of_the_series_is_there() {
        let text = fs::read_to_string(dirs::xen_patches().join(RECORD)).unwrap();
        assert!(parse_record(&text).is_some());
        assert!(!series().unwrap().is_empty());
    }

    #[test]
    fn only_what_a_patch_changes_makes_another_tree() {
        let (before, after) = (
            b"why\ndiff --git a/x b/x\n+1\n",
            b"why not\ndiff --git a/x b/x\n+1\n",
        );
        assert_eq!(changes_in(before), changes_in(after));
        assert_eq!(changes_in(b"+1"), b"+1");
    }

    #[test]
    fn a_file_with_another_checksum_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        fs::write(&file, b"x").unwrap();
        assert!(!has_sum(&file, SUM).unwrap());
    }
}
