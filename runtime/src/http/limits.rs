//! How long a request may take: its response counts from the end of the request, as in Envoy; while its body flows, only a
//! pause of the body counts.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use eddy_core::time::{Deadline, Instant};

use crate::clock::Clock;

/// Where the body of a request stands. The worker that owns a tunnel reads it, and the one that has the client watches it.
#[derive(Debug)]
pub(crate) struct Upload {
    clock: Clock,
    phase: AtomicU8,
    /// When the last of it moved, or it ended, in microseconds of the clock.
    moved: AtomicU64,
    /// How many bytes there were, if somebody wants to know.
    bytes: Option<Arc<AtomicU64>>,
}

/// More is to come, and the next hop takes it when it can.
const FLOWING: u8 = 0;
/// More is to come, and the next hop waits for it.
const AWAITED: u8 = 1;
/// The request is whole.
const WHOLE: u8 = 2;

impl Upload {
    pub(crate) fn new(clock: Clock, bytes: Option<Arc<AtomicU64>>) -> Self {
        let upload = Self {
            clock,
            phase: AtomicU8::new(FLOWING),
            moved: AtomicU64::default(),
            bytes,
        };
        upload.on_moved();
        upload
    }

    fn on_moved(&self) {
        let micros = self.clock.now().since_origin().as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.moved.store(micros, Ordering::Relaxed);
    }

    /// So many bytes were taken by the next hop.
    pub(crate) fn on_bytes(&self, bytes: usize) {
        if let Some(count) = &self.bytes {
            count.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        self.phase.store(FLOWING, Ordering::Relaxed);
        self.on_moved();
    }

    /// The next hop wants more, and there is none yet.
    pub(crate) fn on_awaited(&self) {
        self.phase.store(AWAITED, Ordering::Relaxed);
    }

    /// The request is whole.
    pub(crate) fn on_whole(&self) {
        if self.phase.swap(WHOLE, Ordering::Relaxed) != WHOLE {
            self.on_moved();
        }
    }

    /// Whether there is more than the next hop takes.
    fn is_taken_no_more(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == FLOWING
    }

    fn is_whole(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == WHOLE
    }

    fn moved(&self) -> Instant {
        Instant::from_origin(Duration::from_micros(self.moved.load(Ordering::Relaxed)))
    }
}

/// How often to look whether a client whose upload stalls is still there: where nothing is read from it, its end is not
/// either.
const CLIENT_LOOK: Duration = Duration::from_secs(1);

/// Which end is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The one that sends the request has paused for too long in its body.
    Sender,
    /// The one that responds has not, or does not take the body.
    Receiver,
    /// The one that sends the request has gone.
    Gone,
    /// The one that responds takes no more of the body, and memory is short.
    Memory,
}

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) clock: Clock,
    /// When the request came.
    pub(crate) began: Instant,
    /// From the end of the request to the head of the response.
    pub(crate) response: Option<Duration>,
    /// Between two pieces of the request's body.
    pub(crate) body_idle: Option<Duration>,
}

impl Limits {
    /// Waits for a response within the limits. `upload` is there if the request has a body. `gives_up` is asked about once a
    /// second while nothing of the body is taken, and told for how long that has lasted.
    pub(crate) async fn bound<T>(
        &self,
        upload: Option<&Upload>,
        gives_up: impl Fn(Duration) -> Option<Late>,
        response: impl Future<Output = T>,
    ) -> Result<T, Late> {
        let mut response = pin!(response);
        loop {
            let (at, late) = self.deadline(upload);
            // The body may end while this waits: from then on the time counts that `response` allows.
            // It may also stall at any time, and nothing wakes this task when it does.
            let flows = upload.is_some_and(|upload| !upload.is_whole());
            let soon = [self.response, flows.then_some(CLIENT_LOOK)]
                .into_iter()
                .flatten()
                .min();
            let look = match (at, soon) {
                (at, Some(soon)) => {
                    let soon = self.clock.now() + soon;
                    Some(at.map_or(soon, |at| at.min(soon)))
                }
                (at, None) => at,
            };
            let look = look.map(|at| Deadline {
                at,
                reason: "request timeout",
            });
            tokio::select! {
                biased;
                response = response.as_mut() => return Ok(response),
                () = self.clock.until(look) => {}
            }
            if let Some(upload) = upload.filter(|upload| upload.is_taken_no_more())
                && let Some(late) = gives_up(self.clock.now() - upload.moved())
            {
                return Err(late);
            }
            let (now_at, _) = self.deadline(upload);
            if now_at == at && at.is_some_and(|at| self.clock.now() >= at) {
                return Err(late);
            }
        }
    }

