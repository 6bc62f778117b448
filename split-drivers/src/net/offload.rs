//! Work left undone, in two languages: the flags and extras of netif, and the header that a tap puts before each frame
//! (`virtio_net_hdr_v1`, 12 bytes).
//!
//! | netif | tap |
//! |---|---|
//! | `csum_blank` | `NEEDS_CSUM` with start and offset, which only we can know: from the frame |
//! | `data_validated` | `DATA_VALID` |
//! | GSO extra (type, MSS) | `gso_type`, `gso_size`, `hdr_len` |
//!
//! Pure: headers and frames in, headers and verdicts out.

use super::frame::{Ip, Protocol, Transport, fold, pseudo_header_sum, sum, transport};
use xen_abi::io::netif;

/// Bytes of the tap's header.
pub const VNET_BYTES: usize = xen_host::tap::VNET_HEADER_BYTES;
/// First bytes of a frame in which all headers that matter lie: Ethernet, tags, IPv6 with extensions, TCP with options.
pub const HEADER_BYTES: usize = 512;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// `virtio_net_hdr_v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VnetHeader {
    /// As the tap takes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_BYTES] {
        let mut bytes = [0; VNET_BYTES];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ];
        for (to, word) in bytes[2..10].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As the tap gives it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; VNET_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }
}

/// Segmentation, in netif's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Of which IP.
    pub ip: Ip,
    /// Bytes of payload per segment, not 0.
    pub size: u16,
}

/// What a guest left undone in a packet that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Undone {
    /// The checksum holds the pseudo header's sum only.
    pub csum_blank: bool,
    /// The checksum is right, the guest says.
    pub data_validated: bool,
    /// It is to be cut.
    pub gso: Option<Gso>,
}

/// A packet whose headers do not fit what its flags say; it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("headers do not fit the offload asked for")]
pub struct Misfit;

/// The tap's header for a packet of the guest; `head` are its first bytes (up to [`HEADER_BYTES`]), `len` its length. Where the guest wants
/// segmentation but gave a whole checksum, the pseudo header's sum is to be written into the frame: the second part of the answer, as (offset, sum).
///
/// # Errors
/// The headers do not fit.
pub fn from_guest(
    undone: Undone,
    head: &[u8],
    len: usize,
) -> Result<(VnetHeader, Option<(usize, u16)>), Misfit> {
    let mut header = VnetHeader::default();
    if !undone.csum_blank && undone.gso.is_none() {
        if undone.data_validated {
            header.flags = DATA_VALID;
        }
        return Ok((header, None));
    }
    let found = transport(head).ok_or(Misfit)?;
    let word = |value: usize| u16::try_from(value).map_err(|_| Misfit);
    header.flags = NEEDS_CSUM;
    header.csum_start = word(found.at)?;
    header.csum_offset = word(found.checksum_offset())?;
    let Some(gso) = undone.gso else {
        return Ok((header, None));
    };
    if found.protocol != Protocol::Tcp || found.ip != gso.ip {
        return Err(Misfit);
    }
    header.gso_type = if gso.ip == Ip::V4 {
        GSO_TCPV4
    } else {
        GSO_TCPV6
    };
    header.gso_size = gso.size;
    header.hdr_len = word(found.payload_at)?;
    let patch = (!undone.csum_blank).then(|| {
        (
            found.at + found.checksum_offset(),
            pseudo_header_sum(head, &found, len - found.at),
        )
    });
    Ok((header, patch))
}

/// What the frontend can be left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// IPv4 without checksum.
    pub csum_ipv4: bool,
    /// IPv6 without checksum.
    pub csum_ipv6: bool,
}

/// What a packet for the guest is marked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// `RXF_*` of the first slot.
    pub flags: u16,
    /// Segmentation.
    pub gso: Option<Gso>,
    /// The checksum is to be made here first: from this byte to the end, into that byte.
    pub checksum: Option<(usize, usize)>,
}

