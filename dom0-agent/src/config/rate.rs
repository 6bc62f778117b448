//! Transmit rates: `N[GMK](b|B)/s[@N(us|ms|s)]`.
//!
//! `b` is bits, `B` bytes; G, M and K are powers of 1000. The interval after `@` is how often the credit is renewed,
//! 50 ms if it is not said, seconds if it has no unit. Numbers start with 0 for octal, as in C.

use serde::{Deserialize, Serialize};

use super::number::c_unsigned_prefix;

/// Limit on what a guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes that may be sent in one interval.
    pub bytes_per_interval: u64,
    /// Length of an interval in microseconds.
    pub interval_us: u32,
}

/// Why a rate is refused, in stock's wording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: config parsing error in vif: {what} in `{text}'")]
pub struct RateError {
    /// What the message starts with.
    pub source_name: String,
    /// What is wrong.
    pub what: &'static str,
    /// The part of the rate that is wrong.
    pub text: String,
}

/// Renewal interval where none is given, in microseconds.
const DEFAULT_INTERVAL_US: u32 = 50_000;
const US_PER_S: u64 = 1_000_000;

/// Reads a rate. `source` is what an error message starts with.
///
/// # Errors
/// The text is no rate, or a number in it is 0 or too large.
pub fn parse_rate(source: &str, rate: &str) -> Result<Rate, RateError> {
    let refuse = |what: &'static str, text: &str| RateError {
        source_name: source.into(),
        what,
        text: text.into(),
    };
    let (speed, interval) = match rate.split_once('@') {
        Some((speed, interval)) => (speed, Some(interval)),
        None => (rate, None),
    };
    if speed.is_empty() {
        return Err(refuse("no rate specified", rate));
    }
    let bytes_per_s = bytes_per_second(speed).map_err(|what| refuse(what, speed))?;
    let interval_us = match interval {
        Some(text) => interval_us(text).map_err(|what| refuse(what, text))?,
        None => DEFAULT_INTERVAL_US,
    };
    let total = bytes_per_s
        .checked_mul(u64::from(interval_us))
        .ok_or_else(|| refuse("rate overflow", rate))?;
    Ok(Rate {
        bytes_per_interval: total / US_PER_S,
        interval_us,
    })
}

fn bytes_per_second(text: &str) -> Result<u64, &'static str> {
    let (digits, unit) = split_digits(text).ok_or("invalid rate")?;
    let (scale, unit) = match unit.as_bytes().first() {
        Some(b'G') => (1_000_000_000, &unit[1..]),
        Some(b'M') => (1_000_000, &unit[1..]),
        Some(b'K') => (1_000, &unit[1..]),
        _ => (1, unit),
    };
    let bits = match unit {
        "b/s" => true,
        "B/s" => false,
        _ => return Err("invalid rate"),
    };
    let speed = u64::from(positive(digits).ok_or("rate overflow")?) * scale;
    Ok(if bits { speed / 8 } else { speed })
}

fn interval_us(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "invalid replenishment interval";
    const TOO_LARGE: &str = "replenishment interval overflow";
    let (digits, unit) = split_digits(text).ok_or(WRONG)?;
    let scale = match unit {
        "" | "s" => US_PER_S,
        "m" | "ms" => 1_000,
        "u" | "us" => 1,
        _ => return Err(WRONG),
    };
    let interval = u64::from(positive(digits).ok_or(TOO_LARGE)?) * scale;
    u32::try_from(interval).map_err(|_| TOO_LARGE)
}

fn split_digits(text: &str) -> Option<(&str, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    (length > 0).then(|| text.split_at(length))
}

/// A number of 1 to 2^32-1 in C notation; what follows octal digits is ignored, as in stock.
fn positive(digits: &str) -> Option<u32> {
    let (value, _) = c_unsigned_prefix(digits)?;
    u32::try_from(value).ok().filter(|&v| v > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_bytes_in_an_interval() {
        let cases = [
            ("16000000b/s", 100_000, 50_000),
            ("16000000b/s@50ms", 100_000, 50_000),
            ("2000000B/s", 100_000, 50_000),
            ("16Kb/s", 100, 50_000),
            ("2KB/s@50ms", 100, 50_000),
            ("16Mb/s", 100_000, 50_000),
            ("1GB/s", 50_000_000, 50_000),
            ("8Gb/s@50ms", 50_000_000, 50_000),
            ("80Mb/s@1s", 10_000_000, 1_000_000),
            ("10MB/s@1", 10_000_000, 1_000_000),
            ("10MB/s@100u", 1_000, 100),
            ("4294967295GB/s@1us", 4_294_967_295_000, 1),
        ];
        for (text, bytes, interval) in cases {
            let want = Rate {
                bytes_per_interval: bytes,
                interval_us: interval,
            };
            assert_eq!(parse_rate("f", text), Ok(want), "{text}");
        }
    }

    #[test]
    fn wrong_rates_are_refused_in_stock_wording() {
        let cases = [
            ("foo", "invalid rate in `foo'"),
            ("10MB", "invalid rate in `10MB'"),
            ("10MB/m", "invalid rate in `10MB/m'"),
            ("10ZB/s", "invalid rate in `10ZB/s'"),
            ("@", "no rate specified in `@'"),
            ("0B/s", "rate overflow in `0B/s'"),
            ("08B/s", "rate overflow in `08B/s'"),
            ("4294967296b/s", "rate overflow in `4294967296b/s'"),
            ("10Mb/s@foo", "invalid replenishment interval in `foo'"),
            ("10Mb/s@10h", "invalid replenishment interval in `10h'"),
            ("1B/s@0us", "replenishment interval overflow in `0us'"),
            (
                "1B/s@4294967296us",
                "replenishment interval overflow in `4294967296us'",
            ),
            ("1B/s@4295s", "replenishment interval overflow in `4295s'"),
            (
                "4294967295GB/s@5us",
                "rate overflow in `4294967295GB/s@5us'",
            ),
            ("4296MB/s@4294s", "rate overflow in `4296MB/s@4294s'"),
        ];
        for (text, want) in cases {
            let error = parse_rate("x.cfg", text).unwrap_err().to_string();
            assert_eq!(error, format!("x.cfg: config parsing error in vif: {want}"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9GMKbB/s@mu]{0,30}") {
            let _ = parse_rate("f", &text);
        }
    }
}
