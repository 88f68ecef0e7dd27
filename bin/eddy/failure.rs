//! Why a command failed, as it is reported to the user.

use std::fmt;
use std::io;
use std::path::PathBuf;

use eddy_runtime::config::ConfigError;
use eddy_runtime::responder::StartError;

use crate::logging::LogError;

/// Why a command ended badly.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The configuration is another role's.
    Role {
        file: PathBuf,
        is: &'static str,
        wanted: &'static str,
    },
    /// A listener could not be opened.
    Start(StartError),
    /// The operating system refused something else that a process needs.
    System { what: &'static str, source: io::Error },
    /// The log cannot be set up.
    Log(LogError),
    /// Spans cannot be sent.
    Traces(String),
    /// The access log cannot be opened.
    AccessLog { file: String, source: io::Error },
    /// Standard output is closed.
    Output(io::Error),
    /// A worker ended that should not have.
    Worker(String),
}

impl Failure {
    /// Whether the user's input is at fault.
    pub(crate) const fn is_wrong_input(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Role { .. } | Self::Log(_) | Self::Traces(_)
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Role { file, is, wanted } => {
                let file = file.display();
                let article = if *is == "initiator" { "an" } else { "a" };
                write!(
                    f,
                    "{file}: this is the configuration of {article} {is}; start it with `eddy {is} -c {file}`, or give `eddy {wanted}` its own"
                )
            }
            Self::Start(error) => error.fmt(f),
            Self::System { what, source } => write!(f, "{what}: {source}"),
            Self::Log(error) => error.fmt(f),
            Self::Traces(why) => write!(f, "traces.otlp: {why}"),
            Self::AccessLog { file, source } => {
                write!(f, "access_log.file: cannot write to {file}: {source}")
            }
            Self::Output(source) => write!(f, "cannot write to standard output: {source}"),
            Self::Worker(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::System { what, source }
}
