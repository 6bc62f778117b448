//! What a line is for: said once, at its beginning. A few kinds with a few flags; no text of the other side's ever becomes a word of a command.

/// What is asked of the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To take a guest: `xl migrate-receive`.
    Receive(Receive),
    /// Which guests there are: `xl list -v`, as far as a sender asks for it.
    Guests,
    /// Nothing but the line itself: each frame is answered by its length.
    Test,
}

/// How a guest is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receive {
    /// `-p`: it is left paused.
    pub paused: bool,
    /// `-e`: nobody acts when it stops.
    pub unmanaged: bool,
    /// `-d`: its configuration is shown.
    pub show: bool,
}

/// Why something is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A word that the link does not carry.
    #[error(
        "the link does not carry `{0}`: it takes `migrate-receive` (with -e, -p, -d, -F) and `list -v`; for anything else use ssh: `xl migrate -s ssh`"
    )]
    Word(String),
    /// Bytes of another release.
    #[error(
        "the other side asks for something that this release does not know (bytes {0:02x?}); install the same release on both sides"
    )]
    Unknown(Vec<u8>),
}

const RECEIVE: u8 = 1;
const GUESTS: u8 = 2;
const TEST: u8 = 3;

const PAUSED: u8 = 1;
const UNMANAGED: u8 = 1 << 1;
const SHOW: u8 = 1 << 2;

impl Request {
    /// Kind and flags.
    #[must_use]
    pub fn encode(self) -> [u8; 2] {
        match self {
            Self::Receive(receive) => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = flag(receive.paused, PAUSED)
                    | flag(receive.unmanaged, UNMANAGED)
                    | flag(receive.show, SHOW);
                [RECEIVE, flags]
            }
            Self::Guests => [GUESTS, 0],
            Self::Test => [TEST, 0],
        }
    }

    /// Reads what [`Request::encode`] wrote. A flag that is not known is refused: a guest must not run where it should have been left paused.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        match *bytes {
            [RECEIVE, flags] if flags & !(PAUSED | UNMANAGED | SHOW) == 0 => {
                Ok(Self::Receive(Receive {
                    paused: flags & PAUSED != 0,
                    unmanaged: flags & UNMANAGED != 0,
                    show: flags & SHOW != 0,
                }))
            }
            [GUESTS, 0] => Ok(Self::Guests),
            [TEST, 0] => Ok(Self::Test),
            _ => Err(RequestError::Unknown(bytes.to_vec())),
        }
    }

    /// What the words mean that `xl migrate` would give to ssh: `xl [-v...] migrate-receive [-e] [-p] [-d] [-F]` or `xl [-v...] list -v`, with or without
    /// `xl`. No words at all are `migrate-receive`.
    ///
    /// # Errors
    /// Any other word, which is named.
    pub fn of_words(words: &[String]) -> Result<Self, RequestError> {
        let mut words = words.iter().map(String::as_str).peekable();
        words.next_if_eq(&"xl");
        // How much xl says here; the link says all there is.
        while words.next_if(|word| is_verbose(word)).is_some() {}
        let command = words.next().unwrap_or("migrate-receive");
        let unknown = |word: &str| Err(RequestError::Word(word.to_owned()));
        match command {
            "list" => match (words.next(), words.next()) {
                (Some("-v"), None) => Ok(Self::Guests),
                (Some("-v"), Some(word)) | (Some(word), _) => unknown(word),
                (None, _) => unknown("list"),
            },
            "migrate-receive" => {
                let mut receive = Receive::default();
                for word in words {
                    let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty())
                    else {
                        return unknown(word);
                    };
                    for letter in letters.chars() {
                        match letter {
                            'p' => receive.paused = true,
                            'e' => receive.unmanaged = true,
                            'd' => receive.show = true,
                            // The receiver stays anyway.
                            'F' => {}
                            _ => return unknown(word),
                        }
                    }
                }
                Ok(Self::Receive(receive))
            }
            other => unknown(other),
        }
    }
}

fn is_verbose(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|letters| !letters.is_empty() && letters.bytes().all(|byte| byte == b'v'))
}

impl Receive {
    /// The words of the command that does this, every one of them ours.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let mut words = vec!["migrate-receive"];
        for (set, word) in [
            (self.paused, "-p"),
            (self.unmanaged, "-e"),
            (self.show, "-d"),
        ] {
            if set {
                words.push(word);
            }
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Result<Request, RequestError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Request::of_words(&words)
    }

    #[test]
    fn what_xl_gives_to_ssh_is_understood() {
        let receive = |paused, unmanaged, show| {
            Ok(Request::Receive(Receive {
                paused,
                unmanaged,
                show,
            }))
        };
        assert_eq!(words(""), receive(false, false, false));
        assert_eq!(words("xl migrate-receive"), receive(false, false, false));
        assert_eq!(
            words("xl -vvv migrate-receive -e -p"),
            receive(true, true, false)
        );
        assert_eq!(
            words("migrate-receive -d -F -pe"),
            receive(true, true, true)
        );
        assert_eq!(words("xl -v list -v"), Ok(Request::Guests));
    }

    #[test]
    fn nothing_else_is_carried() {
        for (line, word) in [
            ("xl destroy web1", "destroy"),
            ("sh", "sh"),
            ("xl list", "list"),
            ("xl list -v web1", "web1"),
            ("xl migrate-receive -r", "-r"),
            ("xl migrate-receive web1", "web1"),
            ("xl migrate-receive -", "-"),
            ("xl migrate-receive; reboot", "migrate-receive;"),
        ] {
            assert_eq!(words(line), Err(RequestError::Word(word.into())), "{line}");
        }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let all = Receive {
            paused: true,
            unmanaged: true,
            show: true,
        };
        assert_eq!(Request::Receive(all).encode(), [1, 7]);
        assert_eq!(Request::Receive(Receive::default()).encode(), [1, 0]);
        assert_eq!(Request::Guests.encode(), [2, 0]);
        assert_eq!(Request::Test.encode(), [3, 0]);
        assert_eq!(all.words(), ["migrate-receive", "-p", "-e", "-d"]);
    }

    proptest! {
        #[test]
        fn whatever_is_understood_is_what_was_meant(bytes in proptest::collection::vec(any::<u8>(), 0..4)) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode().to_vec(), bytes);
            }
        }

        #[test]
        fn words_of_ours_only_reach_the_command(paused: bool, unmanaged: bool, show: bool) {
            let receive = Receive { paused, unmanaged, show };
            prop_assert_eq!(Request::of_words(&receive.words()), Ok(Request::Receive(receive)));
        }
    }
}
