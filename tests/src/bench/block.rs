//! fio in a guest, on the same file in dom0's memory behind each backend.

use anyhow::{Context, Result, ensure};

use super::guest::BenchGuest;
use super::sample::Sample;

/// Where Debian's fio lies.
pub const FIO: &str = "/usr/bin/fio";
/// Timed part of one round.
const RUNTIME: &str = "250ms";
/// What is not counted before it: maps, caches, first events.
const RAMP: &str = "50ms";

/// What fio does.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Its line in the table.
    pub name: &'static str,
    pattern: &'static str,
    bytes: &'static str,
    depth: u32,
    unit: Unit,
    /// Least ratio to qdisk and to blkback that is aimed at.
    pub target: Option<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Iops,
    MegabytesPerSecond,
}

const DEPTH_32: Option<(f64, f64)> = Some((1.6, 0.8));

/// Every load, in the order of the table.
pub const LOADS: [Load; 6] = [
    load("4 KiB random read, depth 1, IOPS", "randread", 1, None),
    load(
        "4 KiB random read, depth 32, IOPS",
        "randread",
        32,
        DEPTH_32,
    ),
    load("4 KiB random write, depth 1, IOPS", "randwrite", 1, None),
    load(
        "4 KiB random write, depth 32, IOPS",
        "randwrite",
        32,
        DEPTH_32,
    ),
    long("128 KiB sequential read, depth 32, MB/s", "read"),
    long("128 KiB sequential write, depth 32, MB/s", "write"),
];

const fn load(
    name: &'static str,
    pattern: &'static str,
    depth: u32,
    target: Option<(f64, f64)>,
) -> Load {
    Load {
        name,
        pattern,
        bytes: "4k",
        depth,
        unit: Unit::Iops,
        target,
    }
}

const fn long(name: &'static str, pattern: &'static str) -> Load {
    Load {
        name,
        pattern,
        bytes: "128k",
        depth: 32,
        unit: Unit::MegabytesPerSecond,
        target: DEPTH_32,
    }
}

/// Does all of [`LOADS`] `rounds` times in `guest`; a figure for each.
///
/// # Errors
/// When fio cannot run or reports an error.
pub fn run(guest: &BenchGuest<'_>, rounds: u32) -> Result<Vec<Sample>> {
    let mut values = vec![Vec::new(); LOADS.len()];
    for _ in 0..rounds {
        let text = guest.sh(&command())?;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("3;")).collect();
        ensure!(lines.len() == LOADS.len(), "fio printed {text:?}");
        for ((load, line), values) in LOADS.iter().zip(lines).zip(&mut values) {
            let (error, bandwidth, iops) =
                read(line, load.pattern).with_context(|| format!("fio printed {line:?}"))?;
            ensure!(error == 0, "{}: fio ended with error {error}", load.name);
            values.push(match load.unit {
                Unit::Iops => iops,
                Unit::MegabytesPerSecond => bandwidth * 1024.0 / 1e6,
            });
        }
    }
    values.into_iter().map(Sample::of).collect()
}

/// One fio for all loads, one after another: its start costs more than a load.
fn command() -> String {
    let mut line = format!(
        "{FIO} --minimal --terse-version=3 --filename=/dev/xvda --direct=1 --ioengine=libaio --thread --norandommap \
         --time_based --runtime={RUNTIME} --ramp_time={RAMP}"
    );
    for (place, load) in LOADS.iter().enumerate() {
        let Load {
            pattern,
            bytes,
            depth,
            ..
        } = load;
        line += &format!(
            " --name=load{place} --stonewall --rw={pattern} --bs={bytes} --iodepth={depth}"
        );
    }
    line
}

/// Error, KiB/s and IOPS of fio's terse output, version 3 (fio(1), "TERSE OUTPUT").
fn read(line: &str, pattern: &str) -> Option<(u32, f64, f64)> {
    let fields: Vec<&str> = line.trim().split(';').collect();
    // Five general fields; then total KiB, KiB/s, IOPS ... of reads, and from field 47 on the same of writes.
    let first = if pattern.ends_with("write") { 46 } else { 5 };
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((
        fields.get(4)?.parse().ok()?,
        number(first + 1)?,
        number(first + 2)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn reads_and_writes_have_their_own_fields() {
        let mut fields = vec!["0".to_owned(); 130];
        fields[0] = "3".into();
        (fields[6], fields[7]) = ("4000".into(), "1000".into());
        (fields[47], fields[48]) = ("8000".into(), "2000".into());
        let line = fields.join(";");
        assert_eq!(read(&line, "randread"), Some((0, 4000.0, 1000.0)));
        assert_eq!(read(&line, "randwrite"), Some((0, 8000.0, 2000.0)));
        assert_eq!(read(&line, "write"), Some((0, 8000.0, 2000.0)));
        assert_eq!(read("3;fio-3.39", "read"), None);
    }
}
