//! Log lines for people, on standard error.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why there is no log.
#[derive(Debug)]
pub(crate) enum LogError {
    Filter(String, ParseError),
    Taken(TryInitError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(text, why) => {
                write!(
                    f,
                    "--log {text}: {why}; allowed: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between"
                )
            }
            Self::Taken(why) => why.fmt(f),
        }
    }
}

/// Starts to log what passes `filter`.
pub(crate) fn start(filter: &str) -> Result<(), LogError> {
    let targets: Targets = filter
        .parse()
        .map_err(|why| LogError::Filter(filter.to_owned(), why))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .try_init()
        .map_err(LogError::Taken)
}
