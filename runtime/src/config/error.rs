//! What can be wrong with a configuration, and how it is said: one line that names the file, the line, the key
//! and what is allowed.

use std::fmt::{self, Write};
use std::io;
use std::path::PathBuf;

use eddy_core::address::AddressError;
use eddy_core::identity::{IdError, is_formatting};

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing is in it, comments aside.
    Empty {
        /// The file.
        name: String,
    },
    /// It is not YAML.
    Yaml {
        /// The file.
        name: String,
        /// Where the parser stopped.
        at: Place,
        /// What the parser said.
        message: String,
    },
    /// It is YAML, but no configuration.
    Invalid {
        /// The file.
        name: String,
        /// The key or value that is wrong.
        at: Place,
        /// The path to it, as in `egress.routes[0].prefix`; empty for the document itself.
        key: String,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// Passes a text on with its control and formatting characters escaped: it quotes a file, and stays one line that reads as
/// it is.
struct OneLine<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_unsafe = |c: char| c.is_control() || is_formatting(c);
        for piece in text.split_inclusive(is_unsafe) {
            let printable = piece.trim_end_matches(is_unsafe);
            self.0.write_str(printable)?;
            write!(self.0, "{}", piece[printable.len()..].escape_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut OneLine(f);
        match self {
            Self::Read { path, source } => write!(f, "{}: cannot be read: {source}", path.display()),
            Self::Empty { name } => write!(
                f,
                "{name}: is empty; docs/configuration.md shows what belongs into it"
            ),
            Self::Yaml { name, at, message } => {
                write!(f, "{name}:{}:{}: not YAML: {message}", at.line, at.column)
            }
            Self::Invalid {
                name,
                at,
                key,
                problem,
            } => {
                write!(f, "{name}:{}:{}: ", at.line, at.column)?;
                if !key.is_empty() {
                    write!(f, "{key}: ")?;
                }
                write!(f, "{problem}")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Empty { .. } | Self::Yaml { .. } | Self::Invalid { .. } => None,
        }
    }
}

/// A problem and its place, in a file yet to be named.
#[derive(Debug)]
pub struct Fault {
    /// The key or value that is wrong.
    pub at: Place,
    /// The path to it.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

impl Fault {
    /// The fault as the error of a file.
    pub fn in_file(self, name: String) -> ConfigError {
        let problem = Box::new(self.problem);
        ConfigError::Invalid {
            name,
            at: self.at,
            key: self.key,
            problem,
        }
    }
}

/// What is wrong with a key or its value.
#[derive(Debug)]
pub enum Problem {
    /// Neither role has these keys.
    NoRole,
    /// Some keys are one role's, some the other's.
    BothRoles {
        /// A key that only a responder has.
        responder: Sign,
        /// A key that only an initiator has.
        initiator: Sign,
    },
    /// No such key.
    UnknownKey {
        /// The keys there are.
        allowed: &'static [&'static str],
    },
    /// A key that must be there is not.
    Missing,
    /// A key is there without a value.
    NoValue,
    /// Another kind of value belongs here.
    WrongType {
        /// What belongs here.
        wanted: &'static str,
        /// What is here.
        found: String,
        /// Whether quotes would help.
        quote: bool,
    },
    /// A list has no entries.
    EmptyList,
    /// A number or duration is too small or too large.
    OutOfRange {
        /// What is here.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The text has the wrong form.
    Form {
        /// What is here.
        found: String,
        /// What is wrong with it, and what is right.
        rule: &'static str,
    },
    /// The text is no identifier.
    Id {
        /// What is here.
        found: String,
        /// The rule that it breaks.
        source: IdError,
    },
    /// The text is no `rc://` address.
    Address {
        /// What is here.
        found: String,
        /// The rule that it breaks.
        source: AddressError,
    },
    /// A cluster is named that `clusters` does not define.
    UndefinedCluster {
        /// The name.
        name: String,
        /// The names there are.
        defined: Vec<String>,
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
    /// `egress.tenant` is missing although tenants are kept apart.
    TenantHeaderMissing,
    /// `egress.tenant` is there although tenants are not kept apart.
    TenantHeaderUnused,
}

/// A key that shows the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// What it is, as in "`egress`".
    pub what: &'static str,
    /// Where it is.
    pub at: Place,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRole => f.write_str(
                "neither a responder (`egress`, a mapping under `tunnels`) nor an initiator (`clusters`, `routes`, a list under `tunnels`)",
            ),
            Self::BothRoles { responder, initiator } => write!(
                f,
                "{} (line {}) makes this a responder, {} (line {}) an initiator; a file configures one of them",
                responder.what, responder.at.line, initiator.what, initiator.at.line
            ),
            Self::UnknownKey { allowed } => write!(f, "unknown key; allowed here: {}", allowed.join(", ")),
            Self::Missing => f.write_str("this key is required"),
            Self::NoValue => f.write_str("has no value; leave the key out for its default"),
            Self::WrongType { wanted, found, quote } => {
                write!(f, "must be {wanted}, not {found}")?;
                if *quote { f.write_str("; put it in quotes") } else { Ok(()) }
            }
            Self::EmptyList => f.write_str("needs at least one entry"),
            Self::OutOfRange { found, allowed } => write!(f, "{found} is out of range; allowed: {allowed}"),
            Self::Form { found, rule } => write!(f, "{found:?} {rule}"),
            Self::Id { found, source } => write!(f, "{found:?} {source}"),
            Self::Address { found, source } => write!(f, "{found:?}: {source}"),
            Self::UndefinedCluster { name, defined } if defined.is_empty() => {
                write!(f, "cluster {name:?} is not defined; `clusters` defines none")
            }
            Self::UndefinedCluster { name, defined } => {
                write!(f, "cluster {name:?} is not defined; `clusters` defines: {}", defined.join(", "))
            }
            Self::Unknown { what, found, known } => {
                write!(f, "{found:?} is no {what}; there are: {}", known.join(", "))
            }
            Self::Duplicate { what, first } => write!(f, "{what} is already on line {}", first.line),
            Self::TenantHeaderMissing => f.write_str(
                "this key is required with tunnels.tenant_isolation: it names the header that names the tenant",
            ),
            Self::TenantHeaderUnused => f.write_str("allowed only with tunnels.tenant_isolation: true"),
        }
    }
}
