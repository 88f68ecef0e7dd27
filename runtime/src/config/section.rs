//! Typed reading of the tree: each step names the key path of what it refuses.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{Fault, Place, Problem};
use super::tree::{Entry, Tree, Value};
use super::value::{self, Text};

/// A value with the path that leads to it.
#[derive(Clone)]
pub struct Item<'t> {
    /// The value.
    pub tree: &'t Tree,
    /// The keys to it, as in `egress.routes[0].prefix`.
    pub path: String,
}

/// A mapping whose keys are known to be allowed.
pub struct Section<'t> {
    at: Place,
    path: String,
    entries: &'t [Entry],
}

impl<'t> Item<'t> {
    /// Blames this value.
    pub fn fault(&self, problem: Problem) -> Fault {
        Fault {
            at: self.tree.at,
            key: self.path.clone(),
            problem,
        }
    }

    fn wrong_type(&self, wanted: &'static str) -> Fault {
        let value = &self.tree.value;
        if matches!(value, Value::Null) {
            return self.fault(Problem::NoValue);
        }
        let quote = wanted == "text" && matches!(value, Value::Flag(_) | Value::Integer(_) | Value::Float(_));
        self.fault(Problem::WrongType {
            wanted,
            found: describe(value),
            quote,
        })
    }

    fn entries(&self) -> Result<&'t [Entry], Fault> {
        match &self.tree.value {
            Value::Mapping(entries) => Ok(entries),
            Value::Null
            | Value::Flag(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => Err(self.wrong_type("a mapping")),
        }
    }

