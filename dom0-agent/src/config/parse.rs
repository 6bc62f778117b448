//! Tokens to a syntax tree, by libxlu's grammar and with its error messages.
//!
//! ```text
//! file      : { statement } [ assignment ]
//! statement : assignment end | end                end        : NEWLINE | ';'
//! assignment: IDENT ( '=' | '+=' ) value          value      : STRING | NUMBER | list
//! list      : '[' { NEWLINE } [ value { NEWLINE } { ',' { NEWLINE } value { NEWLINE } } [ ',' { NEWLINE } ] ] ']'
//! ```
//!
//! After an error, reading goes on behind the next newline, so that several errors can be told at once; an error
//! inside a list goes on at the next line that starts with a key, so that the rest of the list is not told as well.
//!
//! Messages are libxlu's, with three corrections: an unexpected end of line is told with the line it ends (stock says
//! one less), a single wrong character at the very end is told (stock overlooks it), and the column stands behind.

use super::diag::{Pos, Report};
use super::lex::{Lexer, Token, TokenKind};
use super::limits::{
    MAX_APPENDED_BYTES, MAX_LIST_DEPTH, MAX_LIST_ITEMS, MAX_REPORTED_ERRORS, MAX_SETTINGS,
    MAX_SOURCE_BYTES,
};
use super::tree::{Op, Setting, Tree, Value, ValueKind};

/// The last words about a configuration that does not parse.
pub const FAILED: &str = "Failed to parse config: Invalid argument";

/// The three lines stock adds when the text looks like Python.
const PYTHON: &str = "warning: Config file looks like it contains Python code.\n\
    warning:  Arbitrary Python is no longer supported.\n\
    warning:  See https://wiki.xen.org/wiki/PythonInXlConfig";

const EXPECT_STATEMENT: &str = "$end or IDENT or NEWLINE or ';'";
const EXPECT_OPERATOR: &str = "+= or '='";
const EXPECT_VALUE: &str = "STRING or NUMBER or '['";
const EXPECT_END: &str = "$end";
const EXPECT_CLOSE: &str = "']'";

/// The configuration text with the command line's `key=value` arguments behind it, as stock joins them.
#[must_use]
pub fn with_overrides(source: &[u8], overrides: &[String]) -> Vec<u8> {
    let mut all = source.to_vec();
    if !overrides.is_empty() {
        all.push(b'\n');
        for setting in overrides {
            all.extend_from_slice(setting.as_bytes());
            all.push(b'\n');
        }
    }
    all
}

/// Parses `source`, which error messages call `name`.
///
/// # Errors
/// The report of everything that is wrong, ending with [`FAILED`].
pub fn parse(name: &str, source: &[u8]) -> Result<Tree, Report> {
    let mut report = Report::default();
    if source.len() > MAX_SOURCE_BYTES {
        let size = source.len();
        report.error(
            None,
            format!("{name}: {size} bytes, more than the limit of {MAX_SOURCE_BYTES}"),
        );
        report.error(None, FAILED);
        return Err(report);
    }
    let mut parser = Parser::new(name, source);
    parser.file();
    let Parser {
        tree,
        errors,
        hidden,
        lexer,
        ..
    } = parser;
    if errors.is_empty() {
        return Ok(tree);
    }
    for (pos, text) in errors {
        report.error(Some(pos), text);
    }
    if hidden > 0 {
        report.error(None, format!("{name}: {hidden} more errors"));
    }
    if lexer.likely_python {
        report.warn(None, PYTHON);
    }
    report.error(None, FAILED);
    Err(report)
}

/// An error was reported; the caller gives up its rule.
struct Broken;

struct Parser<'a> {
    name: &'a str,
    lexer: Lexer<'a>,
    ahead: Token<'a>,
    tree: Tree,
    /// The first errors in order, complete texts.
    errors: Vec<(Pos, String)>,
    /// How many more there are.
    hidden: usize,
    /// Later errors on this line or an earlier one are consequences of a lexical error.
    lexical_line: u32,
    depth: usize,
    items: usize,
    appended: usize,
}

