//! The syntax tree of a configuration: settings in order, every node with its place.
//!
//! Built by [`super::parse`], read through [`super::view`]. A tree never holds more than the limits allow.

use super::diag::Pos;
use super::domain::CarriedValue;

/// A value: xl.cfg knows text (numbers are text too) and lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Where it starts.
    pub pos: Pos,
    /// What it is.
    pub kind: ValueKind,
}

/// The two kinds of value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// A number or a string, quotes and escapes resolved.
    Atom(String),
    /// A list.
    List(Vec<Value>),
}

impl Value {
    /// The text, if this is not a list.
    #[must_use]
    pub fn atom(&self) -> Option<&str> {
        match &self.kind {
            ValueKind::Atom(text) => Some(text),
            ValueKind::List(_) => None,
        }
    }

    /// The same value without its places.
    #[must_use]
    pub fn carried(&self) -> CarriedValue {
        match &self.kind {
            ValueKind::Atom(text) => CarriedValue::Atom(text.clone()),
            ValueKind::List(items) => CarriedValue::List(items.iter().map(Self::carried).collect()),
        }
    }
}

/// `=` or `+=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Replaces an earlier value.
    Assign,
    /// Is joined to the latest earlier value.
    Append,
}

/// One `key = value` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub pos: Pos,
    /// How it was assigned.
    pub op: Op,
    /// The value; after `+=` it is the joined one.
    pub value: Value,
}

/// A whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Settings in order of appearance, repeated keys included.
    pub settings: Vec<Setting>,
}

impl Tree {
    /// The setting that counts for `name`: the last one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|s| s.name == name)
    }
}
