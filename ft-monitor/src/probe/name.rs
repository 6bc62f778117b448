//! Names of hosts, looked up by Debian's `getent`.
//!
//! The monitor carries its C library in itself, so that one binary runs on every Debian; such a program must not load the modules that look up names.
//! `getent`, of the host's own C library, may.

use nix::net::if_::if_nametoindex;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::process::Stdio;
use tokio::process::Command;

/// The first address of `host`. An address, also one with a zone (`fe80::1%xenbr0`), is its own answer and starts no program.
///
/// # Errors
/// When the name has no address, or nobody can be asked.
pub async fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    match address(host, port) {
        Some(address) => Ok(address),
        None => look_up(host, port).await,
    }
}

/// An address in text, its zone being the name or the number of an interface of this host.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let Some((ip, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let scope = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(ip.parse().ok()?, port, 0, scope).into())
}

async fn look_up(host: &str, port: u16) -> io::Result<SocketAddr> {
    let output = Command::new("getent")
        .args(["--", "ahosts", host])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        // A probe that is given up takes its question with it.
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot run getent for {host}: {error}"),
            )
        })?;
    first(&String::from_utf8_lossy(&output.stdout), port).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the name {host} has no address"),
        )
    })
}

/// Lines are an address, blanks, and the kind of socket.
fn first(lines: &str, port: u16) -> Option<SocketAddr> {
    lines
        .lines()
        .find_map(|line| address(line.split_whitespace().next()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_taken_as_they_are_and_names_are_looked_up() {
        for (host, address) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:80"),
            ("fe80::1%7", "[fe80::1%7]:80"),
            ("fe80::1%lo", "[fe80::1%1]:80"),
        ] {
            assert_eq!(resolve(host, 80).await.unwrap(), address.parse().unwrap());
        }
        assert!(resolve("localhost", 80).await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_without_address_is_named() {
        for name in ["no-such-host.invalid", "fe80::1%nonesuch", "--help", ""] {
            let error = resolve(name, 80).await.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_first_address_counts() {
        let said = "192.0.2.1       STREAM a.example\n192.0.2.1       DGRAM\n2001:db8::1  STREAM\n";
        assert_eq!(first(said, 80), "192.0.2.1:80".parse().ok());
        assert_eq!(first("no address\n", 80), None);
    }
}
