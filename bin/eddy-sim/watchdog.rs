//! Real time: a simulation in which a task is always ready never ends by itself.

use std::process::exit;
use std::sync::mpsc;
use std::time::Duration;

/// No run of a scenario takes so long in real time.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

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
    match finished.recv_timeout(LIMIT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            eprintln!(
                "{what}: time stands still: after {LIMIT:?} the run has not ended; a task may be ready for ever"
            );
            exit(1);
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            eprintln!("{what}: the simulation itself panicked");
            exit(1);
        }
    }
}
