//! What can be wrong with a link: object, cause and way out in one line.

use crate::fingerprint::Fingerprint;
use crate::frame::FrameError;
use crate::greeting::GreetingError;
use crate::request::RequestError;
use crate::token::Token;
use std::io;
use std::path::{Path, PathBuf};

/// Why a link cannot be made, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file of this host's.
    #[error("{what} {path}: {error}", path = .path.display())]
    File {
        /// `cannot read`, `cannot write`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// This host has no key.
    #[error("this host has no key for links ({0} is not there); `parapet link init` makes it")]
    NoIdentity(PathBuf),
    /// Others can read the key.
    #[error(
        "{0}, this host's private key, may be read by others than its owner (mode {1:04o}); if nobody has: chmod 600 it. Otherwise remove it, `parapet link init`, and tell the other hosts"
    )]
    Exposed(PathBuf, u32),
    /// What is in a file.
    #[error("{0} cannot be used: {1}")]
    Content(PathBuf, String),
    /// A key or a certificate cannot be made.
    #[error("cannot make a key and a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Not a name for a host.
    #[error(
        "{0:?} is no name for a host: letters, digits, dots, hyphens and underlines, at most 64, and the first one a letter or a digit"
    )]
    Name(String),
    /// Nobody of this name is trusted.
    #[error(
        "no host {0} is linked with this one; `parapet link list` shows those that are, `parapet link trust {0} TOKEN` adds it"
    )]
    NotLinked(String),
    /// The name has another certificate.
    #[error(
        "{name} is linked already, with the certificate {pinned}; if its key was made anew: `parapet link forget {name}` first"
    )]
    Pinned {
        /// Whose.
        name: String,
        /// What it has.
        pinned: Fingerprint,
    },
    /// Too many hosts.
    #[error(
        "{0} hosts are linked with this one, which is as many as can be; `parapet link forget` one of them"
    )]
    TooMany(usize),
    /// TLS refuses to be set up.
    #[error("TLS cannot be set up with this host's key: {0}")]
    Setup(rustls::Error),
    /// Nobody listens.
    #[error(
        "nothing listens at {name} ({address}); there: `systemctl enable --now parapet-link.socket`, or another address here: `parapet link trust {name} TOKEN --address ADDRESS`"
    )]
    NothingListens {
        /// Which host.
        name: String,
        /// Where.
        address: String,
    },
    /// It cannot be reached.
    #[error("cannot reach {name} ({address}): {error}")]
    Unreachable {
        /// Which host.
        name: String,
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Somebody else answers.
    #[error(
        "{name} shows the certificate {got}, and {expected} was expected: it is another host, or its key was made anew. Compare with `parapet link init` there before you `parapet link forget {name}` and trust the new one"
    )]
    WrongCertificate {
        /// Which host.
        name: String,
        /// What was pinned.
        expected: Fingerprint,
        /// What came.
        got: Fingerprint,
    },
    /// The other host does not know us.
    #[error("{name} does not trust this host; there: `parapet link trust NAME {own}`")]
    NotTrusted {
        /// Which host.
        name: String,
        /// What it should be told.
        own: Token,
    },
    /// TLS.
    #[error("{name} cannot be talked to by TLS ({error}); is this the port of parapet-link?")]
    Tls {
        /// Which host.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// Too late.
    #[error("{name} did not answer within {seconds} s ({step})")]
    Silent {
        /// Which host.
        name: String,
        /// Longest time.
        seconds: u64,
        /// What was waited for.
        step: &'static str,
    },
    /// The greeting.
    #[error("{name}: {error}")]
    Greeting {
        /// Which host.
        name: String,
        /// Why.
        error: GreetingError,
    },
    /// What was asked for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The other host says no.
    #[error("{name} refused: {why}")]
    Refused {
        /// Which host.
        name: String,
        /// Its words.
        why: String,
    },
    /// The line broke.
    #[error("the line to {name} broke: {error}")]
    Broken {
        /// Which host.
        name: String,
        /// Why.
        error: FrameError,
    },
    /// Standard input or output.
    #[error("{0}: {1}")]
    Local(&'static str, io::Error),
}

impl LinkError {
    pub(crate) fn file(what: &'static str, path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { what, path, error }
    }
}