impl<'a> Parser<'a> {
    fn new(name: &'a str, source: &'a [u8]) -> Self {
        let mut lexer = Lexer::new(source);
        let ahead = lexer.next_token();
        let mut parser = Self {
            name,
            lexer,
            ahead,
            tree: Tree::default(),
            errors: Vec::new(),
            hidden: 0,
            lexical_line: 0,
            depth: 0,
            items: 0,
            appended: 0,
        };
        parser.collect_lexical();
        parser
    }

    fn advance(&mut self) -> Token<'a> {
        let next = self.lexer.next_token();
        let token = std::mem::replace(&mut self.ahead, next);
        self.collect_lexical();
        token
    }

    fn collect_lexical(&mut self) {
        for error in std::mem::take(&mut self.lexer.errors) {
            if error.pos.line > self.lexical_line {
                self.report(error.pos, error.text, error.message, error.hint);
            }
            self.lexical_line = error.pos.line;
        }
    }

    fn report(&mut self, pos: Pos, text: &[u8], message: &str, hint: Option<&str>) {
        if self.errors.len() == MAX_REPORTED_ERRORS {
            self.hidden += 1;
            return;
        }
        let Self { name, .. } = self;
        let near = near(text);
        let Pos { line, column } = pos;
        let hint = hint.map(|h| format!(": {h}")).unwrap_or_default();
        self.errors.push((
            pos,
            format!(
                "{name}:{line}: config parsing error near {near}: {message} (column {column}{hint})"
            ),
        ));
    }

    fn unexpected(&mut self, expecting: &str) -> Broken {
        let (pos, text) = (self.ahead.pos, self.ahead.text);
        if pos.line > self.lexical_line {
            let got = self.ahead.kind.name();
            let message = format!("syntax error, unexpected {got}, expecting {expecting}");
            let bare_word = self.ahead.kind == TokenKind::Ident && expecting == EXPECT_VALUE;
            let hint = bare_word.then_some("text stands in quotes");
            self.report(pos, text, &message, hint);
        }
        Broken
    }

    fn too_much(&mut self, pos: Pos, what: &str, limit: usize) -> Broken {
        self.report(pos, b"", &format!("more than {limit} {what}"), None);
        Broken
    }

    fn file(&mut self) {
        while self.ahead.kind != TokenKind::End {
            let inside_list = match self.statement() {
                Ok(()) => continue,
                Err(Broken) => self.depth > 0,
            };
            self.depth = 0;
            self.recover(inside_list);
        }
    }

    /// Skips to behind the next newline; from inside a list, to the next line that starts with a key.
    fn recover(&mut self, inside_list: bool) {
        loop {
            while !matches!(self.ahead.kind, TokenKind::Newline | TokenKind::End) {
                self.advance();
            }
            if self.ahead.kind == TokenKind::End {
                return;
            }
            self.advance();
            if !inside_list || self.ahead.kind == TokenKind::Ident {
                return;
            }
        }
    }

    fn statement(&mut self) -> Result<(), Broken> {
        match self.ahead.kind {
            TokenKind::Newline | TokenKind::Semicolon => {
                self.advance();
                return Ok(());
            }
            TokenKind::Ident => {}
            _ => return Err(self.unexpected(EXPECT_STATEMENT)),
        }
        let key = self.advance();
        let op = match self.ahead.kind {
            TokenKind::Assign => Op::Assign,
            TokenKind::Append => Op::Append,
            _ => return Err(self.unexpected(EXPECT_OPERATOR)),
        };
        self.advance();
        let last = self.ahead.clone();
        let value = self.value()?;
        match self.ahead.kind {
            TokenKind::Newline | TokenKind::Semicolon | TokenKind::End => {}
            _ => return Err(self.unexpected(EXPECT_END)),
        }
        self.store(&key, op, value, last.text)
    }

    fn value(&mut self) -> Result<Value, Broken> {
        match self.ahead.kind {
            TokenKind::Str(_) | TokenKind::Number => {
                let token = self.advance();
                let text = match token.kind {
                    TokenKind::Str(text) => text,
                    _ => String::from_utf8_lossy(token.text).into_owned(),
                };
                Ok(Value {
                    pos: token.pos,
                    kind: ValueKind::Atom(text),
                })
            }
            TokenKind::Open => self.list(),
            _ => Err(self.unexpected(EXPECT_VALUE)),
        }
    }

    fn list(&mut self) -> Result<Value, Broken> {
        let open = self.advance();
        self.depth += 1;
        if self.depth > MAX_LIST_DEPTH {
            return Err(self.too_much(open.pos, "lists inside each other", MAX_LIST_DEPTH));
        }
        let mut values = Vec::new();
        loop {
            self.skip_newlines();
            match self.ahead.kind {
                TokenKind::Close => break,
                TokenKind::Str(_) | TokenKind::Number | TokenKind::Open => {}
                _ => return Err(self.unexpected(EXPECT_CLOSE)),
            }
            self.count_items(open.pos, 1)?;
            values.push(self.value()?);
            self.skip_newlines();
            match self.ahead.kind {
                TokenKind::Comma => self.advance(),
                TokenKind::Close => break,
                _ => return Err(self.unexpected(EXPECT_CLOSE)),
            };
        }
        self.advance();
        self.depth -= 1;
        Ok(Value {
            pos: open.pos,
            kind: ValueKind::List(values),
        })
    }

    fn skip_newlines(&mut self) {
        while self.ahead.kind == TokenKind::Newline {
            self.advance();
        }
    }

    fn count_items(&mut self, pos: Pos, more: usize) -> Result<(), Broken> {
        self.items += more;
        if self.items > MAX_LIST_ITEMS {
            return Err(self.too_much(pos, "list items", MAX_LIST_ITEMS));
        }
        Ok(())
    }

    fn store(
        &mut self,
        key: &Token<'a>,
        op: Op,
        mut value: Value,
        text: &'a [u8],
    ) -> Result<(), Broken> {
        let name = String::from_utf8_lossy(key.text).into_owned();
        if self.tree.settings.len() == MAX_SETTINGS {
            return Err(self.too_much(key.pos, "settings", MAX_SETTINGS));
        }
        let earlier = self.tree.find(&name).filter(|_| op == Op::Append);
        match (earlier.map(|s| &s.value.kind), &mut value.kind) {
            (None, _) => {}
            (Some(ValueKind::Atom(before)), ValueKind::Atom(after)) => {
                after.insert_str(0, before);
                self.appended += after.len();
                if self.appended > MAX_APPENDED_BYTES {
                    return Err(self.too_much(key.pos, "bytes joined by +=", MAX_APPENDED_BYTES));
                }
            }
            (Some(ValueKind::List(before)), ValueKind::List(after)) => {
                let repeated = before.len();
                after.splice(..0, before.iter().cloned());
                self.count_items(key.pos, repeated)?;
            }
            (Some(_), _) => {
                let message = "can't add [list] to \"string\" or vice versa";
                self.report(value.pos, text, message, None);
                return Err(Broken);
            }
        }
        self.tree.settings.push(Setting {
            name,
            pos: key.pos,
            op,
            value,
        });
        Ok(())
    }
}

/// How an error message shows the text it is about.
fn near(text: &[u8]) -> String {
    let Some(last) = text
        .iter()
        .rposition(|b| !matches!(b, b'\n' | b' ' | b'\t'))
    else {
        return if text.contains(&b'\n') {
            "<newline>".into()
        } else {
            "`'".into()
        };
    };
    let shown = String::from_utf8_lossy(&text[..=last]);
    let printable: String = shown.chars().filter(|c| !c.is_control()).collect();
    format!("`{printable}'")
}
