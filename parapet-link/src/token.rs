//! What one host tells the other: a fingerprint and perhaps an address, in one line.
//!
//! ```text
//!   parapet1:9f86d0…@host2.example:8402
//!   ───┬──── ──┬─── ────────┬─────────
//!    form   certificate   where its listener is; may be left out, and its port, too
//! ```
//!
//! It is no secret: somebody who reads it can do nothing with it. But it must not be changed on its way, or the wrong host is trusted.

use crate::fingerprint::{Fingerprint, FingerprintError};
use crate::limits::PORT;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// How a token begins. Another form gets another number.
const FORM: &str = "parapet1:";
/// Longest name of a host, in bytes, as in the domain name system.
const MAX_NAME_BYTES: usize = 253;

/// Where a listener is: a name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, that one without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = || TokenError::Address(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(wrong)?),
            };
            (host, port)
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => PORT,
        };
        let good = |letter: char| letter.is_ascii_alphanumeric() || ".-_:%".contains(letter);
        let colons_where_they_belong = text.starts_with('[') == host.contains(':')
            || (!text.starts_with('[') && text.parse::<Ipv6Addr>().is_ok());
        let fits = !host.is_empty() && host.len() <= MAX_NAME_BYTES && !host.starts_with('-');
        if port == 0 || !fits || !colons_where_they_belong || !host.chars().all(good) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// See the file's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The other host's certificate.
    pub fingerprint: Fingerprint,
    /// Where its listener is.
    pub address: Option<Address>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}{}", self.fingerprint)?;
        match &self.address {
            Some(address) => write!(f, "@{address}"),
            None => Ok(()),
        }
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The fingerprint.
    #[error(
        "{0}; `parapet link init` on the other host prints a token and a fingerprint, either will do"
    )]
    Fingerprint(#[from] FingerprintError),
    /// The address.
    #[error("{0:?} is no address: HOST, HOST:PORT or [IPV6]:PORT")]
    Address(String),
}

impl FromStr for Token {
    type Err = TokenError;

    /// A bare fingerprint will do.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(FORM) else {
            let fingerprint = text.parse()?;
            return Ok(Self {
                fingerprint,
                address: None,
            });
        };
        let (fingerprint, address) = match rest.split_once('@') {
            Some((fingerprint, address)) => (fingerprint, Some(address.parse()?)),
            None => (rest, None),
        };
        Ok(Self {
            fingerprint: fingerprint.parse()?,
            address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_every_form() {
        for (text, host, port) in [
            ("host2", "host2", PORT),
            ("host2.example:9", "host2.example", 9),
            ("192.0.2.7:80", "192.0.2.7", 80),
            ("2001:db8::7", "2001:db8::7", PORT),
            ("[2001:db8::7]", "2001:db8::7", PORT),
            ("[fe80::1%xenbr0]:80", "fe80::1%xenbr0", 80),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        for text in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:0",
            "a:65536",
            "-oProxyCommand=x",
            "a b",
            "[::1",
            "[::1]80",
            "[a]:80",
            "a:1:2",
            "$(x)",
            "a;b",
            "a'b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_or_a_bare_fingerprint_is_taken() {
        let fingerprint = Fingerprint::of(b"x");
        let bare: Token = format!(" {fingerprint}\n").parse().unwrap();
        assert_eq!(bare.fingerprint, fingerprint);
        assert_eq!(bare.address, None);
        for text in ["parapet1:", "parapet2:00@h", "", "host2"] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(
            certificate: Vec<u8>,
            address in proptest::option::of(("[a-z0-9][a-z0-9.]{0,20}|2001:db8::[1-9]", 1_u16..)),
        ) {
            let address = address.map(|(host, port)| Address { host, port });
            let token = Token { fingerprint: Fingerprint::of(&certificate), address };
            prop_assert_eq!(token.to_string().parse::<Token>(), Ok(token));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<Token>();
            let _ = text.parse::<Address>();
            let _ = format!("{FORM}{}@{text}", Fingerprint::of(b"")).parse::<Token>();
        }
    }
}
