//! Everything that happened, in order: what the trace, the timeline and the report are made of.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, in microseconds of simulated time.
    pub at_us: u64,
    /// On which host; `network` and `timeline` are nobody's.
    pub host: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The timeline did something.
    Fault {
        /// In words.
        text: String,
    },
    /// A process came to life, or ended.
    Life {
        /// running, draining, frozen, stopped.
        state: &'static str,
        /// How often it was started before.
        incarnation: u32,
    },
    /// The process said something in its log.
    Log {
        /// ERROR to DEBUG.
        level: &'static str,
        /// What it said, with the fields behind.
        message: String,
    },
    /// What a process says of its tunnels has changed.
    Says {
        /// So many are up, by its own account.
        tunnels: usize,
    },
    /// It begins to dial.
    Dial {
        /// The address.
        to: String,
    },
    /// A tunnel's connection is up at this end.
    TunnelOpened {
        /// The connection.
        connection: u64,
        /// The process at the other end.
        peer: String,
    },
    /// This end of a tunnel's connection is gone.
    TunnelClosed {
        /// The connection.
        connection: u64,
        /// The process at the other end.
        peer: String,
    },
    /// A client sends a request.
    Request {
        /// Its number.
        id: u64,
        /// The workload that it belongs to.
        workload: String,
        /// The responder that it goes to.
        via: String,
    },
    /// A service got a request.
    Delivered {
        /// Its number.
        id: u64,
    },
    /// A service or a peer breaks the rules in its response to a request.
    Misbehaved {
        /// The number of the request.
        id: u64,
        /// The way in which it does.
        how: &'static str,
    },
    /// A request ended.
    Answered {
        /// Its number.
        id: u64,
        /// How.
        outcome: String,
        /// Whether the service answered it well.
        good: bool,
        /// How long it took.
        ms: u64,
    },
    /// The oracle saw something that must not be.
    Breach {
        /// What.
        text: String,
    },
    /// The scenario is over; what follows is the calm that must heal everything.
    End,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { text } => write!(f, "== {text}"),
            Self::Life { state, incarnation } if *incarnation > 1 => {
                write!(f, "{state} (start {incarnation})")
            }
            Self::Life { state, .. } => f.write_str(state),
            Self::Log { level, message } => write!(f, "{} {message}", level.to_ascii_lowercase()),
            Self::Says { tunnels } => write!(f, "says that it has {tunnels} tunnels"),
            Self::Dial { to } => write!(f, "dials {to}"),
            Self::TunnelOpened { connection, peer } => write!(f, "connection {connection} with {peer} opens"),
            Self::TunnelClosed { connection, peer } => {
                write!(f, "connection {connection} with {peer} closes")
            }
            Self::Request { id, workload, via } => write!(f, "request {id} of {workload} to {via}"),
            Self::Delivered { id } => write!(f, "request {id} reaches its service"),
            Self::Misbehaved { id, how } => write!(f, "request {id} is mistreated: {how}"),
            Self::Answered { id, outcome, ms, .. } => write!(f, "request {id}: {outcome} after {ms} ms"),
            Self::Breach { text } => write!(f, "!! {text}"),
            Self::End => f.write_str("-- end of the scenario; calm follows"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.at_us / 1_000_000, self.at_us / 1000 % 1000);
        write!(f, "{s:>4}.{ms:03}s  {:<14} {}", self.host, self.what)
    }
}

impl Event {
    /// What the event is about, without the numbers that tell it from the next one of its kind.
    pub fn gist(&self) -> String {
        let what = match &self.what {
            What::Answered { outcome, .. } => format!("answered {outcome}"),
            What::Log { message, .. } => message.split('=').next().unwrap_or_default().to_owned(),
            What::TunnelOpened { .. } => "opened".to_owned(),
            What::TunnelClosed { .. } => "closed".to_owned(),
            What::Fault { .. }
            | What::Life { .. }
            | What::Says { .. }
            | What::Dial { .. }
            | What::Request { .. }
            | What::Delivered { .. }
            | What::Misbehaved { .. }
            | What::Breach { .. }
            | What::End => self.what.to_string(),
        };
        format!("{} {what}", self.host)
    }

    /// Whether a reader of the timeline wants to see it: requests alone would hide everything else.
    pub const fn is_story(&self) -> bool {
        match &self.what {
            What::Fault { .. }
            | What::Life { .. }
            | What::Breach { .. }
            | What::End
            | What::TunnelOpened { .. }
            | What::TunnelClosed { .. } => true,
            What::Answered { good, .. } => !*good,
            What::Log { level, .. } => !matches!(level.as_bytes(), b"DEBUG" | b"TRACE"),
            What::Says { .. }
            | What::Dial { .. }
            | What::Request { .. }
            | What::Delivered { .. }
            | What::Misbehaved { .. } => false,
        }
    }
}

/// The record of one run.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    events: Vec<Event>,
    /// Whose code runs.
    current: String,
}

impl Journal {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something down.
    pub fn record(&self, at: Duration, host: &str, what: What) {
        let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.pages().events.push(Event {
            at_us,
            host: host.to_owned(),
            what,
        });
    }

    /// Says whose code runs from now on.
    pub(crate) fn set_current(&self, host: &str) {
        host.clone_into(&mut self.pages().current);
    }

    /// The last `count` events.
    pub fn last(&self, count: usize) -> Vec<Event> {
        let pages = self.pages();
        let from = pages.events.len().saturating_sub(count);
        pages.events[from..].to_vec()
    }

    /// All events; the journal is empty afterwards.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.pages().events)
    }
}

/// Writes what the code under test logs into the journal.
pub(crate) struct Listener(pub(crate) Journal);

impl Listener {
    fn is_ours(metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("eddy") && *metadata.level() <= Level::DEBUG
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::is_ours(metadata)
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let level = event.metadata().level().as_str();
        let message = format!("{}{}", words.message, words.fields);
        let host = self.0.pages().current.clone();
        self.0
            .record(crate::fabric::now(), &host, What::Log { level, message });
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields += &format!(" {}={value:?}", field.name());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields += &format!(" {}={value}", field.name());
    }
}
