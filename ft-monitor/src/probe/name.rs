//! Names of hosts, looked up by Debian's `getent`.
//!
//! The monitor carries its C library in itself, so that one binary runs on every Debian; such a program must not load the modules that look up names.
//! `getent`, of the host's own C library, may.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use tokio::process::Command;

/// The first address of `host`. An address is its own answer and starts no program.
///
/// # Errors
/// When the name has no address, or nobody can be asked.
pub async fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => look_up(host).await?,
    };
    Ok(SocketAddr::new(address, port))
}

async fn look_up(host: &str) -> io::Result<IpAddr> {
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
    first(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the name {host} has no address"),
        )
    })
}

/// Lines are an address, blanks, and the kind of socket.
fn first(lines: &str) -> Option<IpAddr> {
    lines
        .lines()
        .find_map(|line| line.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_taken_as_they_are_and_names_are_looked_up() {
        for (host, address) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:80"),
        ] {
            assert_eq!(resolve(host, 80).await.unwrap(), address.parse().unwrap());
        }
        assert!(resolve("localhost", 80).await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_name_without_address_is_named() {
        for name in ["no-such-host.invalid", "--help", ""] {
            let error = resolve(name, 80).await.unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_first_address_counts() {
        let said = "192.0.2.1       STREAM a.example\n192.0.2.1       DGRAM\n2001:db8::1  STREAM\n";
        assert_eq!(first(said), "192.0.2.1".parse().ok());
        assert_eq!(first("no address\n"), None);
    }
}
