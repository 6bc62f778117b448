//! Questions put to a guest from outside, and their answers: `tcp:ADDR:PORT`, `http://ADDR[:PORT]/path`, `ping:ADDR`.
//!
//! This file knows the questions and keeps the answers; `crate::probe` asks them. How many failures matter is for `verdict` to say.

use crate::limits::PROBE_TEXT_MAX_BYTES;
use crate::time::Mono;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP connection is accepted.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A GET is answered with a status of 200 to 399.
    Http {
        /// Name or address, without brackets.
        host: String,
        /// Port, 80 when none was written.
        port: u16,
        /// Path and query, with the leading slash.
        path: String,
    },
    /// An ICMP echo is answered.
    Ping {
        /// Name or address, without brackets.
        host: String,
    },
}

/// What is wrong with a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {what}; write tcp:ADDR:PORT, http://ADDR[:PORT]/path or ping:ADDR")]
pub struct TargetError {
    text: String,
    what: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = |what| TargetError {
            text: text.chars().take(80).collect(),
            what,
        };
        if text.len() > PROBE_TEXT_MAX_BYTES {
            return Err(wrong("too long"));
        }
        if text
            .bytes()
            .any(|byte| byte.is_ascii_control() || byte == b' ')
        {
            return Err(wrong("blanks and control characters are not allowed"));
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            let (host, port) = split_port(rest).map_err(wrong)?;
            let port = port.ok_or_else(|| wrong("the port is missing"))?;
            Ok(Target::Tcp { host, port })
        } else if let Some(rest) = text.strip_prefix("http://") {
            let (authority, path) = match rest.find('/') {
                Some(slash) => rest.split_at(slash),
                None => (rest, "/"),
            };
            let (host, port) = split_port(authority).map_err(wrong)?;
            Ok(Target::Http {
                host,
                port: port.unwrap_or(80),
                path: path.to_owned(),
            })
        } else if let Some(rest) = text.strip_prefix("ping:") {
            // A bare IPv6 address is full of colons, so there is no port to look for.
            let host = rest
                .strip_prefix('[')
                .and_then(|r| r.strip_suffix(']'))
                .unwrap_or(rest);
            if host.is_empty() {
                return Err(wrong("the address is missing"));
            }
            if host.contains(['[', ']']) {
                return Err(wrong("a bracket too many"));
            }
            Ok(Target::Ping {
                host: host.to_owned(),
            })
        } else {
            Err(wrong("unknown kind of probe"))
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("something follows the bracket"),
            }
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("the address is missing");
    }
    if host.contains(['[', ']']) {
        return Err("a bracket too many");
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("the port is not a number from 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        match self {
            Target::Tcp { host, port } => write!(f, "tcp:{}:{port}", bracketed(host)),
            Target::Http {
                host,
                port: 80,
                path,
            } => write!(f, "http://{}{path}", bracketed(host)),
            Target::Http { host, port, path } => {
                write!(f, "http://{}:{port}{path}", bracketed(host))
            }
            Target::Ping { host } => write!(f, "ping:{host}"),
        }
    }
}

/// Answers to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The question.
    pub target: Target,
    /// It was answered well at some time, perhaps to an earlier run of this program.
    pub armed: bool,
    /// When it was last answered well.
    pub last_success: Option<Mono>,
    /// Failures since then, in a row.
    pub failures: u32,
    /// When the first question that failed of those was asked.
    pub failing_since: Option<Mono>,
    /// Time since then in which nobody listened.
    pub deaf: Duration,
    /// The last failure, in one line.
    pub last_error: Option<String>,
    /// When it was last asked.
    pub asked: Option<Mono>,
    /// An answer is outstanding.
    pub in_flight: bool,
}

impl Series {
    /// Never asked.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            armed: false,
            last_success: None,
            failures: 0,
            failing_since: None,
            deaf: Duration::ZERO,
            last_error: None,
            asked: None,
            in_flight: false,
        }
    }

    /// An answer came. A failure of a question asked before `listening` proves nothing: this program may have stood still in between.
    pub fn answered(&mut self, answer: Result<(), String>, asked: Mono, at: Mono, listening: Mono) {
        self.in_flight = false;
        match answer {
            Ok(()) => {
                self.armed = true;
                self.last_success = Some(at);
                self.forget_failures();
                self.last_error = None;
            }
            Err(error) => {
                self.last_error = Some(error);
                if asked >= listening {
                    self.failures = self.failures.saturating_add(1);
                    self.failing_since.get_or_insert(asked);
                }
            }
        }
    }

    /// Nobody listened for `gap`: the guest has not failed for that much longer.
    pub fn missed(&mut self, gap: Duration) {
        if self.failing_since.is_some() {
            self.deaf += gap;
        }
    }

    /// Starts counting failures anew.
    pub fn forget_failures(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.deaf = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for text in [
            "tcp:10.0.0.1:22",
            "tcp:[fe80::1]:22",
            "tcp:web1.lan:8080",
            "http://10.0.0.1/health?full=1",
            "http://[::1]:8080/",
            "ping:10.0.0.1",
            "ping:fe80::1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(
            "http://a".parse::<Target>().unwrap().to_string(),
            "http://a/"
        );
        assert_eq!(
            "http://a:80/x".parse::<Target>().unwrap().to_string(),
            "http://a/x"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, what) in [
            ("tcp:10.0.0.1", "port is missing"),
            ("tcp::80", "address is missing"),
            ("tcp:10.0.0.1:0", "1 to 65535"),
            ("tcp:fe80::1:22", "needs brackets"),
            ("tcp:[fe80::1:22", "not closed"),
            ("http://[::1]x/", "follows the bracket"),
            ("ping:", "address is missing"),
            ("https://a/", "unknown kind"),
            ("http://a/x y", "blanks"),
            ("http://a/\r\nX: y", "control"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn a_failure_asked_before_anybody_listened_counts_for_nothing() {
        let mut series = Series::new("ping:10.0.0.1".parse().unwrap());
        series.answered(Err("timeout".into()), Mono(10), Mono(20), Mono(15));
        assert_eq!(series.failures, 0);
        series.answered(Err("timeout".into()), Mono(16), Mono(20), Mono(15));
        assert_eq!((series.failures, series.failing_since), (1, Some(Mono(16))));
        series.answered(Ok(()), Mono(21), Mono(22), Mono(15));
        assert_eq!((series.failures, series.failing_since), (0, None));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_read_back_the_same(text in ".{0,60}|(tcp:|http://|ping:)[a-z0-9:./\\[\\]]{0,20}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
            }
        }
    }
}
