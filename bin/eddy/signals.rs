//! Signals: SIGTERM and SIGINT end the process, SIGHUP reopens log files, SIGUSR1 and SIGUSR2 are ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, system};

/// A request to reopen log files, from SIGHUP to the threads that write them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// Returns whether the files are to be reopened, once per request.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The signals that a process handles. From [`Signals::listen`] on none of them has its default effect.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
    reopen: Reopen,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(system("cannot listen to signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user_1: listen(SignalKind::user_defined1())?,
            user_2: listen(SignalKind::user_defined2())?,
            reopen: Reopen::default(),
        })
    }

    /// The request that SIGHUP makes.
    pub(crate) fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Waits for a signal that ends the process, and handles the others meanwhile.
    pub(crate) async fn end(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reopening log files");
                    self.reopen.0.store(true, Ordering::Relaxed);
                }
                _ = self.user_1.recv() => tracing::info!("SIGUSR1 ignored"),
                _ = self.user_2.recv() => tracing::info!("SIGUSR2 ignored"),
            }
        }
    }
}
