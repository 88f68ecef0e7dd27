//! The kinds of keys, and a macro that defines a section: a struct whose keys are each spelled once, with kind and default.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::duration::{self, Text};

/// Defines a section and its serde implementations. An unknown key and a missing key without a default are refused.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $key:expr,)*
        }
        $(beside $(#[$note:meta])* $beside:ident: $beside_type:ty)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            $($(#[$note])* pub $beside: $beside_type,)?
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Keys;

                impl<'de> serde::de::Visitor<'de> for Keys {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a mapping")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<$name, A::Error> {
                        $(let mut $field = None;)*
                        while let Some(key) = entries.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => {
                                    $field = Some(entries.next_value_seed($crate::section::Seed(&$key))?);
                                })*
                                _ => return Err(serde::de::Error::unknown_field(&key, &[$(stringify!($field)),*])),
                            }
                        }
                        Ok($name {
                            $($field: match $field {
                                Some(value) => value,
                                None => $crate::section::absent(&$key, stringify!($field))?,
                            },)*
                            $($beside: <$beside_type>::default(),)?
                        })
                    }
                }

                deserializer.deserialize_map(Keys)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(serde::ser::SerializeMap::serialize_entry(
                    &mut map,
                    stringify!($field),
                    &$crate::section::Written(&$key, &self.$field),
                )?;)*
                serde::ser::SerializeMap::end(map)
            }
        }
    };
}
pub(crate) use section;

/// How the value of a key is read and written, and its value where the key is absent.
pub(crate) trait Key {
    type Value;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Self::Value, D::Error>;
    fn write<S: Serializer>(&self, value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error>;
    fn absent(&self) -> Option<Self::Value>;
}

/// The value of a key that is absent.
pub(crate) fn absent<K: Key, E: Error>(key: &K, name: &'static str) -> Result<K::Value, E> {
    key.absent().ok_or_else(|| E::missing_field(name))
}

pub(crate) struct Seed<'k, K>(pub(crate) &'k K);

impl<'de, K: Key> DeserializeSeed<'de> for Seed<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        self.0.read(deserializer)
    }
}

pub(crate) struct Written<'k, K: Key>(pub(crate) &'k K, pub(crate) &'k K::Value);

impl<K: Key> Serialize for Written<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(self.1, serializer)
    }
}

/// A value with an implementation of serde, its default and a check.
pub(crate) struct Plain<T>(Option<T>, fn(&T) -> Result<(), &'static str>);

/// A key without a default.
pub(crate) fn required<T>() -> Plain<T> {
    Plain(None, |_| Ok(()))
}

/// A key with a default.
pub(crate) fn default<T>(value: T) -> Plain<T> {
    Plain(Some(value), |_| Ok(()))
}

/// A section without required keys.
pub(crate) fn subsection<T: for<'de> Deserialize<'de>>() -> Plain<T> {
    default(super::de::absent())
}

/// A list of one or more.
pub(crate) fn filled<T>() -> Plain<Vec<T>> {
    Plain(None, |list| {
        if list.is_empty() {
            Err("needs at least one entry")
        } else {
            Ok(())
        }
    })
}

impl<T: Clone + Serialize + for<'de> Deserialize<'de>> Key for Plain<T> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<T, D::Error> {
        let value = T::deserialize(deserializer)?;
        (self.1)(&value).map_err(D::Error::custom)?;
        Ok(value)
    }

    fn write<S: Serializer>(&self, value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn absent(&self) -> Option<T> {
        self.0.clone()
    }
}

/// A text that `parse` accepts, and its default.
pub(crate) struct Parsed<T, F> {
    pub(crate) parse: F,
    pub(crate) default: Option<T>,
}

/// A text without a default.
pub(crate) fn text<T, F: Fn(&str) -> Result<T, String>>(parse: F) -> Parsed<T, F> {
    Parsed { parse, default: None }
}

/// A text with a default.
pub(crate) fn text_or<T, F: Fn(&str) -> Result<T, String>>(parse: F, default: impl Into<T>) -> Parsed<T, F> {
    let default = Some(default.into());
    Parsed { parse, default }
}

impl<T: Clone + Display, F: Fn(&str) -> Result<T, String>> Key for Parsed<T, F> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(TextVisitor("text", &self.parse))
    }

    fn write<S: Serializer>(&self, value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    fn absent(&self) -> Option<T> {
        self.default.clone()
    }
}

/// A key that may be absent or `null`.
pub(crate) struct Optional<K>(pub(crate) K);

impl<K: Key> Key for Optional<K> {
    type Value = Option<K::Value>;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }

    fn write<S: Serializer>(&self, value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => self.0.write(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    fn absent(&self) -> Option<Self::Value> {
        Some(None)
    }
}

impl<'de, K: Key> Visitor<'de> for &Optional<K> {
    type Value = Option<K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.read(deserializer).map(Some)
    }
}

/// A duration within bounds, and its default.
pub(crate) struct Within(Duration, RangeInclusive<Duration>);

/// A duration within bounds.
pub(crate) const fn within(default: Duration, allowed: RangeInclusive<Duration>) -> Within {
    Within(default, allowed)
}

/// A number within bounds, and its default.
pub(crate) struct Count<T>(T, RangeInclusive<T>);

/// A number within bounds.
pub(crate) const fn count<T>(default: T, allowed: RangeInclusive<T>) -> Count<T> {
    Count(default, allowed)
}

impl Key for Within {
    type Value = Duration;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Duration, D::Error> {
        let wanted = "a duration with its unit, such as 2s or 250ms";
        let found = deserializer.deserialize_str(TextVisitor(wanted, duration::parse))?;
        check(found, &self.1).map_err(D::Error::custom)?;
        Ok(found)
    }

    fn write<S: Serializer>(&self, value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Text(*value))
    }

    fn absent(&self) -> Option<Duration> {
        Some(self.0)
    }
}

impl<T> Key for Count<T>
where
    T: Copy + PartialOrd + Display + TryFrom<i128> + Serialize,
{
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<T, D::Error> {
        let found = deserializer.deserialize_u32(Whole)?;
        let number = T::try_from(found).ok().filter(|number| self.1.contains(number));
        number.ok_or_else(|| {
            let (start, end) = (self.1.start(), self.1.end());
            let is_bounded = T::try_from(u32::MAX.into()).ok() != Some(*end);
            let allowed = if is_bounded {
                format!("{start} to {end}")
            } else {
                format!("{start} or more")
            };
            D::Error::custom(format_args!("{found} is out of range; allowed: {allowed}"))
        })
    }

    fn write<S: Serializer>(&self, value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    fn absent(&self) -> Option<T> {
        Some(self.0)
    }
}

/// Checks a duration against bounds, also those that depend on other keys.
pub(crate) fn check(found: Duration, allowed: &RangeInclusive<Duration>) -> Result<(), String> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let (found, start, end) = (Text(found), Text(*allowed.start()), Text(*allowed.end()));
    Err(format!("{found} is out of range; allowed: {start} to {end}"))
}

/// A text that a function accepts; where the value is not a text, the error expects the first field.
pub(crate) struct TextVisitor<F>(pub(crate) &'static str, pub(crate) F);

impl<T, F: Fn(&str) -> Result<T, String>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E>(self, number: i64) -> Result<i128, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<i128, E> {
        Ok(number.into())
    }
}
