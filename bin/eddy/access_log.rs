//! The access log: a thread of its own writes a line for each request, so that no worker waits for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use eddy_runtime::config::AccessLogConfig;
use eddy_runtime::record::{Record, Records};

use crate::signals::Reopen;

/// How many records are written at once at most.
const BATCH: usize = 1024;
/// How often an idle log checks whether its file is to be reopened.
const REOPEN_CHECK: Duration = Duration::from_secs(1);

/// The file, or standard output, that lines are appended to.
pub(crate) struct AccessLog {
    config: AccessLogConfig,
    lines: BufWriter<Box<dyn Write + Send>>,
}

impl AccessLog {
    pub(crate) fn open(config: &AccessLogConfig) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = if config.file == "-" {
            Box::new(io::stdout())
        } else {
            let file: File = OpenOptions::new().append(true).create(true).open(&config.file)?;
            Box::new(file)
        };
        Ok(Self {
            config: config.clone(),
            lines: BufWriter::new(output),
        })
    }

    /// Writes until all workers have ended. What waits is written together, and nothing stays unwritten while none waits.
    pub(crate) fn write(mut self, records: &Records, reopen: &Reopen) {
        loop {
            let first = records.queue.recv_timeout(REOPEN_CHECK);
            if reopen.take() {
                self.reopen();
            }
            let first = match first {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let batch: Vec<_> = std::iter::once(first)
                .chain(records.queue.try_iter().take(BATCH))
                .collect();
            if let Err(error) = self.append(batch.iter().map(|record| &**record)) {
                records.lost.add(batch.len());
                tracing::warn!(%error, requests = batch.len(), "cannot write the access log");
            }
        }
    }

    fn append<'r>(&mut self, records: impl Iterator<Item = &'r Record>) -> io::Result<()> {
        for record in records {
            self.lines.write_all(record.line().as_bytes())?;
        }
        self.lines.flush()
    }

    /// Opens the file again under its name, after a log rotation has renamed it.
    fn reopen(&mut self) {
        let file = &self.config.file;
        if file == "-" {
            return;
        }
        match Self::open(&self.config) {
            Ok(opened) => {
                tracing::info!(file, "access log reopened");
                self.lines = opened.lines;
            }
            Err(error) => {
                tracing::warn!(%error, file, "cannot reopen the access log; appending to the previous file");
            }
        }
    }
}
