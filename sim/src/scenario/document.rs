//! Typed access to the tree of a scenario: each step locates its errors by the path of keys.

use std::ops::RangeInclusive;
use std::time::Duration;

use std::fmt;

pub(super) use eddy_runtime::config::Place;
pub(super) use eddy_runtime::config::document::{DurationText, Entry, Fault, Tree, Value, duration};

/// A value with the path that leads to it.
#[derive(Clone)]
pub(super) struct Item<'t> {
    /// The value.
    pub(super) tree: &'t Tree,
    /// The keys to it, as in `egress.routes[0].prefix`.
    pub(super) path: String,
}

/// A mapping whose keys are known to be allowed.
pub(super) struct Section<'t> {
    at: Place,
    path: String,
    entries: &'t [Entry],
}

impl<'t> Item<'t> {
    /// Blames this value.
    pub(super) fn fault(&self, problem: Problem) -> Fault {
        Fault {
            at: self.tree.at,
            key: self.path.clone(),
            problem: problem.to_string(),
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
    pub(super) fn section(&self, allowed: &'static [&'static str]) -> Result<Section<'t>, Fault> {
        let entries = self.entries()?;
        let path = self.path.clone();
        if let Some(entry) = entries.iter().find(|entry| !allowed.contains(&&*entry.key)) {
            let key = join(&path, &entry.key);
            return Err(Fault {
                at: entry.at,
                key,
                problem: Problem::UnknownKey { allowed }.to_string(),
            });
        }
        Ok(Section {
            at: self.tree.at,
            path,
            entries,
        })
    }

    /// A mapping whose keys are names: each with the place of its key.
    pub(super) fn named(&self) -> Result<Vec<(&'t str, Place, Self)>, Fault> {
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
    pub(super) fn list(&self) -> Result<Vec<Self>, Fault> {
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
    pub(super) fn filled_list(&self) -> Result<Vec<Self>, Fault> {
        let items = self.list()?;
        if items.is_empty() {
            return Err(self.fault(Problem::EmptyList));
        }
        Ok(items)
    }

    /// A text that `parse` makes sense of.
    pub(super) fn text<T>(&self, parse: fn(&str) -> Result<T, Problem>) -> Result<T, Fault> {
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
    pub(super) fn flag(&self) -> Result<bool, Fault> {
        let Value::Flag(flag) = self.tree.value else {
            return Err(self.wrong_type("true or false"));
        };
        Ok(flag)
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, allowed: &RangeInclusive<u32>) -> Result<u32, Fault> {
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
    pub(super) fn duration(&self, allowed: &RangeInclusive<Duration>) -> Result<Duration, Fault> {
        let Value::Text(text) = &self.tree.value else {
            return Err(self.wrong_type("a duration with its unit, such as 2s or 250ms"));
        };
        let duration = duration(text).map_err(|problem| self.fault(problem.into()))?;
        if !allowed.contains(&duration) {
            let allowed = format!(
                "{} to {}",
                DurationText(*allowed.start()),
                DurationText(*allowed.end())
            );
            return Err(self.fault(Problem::OutOfRange {
                found: DurationText(duration).to_string(),
                allowed,
            }));
        }
        Ok(duration)
    }
}

impl<'t> Section<'t> {
    /// The value of a key that may be left out.
    pub(super) fn find(&self, key: &'static str) -> Option<Item<'t>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Item {
            tree: &entry.value,
            path: join(&self.path, key),
        })
    }

    /// The value of a key that may be left out or `null`, which both mean none.
    pub(super) fn optional(&self, key: &'static str) -> Option<Item<'t>> {
        self.find(key)
            .filter(|item| !matches!(item.tree.value, Value::Null))
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &'static str) -> Result<Item<'t>, Fault> {
        self.find(key).ok_or_else(|| self.fault(key, Problem::Missing))
    }

    /// Blames a key that is not there.
    pub(super) fn fault(&self, key: &'static str, problem: Problem) -> Fault {
        Fault {
            at: self.at,
            key: join(&self.path, key),
            problem: problem.to_string(),
        }
    }

    /// A flag that may be left out.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, Fault> {
        self.find(key).map_or(Ok(default), |item| item.flag())
    }

    /// A number that may be left out.
    pub(super) fn number(
        &self,
        key: &'static str,
        default: u32,
        allowed: RangeInclusive<u32>,
    ) -> Result<u32, Fault> {
        self.find(key).map_or(Ok(default), |item| item.number(&allowed))
    }

    /// A duration that may be left out.
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        allowed: RangeInclusive<Duration>,
    ) -> Result<Duration, Fault> {
        self.find(key).map_or(Ok(default), |item| item.duration(&allowed))
    }

    /// A text that may be left out.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        default: T,
        parse: fn(&str) -> Result<T, Problem>,
    ) -> Result<T, Fault> {
        self.find(key).map_or(Ok(default), |item| item.text(parse))
    }
}

/// What is wrong with a key or its value.
#[derive(Debug)]
pub(super) enum Problem {
    /// No such key.
    UnknownKey {
        /// The keys there are.
        allowed: &'static [&'static str],
    },
    /// A required key is missing.
    Missing,
    /// A key has no value.
    NoValue,
    /// Another kind of value is expected.
    WrongType {
        /// What is expected.
        wanted: &'static str,
        /// What is there.
        found: String,
        /// Whether quotes would help.
        quote: bool,
    },
    /// A list has no entries.
    EmptyList,
    /// A number or duration is too small or too large.
    OutOfRange {
        /// What is there.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The text has the wrong form.
    Form {
        /// What is there.
        found: String,
        /// What is wrong with it, and what is right.
        rule: &'static str,
    },
    /// A name that nothing has.
    Unknown {
        /// What it should name.
        what: &'static str,
        /// The name.
        found: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// What must be unique is there twice.
    Duplicate {
        /// What.
        what: String,
        /// Where it is first.
        first: Place,
    },
    /// Something else, in words.
    Other(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Other(problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { allowed } => write!(f, "unknown key; allowed here: {}", allowed.join(", ")),
            Self::Missing => f.write_str("this key is required"),
            Self::NoValue => f.write_str("has no value; leave the key out for its default"),
            Self::WrongType { wanted, found, quote } => {
                write!(f, "must be {wanted}, not {found}")?;
                if *quote {
                    f.write_str("; put it in quotes")
                } else {
                    Ok(())
                }
            }
            Self::EmptyList => f.write_str("needs at least one entry"),
            Self::OutOfRange { found, allowed } => write!(f, "{found} is out of range; allowed: {allowed}"),
            Self::Form { found, rule } => write!(f, "{found:?} {rule}"),
            Self::Unknown { what, found, known } => {
                write!(f, "{found:?} is no {what}; there are: {}", known.join(", "))
            }
            Self::Duplicate { what, first } => write!(f, "{what} is already on line {}", first.line),
            Self::Other(problem) => f.write_str(problem),
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