    fn deadline(&self, upload: Option<&Upload>) -> (Option<Instant>, Late) {
        let after = |from: Instant, limit: Option<Duration>| limit.map(|limit| from + limit);
        let Some(upload) = upload else {
            return (after(self.began, self.response), Late::Receiver);
        };
        match upload.phase.load(Ordering::Relaxed) {
            WHOLE => (after(upload.moved(), self.response), Late::Receiver),
            AWAITED => (after(upload.moved(), self.body_idle), Late::Sender),
            _ => (after(upload.moved(), self.body_idle), Late::Receiver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn limits() -> (Limits, Upload) {
        let clock = Clock::start();
        let limits = Limits {
            clock,
            began: clock.now(),
            response: Some(S(3)),
            body_idle: Some(S(10)),
        };
        (limits, Upload::new(clock, None))
    }

    async fn elapsed<T>(
        limits: &Limits,
        upload: Option<&Upload>,
        response: impl Future<Output = T>,
    ) -> (Duration, bool) {
        let bound = limits.bound(upload, |_| None, response).await;
        let took = limits.clock.now() - limits.began;
        (Duration::from_secs(took.as_secs()), bound.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_body_has_its_time_from_the_start() {
        let (limits, _) = limits();
        let never = std::future::pending::<()>();
        assert_eq!(elapsed(&limits, None, never).await, (S(3), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_flows_takes_as_long_as_it_takes() {
        let (limits, upload) = limits();
        let flow = async {
            for _ in 0..20 {
                tokio::time::sleep(S(2)).await;
                upload.on_bytes(1);
                upload.on_awaited();
            }
            upload.on_whole();
            std::future::pending::<()>().await;
        };
        assert_eq!(elapsed(&limits, Some(&upload), flow).await, (S(43), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_has_its_limit_where_a_body_has_none() {
        let (mut limits, upload) = limits();
        limits.body_idle = None;
        let flow = async {
            upload.on_bytes(1);
            upload.on_awaited();
            tokio::time::sleep(S(5)).await;
            upload.on_whole();
            std::future::pending::<()>().await;
        };
        assert_eq!(elapsed(&limits, Some(&upload), flow).await, (S(8), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_rests_is_the_senders_fault_and_one_that_is_not_taken_the_receivers() {
        for (awaited, expected) in [(true, Late::Sender), (false, Late::Receiver)] {
            let (limits, upload) = limits();
            upload.on_bytes(1);
            if awaited {
                upload.on_awaited();
            }
            let late = limits
                .bound(Some(&upload), |_| None, std::future::pending::<()>())
                .await;
            assert_eq!(late, Err(expected));
            assert_eq!((limits.clock.now() - limits.began).as_secs(), 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_goes_while_nothing_is_taken_is_noticed() {
        let (limits, upload) = limits();
        upload.on_bytes(1);
        let gives_up = |stalled| (stalled > S(4)).then_some(Late::Gone);
        let late = limits
            .bound(Some(&upload), gives_up, std::future::pending::<()>())
            .await;
        assert_eq!(late, Err(Late::Gone));
        assert_eq!((limits.clock.now() - limits.began).as_secs(), 5);
    }

    /// Nobody says when an upload stalls: the wait began while more of it was wanted.
    #[tokio::test(start_paused = true)]
    async fn a_sender_that_goes_is_noticed_where_the_upload_stalls_late() {
        let (limits, upload) = limits();
        upload.on_awaited();
        let stall = async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            upload.on_bytes(1);
            std::future::pending::<()>().await;
        };
        let late = limits.bound(Some(&upload), |_| Some(Late::Gone), stall).await;
        assert_eq!(late, Err(Late::Gone));
        assert_eq!((limits.clock.now() - limits.began).as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_is_late() {
        let (mut limits, upload) = limits();
        (limits.response, limits.body_idle) = (None, None);
        let response = tokio::time::sleep(S(100_000));
        assert_eq!(
            elapsed(&limits, Some(&upload), response).await,
            (S(100_000), true)
        );
    }
}
