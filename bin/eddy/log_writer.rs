//! The thread that writes the log to standard error, so that no other thread waits for the reader of a pipe.
//!
//! Lines wait in a bounded queue. When the queue is full, further lines are dropped and counted; the writer reports the loss
//! once it has caught up.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eddy_runtime::record::Lost;

/// How many bytes may wait to be written.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// How long a process that ends waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle to the log writer. Clones share one queue.
#[derive(Clone)]
pub(crate) struct LogWriter(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    lost: Lost,
}

/// The lines that wait to be written.
#[derive(Default)]
struct Queue {
    text: Vec<u8>,
    /// The thread is writing what it took.
    is_writing: bool,
}

impl LogWriter {
    /// Starts the thread.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            lost: Lost::default(),
        });
        let writer = Self(Arc::clone(&shared));
        let body = move || write(&shared, output);
        std::thread::Builder::new().name("log".into()).spawn(body)?;
        Ok(writer)
    }

    /// Queues a line, which ends with a line feed, or drops it if the queue is full.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        if queue.text.len() + line.len() > QUEUE_BYTES_MAX {
            self.0.lost.add(1);
            return;
        }
        queue.text.extend_from_slice(line);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// The number of lines that were dropped or could not be written.
    pub(crate) fn lost(&self) -> &Lost {
        &self.0.lost
    }

    /// Waits until everything queued so far is written, but at most [`FLUSH_TIMEOUT`].
    pub(crate) fn flush(&self) {
        let queue = self.0.queue();
        let pending = |queue: &mut Queue| queue.is_writing || !queue.text.is_empty();
        // After the timeout the remaining lines are lost with the process.
        drop(self.0.changed.wait_timeout_while(queue, FLUSH_TIMEOUT, pending));
    }
}

/// What the log formatter writes one event into.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is a single step, so a panic elsewhere leaves it consistent.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and swaps them into `batch`, which is empty.
    fn take(&self, batch: &mut Vec<u8>) {
        let idle = |queue: &mut Queue| queue.text.is_empty();
        let queue = self.changed.wait_while(self.queue(), idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut queue.text, batch);
        queue.is_writing = true;
    }

    /// Whether a report of lost lines would not be lost itself.
    fn has_room(&self) -> bool {
        self.queue().text.len() < QUEUE_BYTES_MAX / 2
    }

    fn on_written(&self) {
        self.queue().is_writing = false;
        self.changed.notify_all();
    }
}

/// Writes for the lifetime of the process.
fn write(shared: &Shared, mut output: impl Write) {
    let (mut batch, mut reported) = (Vec::new(), 0);
    loop {
        shared.take(&mut batch);
        let mut failed = 0;
        // One call per line: lines of two processes on one pipe stay whole.
        for line in batch.split_inclusive(|byte| *byte == b'\n') {
            if output.write_all(line).is_err() {
                failed += 1;
            }
        }
        batch.clear();
        shared.lost.add(failed);
        let lost = shared.lost.count();
        // If standard error is closed, a report would only be another lost line.
        if failed == 0 && lost > reported && shared.has_room() {
            tracing::warn!(lines = lost - reported, "log lines lost");
            reported = lost;
        }
        shared.on_written();
    }
}

/// Sends the messages of panics through the writer as well: a worker that panics while standard error is stuck must still
/// end, so that the process ends with it.
pub(crate) fn take_panics(writer: &LogWriter) {
    let writer = writer.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let mut text = format!("thread '{name}' {panic}\n");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text += &format!("{backtrace}\n");
        }
        writer.put(text.as_bytes());
        // A panic of the main thread ends the process.
        writer.flush();
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// An output that takes one write per permit and passes it on.
    struct Gate {
        permits: Receiver<()>,
        written: SyncSender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.permits.recv().map_err(closed)?;
            let _ = self.written.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LogWriter, SyncSender<()>, Receiver<Vec<u8>>) {
        let (permit, permits) = sync_channel(1 << 20);
        let (written, lines) = sync_channel(1 << 20);
        let writer = LogWriter::start(Gate { permits, written }).unwrap();
        (writer, permit, lines)
    }

    #[test]
    fn lines_are_written_in_order_with_one_call_each() {
        let (writer, permit, lines) = gated();
        for line in ["a\n", "b\n", "c\n"] {
            writer.put(line.as_bytes());
            permit.send(()).unwrap();
        }
        writer.flush();
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [b"a\n", b"b\n", b"c\n"]);
        assert_eq!(writer.lost().count(), 0);
    }

    #[test]
    fn a_stuck_output_costs_lines_beyond_the_bound_and_blocks_nobody() {
        let (writer, _permit, _lines) = gated();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        // The thread takes at most one batch of up to a full queue, and then waits for its first permit.
        for _ in 0..3 * 1024 {
            writer.put(&line);
        }
        let lost = writer.lost().count();
        assert!((1024..=2048).contains(&lost), "{lost}");
        writer.flush();
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_lost() {
        let (writer, permit, _lines) = gated();
        drop(permit);
        writer.put(b"a\nb\n");
        writer.flush();
        assert_eq!(writer.lost().count(), 2);
    }
}
