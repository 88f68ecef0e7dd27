//! A simulation in which a task is always ready never ends by itself. It takes processor time, and that is measured: on a busy
//! machine, a run that is well may take much longer by the clock on the wall.

use std::process::exit;
use std::sync::mpsc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// No run of a scenario takes so much processor time.
const LIMIT: Duration = Duration::from_secs(180);
/// How often to look.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// The processor time of this process since some moment.
#[derive(Debug)]
pub(crate) struct Spent(Duration);

impl Spent {
    /// From now on.
    pub(crate) fn since_now() -> Self {
        Self(processor_time())
    }

    /// Whether it is more than any run takes.
    pub(crate) fn is_too_much(&self) -> bool {
        processor_time().saturating_sub(self.0) >= LIMIT
    }
}

fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).unwrap_or_default()
}

/// Does something on a thread of its own; ends the process if it takes too long.
#[expect(
    clippy::disallowed_methods,
    reason = "this thread is the command's, not the simulation's"
)]
pub(crate) fn guarded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more once the limit is over.
        let _ = done.send(work());
    });
    let spent = Spent::since_now();
    loop {
        match finished.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Timeout) if !spent.is_too_much() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                eprintln!(
                    "{what}: time stands still: the run has not ended after {LIMIT:?} of processor time; a task may be ready for ever"
                );
                exit(1);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                eprintln!("{what}: the simulation itself panicked");
                exit(1);
            }
        }
    }
}
