//! An ICMP echo, IPv4 or IPv6, preferably without any privilege.
//!
//! Linux gives every group in `net.ipv4.ping_group_range` a datagram socket that can only echo. Where the range is closed a raw socket is tried, which takes
//! `CAP_NET_RAW` and sees everybody's answers, so ours are told by their payload.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the ICMP header.
const HEADER_BYTES: usize = 8;
/// Bytes of our payload: process id and a counter.
const PAYLOAD_BYTES: usize = 16;
/// Longest answer that is looked at, IPv4 header included.
const ANSWER_MAX_BYTES: usize = 256;

/// Distinguishes the questions of this process.
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// Sends one echo and waits for its answer; the caller sets the deadline.
///
/// # Errors
/// No socket, or the network refuses.
pub async fn echo(to: SocketAddr) -> io::Result<()> {
    let (fd, raw) = open(to.is_ipv4())?;
    let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(fd))?;
    socket.connect(to).await?;
    let token = token();
    socket.send(&request(to.is_ipv4(), token)).await?;
    let mut answer = [0; ANSWER_MAX_BYTES];
    // Others' answers on a raw socket are skipped; the caller's deadline bounds the loop.
    loop {
        let count = socket.recv(&mut answer).await?;
        if is_answer(&answer[..count], to.is_ipv4(), raw, token) {
            return Ok(());
        }
    }
}

fn open(v4: bool) -> io::Result<(OwnedFd, bool)> {
    let (family, protocol) = match v4 {
        true => (AddressFamily::Inet, SockProtocol::Icmp),
        false => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match socket(family, SockType::Datagram, flags, protocol) {
        Ok(fd) => return Ok((fd, false)),
        Err(Errno::EACCES | Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match socket(family, SockType::Raw, flags, protocol) {
        Ok(fd) => Ok((fd, true)),
        Err(Errno::EACCES | Errno::EPERM) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this user may not ping: widen net.ipv4.ping_group_range or grant CAP_NET_RAW",
        )),
        Err(errno) => Err(errno.into()),
    }
}

fn token() -> [u8; PAYLOAD_BYTES] {
    let mut token = [0; PAYLOAD_BYTES];
    token[..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    token[8..].copy_from_slice(&COUNTER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    token
}

/// Type 8 (IPv4) or 128 (IPv6), code 0. The kernel sets the checksum except on raw IPv4 sockets.
fn request(v4: bool, token: [u8; PAYLOAD_BYTES]) -> [u8; HEADER_BYTES + PAYLOAD_BYTES] {
    let mut packet = [0; HEADER_BYTES + PAYLOAD_BYTES];
    packet[0] = if v4 { 8 } else { 128 };
    packet[6..8].copy_from_slice(&1_u16.to_be_bytes());
    packet[HEADER_BYTES..].copy_from_slice(&token);
    if v4 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn is_answer(packet: &[u8], v4: bool, raw: bool, token: [u8; PAYLOAD_BYTES]) -> bool {
    let icmp = match (raw && v4, packet.first()) {
        // A raw IPv4 socket shows the IP header, whose length is in its first byte.
        (true, Some(first)) => packet
            .get(usize::from(first & 0x0F) * 4..)
            .unwrap_or_default(),
        _ => packet,
    };
    let reply = if v4 { 0 } else { 129 };
    icmp.first() == Some(&reply)
        && icmp
            .get(HEADER_BYTES..)
            .is_some_and(|payload| payload.starts_with(&token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let packet = request(true, token());
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn only_our_own_echo_is_an_answer() {
        let (ours, theirs) = (token(), token());
        let mut reply = request(true, ours);
        reply[0] = 0;
        assert!(is_answer(&reply, true, false, ours));
        assert!(!is_answer(&reply, true, false, theirs));
        assert!(
            !is_answer(&request(true, ours), true, false, ours),
            "our own question is no answer"
        );
        let mut with_ip = vec![0x45; 20];
        with_ip.extend_from_slice(&reply);
        assert!(is_answer(&with_ip, true, true, ours));
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(packet: Vec<u8>, v4: bool, raw: bool) {
            let _ = is_answer(&packet, v4, raw, [1; PAYLOAD_BYTES]);
        }
    }
}
