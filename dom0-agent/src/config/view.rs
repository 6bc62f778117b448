//! Reading settings out of a syntax tree, with stock's warnings about values of the wrong shape.
//!
//! A value of the wrong shape counts as absent. [`View::check_shapes`] says so once for every key that the guest
//! reads; the getters themselves are silent.

use super::diag::{Pos, Report};
use super::domain::DomainKind;
use super::keys::{KEYS, Key, Shape};
use super::number::c_long;
use super::tree::{Op, Setting, Tree, Value, ValueKind};

/// A tree, the name that messages give it, and what has been said about it so far.
#[derive(Debug)]
pub struct View<'a> {
    /// The settings.
    pub tree: &'a Tree,
    /// What messages start with.
    pub source: &'a str,
    /// What has been said so far.
    pub report: Report,
}

impl<'a> View<'a> {
    /// A view of `tree`, about which nothing has been said.
    #[must_use]
    pub fn new(source: &'a str, tree: &'a Tree) -> Self {
        Self {
            tree,
            source,
            report: Report::default(),
        }
    }

    /// Adds a warning about a setting.
    pub fn warn(&mut self, name: &str, text: impl Into<String>) {
        let pos = self.pos(name);
        self.report.warn(pos, text);
    }

    /// Where the value of a setting stands.
    #[must_use]
    pub fn pos(&self, name: &str) -> Option<Pos> {
        self.tree.find(name).map(|s| s.value.pos)
    }

    /// The text of a setting that is no list.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.tree.find(name)?.value.atom()
    }

    /// The number of a setting.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let setting = self.tree.find(name).filter(|s| s.op == Op::Assign)?;
        c_long(setting.value.atom()?)
    }

    /// The items of a setting that is a list.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<&'a [Value]> {
        match &self.tree.find(name)?.value.kind {
            ValueKind::List(items) => Some(items),
            ValueKind::Atom(_) => None,
        }
    }

    /// The texts of a list, up to the first item that is a list itself.
    pub fn texts(&self, name: &str) -> Option<impl Iterator<Item = (Pos, &'a str)> + use<'a>> {
        let items = self.list(name)?;
        Some(
            items
                .iter()
                .map_while(|item| Some((item.pos, item.atom()?))),
        )
    }

    /// Warns about every setting that `kind` reads and whose value has the wrong shape.
    pub fn check_shapes(&mut self, kind: DomainKind) {
        for key in KEYS.iter().filter(|key| key.scope.covers(kind)) {
            let Some(setting) = self.tree.find(key.name) else {
                continue;
            };
            if let Some(warning) = wrong_shape(self.source, key, setting) {
                self.report.warn(Some(setting.value.pos), warning);
            }
        }
    }

    /// Whether a setting is there with a value that its key can take.
    #[must_use]
    pub fn usable(&self, key: &Key) -> Option<&'a Setting> {
        self.tree
            .find(key.name)
            .filter(|s| wrong_shape(self.source, key, s).is_none())
    }
}

fn wrong_shape(source: &str, key: &Key, setting: &Setting) -> Option<String> {
    let (name, line) = (key.name, setting.value.pos.line);
    let at = format!("{source}:{line}: warning:");
    match (key.shape, &setting.value.kind) {
        (Shape::TextOrList, _)
        | (Shape::List, ValueKind::List(_))
        | (Shape::Text, ValueKind::Atom(_)) => None,
        (Shape::Text | Shape::Number, ValueKind::List(_)) => Some(format!(
            "{at} parameter `{name}' is a list but should be a single value"
        )),
        (Shape::List, ValueKind::Atom(_)) => Some(format!(
            "{at} parameter `{name}' is a single value but should be a list"
        )),
        (Shape::Number, ValueKind::Atom(_)) if setting.op == Op::Append => Some(format!(
            "{at} can't use += with numbers for parameter `{name}'"
        )),
        (Shape::Number, ValueKind::Atom(text)) => match c_long(text) {
            Some(_) => None,
            None if out_of_range(text) => Some(format!(
                "{at} parameter `{name}' could not be parsed as a number: \
                 Numerical result out of range"
            )),
            None => Some(format!("{at} parameter `{name}' is not a valid number")),
        },
    }
}

/// Whether a text is a number that is only too large.
fn out_of_range(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0')
}
