//! A [`Tree`] as the input of serde, with errors that name what is expected in the words of the configuration.

use std::fmt::Display;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_path_to_error::Segment;

use super::error::Fault;
use super::tree::{Entry, Located, Tree, Value, join};

/// Deserializes the value at a location. An error is located by the path at which serde stopped.
pub(crate) fn read<T: DeserializeOwned>(root: &Located<'_>) -> Result<T, Fault> {
    serde_path_to_error::deserialize(Input(root.tree)).map_err(|error| {
        let (mut at, mut place) = (root.clone(), root.tree.at);
        for segment in error.path() {
            let next = match segment {
                Segment::Map { key } => at.entry(key).map(|entry| (at.inside(entry), entry.at)),
                Segment::Seq { index } => at.items().nth(*index).map(|item| (item.clone(), item.tree.at)),
                Segment::Enum { .. } | Segment::Unknown => None,
            };
            if let Some((next, key_at)) = next {
                at = next;
                place = key_at;
            }
        }
        let (place, key, problem) = match error.into_inner() {
            Error::Missing(key) => (at.tree.at, join(&at.path, key), "this key is required".to_owned()),
            Error::Unknown(key, problem) => match at.entry(&key) {
                Some(entry) => (entry.at, at.inside(entry).path, problem),
                None => (place, at.path, problem),
            },
            Error::Key(problem) => (place, at.path, problem),
            Error::Value(problem) => (at.tree.at, at.path, problem),
            Error::Type(wanted) => (at.tree.at, at.path, mismatch(&wanted, &at.tree.value)),
        };
        Fault {
            at: place,
            key,
            problem,
        }
    })
}

/// The problem of a value of another type.
fn mismatch(wanted: &str, found: &Value) -> String {
    let wanted = match wanted {
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other => other,
    };
    let quotes = if wanted == "text" {
        "; put it in quotes"
    } else {
        ""
    };
    match found {
        Value::Null => "has no value; leave the key out for its default".to_owned(),
        Value::Flag(flag) => format!("must be {wanted}, not {flag}{quotes}"),
        Value::Integer(number) => format!("must be {wanted}, not the number {number}{quotes}"),
        Value::Float(number) => format!("must be {wanted}, not the number {number}{quotes}"),
        Value::Text(text) => format!("must be {wanted}, not the text {text:?}"),
        Value::List(_) => format!("must be {wanted}, not a list"),
        Value::Mapping(_) => format!("must be {wanted}, not a mapping"),
    }
}

/// Deserializes a section that is absent: every key of such a section has a default.
pub(crate) fn absent<T: DeserializeOwned>() -> T {
    let empty = Tree::empty();
    match T::deserialize(Input(&empty)) {
        Ok(section) => section,
        Err(error) => unreachable!("a section without required keys: {error}"),
    }
}

/// A problem of serde or of one of our types; [`read`] adds the location.
#[derive(Debug)]
pub(crate) enum Error {
    /// A key is missing in this mapping.
    Missing(&'static str),
    /// This mapping has a key that is not allowed.
    Unknown(String, String),
    /// The key is wrong.
    Key(String),
    /// The value is wrong.
    Value(String),
    /// The value is not of this type.
    Type(String),
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(problem: T) -> Self {
        Self::Value(problem.to_string())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        let problem = format!("unknown key; allowed here: {}", allowed.join(", "));
        Self::Unknown(key.to_owned(), problem)
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Type(wanted.to_string())
    }
}

/// A tree as serde's input.
#[derive(Clone, Copy)]
struct Input<'de>(&'de Tree);

impl<'de> Deserializer<'de> for Input<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(i64::try_from(*number).unwrap_or(i64::MIN)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Input))),
            Value::Mapping(entries) => visitor.visit_map(Entries {
                left: entries.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if matches!(self.0.value, Value::Null) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Input<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Entries<'de> {
    left: std::slice::Iter<'de, Entry>,
    value: Option<&'de Tree>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.left.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.value);
        let key = seed.deserialize(StrDeserializer::new(&entry.key));
        key.map(Some).map_err(|error| match error {
            Error::Value(problem) => Error::Key(problem),
            Error::Missing(_) | Error::Unknown(..) | Error::Key(_) | Error::Type(_) => error,
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(Input(value)),
            None => Err(de::Error::custom("a value without its key")),
        }
    }
}