/// Marks for a packet from the tap; `head` are the frame's first bytes.
#[must_use]
pub fn to_guest(header: VnetHeader, head: &[u8], can: Abilities) -> Marks {
    let mut marks = Marks::default();
    let gso = match header.gso_type & !GSO_ECN {
        GSO_TCPV4 => Some(Ip::V4),
        GSO_TCPV6 => Some(Ip::V6),
        _ => None,
    };
    marks.gso = gso.filter(|_| header.gso_size > 0).map(|ip| Gso {
        ip,
        size: header.gso_size,
    });
    if header.flags & NEEDS_CSUM != 0 {
        let takes = match transport(head).map(|found: Transport| found.ip) {
            Some(Ip::V4) => can.csum_ipv4,
            Some(Ip::V6) => can.csum_ipv6,
            None => false,
        };
        if takes || marks.gso.is_some() {
            marks.flags = netif::RXF_CSUM_BLANK | netif::RXF_DATA_VALIDATED;
        } else {
            let start = usize::from(header.csum_start);
            marks.checksum = Some((start, start + usize::from(header.csum_offset)));
        }
    } else if header.flags & DATA_VALID != 0 {
        marks.flags = netif::RXF_DATA_VALIDATED;
    }
    marks
}

/// The checksum of `segment`, whose checksum field holds the pseudo header's sum.
#[must_use]
pub fn checksum(segment: &[u8]) -> u16 {
    match !fold(sum(segment)) {
        // UDP: zero would mean "no checksum".
        0 => 0xffff,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::build;
    use super::*;
    use proptest::prelude::*;

    /// A frame whose checksum field holds the pseudo header's sum, as `CHECKSUM_PARTIAL` leaves it.
    fn blank(ip: Ip, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let mut frame = build::frame(ip, protocol, payload);
        let found = transport(&frame).unwrap();
        let sum = pseudo_header_sum(&frame, &found, frame.len() - found.at);
        let at = found.at + found.checksum_offset();
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn a_blank_checksum_goes_out_with_its_place() {
        let frame = blank(Ip::V4, Protocol::Udp, b"data");
        let undone = Undone {
            csum_blank: true,
            ..Undone::default()
        };
        let (header, patch) = from_guest(undone, &frame, frame.len()).unwrap();
        assert_eq!(header.to_bytes(), [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
        assert_eq!(patch, None);
        assert_eq!(from_guest(undone, b"arp or anything", 15), Err(Misfit));
    }

    #[test]
    fn segmentation_needs_tcp_of_the_same_ip() {
        let frame = build::frame(Ip::V6, Protocol::Tcp, &[7; 5000]);
        let undone = |ip| Undone {
            gso: Some(Gso { ip, size: 1448 }),
            ..Undone::default()
        };
        let (header, patch) =
            from_guest(undone(Ip::V6), &frame[..HEADER_BYTES], frame.len()).unwrap();
        assert_eq!(
            (header.gso_type, header.gso_size, header.hdr_len),
            (4, 1448, 74)
        );
        let (at, sum) = patch.unwrap();
        assert_eq!(
            (at, &sum.to_be_bytes()[..]),
            (70, &blank(Ip::V6, Protocol::Tcp, &[7; 5000])[70..72])
        );
        assert_eq!(from_guest(undone(Ip::V4), &frame, frame.len()), Err(Misfit));
        let udp = build::frame(Ip::V6, Protocol::Udp, b"");
        assert_eq!(from_guest(undone(Ip::V6), &udp, udp.len()), Err(Misfit));
    }

    #[test]
    fn a_frontend_that_needs_checksums_gets_them() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: 54,
            csum_offset: 16,
            ..VnetHeader::default()
        };
        let mut frame = blank(Ip::V6, Protocol::Tcp, b"odd");
        let can = Abilities {
            csum_ipv4: true,
            csum_ipv6: false,
        };
        let (start, at) = to_guest(header, &frame, can).checksum.unwrap();
        let sum = checksum(&frame[start..]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        assert!(build::is_valid(&frame));
        let marks = to_guest(
            header,
            &frame,
            Abilities {
                csum_ipv6: true,
                ..can
            },
        );
        assert_eq!((marks.flags, marks.checksum), (3, None));
    }

    proptest! {
        #[test]
        fn a_header_is_what_it_was(bytes: [u8; 10]) {
            let mut whole = [0; VNET_BYTES];
            whole[..10].copy_from_slice(&bytes);
            prop_assert_eq!(VnetHeader::from_bytes(whole).to_bytes(), whole);
        }
    }
}
