//! A YAML document as a tree in which every key and every value has its place, so that a problem which is found later can
//! still be located.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{Fault, Place};

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its first character.
    pub at: Place,
    /// The value.
    pub value: Value,
}

/// The kinds of values in YAML.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`, or nothing.
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
    /// The first character of the key.
    pub at: Place,
    /// Its value.
    pub value: Tree,
}

impl Tree {
    /// Reads one document, in which no mapping has a key twice.
    ///
    /// # Errors
    ///
    /// The text is not YAML, or a mapping has a key twice.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| YamlError::new(&error))
    }

    /// A mapping without entries.
    pub(crate) const fn empty() -> Self {
        Self {
            at: Place { line: 0, column: 0 },
            value: Value::Mapping(Vec::new()),
        }
    }

    /// The value of a key, for changes.
    pub(crate) fn value_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Mapping(entries) = &mut self.value else {
            return None;
        };
        entries
            .iter_mut()
            .find(|entry| entry.key == key)
            .map(|entry| &mut entry.value)
    }

    /// The entries of a mapping; other values have none.
    pub(crate) fn entries(&self) -> &[Entry] {
        let Value::Mapping(entries) = &self.value else {
            return &[];
        };
        entries
    }
}

/// A value and the path of keys that leads to it.
#[derive(Clone)]
pub(crate) struct Located<'t> {
    pub(crate) tree: &'t Tree,
    /// As in `egress.routes[0].prefix`.
    pub(crate) path: String,
}

impl<'t> Located<'t> {
    pub(crate) fn fault(&self, problem: impl Into<String>) -> Fault {
        Fault {
            at: self.tree.at,
            key: self.path.clone(),
            problem: problem.into(),
        }
    }

    /// The entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.tree.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of an entry.
    pub(crate) fn inside(&self, entry: &'t Entry) -> Self {
        Self {
            tree: &entry.value,
            path: join(&self.path, &entry.key),
        }
    }

    /// The value of a key, unless it is absent or `null`.
    pub(crate) fn find(&self, key: &str) -> Option<Self> {
        let found = self.inside(self.entry(key)?);
        (!matches!(found.tree.value, Value::Null)).then_some(found)
    }

    /// The value of a key that is present, or this value.
    pub(crate) fn at(&self, key: &str) -> Self {
        self.entry(key)
            .map_or_else(|| self.clone(), |entry| self.inside(entry))
    }

    /// The items of a list; other values have none.
    pub(crate) fn items(&self) -> impl Iterator<Item = Self> + use<'t> {
        let items: &[Tree] = if let Value::List(items) = &self.tree.value {
            items
        } else {
            &[]
        };
        let path = self.path.clone();
        let item = move |(index, tree)| Self {
            tree,
            path: format!("{path}[{index}]"),
        };
        items.iter().enumerate().map(item)
    }
}

/// Refuses a value that appears twice; `what` describes it.
pub(crate) fn unique<'t, K: Ord>(
    all: impl IntoIterator<Item = (K, Located<'t>)>,
    what: impl Fn(&K) -> String,
) -> Result<(), Fault> {
    let mut seen: BTreeMap<K, Place> = BTreeMap::new();
    for (key, at) in all {
        if let Some(first) = seen.get(&key) {
            return Err(at.fault(format!("{} is already on line {}", what(&key), first.line)));
        }
        seen.insert(key, at.tree.at);
    }
    Ok(())
}

/// The path of a key inside a mapping.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A syntax error.
#[derive(Debug)]
pub struct YamlError {
    /// Where the parser stopped.
    pub at: Place,
    /// The parser's message.
    pub message: String,
}

impl YamlError {
    /// Splits the parser's error into message and place.
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
    fn every_key_and_value_has_its_place() {
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
