//! Numbers as the C library reads them, because xl.cfg inherits that reading.
//!
//! Every function is total: what does not fit or is no number gives `None`.

/// `strtol(text, .., 0)` over a whole text: blanks before, a sign, `0x` hexadecimal, leading `0` octal, else decimal.
#[must_use]
pub fn c_long(text: &str) -> Option<i64> {
    let (value, rest) = c_long_prefix(text)?;
    rest.is_empty().then_some(value)
}

/// As [`c_long`], also giving what follows the number.
#[must_use]
pub fn c_long_prefix(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (magnitude, rest) = c_unsigned_prefix(digits)?;
    let value = i128::from(magnitude) * if negative { -1 } else { 1 };
    i64::try_from(value).ok().map(|v| (v, rest))
}

/// `strtoull(text, .., 0)` without blanks and sign, giving what follows the number.
#[must_use]
pub fn c_unsigned_prefix(text: &str) -> Option<(u64, &str)> {
    let bytes = text.as_bytes();
    let hexadecimal = bytes.len() > 2
        && bytes[0] == b'0'
        && matches!(bytes[1], b'x' | b'X')
        && bytes[2].is_ascii_hexdigit();
    let (radix, digits) = match bytes.first()? {
        b'0' if hexadecimal => (16, &text[2..]),
        b'0' => (8, text),
        _ => (10, text),
    };
    radix_prefix(digits, radix)
}

/// Digits of `radix` at the start of a text, and what follows them.
#[must_use]
pub fn radix_prefix(text: &str, radix: u32) -> Option<(u64, &str)> {
    let length = text.chars().take_while(|c| c.is_digit(radix)).count();
    let value = u64::from_str_radix(&text[..length], radix).ok()?;
    Some((value, &text[length..]))
}

/// `strtoul(text, .., 10)`: decimal digits at the start of a text, whatever follows.
#[must_use]
pub fn decimal_prefix(text: &str) -> Option<u64> {
    radix_prefix(text.trim_start(), 10).map(|(value, _)| value)
}

/// `atoi(text)`: a decimal number at the start, 0 if there is none or it is out of range.
#[must_use]
pub fn atoi(text: &str) -> i32 {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = radix_prefix(digits, 10)
        .and_then(|(v, _)| i32::try_from(v).ok())
        .unwrap_or(0);
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_c() {
        let cases = [
            ("12", Some(12)),
            (" -5", Some(-5)),
            ("+7", Some(7)),
            ("0x1F", Some(31)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("08", None),
            ("0x", None),
            ("12k", None),
            ("", None),
            ("-", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
        ];
        for (text, want) in cases {
            assert_eq!(c_long(text), want, "{text:?}");
        }
    }

    #[test]
    fn prefixes_stop_at_the_first_other_character() {
        assert_eq!(c_long_prefix("0x10zz"), Some((16, "zz")));
        assert_eq!(c_long_prefix("0xg"), Some((0, "xg")));
        assert_eq!(decimal_prefix("010px"), Some(10));
        assert_eq!(decimal_prefix("x"), None);
        assert_eq!(
            (atoi("3x"), atoi("-4"), atoi("x"), atoi("99999999999")),
            (3, -4, 0, 0)
        );
    }
}
