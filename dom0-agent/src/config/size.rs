//! Memory sizes on the command line: `mem-set`, `mem-max`.

use super::number::radix_prefix;

/// A size in KiB from an integer with at most one unit letter (t, g, m, k, b, either case).
///
/// Without a letter the unit is MiB, whatever xl(1) says. An empty text is 0, as in stock; a negative size, another
/// letter and a size beyond 64 bits give `None`, for which xl says `invalid memory size`.
///
/// ```
/// use dom0_agent::config::size::memory_kib;
/// assert_eq!(memory_kib("128"), Some(128 * 1024));
/// assert_eq!(memory_kib("2g"), Some(2 * 1024 * 1024));
/// assert_eq!(memory_kib("1x"), None);
/// ```
#[must_use]
pub fn memory_kib(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let (value, unit) = match radix_prefix(text, 10) {
        Some(read) => read,
        None if text.is_empty() || text.len() == 1 => (0, text),
        None => return None,
    };
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "t" => 1 << 30,
        "g" => 1 << 20,
        "" | "m" => 1 << 10,
        "k" => 1,
        "b" => return Some(value >> 10),
        _ => return None,
    };
    value.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_mebibytes() {
        let cases = [
            ("512", Some(512 << 10)),
            ("512m", Some(512 << 10)),
            ("512M", Some(512 << 10)),
            ("3G", Some(3 << 20)),
            ("1t", Some(1 << 30)),
            ("77k", Some(77)),
            ("2047b", Some(1)),
            ("", Some(0)),
            (" 8", Some(8 << 10)),
            ("010", Some(10 << 10)),
            ("-1", None),
            ("1kk", None),
            ("1q", None),
            ("abc", None),
            ("99999999999999999999", None),
            ("18446744073709551615t", None),
        ];
        for (text, want) in cases {
            assert_eq!(memory_kib(text), want, "{text:?}");
        }
    }
}
