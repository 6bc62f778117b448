//! Where the transport header of a frame is: Ethernet, VLAN tags, IPv4 or IPv6, TCP or UDP.
//!
//! Works on a private copy of the first bytes of a frame; every offset is checked, every walk is bounded. It knows no more than checksum and
//! segmentation offload need.

use crate::limits::{NET_IPV6_EXTENSIONS, NET_VLAN_TAGS};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLANS: [u16; 2] = [0x8100, 0x88a8];
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// Extension headers of IPv6 that may stand before the transport: hop-by-hop, routing, destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What carries the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The transport header of a frame that is not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Below it.
    pub ip: Ip,
    /// What it is.
    pub protocol: Protocol,
    /// First byte of the IP header.
    pub ip_at: usize,
    /// First byte of the transport header.
    pub at: usize,
    /// First byte of the payload.
    pub payload_at: usize,
}

impl Transport {
    /// Offset of the checksum in the transport header.
    #[must_use]
    pub fn checksum_offset(&self) -> usize {
        match self.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }
}

/// Finds the transport header; `None` if there is none that is whole.
#[must_use]
pub fn transport(frame: &[u8]) -> Option<Transport> {
    let mut at = ETHERNET_BYTES;
    let mut ethertype = u16_at(frame, at - 2)?;
    let mut tags = 0;
    while ETHERTYPE_VLANS.contains(&ethertype) {
        tags += 1;
        if tags > NET_VLAN_TAGS {
            return None;
        }
        at += 4;
        ethertype = u16_at(frame, at - 2)?;
    }
    let (ip, protocol, next) = match ethertype {
        ETHERTYPE_IPV4 => {
            let (protocol, next) = ipv4(frame, at)?;
            (Ip::V4, protocol, next)
        }
        ETHERTYPE_IPV6 => {
            let (protocol, next) = ipv6(frame, at)?;
            (Ip::V6, protocol, next)
        }
        _ => return None,
    };
    let (protocol, header) = match protocol {
        PROTOCOL_TCP => (Protocol::Tcp, usize::from(*frame.get(next + 12)? >> 4) * 4),
        PROTOCOL_UDP => (Protocol::Udp, 8),
        _ => return None,
    };
    let least = if protocol == Protocol::Tcp { 20 } else { 8 };
    let payload_at = next + header;
    if header < least || payload_at > frame.len() {
        return None;
    }
    Some(Transport {
        ip,
        protocol,
        ip_at: at,
        at: next,
        payload_at,
    })
}

fn ipv4(frame: &[u8], at: usize) -> Option<(u8, usize)> {
    let first = *frame.get(at)?;
    let header = usize::from(first & 15) * 4;
    let fragment = u16_at(frame, at + 6)? & 0x3fff;
    let protocol = *frame.get(at + 9)?;
    (first >> 4 == 4 && header >= 20 && fragment == 0).then_some((protocol, at + header))
}

fn ipv6(frame: &[u8], at: usize) -> Option<(u8, usize)> {
    if *frame.get(at)? >> 4 != 6 {
        return None;
    }
    let mut next_header = *frame.get(at + 6)?;
    let mut at = at + 40;
    for _ in 0..NET_IPV6_EXTENSIONS {
        if !EXTENSIONS.contains(&next_header) {
            break;
        }
        let len = (usize::from(*frame.get(at + 1)?) + 1) * 8;
        next_header = *frame.get(at)?;
        at += len;
    }
    Some((next_header, at))
}

/// Sum of the pseudo header that TCP and UDP checksums start from, for a segment of `len` bytes, folded and not inverted.
#[must_use]
pub fn pseudo_header_sum(frame: &[u8], transport: &Transport, len: usize) -> u16 {
    let protocol = match transport.protocol {
        Protocol::Tcp => PROTOCOL_TCP,
        Protocol::Udp => PROTOCOL_UDP,
    };
    let addresses = match transport.ip {
        Ip::V4 => transport.ip_at + 12..transport.ip_at + 20,
        Ip::V6 => transport.ip_at + 8..transport.ip_at + 40,
    };
    let addresses = frame.get(addresses).unwrap_or_default();
    fold(sum(addresses) + u64::from(protocol) + len as u64)
}

/// Sum of big-endian 16-bit words; an odd last byte counts as the high half of one.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words
        .remainder()
        .first()
        .map_or(0, |byte| u64::from(*byte) << 8);
    words
        .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
        .sum::<u64>()
        + last
}

/// One's complement folding to 16 bits.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Frames for tests.
#[cfg(test)]
pub mod build {
    use super::*;

    /// A frame with its true checksums.
    pub fn frame(ip: Ip, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
        let header = if protocol == Protocol::Tcp { 20 } else { 8 };
        let mut transport_bytes = vec![0; header];
        transport_bytes[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        let len = u16::try_from(header + payload.len()).unwrap();
        match protocol {
            Protocol::Tcp => transport_bytes[12] = 5 << 4,
            Protocol::Udp => transport_bytes[4..6].copy_from_slice(&len.to_be_bytes()),
        }
        let number = if protocol == Protocol::Tcp {
            PROTOCOL_TCP
        } else {
            PROTOCOL_UDP
        };
        let mut frame = vec![2; 12];
        match ip {
            Ip::V4 => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((len + 20).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, number, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            }
            Ip::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([number, 64]);
                frame.extend([0xfe; 16]);
                frame.extend([0xfd; 16]);
            }
        }
        frame.extend(transport_bytes);
        frame.extend(payload);
        let found = transport(&frame).unwrap();
        let sum = u64::from(pseudo_header_sum(&frame, &found, usize::from(len)))
            + sum(&frame[found.at..]);
        let at = found.at + found.checksum_offset();
        frame[at..at + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
        frame
    }

    /// Whether the transport checksum is right.
    pub fn is_valid(frame: &[u8]) -> bool {
        let found = transport(frame).unwrap();
        let segment = &frame[found.at..];
        fold(u64::from(pseudo_header_sum(frame, &found, segment.len())) + sum(segment)) == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn transports_are_found_behind_tags_and_extensions() {
        for ip in [Ip::V4, Ip::V6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let frame = build::frame(ip, protocol, b"hello");
                let found = transport(&frame).unwrap();
                assert_eq!((found.ip, found.protocol), (ip, protocol));
                assert_eq!(&frame[found.payload_at..], b"hello");
                assert!(build::is_valid(&frame));

                let mut tagged = frame[..12].to_vec();
                tagged.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
                tagged.extend(&frame[12..]);
                assert_eq!(transport(&tagged).unwrap().at, found.at + 8);
            }
        }
        let mut tower = vec![2; 12];
        for _ in 0..20 {
            tower.extend([0x81, 0, 0, 1]);
        }
        assert_eq!(transport(&tower), None);
    }

    #[test]
    fn fragments_and_cut_headers_have_none() {
        let mut frame = build::frame(Ip::V4, Protocol::Tcp, b"");
        assert!(transport(&frame[..frame.len() - 1]).is_none());
        frame[20] = 0x20;
        assert!(transport(&frame).is_none(), "first fragment");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..3) {
            let mut bytes = bytes;
            if bytes.len() > 15 {
                let (a, b) = [(8, 0), (0x86, 0xdd), (0x81, 0)][kind];
                (bytes[12], bytes[13]) = (a, b);
            }
            if let Some(found) = transport(&bytes) {
                prop_assert!(found.ip_at < found.at && found.at < found.payload_at && found.payload_at <= bytes.len());
                prop_assert!(found.at + found.checksum_offset() + 2 <= bytes.len());
            }
        }
    }
}
