//! The only door to monotonic time. It is tokio's, so that a simulation can pause it.

use eddy_core::time::{Deadline, Instant};

/// Reads time as offsets from one origin, which all workers of a process share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[expect(clippy::disallowed_methods, reason = "the one home of monotonic time")]
    pub fn start() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    /// What time it is.
    #[expect(clippy::disallowed_methods, reason = "the one home of monotonic time")]
    pub fn now(&self) -> Instant {
        Instant::from_origin(tokio::time::Instant::now() - self.origin)
    }

    /// Waits for a deadline; for ever if there is none.
    pub async fn until(&self, deadline: Option<Deadline>) {
        match deadline {
            Some(deadline) => {
                tokio::time::sleep_until(self.origin + deadline.at.since_origin()).await;
            }
            None => std::future::pending().await,
        }
    }
}
