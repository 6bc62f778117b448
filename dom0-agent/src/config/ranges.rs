//! Ranges of host resources that a guest may use: I/O ports, interrupts, memory frames; and limits of its grant table.
//!
//! Kept for the JSON form; nothing gives them to a guest yet. What stock refuses is refused here in its wording.

use super::diag::Fatal;
use super::number::{c_long, radix_prefix};
use super::view::View;

/// I/O ports in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u32,
    /// How many, at least one.
    pub number: u32,
}

/// Memory frames in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRange {
    /// First frame of the host.
    pub start: u64,
    /// How many.
    pub number: u64,
    /// First frame in the guest, if it is another one.
    pub guest_frame: Option<u64>,
}

/// `3f8-3ff` or `2f8`, hexadecimal.
#[must_use]
pub fn parse_ports(text: &str) -> Option<PortRange> {
    let (first, rest) = radix_prefix(text, 16)?;
    let (last, rest) = match rest.strip_prefix('-') {
        Some(rest) => radix_prefix(rest, 16)?,
        None => (first, rest),
    };
    let first = u32::try_from(first).ok()?;
    let last = u32::try_from(last).ok().filter(|&last| last < u32::MAX)?;
    let number = last.checked_sub(first)? + 1;
    rest.is_empty().then_some(PortRange { first, number })
}

/// A decimal interrupt number.
#[must_use]
pub fn parse_irq(text: &str) -> Option<u32> {
    let (irq, rest) = radix_prefix(text, 10)?;
    u32::try_from(irq)
        .ok()
        .filter(|&irq| rest.is_empty() && irq < u32::MAX)
}

/// `START,NUMBER[@GUEST]`, hexadecimal frames.
#[must_use]
pub fn parse_frames(text: &str) -> Option<FrameRange> {
    let (start, rest) = radix_prefix(text, 16)?;
    let (number, rest) = radix_prefix(rest.strip_prefix(',')?, 16)?;
    let (guest_frame, rest) = match rest.strip_prefix('@') {
        Some(rest) => radix_prefix(rest, 16).map(|(frame, rest)| (Some(frame), rest))?,
        None => (None, rest),
    };
    rest.is_empty().then_some(FrameRange {
        start,
        number,
        guest_frame,
    })
}

/// Refuses ranges and grant limits that cannot be read.
pub(super) fn check(view: &View<'_>) -> Result<(), Fatal> {
    check_list(view, "ioports", "ioport", |text| {
        parse_ports(text).is_some()
    })?;
    check_list(view, "irqs", "irq", |text| parse_irq(text).is_some())?;
    check_list(view, "iomem", "iomem", |text| parse_frames(text).is_some())?;
    for key in [
        "max_grant_frames",
        "max_maptrack_frames",
        "max_grant_version",
    ] {
        let Some(text) = view.text(key) else { continue };
        let number = c_long(text).and_then(|number| i32::try_from(number).ok());
        if number.is_none_or(|number| number < 0) {
            let text = format!("xl: {key}={text} is not a number of 0 or more");
            return Err(Fatal::new(view.pos(key), text));
        }
    }
    Ok(())
}

fn check_list(view: &View<'_>, key: &str, what: &str, good: fn(&str) -> bool) -> Result<(), Fatal> {
    for (pos, text) in view.texts(key).into_iter().flatten() {
        if !good(text) {
            let text = format!("xl: Invalid argument parsing {what}: {text}");
            return Err(Fatal::new(Some(pos), text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_hexadecimal_and_interrupts_decimal() {
        let ports = |first, number| Some(PortRange { first, number });
        assert_eq!(parse_ports("3f8-3ff"), ports(0x3f8, 8));
        assert_eq!(parse_ports("2f8"), ports(0x2f8, 1));
        for wrong in ["", "x", "3ff-3f8", "1-", "1 2", "ffffffff", "100000000"] {
            assert_eq!(parse_ports(wrong), None, "{wrong}");
        }
        let frames = |start, number, guest_frame| {
            Some(FrameRange {
                start,
                number,
                guest_frame,
            })
        };
        assert_eq!(parse_frames("fe000,1"), frames(0xfe000, 1, None));
        assert_eq!(parse_frames("fd,2@a0"), frames(0xfd, 2, Some(0xa0)));
        for wrong in ["", "fe000", "fe000,", "fe,1@", "fe,1@1x", "fe,1,1"] {
            assert_eq!(parse_frames(wrong), None, "{wrong}");
        }
        assert_eq!(
            (parse_irq("10"), parse_irq("0x5"), parse_irq("")),
            (Some(10), None, None)
        );
    }
}
