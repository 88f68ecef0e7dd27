//! The threads that write what workers tell of requests: the access log, and spans.

use std::time::Duration;

use eddy_runtime::config::TracesConfig;
use eddy_runtime::record::RecordQueues;
use tokio::sync::oneshot;

use crate::access_log::AccessLog;
use crate::failure::{Failure, system};
#[cfg(feature = "otlp")]
use crate::otlp;
use crate::signals::Reopen;
use crate::sinks::Sinks;

/// How long what is left may take to be written once all workers have ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Whether this build sends spans, if they are wanted.
pub(crate) fn can_send(traces: Option<&TracesConfig>) -> Result<(), Failure> {
    if cfg!(feature = "otlp") || traces.is_none() {
        return Ok(());
    }
    let why = "this eddy is built without it; build it with --features otlp, or leave the key out";
    Err(Failure::Traces(why.to_owned()))
}

/// Threads that end when all workers have: each says so by dropping its end of a channel.
pub(crate) struct Writers {
    ends: Vec<oneshot::Receiver<()>>,
    reopen: Reopen,
}

impl Writers {
    /// No thread yet. `reopen` is the request to reopen their files.
    pub(crate) const fn new(reopen: Reopen) -> Self {
        Self { ends: vec![], reopen }
    }

    /// Starts what is wanted; says where the workers put what they tell.
    pub(crate) fn start(&mut self, sinks: &Sinks<'_>) -> Result<RecordQueues, Failure> {
        let mut queues = RecordQueues::default();
        if let Some(config) = sinks.access_log {
            let log = AccessLog::open(config).map_err(|source| Failure::AccessLog {
                file: config.file.clone(),
                source,
            })?;
            let records = queues.open_access_log();
            let reopen = self.reopen.clone();
            self.spawn("access_log", move || log.write(&records, &reopen))?;
        }
        can_send(sinks.traces)?;
        #[cfg(feature = "otlp")]
        if let Some(config) = sinks.traces {
            let exporter = otlp::exporter(config, sinks);
            let exporter = exporter.map_err(|error| Failure::Traces(error.to_string()))?;
            let records = queues.open_traces();
            self.spawn("otlp", move || {
                if let Err(error) = otlp::send(&records, &exporter) {
                    tracing::error!(%error, "no spans are sent");
                }
            })?;
        }
        Ok(queues)
    }

    /// Waits until what the workers told has been written, or nobody takes it. They must have ended.
    pub(crate) async fn finish(&mut self) {
        let written = async {
            for writer in self.ends.drain(..) {
                // Its end is all that it has to say.
                let _ = writer.await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, written).await.is_err() {
            tracing::warn!("what is left of the access log or of the spans could not be written");
        }
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let (ends, ended) = oneshot::channel();
        let body = move || {
            let _ends: oneshot::Sender<()> = ends;
            run();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        thread.map_err(system("cannot start a thread"))?;
        self.ends.push(ended);
        Ok(())
    }
}
