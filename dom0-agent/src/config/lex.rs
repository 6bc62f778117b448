//! Text of a configuration to tokens.
//!
//! The rules are those of libxlu's scanner: keys are lower case, numbers have no sign, strings stay on one line,
//! a comment needs the newline that ends it. A lexical error swallows text up to the next blank, is reported once,
//! and yields no token. Unlike stock, the escapes `\xHH` and `\ooo` give the byte that xl.cfg(5) promises (stock
//! refuses the first and drops the second). Never fails as a whole and always reaches [`TokenKind::End`].

use super::diag::Pos;

/// What a token is. The names are the ones that syntax errors print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    /// A key.
    Ident,
    /// Digits.
    Number,
    /// A quoted string, resolved.
    Str(String),
    /// `,`
    Comma,
    /// `[`
    Open,
    /// `]`
    Close,
    /// `=`
    Assign,
    /// `+=`
    Append,
    /// `;`
    Semicolon,
    /// End of a line, with the comment before it.
    Newline,
    /// End of the text.
    End,
}

impl TokenKind {
    /// The name that a syntax error gives it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ident => "IDENT",
            Self::Number => "NUMBER",
            Self::Str(_) => "STRING",
            Self::Comma => "','",
            Self::Open => "'['",
            Self::Close => "']'",
            Self::Assign => "'='",
            Self::Append => "+=",
            Self::Semicolon => "';'",
            Self::Newline => "NEWLINE",
            Self::End => "$end",
        }
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// Where it starts.
    pub pos: Pos,
    /// Its bytes as written.
    pub text: &'a [u8],
}

/// A piece of text that is no token, or a string with a bad escape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexError<'a> {
    /// Where it starts.
    pub pos: Pos,
    /// The offending bytes.
    pub text: &'a [u8],
    /// Stock's wording.
    pub message: &'static str,
    /// What to do about it, where the wording does not say.
    pub hint: Option<&'static str>,
}

/// The scanner. [`Lexer::next_token`] gives tokens; errors collect in [`Lexer::errors`].
#[derive(Debug)]
pub struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
    line: u32,
    line_start: usize,
    /// Lexical errors since they were last taken, in order.
    pub errors: Vec<LexError<'a>>,
    /// Whether a character was met that Python code is likely to hold.
    pub likely_python: bool,
}

impl<'a> Lexer<'a> {
    /// A scanner at the start of `source`.
    #[must_use]
    pub fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            at: 0,
            line: 1,
            line_start: 0,
            errors: Vec::new(),
            likely_python: false,
        }
    }

    /// The next token; [`TokenKind::End`] again and again once the text is used up.
    pub fn next_token(&mut self) -> Token<'a> {
        loop {
            let rest = &self.source[self.at..];
            let Some(&first) = rest.first() else {
                return self.token(TokenKind::End, 0);
            };
            match first {
                b' ' | b'\t' => self.at += 1,
                b'a'..=b'z' => return self.token(TokenKind::Ident, run(rest, is_ident)),
                b'0'..=b'9' => return self.token(TokenKind::Number, run(rest, is_number)),
                b',' => return self.token(TokenKind::Comma, 1),
                b'[' => return self.token(TokenKind::Open, 1),
                b']' => return self.token(TokenKind::Close, 1),
                b'+' if rest.get(1) == Some(&b'=') => return self.token(TokenKind::Append, 2),
                b'=' => return self.token(TokenKind::Assign, 1),
                b';' => return self.token(TokenKind::Semicolon, 1),
                b'\n' => return self.newline(1),
                b'#' => {
                    if let Some(end) = rest.iter().position(|&b| b == b'\n') {
                        return self.newline(end + 1);
                    }
                    self.refuse("a comment on the last line needs a line end");
                }
                b'\'' | b'"' => match string_end(rest) {
                    Some(length) => return self.string(length),
                    None => self.refuse("a string ends on the line where it starts"),
                },
                _ => self.refuse(""),
            }
        }
    }

    fn here(&self) -> Pos {
        let column = self.at - self.line_start + 1;
        Pos {
            line: self.line,
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }

    fn token(&mut self, kind: TokenKind, length: usize) -> Token<'a> {
        let pos = self.here();
        let text = &self.source[self.at..self.at + length];
        self.at += length;
        Token { kind, pos, text }
    }

    fn newline(&mut self, length: usize) -> Token<'a> {
        let token = self.token(TokenKind::Newline, length);
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
        token
    }

    /// Reports the text from here to the next blank as no token, and steps over it.
    fn refuse(&mut self, hint: &'static str) {
        let rest = &self.source[self.at..];
        let first = rest[0];
        self.likely_python |= matches!(first, b'+' | b'-' | b'.' | b'(' | b')' | b':');
        let length = 1 + run(&rest[1..], |b| !matches!(b, b' ' | b'\t' | b'\n'));
        let hint = match first {
            _ if !hint.is_empty() => Some(hint),
            b'\r' => Some("a carriage return: save the file with Unix line ends"),
            b'A'..=b'Z' => Some("keys are lower case, and text stands in quotes"),
            b'-' => Some("a negative number stands in quotes"),
            _ => None,
        };
        let text = &rest[..length];
        self.errors.push(LexError {
            pos: self.here(),
            text,
            message: "lexical error",
            hint,
        });
        self.at += length;
    }

    fn string(&mut self, length: usize) -> Token<'a> {
        let mut token = self.token(TokenKind::End, length);
        let resolved = unescape(&token.text[1..length - 1]).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| "quoted string is not UTF-8 text")
        });
        let content = resolved.unwrap_or_else(|message| {
            let (pos, text) = (token.pos, token.text);
            self.errors.push(LexError {
                pos,
                text,
                message,
                hint: None,
            });
            String::new()
        });
        token.kind = TokenKind::Str(content);
        token
    }
}

fn is_ident(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_')
}

fn is_number(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'x')
}

fn run(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&b| wanted(b)).count()
}

/// Length of the quoted string that `bytes` starts with, quotes included; `None` if it does not end on its line.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let quote = bytes[0];
    let mut at = 1;
    loop {
        match *bytes.get(at)? {
            b'\n' => return None,
            b'\\' if *bytes.get(at + 1)? != b'\n' => at += 2,
            b'\\' => return None,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The content of a string, escapes resolved.
fn unescape(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        // `string_end` has seen to it that a backslash is never last.
        let (&code, after) = rest.split_first().ok_or(BAD_ESCAPE)?;
        rest = after;
        out.push(match code {
            b'"' | b'\'' | b'\\' => code,
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'x' => {
                let digits = rest.get(..2).ok_or(BAD_HEX)?;
                rest = &rest[2..];
                number(digits, 16).ok_or(BAD_HEX)?
            }
            b'0'..=b'7' => {
                let more = run(rest, |b| matches!(b, b'0'..=b'7')).min(2);
                let value = number(&[&[code], &rest[..more]].concat(), 8).ok_or(BAD_OCTAL)?;
                rest = &rest[more..];
                value
            }
            _ => return Err(BAD_ESCAPE),
        });
    }
    if out.contains(&0) {
        return Err("zero byte in quoted string");
    }
    Ok(out)
}

const BAD_ESCAPE: &str = "invalid character after backlash in quoted string";
const BAD_HEX: &str =
    "invalid digit after backslash hex numerical character escape in quoted string";
const BAD_OCTAL: &str =
    "invalid digit after backslash octal numerical character escape in quoted string";

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(text, radix).ok()
}
