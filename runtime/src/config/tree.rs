//! A YAML document as a tree in which every key and every value knows its place, so that a problem which is
//! found later can still name its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it begins.
    pub at: Place,
    /// What it is.
    pub value: Value,
}

/// What YAML knows.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping, in the order of the file.
    Mapping(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub at: Place,
    /// What belongs to it.
    pub value: Tree,
}

impl Tree {
    /// Reads one document, in which no mapping has a key twice.
    ///
    /// # Errors
    ///
    /// It is no YAML, or has a key twice.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| YamlError::new(&error))
    }
}

/// Why a text is no YAML.
#[derive(Debug)]
pub struct YamlError {
    /// Where the parser stopped.
    pub at: Place,
    /// What the parser said.
    pub message: String,
}

impl YamlError {
    /// Parts the parser's message from its place.
    fn new(error: &Error) -> Self {
        let mut innermost = error;
        while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = innermost {
            innermost = error;
        }
        let message = UserMessageFormatter.format_message(innermost).into_owned();
        Self {
            at: error.location().map(place).unwrap_or_default(),
            message,
        }
    }
}

fn place(location: Location) -> Place {
    Place {
        line: location.line(),
        column: location.column(),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            at: place(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut mapping = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let at = place(key.referenced);
            mapping.push(Entry {
                key: key.value,
                at,
                value: entries.next_value()?,
            });
        }
        Ok(Value::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_place() {
        let tree = Tree::parse("a: {b: [x, 2s]}\nc:\n  d: 1\n").unwrap();
        let Value::Mapping(entries) = &tree.value else {
            panic!("{tree:?}")
        };
        assert_eq!(entries[1].key, "c");
        assert_eq!(entries[1].at, Place { line: 2, column: 1 });
        let Value::Mapping(inner) = &entries[0].value.value else {
            panic!("{tree:?}")
        };
        let Value::List(items) = &inner[0].value.value else {
            panic!("{tree:?}")
        };
        assert_eq!(items[1].at, Place { line: 1, column: 12 });
    }

    #[test]
    fn only_true_and_false_are_flags() {
        let tree = Tree::parse("[yes, true, 'true', 12, 1.5, ~]").unwrap();
        let Value::List(items) = tree.value else {
            panic!("{tree:?}")
        };
        let kinds: Vec<_> = items.iter().map(|item| format!("{:?}", item.value)).collect();
        assert_eq!(
            kinds,
            [
                "Text(\"yes\")",
                "Flag(true)",
                "Text(\"true\")",
                "Integer(12)",
                "Float(1.5)",
                "Null"
            ]
        );
    }
}
