//! TCP and ping between dom0 and a guest, over the bridge.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guest::BenchGuest;
use super::sample::Sample;
use crate::rig::deadline;

/// Where Debian's iperf3 lies.
pub const IPERF: &str = "/usr/bin/iperf3";
/// Timed part of one round, in seconds: with a number of bytes instead, iperf3 rounds the time up to a second.
const SECONDS: &str = "1";
/// Pings of one round.
const PINGS: &str = "100";
/// Pings of one flood.
const FLOOD: &str = "500";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// TCP from dom0, in Mb/s.
    ToGuest,
    /// TCP to dom0, in Mb/s.
    FromGuest,
    /// Median of the round trips of single pings, in microseconds.
    Ping,
    /// Mean of the round trips when the next ping follows the answer at once, in microseconds.
    Flood,
}

impl Load {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::ToGuest, Self::FromGuest, Self::Ping, Self::Flood];

    /// Its line in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ToGuest => "TCP, dom0 to guest, Mb/s",
            Self::FromGuest => "TCP, guest to dom0, Mb/s",
            Self::Ping => "ping of 64 bytes, median, us",
            Self::Flood => "flood ping of 64 bytes, mean, us",
        }
    }

    /// Least ratio to netback that is aimed at.
    #[must_use]
    pub fn target(self) -> Option<f64> {
        match self {
            Self::ToGuest | Self::FromGuest => Some(0.6),
            Self::Ping | Self::Flood => None,
        }
    }
}

/// Starts what the guest contributes, and has both ends learn each other's address.
///
/// # Errors
/// When the guest cannot be reached.
pub fn prepare(guest: &BenchGuest<'_>) -> Result<()> {
    guest.sh(&format!("{IPERF} -s -D"))?;
    guest.host.wait_until(
        &format!("ping -c 1 -W 1 -q {}", guest.address),
        deadline::SETTLE,
    )
}

/// Does `load` `rounds` times.
///
/// # Errors
/// When a tool fails.
pub fn run(guest: &BenchGuest<'_>, load: Load, rounds: u32) -> Result<Sample> {
    let round = || match load {
        Load::ToGuest => tcp(guest, &[]),
        Load::FromGuest => tcp(guest, &["-R"]),
        Load::Ping => ping(guest),
        Load::Flood => flood(guest),
    };
    Sample::of((0..rounds).map(|_| round()).collect::<Result<_>>()?)
}

fn tcp(guest: &BenchGuest<'_>, more: &[&str]) -> Result<f64> {
    let mut argv = vec![IPERF, "-c", &guest.address, "-t", SECONDS, "-J"];
    argv.extend(more);
    let text = guest.host.ok(&argv)?;
    let answer: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
    let bits = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3 printed no result: {text}"))? / 1e6)
}

fn ping(guest: &BenchGuest<'_>) -> Result<f64> {
    let text = guest
        .host
        .ok(&["ping", "-n", "-c", PINGS, "-i", "0.002", &guest.address])?;
    let mut times: Vec<f64> = text.lines().filter_map(round_trip).collect();
    ensure!(!times.is_empty(), "ping printed {text:?}");
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2] * 1e3)
}

/// Milliseconds of one line of ping.
fn round_trip(line: &str) -> Option<f64> {
    let (_, time) = line.split_once(" time=")?;
    time.split(' ').next()?.parse().ok()
}

fn flood(guest: &BenchGuest<'_>) -> Result<f64> {
    let text = guest
        .host
        .ok(&["ping", "-n", "-f", "-q", "-c", FLOOD, &guest.address])?;
    mean(&text).with_context(|| format!("ping printed {text:?}"))
}

/// Microseconds, from the summary `rtt min/avg/max/mdev = A/B/C/D ms`; `None` when a ping was lost.
fn mean(text: &str) -> Option<f64> {
    text.contains(" 0% packet loss").then_some(())?;
    let (_, numbers) = text.split_once("min/avg/max/mdev = ")?;
    Some(numbers.split('/').nth(1)?.parse::<f64>().ok()? * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_read() {
        let line = "64 bytes from 10.77.0.30: icmp_seq=2 ttl=64 time=0.169 ms";
        assert_eq!(round_trip(line), Some(0.169));
        let text = "9 packets transmitted, 9 received, 0% packet loss, time 1ms\nrtt min/avg/max/mdev = 0.1/0.2/0.3/0.4 ms, ipg/ewma 0.1/0.2 ms\n";
        assert_eq!(mean(text), Some(200.0));
        assert_eq!(mean(&text.replace(" 0%", " 10%")), None);
    }
}
