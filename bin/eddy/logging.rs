//! The log, on standard error: lines for people, or JSON.

use std::fmt;
use std::io::IsTerminal;

use eddy_runtime::admin::Logging;
use eddy_runtime::config::{LogConfig, LogFormat};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::log_writer::LogWriter;

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

impl std::error::Error for LogError {}

/// What the command line says of the log.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) filter: Option<String>,
    pub(crate) format: Option<LogFormat>,
    /// Writes the lines.
    pub(crate) writer: LogWriter,
}

impl Wish {
    /// Starts to log: as the command line says, or as the configuration does, if there is one.
    pub(crate) fn start(self, config: Option<&LogConfig>) -> Result<Logging, LogError> {
        let filter = self.filter.or_else(|| config.map(|log| log.filter.clone()));
        let filter = filter.unwrap_or_else(|| "info".to_owned());
        let format = self.format.or_else(|| config.map(|log| log.format));
        let (targets, handle) = reload::Layer::new(parse(&filter)?);
        let lost = self.writer.lost().clone();
        let lines = layer().with_writer(move || self.writer.clone());
        let lines = match format.unwrap_or_default() {
            LogFormat::Text => lines
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry()
            .with(targets)
            .with(lines)
            .try_init()
            .map_err(LogError::Taken)?;
        let change = move |text: &str| {
            let targets: Targets = text.parse().map_err(|why: ParseError| why.to_string())?;
            handle.reload(targets).map_err(|why| why.to_string())
        };
        Ok(Logging::new(filter, lost, change))
    }
}

fn parse(filter: &str) -> Result<Targets, LogError> {
    filter
        .parse()
        .map_err(|why| LogError::Filter(filter.to_owned(), why))
}
