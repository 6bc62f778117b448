//! Names of virtual disks and the numbers that xenstore and the guest know them by.
//!
//! | name | disks, partitions | number |
//! |---|---|---|
//! | `xvda` .. , `d0p0` .. | 0-15, 0-15 | `202 << 8 \| disk << 4 \| partition` |
//! | the same | up to 2^20-1, 255 | `1 << 28 \| disk << 8 \| partition` |
//! | `hda` .. `hdd` | 0-3, 0-63 | `3 or 22 << 8 \| (disk & 1) << 6 \| partition` |
//! | `sda` .. `sdp` | 0-15, 0-15 | `8 << 8 \| disk << 4 \| partition` |
//! | a plain number | | itself |
//!
//! Source: xen-vbd-interface(7).

use super::number::c_unsigned_prefix;

/// Bit that marks the extended encoding.
const EXTENDED: u32 = 1 << 28;
/// Highest disk of the extended encoding.
const MAX_DISK: u32 = (1 << 20) - 1;
/// Highest partition of the extended encoding.
const MAX_PARTITION: u32 = 255;

/// The device number of a virtual disk, or `None` if the name follows none of the schemes.
///
/// ```
/// use dom0_agent::config::vdev::vdev_number;
/// assert_eq!(vdev_number("xvda"), Some(51712));
/// assert_eq!(vdev_number("xvdq"), Some(0x1000_1000));
/// assert_eq!(vdev_number("hdb1"), Some(833));
/// ```
#[must_use]
pub fn vdev_number(name: &str) -> Option<u32> {
    if let Some((disk, partition)) =
        d_scheme(name).or_else(|| letters(name, "xvd", MAX_DISK, MAX_PARTITION))
    {
        return Some(if disk <= 15 && partition <= 15 {
            (202 << 8) | (disk << 4) | partition
        } else {
            EXTENDED | (disk << 8) | partition
        });
    }
    if let Some((number, "")) = c_unsigned_prefix(name) {
        return u32::try_from(number)
            .ok()
            .filter(|&n| n <= i32::MAX.cast_unsigned());
    }
    if let Some((disk, partition)) = letters(name, "hd", 3, 63) {
        let major = if disk < 2 { 3 } else { 22 };
        return Some((major << 8) | ((disk & 1) << 6) | partition);
    }
    let (disk, partition) = letters(name, "sd", 15, 15)?;
    Some((8 << 8) | (disk << 4) | partition)
}

/// The `xvd` name for a device number, as stock shows it: the guest decides the real one.
#[must_use]
pub fn vdev_name(number: u32) -> String {
    let (minor, parts) = if number & EXTENDED == 0 {
        (number & 0xff, 16)
    } else {
        (number & !EXTENDED, 256)
    };
    let mut name = String::from("xvd");
    name.push_str(&disk_letters(minor / parts));
    if minor % parts != 0 {
        name.push_str(&(minor % parts).to_string());
    }
    name
}

/// `d<disk>p<partition>`, numbers in C notation.
fn d_scheme(name: &str) -> Option<(u32, u32)> {
    let (disk, rest) = c_unsigned_prefix(name.strip_prefix('d')?)?;
    let (partition, rest) = c_unsigned_prefix(rest.strip_prefix('p')?)?;
    let (disk, partition) = (u32::try_from(disk).ok()?, u32::try_from(partition).ok()?);
    (rest.is_empty() && disk <= MAX_DISK && partition <= MAX_PARTITION).then_some((disk, partition))
}

/// `<prefix><letters>[<partition>]`, letters counting a..z, aa..
fn letters(name: &str, prefix: &str, max_disk: u32, max_partition: u32) -> Option<(u32, u32)> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let mut disk = None;
    for letter in rest[..rest.len() - digits.len()].bytes() {
        let before = disk.map_or(0, |d: u32| (d + 1) * 26);
        let index = before + u32::from(letter - b'a');
        if index > max_disk {
            return None;
        }
        disk = Some(index);
    }
    if digits.is_empty() {
        return Some((disk?, 0));
    }
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    let partition: u32 = digits.parse().ok().filter(|_| plain)?;
    (partition <= max_partition).then_some((disk?, partition))
}

fn disk_letters(disk: u32) -> String {
    let mut text = if disk >= 26 {
        disk_letters(disk / 26 - 1)
    } else {
        String::new()
    };
    text.push(char::from(b'a' + u8::try_from(disk % 26).unwrap_or(0)));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_have_their_numbers() {
        let cases = [
            ("xvda", Some(51712)),
            ("xvda1", Some(51713)),
            ("xvdp15", Some(51967)),
            ("xvda16", Some(EXTENDED | 16)),
            ("xvdq", Some(EXTENDED | (16 << 8))),
            ("xvdaa1", Some(EXTENDED | (26 << 8) | 1)),
            ("d0p0", Some(51712)),
            ("d536p37", Some(EXTENDED | (536 << 8) | 37)),
            ("d0x10p0x1", Some(EXTENDED | (16 << 8) | 1)),
            ("hda", Some(768)),
            ("hdb", Some(832)),
            ("hdc", Some(5632)),
            ("hdd63", Some(5632 + 64 + 63)),
            ("sda", Some(2048)),
            ("sdp15", Some(2048 + 255)),
            ("51712", Some(51712)),
            ("0xca00", Some(51712)),
            ("hde", None),
            ("hda64", None),
            ("sdq", None),
            ("sda16", None),
            ("xvd", None),
            ("xvd1", None),
            ("xvda01", None),
            ("xvda256", None),
            ("d0", None),
            ("d0p256", None),
            ("vda", None),
            ("", None),
            ("2147483648", None),
        ];
        for (name, want) in cases {
            assert_eq!(vdev_number(name), want, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_made_from_a_number_means_that_number(disk in 0..=MAX_DISK, part in 0..=MAX_PARTITION) {
            let number = vdev_number(&format!("d{disk}p{part}")).unwrap();
            prop_assert_eq!(vdev_number(&vdev_name(number)), Some(number));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            let _ = vdev_number(&text);
        }

        #[test]
        fn any_number_has_a_name(number in any::<u32>()) {
            prop_assert!(vdev_name(number).starts_with("xvd"));
        }
    }
}
