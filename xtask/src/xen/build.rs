//! The hypervisor out of a source tree, as Debian configures it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use stack_tests::rig::dirs;

use super::quietly;
use super::source::Tree;

/// What the build makes: uncompressed, as QEMU loads it.
const MADE: &str = "xen/xen";
/// Says that [`MADE`] is of a build that ended well.
const BUILT: &str = ".built";
const LOG: &str = "build.log";
/// Time between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(20);
/// Last lines of the log that are shown when it fails.
const TAIL: usize = 30;

/// The built hypervisor where lab hosts look for it.
pub fn hypervisor(tree: &Tree) -> Result<PathBuf> {
    let made = tree.dir.join(MADE);
    if !tree.dir.join(BUILT).exists() {
        build(&tree.dir)?;
        fs::write(tree.dir.join(BUILT), "")?;
    }
    let place = dirs::patched_xen();
    let content = fs::read(&made).with_context(|| format!("cannot read {}", made.display()))?;
    // The same bytes are left alone: booted hosts know the file.
    if fs::read(&place).is_ok_and(|there| there == content) {
        return Ok(place);
    }
    let partial = place.with_extension("partial");
    fs::write(&partial, content)
        .and_then(|()| fs::rename(&partial, &place))
        .with_context(|| format!("cannot put {} in place", place.display()))?;
    Ok(place)
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.args(["-C", "xen", "XEN_TARGET_ARCH=x86_64"])
        .current_dir(tree)
        // Flags of a cargo that runs this are none of its business.
        .env_remove("MAKEFLAGS")
        .env_remove("CARGO_MAKEFLAGS");
    make
}

fn build(tree: &Path) -> Result<()> {
    let began = Instant::now();
    fs::copy(tree.join("debian/xen-kconfig"), tree.join("xen/.config"))
        .context("the tree has no configuration of Debian's")?;
    quietly(make(tree).arg("olddefconfig"))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!("xen: building the hypervisor (about four minutes on two cores, once)");
    let log = tree.join(LOG);
    let mut child = make(tree)
        .arg(format!("-j{jobs}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?)
        .spawn()
        .context("cannot run make")?;
    let mut written = File::options().append(true).open(&log)?;
    let (mut files, mut told) = (0_u32, Instant::now());
    if let Some(lines) = child.stdout.take() {
        for line in BufReader::new(lines).split(b'\n') {
            let mut line = line?;
            line.push(b'\n');
            written.write_all(&line)?;
            files += u32::from(is_a_file(&line));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                eprintln!(
                    "xen: {files} files compiled after {:.0} s",
                    began.elapsed().as_secs_f64()
                );
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        bail!(
            "the hypervisor does not build ({status}); the end of {}:\n{}",
            log.display(),
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        );
    }
    eprintln!(
        "xen: {files} files compiled, hypervisor built in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A line such as `  CC      common/domain.o`.
fn is_a_file(line: &[u8]) -> bool {
    [&b"  CC "[..], b"  AS ", b"  HOSTCC "]
        .iter()
        .any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::is_a_file;

    #[test]
    fn compiled_files_are_counted_and_linked_ones_are_not() {
        assert!(is_a_file(b"  CC      common/domain.o\n"));
        assert!(!is_a_file(b"  LD      prelink.o\n"));
        assert!(!is_a_file(b"make: Entering directory\n"));
    }
}
