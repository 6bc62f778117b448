//! Which rule of the disk grammar applies at a place in a specification.
//!
//! [`longest_rule`] is the scanner: it tries every rule and takes the one that would consume most, the first of equal
//! ones. A deprecated prefix counts as long as all the text behind it, so it wins over a positional parameter. The
//! meaning of the rules is in [`super::disk`].

/// What a matched piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// `format=`
    Format,
    /// `cdrom`, `devtype=cdrom`, `devtype=disk`
    Cdrom(bool),
    /// `devtype=` and another word
    UnknownType,
    /// `access=`
    Access,
    /// `backend=`
    Backend,
    /// `backendtype=`
    BackendType,
    /// `specification=`
    Specification,
    /// `vdev=`
    Vdev,
    /// `script=`
    Script,
    /// `direct-io-safe`
    DirectIoSafe,
    /// `discard`, `no-discard`
    Discard(bool),
    /// `trusted`, `untrusted`
    Trusted(bool),
    /// `grant_usage=0`, `grant_usage=1`
    GrantUsage(bool),
    /// `colo`, `no-colo`
    Colo(bool),
    /// `colo-host=` and its siblings
    ColoText {
        /// The name in a specification.
        parameter: &'static str,
        /// The name in libxl.
        key: &'static str,
    },
    /// `target=`, which takes all the rest
    Target,
    /// A name that is not known, and `=`
    UnknownParameter,
    /// `raw:`, `qcow:`, `qcow2:`, `vhd:`
    OldFormat,
    /// `iscsi:`, `nbd:`, `enbd:`, `drbd:`
    OldScript,
    /// `phy:`, `file:`, `tap:`, `tap2:`, `aio:`, `ioemu:`, `tapdisk:`
    OldPrefix,
    /// Another word and a colon
    UnknownPrefix,
    /// Anything up to a comma
    Positional,
    /// Nothing of the above
    BadSyntax,
}

/// A matched rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it means.
    pub action: Action,
    /// Bytes that it consumes, at least one.
    pub length: usize,
}

/// Parameters with a value up to the next comma.
const WITH_VALUE: [(&str, Action); 14] = [
    ("format=", Action::Format),
    ("devtype=", Action::UnknownType),
    ("access=", Action::Access),
    ("backend=", Action::Backend),
    ("backendtype=", Action::BackendType),
    ("specification=", Action::Specification),
    ("vdev=", Action::Vdev),
    ("script=", Action::Script),
    (
        "colo-host=",
        Action::ColoText {
            parameter: "colo-host",
            key: "colo_host",
        },
    ),
    (
        "colo-port=",
        Action::ColoText {
            parameter: "colo-port",
            key: "colo_port",
        },
    ),
    (
        "colo-export=",
        Action::ColoText {
            parameter: "colo-export",
            key: "colo_export",
        },
    ),
    (
        "active-disk=",
        Action::ColoText {
            parameter: "active-disk",
            key: "active_disk",
        },
    ),
    (
        "hidden-disk=",
        Action::ColoText {
            parameter: "hidden-disk",
            key: "hidden_disk",
        },
    ),
    ("target=", Action::Target),
];

/// Parameters that are complete words, a comma behind them included.
const WORDS: [(&str, Action); 12] = [
    ("cdrom", Action::Cdrom(true)),
    ("devtype=cdrom", Action::Cdrom(true)),
    ("devtype=disk", Action::Cdrom(false)),
    ("direct-io-safe", Action::DirectIoSafe),
    ("discard", Action::Discard(true)),
    ("no-discard", Action::Discard(false)),
    ("colo", Action::Colo(true)),
    ("no-colo", Action::Colo(false)),
    ("trusted", Action::Trusted(true)),
    ("untrusted", Action::Trusted(false)),
    ("grant_usage=1", Action::GrantUsage(true)),
    ("grant_usage=0", Action::GrantUsage(false)),
];

/// Deprecated prefixes.
const PREFIXES: [(&str, Action); 15] = [
    ("raw:", Action::OldFormat),
    ("qcow:", Action::OldFormat),
    ("qcow2:", Action::OldFormat),
    ("vhd:", Action::OldFormat),
    ("iscsi:", Action::OldScript),
    ("nbd:", Action::OldScript),
    ("enbd:", Action::OldScript),
    ("drbd:", Action::OldScript),
    ("tapdisk:", Action::OldPrefix),
    ("tap:", Action::OldPrefix),
    ("tap2:", Action::OldPrefix),
    ("aio:", Action::OldPrefix),
    ("ioemu:", Action::OldPrefix),
    ("file:", Action::OldPrefix),
    ("phy:", Action::OldPrefix),
];

/// A rule that could apply: how much text it claims, and how much of that it consumes.
struct Claim {
    claimed: usize,
    rule: Rule,
}

/// The rule that applies at the start of `rest`, which is not empty and does not start with a blank.
#[must_use]
pub(super) fn longest_rule(rest: &str) -> Rule {
    let mut best = Claim {
        claimed: 0,
        rule: bad_syntax(rest),
    };
    let mut offer = |action: Action, claimed: usize, length: usize| {
        if claimed > best.claimed {
            best = Claim {
                claimed,
                rule: Rule { action, length },
            };
        }
    };
    for (word, action) in WORDS {
        if rest.starts_with(word) {
            let length = with_comma(rest, word.len());
            offer(action, length, length);
        }
    }
    for (name, action) in WITH_VALUE {
        if rest.starts_with(name) {
            let length = match action {
                Action::Target => rest.len(),
                _ => with_comma(rest, rest.find(',').unwrap_or(rest.len())),
            };
            offer(action, length, length);
        }
    }
    if let Some(length) = unknown_parameter(rest) {
        offer(Action::UnknownParameter, length, length);
    }
    for (prefix, action) in PREFIXES {
        if rest.starts_with(prefix) {
            offer(action, rest.len(), prefix.len());
        }
    }
    if let Some((claimed, length)) = unknown_prefix(rest) {
        offer(Action::UnknownPrefix, claimed, length);
    }
    let length = with_comma(rest, rest.find(['=', ',']).unwrap_or(rest.len()));
    if length > 0 {
        offer(Action::Positional, length, length);
    }
    best.rule
}

fn bad_syntax(rest: &str) -> Rule {
    Rule {
        action: Action::BadSyntax,
        length: rest.len(),
    }
}

/// `length`, and one more if a comma stands there.
fn with_comma(rest: &str, length: usize) -> usize {
    length + usize::from(rest.as_bytes().get(length) == Some(&b','))
}

fn word_length(rest: &str, more: impl Fn(u8) -> bool) -> usize {
    let bytes = rest.as_bytes();
    match bytes.first() {
        Some(b'a'..=b'z') => 1 + bytes[1..].iter().take_while(|&&b| more(b)).count(),
        _ => 0,
    }
}

/// A name, `=` and one character of its value.
fn unknown_parameter(rest: &str) -> Option<usize> {
    let name = word_length(rest, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let value = rest.get(name..).filter(|_| name > 0)?.strip_prefix('=')?;
    let first = value.chars().next().filter(|&c| c != ',')?;
    Some(with_comma(rest, name + 1 + first.len_utf8()))
}

/// A word and a colon with no letter or digit behind: what it claims and what it consumes.
fn unknown_prefix(rest: &str) -> Option<(usize, usize)> {
    let word = word_length(rest, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    let behind = rest.get(word..).filter(|_| word > 0)?.strip_prefix(':')?;
    let alone = behind.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let consumed = word + 1;
    Some((if alone { consumed } else { rest.len() }, consumed))
}
