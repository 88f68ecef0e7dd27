//! Errors of a configuration: one line that names the file, the line, the key and what is allowed.

use std::fmt::{self, Write};
use std::io;
use std::path::PathBuf;

use eddy_core::identity::is_formatting;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A configuration that cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is empty, apart from comments.
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
        /// The parser's message.
        message: String,
    },
    /// It is YAML, but not a configuration.
    Invalid {
        /// The file.
        name: String,
        /// The key or value that is wrong.
        at: Place,
        /// The path to it, as in `egress.routes[0].prefix`; empty for the document itself.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// Escapes control and formatting characters, because a message quotes parts of a file and must stay one readable line.
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
            Self::Read { path, source } => write!(f, "{}: cannot read the file: {source}", path.display()),
            Self::Empty { name } => write!(
                f,
                "{name}: empty configuration; docs/configuration.md has examples"
            ),
            Self::Yaml { name, at, message } => {
                write!(f, "{name}:{}:{}: invalid YAML: {message}", at.line, at.column)
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

/// A problem and its place in a file whose name is not known here.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The key or value that is wrong.
    pub at: Place,
    /// The path to it.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl Fault {
    /// The fault as the error of a file.
    pub fn in_file(self, name: String) -> ConfigError {
        ConfigError::Invalid {
            name,
            at: self.at,
            key: self.key,
            problem: self.problem,
        }
    }
}
