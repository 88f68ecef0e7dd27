//! The access log: a thread of its own writes a line for each request, so that no worker waits for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};

use eddy_runtime::config::AccessLogConfig;
use eddy_runtime::record::Records;

/// Where lines go.
pub(crate) type Lines = BufWriter<Box<dyn Write + Send>>;

/// Opens the file that lines are appended to.
pub(crate) fn open(config: &AccessLogConfig) -> io::Result<Lines> {
    let to: Box<dyn Write + Send> = if config.file == "-" {
        Box::new(io::stdout())
    } else {
        let file: File = OpenOptions::new().append(true).create(true).open(&config.file)?;
        Box::new(file)
    };
    Ok(BufWriter::new(to))
}

/// Writes until all workers have ended. What waits is written together, and nothing stays unwritten while none waits.
pub(crate) fn write(records: &Records, lines: &mut Lines) {
    while let Ok(first) = records.queue.recv() {
        let batch: Vec<_> = std::iter::once(first)
            .chain(records.queue.try_iter().take(BATCH))
            .collect();
        let written = batch
            .iter()
            .try_for_each(|record| lines.write_all(record.line().as_bytes()));
        if let Err(error) = written.and_then(|()| lines.flush()) {
            records.lost.add(batch.len());
            tracing::warn!(%error, requests = batch.len(), "cannot write the access log");
        }
    }
}

/// How many records are written at once at most.
const BATCH: usize = 1024;
