//! A JSON value that keeps the order of its members, and the layout that stock tools print and parse.
//!
//! The layout is yajl's: four blanks per level, one member per line, `"key": value`, and a blank line inside an empty
//! map or list. Scripts grep for its exact indentation. Reading goes through serde_json, whose depth limit holds.

use std::fmt::{self, Write};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number; nothing here has fractions.
    Number(i128),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, members in order.
    Map(Map),
}

/// The members of an object, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map(pub Vec<(String, Json)>);

impl Map {
    /// Adds a member.
    pub fn put(&mut self, key: &str, value: impl Into<Json>) {
        self.0.push((key.into(), value.into()));
    }

    /// Adds a member if there is a value.
    pub fn put_some(&mut self, key: &str, value: Option<impl Into<Json>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Adds a number unless it is 0, the default of most.
    pub fn put_nonzero(&mut self, key: &str, value: impl Into<i128>) {
        let value = value.into();
        if value != 0 {
            self.put(key, Json::Number(value));
        }
    }

    /// Adds a tri-state: the strings `True` and `False`, or nothing.
    pub fn put_tristate(&mut self, key: &str, value: Option<bool>) {
        self.put_some(key, value.map(|on| if on { "True" } else { "False" }));
    }

    /// Adds a list unless it is empty.
    pub fn put_list(&mut self, key: &str, items: Vec<Json>) {
        if !items.is_empty() {
            self.put(key, Json::List(items));
        }
    }

    /// The value of a member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value)
    }

    /// The value of a member, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Json> {
        self.0
            .iter_mut()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value)
    }

    /// Replaces a member where it stands, or puts it in front of the first of `before` that is there, or last.
    pub fn set(&mut self, key: &str, value: impl Into<Json>, before: &[&str]) {
        let value = value.into();
        if let Some(slot) = self.get_mut(key) {
            *slot = value;
            return;
        }
        let place = self
            .0
            .iter()
            .position(|(k, _)| before.contains(&k.as_str()));
        self.0
            .insert(place.unwrap_or(self.0.len()), (key.into(), value));
    }
}

impl Json {
    /// The members, if this is an object.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if this is an array.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is one.
    #[must_use]
    pub fn as_number(&self) -> Option<i128> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A tri-state or a boolean.
    #[must_use]
    pub fn as_flag(&self) -> Option<bool> {
        match self {
            Self::Bool(on) => Some(*on),
            Self::Number(number) => Some(*number != 0),
            Self::Text(text) if text == "True" => Some(true),
            Self::Text(text) if text == "False" => Some(false),
            _ => None,
        }
    }

    fn write(&self, out: &mut impl Write, level: usize) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(on) => write!(out, "{on}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => write_text(out, text),
            Self::List(items) => write_block(out, level, ['[', ']'], items, |out, item, level| {
                item.write(out, level)
            }),
            Self::Map(Map(members)) => write_block(
                out,
                level,
                ['{', '}'],
                members,
                |out, (key, value), level| {
                    write_text(out, key)?;
                    out.write_str(": ")?;
                    value.write(out, level)
                },
            ),
        }
    }
}

/// Brackets around items, one per line; a blank line if there is none.
fn write_block<W: Write, T>(
    out: &mut W,
    level: usize,
    [open, close]: [char; 2],
    items: &[T],
    mut each: impl FnMut(&mut W, &T, usize) -> fmt::Result,
) -> fmt::Result {
    out.write_char(open)?;
    for (index, item) in items.iter().enumerate() {
        out.write_str(if index == 0 { "\n" } else { ",\n" })?;
        indent(out, level + 1)?;
        each(out, item, level + 1)?;
    }
    out.write_str(if items.is_empty() { "\n\n" } else { "\n" })?;
    indent(out, level)?;
    out.write_char(close)
}

fn indent(out: &mut impl Write, level: usize) -> fmt::Result {
    (0..level).try_for_each(|_| out.write_str("    "))
}

fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c < ' ' => write!(out, "\\u{:04X}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// The value in yajl's layout, with the newline that yajl puts behind it.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)?;
        f.write_char('\n')
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Json {
    fn from(on: bool) -> Self {
        Self::Bool(on)
    }
}

impl From<Map> for Json {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<i32> for Json {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Json {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without fractions")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Json, E> {
        Ok(Json::Bool(on))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut map = Map::default();
        while let Some((key, value)) = members.next_entry::<String, Json>()? {
            map.0.push((key, value));
        }
        Ok(Json::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_layout_is_the_one_scripts_grep_for() {
        let value = parse(r#"{"z":1,"a":[true,null,"x"],"m":{},"l":[],"n":-4294967295}"#);
        let want = "{\n    \"z\": 1,\n    \"a\": [\n        true,\n        null,\n        \"x\"\n    ],\n    \
            \"m\": {\n\n    },\n    \"l\": [\n\n    ],\n    \"n\": -4294967295\n}\n";
        assert_eq!(value.to_string(), want);
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut map = Map::default();
        map.put("\"\\\u{8}\u{c}\n\r\t\u{1f}é/", "tab\tquote\"slash/");
        map.put("big", u64::MAX);
        let value = Json::Map(map);
        assert_eq!(parse(&value.to_string()), value);
        assert!(value.to_string().contains("\\u001F"));
    }

    #[test]
    fn members_are_replaced_in_place_or_put_before_their_successors() {
        let mut map = Map::default();
        map.put("a", 1);
        map.put("c", 3);
        map.set("b", 2, &["c", "d"]);
        map.set("a", 9, &[]);
        map.set("e", 5, &["x"]);
        let keys: String = map.0.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, "abce");
        assert_eq!(map.get("a").and_then(Json::as_number), Some(9));
    }
}