    /// A mapping with some of the keys in `allowed` and no others.
    pub fn section(&self, allowed: &'static [&'static str]) -> Result<Section<'t>, Fault> {
        let entries = self.entries()?;
        let path = self.path.clone();
        if let Some(entry) = entries.iter().find(|entry| !allowed.contains(&&*entry.key)) {
            let key = join(&path, &entry.key);
            return Err(Fault {
                at: entry.at,
                key,
                problem: Problem::UnknownKey { allowed },
            });
        }
        Ok(Section {
            at: self.tree.at,
            path,
            entries,
        })
    }

    /// A mapping whose keys are names: each with the place of its key.
    pub fn named(&self) -> Result<Vec<(&'t str, Place, Self)>, Fault> {
        let item = |entry: &'t Entry| {
            let item = Self {
                tree: &entry.value,
                path: join(&self.path, &entry.key),
            };
            (entry.key.as_str(), entry.at, item)
        };
        Ok(self.entries()?.iter().map(item).collect())
    }

    /// A list, perhaps of nothing.
    pub fn list(&self) -> Result<Vec<Self>, Fault> {
        let Value::List(items) = &self.tree.value else {
            return Err(self.wrong_type("a list"));
        };
        let item = |(index, tree)| Self {
            tree,
            path: format!("{}[{index}]", self.path),
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A list of one or more.
    pub fn filled_list(&self) -> Result<Vec<Self>, Fault> {
        let items = self.list()?;
        if items.is_empty() {
            return Err(self.fault(Problem::EmptyList));
        }
        Ok(items)
    }

    /// Whether it is a mapping, where text is allowed too.
    pub fn is_mapping(&self) -> bool {
        matches!(self.tree.value, Value::Mapping(_))
    }

    /// A text that `parse` makes sense of.
    pub fn text<T>(&self, parse: fn(&str) -> Result<T, Problem>) -> Result<T, Fault> {
        match &self.tree.value {
            Value::Text(text) => parse(text).map_err(|problem| self.fault(problem)),
            Value::Null
            | Value::Flag(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Mapping(_) => Err(self.wrong_type("text")),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Result<bool, Fault> {
        let Value::Flag(flag) = self.tree.value else {
            return Err(self.wrong_type("true or false"));
        };
        Ok(flag)
    }

    /// A whole number within bounds.
    pub fn number(&self, allowed: &RangeInclusive<u32>) -> Result<u32, Fault> {
        let Value::Integer(number) = self.tree.value else {
            return Err(self.wrong_type("a whole number"));
        };
        match u32::try_from(number) {
            Ok(number) if allowed.contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(self.fault(Problem::OutOfRange {
                found: number.to_string(),
                allowed: numbers(allowed),
            })),
        }
    }

    /// A duration within bounds.
    pub fn duration(&self, allowed: &RangeInclusive<Duration>) -> Result<Duration, Fault> {
        let Value::Text(text) = &self.tree.value else {
            return Err(self.wrong_type("a duration with its unit, such as 2s or 250ms"));
        };
        let duration = value::duration(text).map_err(|problem| self.fault(problem))?;
        if !allowed.contains(&duration) {
            let allowed = format!("{} to {}", Text(*allowed.start()), Text(*allowed.end()));
            return Err(self.fault(Problem::OutOfRange {
                found: Text(duration).to_string(),
                allowed,
            }));
        }
        Ok(duration)
    }
}

impl<'t> Section<'t> {
    /// The value of a key that may be left out.
    pub fn find(&self, key: &'static str) -> Option<Item<'t>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Item {
            tree: &entry.value,
            path: join(&self.path, key),
        })
    }

    /// The value of a key that may be left out or `null`, which both mean none.
    pub fn optional(&self, key: &'static str) -> Option<Item<'t>> {
        self.find(key)
            .filter(|item| !matches!(item.tree.value, Value::Null))
    }

    /// The value of a key that must be there.
    pub fn required(&self, key: &'static str) -> Result<Item<'t>, Fault> {
        self.find(key).ok_or_else(|| self.fault(key, Problem::Missing))
    }

    /// Blames a key that is not there.
    pub fn fault(&self, key: &'static str, problem: Problem) -> Fault {
        Fault {
            at: self.at,
            key: join(&self.path, key),
            problem,
        }
    }

    /// The section under a key, which may be left out: then all in it has its default.
    pub fn section(&self, key: &'static str, allowed: &'static [&'static str]) -> Result<Self, Fault> {
        match self.find(key) {
            Some(item) => item.section(allowed),
            None => Ok(Self {
                at: self.at,
                path: join(&self.path, key),
                entries: &[],
            }),
        }
    }

    /// A flag that may be left out.
    pub fn flag(&self, key: &'static str, default: bool) -> Result<bool, Fault> {
        self.find(key).map_or(Ok(default), |item| item.flag())
    }

    /// A number that may be left out.
    pub fn number(
        &self,
        key: &'static str,
        default: u32,
        allowed: RangeInclusive<u32>,
    ) -> Result<u32, Fault> {
        self.find(key).map_or(Ok(default), |item| item.number(&allowed))
    }

    /// A duration that may be left out.
    pub fn duration(
        &self,
        key: &'static str,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Result<Duration, Fault> {
        self.find(key).map_or(Ok(default), |item| item.duration(&allowed))
    }

    /// A text that may be left out.
    pub fn text<T>(
        &self,
        key: &'static str,
        default: T,
        parse: fn(&str) -> Result<T, Problem>,
    ) -> Result<T, Fault> {
        self.find(key).map_or(Ok(default), |item| item.text(parse))
    }
}

/// Refuses what is there twice, and remembers where it was first.
pub(super) struct Unique<K>(BTreeMap<K, Place>);

impl<K: Ord> Unique<K> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Refuses `key` if it was there before.
    pub(super) fn admit(&mut self, key: K, item: &Item<'_>, what: impl ToString) -> Result<(), Fault> {
        match self.0.insert(key, item.tree.at) {
            None => Ok(()),
            Some(first) => Err(item.fault(Problem::Duplicate {
                what: what.to_string(),
                first,
            })),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn numbers(allowed: &RangeInclusive<u32>) -> String {
    match (allowed.start(), allowed.end()) {
        (start, &u32::MAX) => format!("{start} or more"),
        (start, end) => format!("{start} to {end}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Flag(flag) => format!("{flag}"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Text(text) => format!("the text {text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    }
}
