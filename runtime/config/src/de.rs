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
            Error::Key(problem) => (place, at.path, problem),
            Error::Missing(key) => (at.tree.at, join(&at.path, key), "this key is required".to_owned()),
            Error::Value(problem) => (at.tree.at, at.path, problem),
        };
        Fault {
            at: place,
            key,
            problem,
        }
    })
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
    /// The key is wrong.
    Key(String),
    /// The value is wrong.
    Value(String),
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(text) => f.write_str(text),
            Self::Key(text) | Self::Value(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn into_key(self) -> Self {
        match self {
            Self::Value(problem) => Self::Key(problem),
            Self::Missing(_) | Self::Key(_) => self,
        }
    }
}

impl de::Error for Error {
    fn custom<T: Display>(problem: T) -> Self {
        Self::Value(problem.to_string())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key)
    }

    fn unknown_field(_: &str, allowed: &'static [&'static str]) -> Self {
        Self::Key(format!("unknown key; allowed here: {}", allowed.join(", ")))
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = match wanted.to_string().as_str() {
            "a string" => "text".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "a sequence" => "a list".to_owned(),
            other if other.starts_with("struct ") || other == "a map" => "a mapping".to_owned(),
            other => other.to_owned(),
        };
        let (found, is_scalar) = match found {
            Unexpected::Unit | Unexpected::Option => {
                return Self::custom("has no value; leave the key out for its default");
            }
            Unexpected::Bool(flag) => (flag.to_string(), true),
            Unexpected::Unsigned(number) => (format!("the number {number}"), true),
            Unexpected::Signed(number) => (format!("the number {number}"), true),
            Unexpected::Float(number) => (format!("the number {number}"), true),
            Unexpected::Str(text) => (format!("the text {text:?}"), false),
            Unexpected::Seq => ("a list".to_owned(), false),
            Unexpected::Map => ("a mapping".to_owned(), false),
            Unexpected::Char(_)
            | Unexpected::Bytes(_)
            | Unexpected::NewtypeStruct
            | Unexpected::Enum
            | Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant
            | Unexpected::Other(_) => (found.to_string(), false),
        };
        let advice = if is_scalar && wanted == "text" {
            "; put it in quotes"
        } else {
            ""
        };
        Self::Value(format!("must be {wanted}, not {found}{advice}"))
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
        match self.0.value {
            Value::Null => visitor.visit_none(),
            Value::Flag(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Mapping(_) => visitor.visit_some(self),
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
        key.map(Some).map_err(Error::into_key)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(Input(value)),
            None => Err(de::Error::custom("a value without its key")),
        }
    }
}
