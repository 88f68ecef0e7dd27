//! One dial: connect, offer, read the answer; then the tunnel lives in the same task.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use eddy_core::dialer::DialFailure;
use eddy_core::handshake::request::Offer;
use eddy_core::handshake::response::{self, Accepted, Rejection};
use eddy_core::handshake::{Mode, Parsed};
use eddy_core::initiator::Dial;
use eddy_core::timings::Timing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::tunnel;
use super::worker::{Signals, Worker};
use crate::net::{BACKSTOP, Network, Stream, UNSENT_MAX};

/// The responder's word for a node id that another process has (409 Conflict).
const TAKEN: u16 = 409;

/// Dials. Dropping the task is how a dial is aborted.
pub(super) async fn run<N: Network>(worker: Rc<Worker<N>>, dial: Dial, signals: Signals) {
    let (at, began) = (dial.at, worker.clock.now());
    match shake_hands(&worker, &dial, &signals.overlap).await {
        Ok((stream, leftover, accepted)) => {
            worker.time(Timing::Dial, began);
            worker.tell("established", at, |machine, now| {
                machine.on_established(now, at, accepted.spread);
            });
            tunnel::run(&worker, &dial, stream, &leftover, signals.drain).await;
        }
        Err(failure) => {
            worker.tasks.borrow_mut().remove(&at);
            worker.tell("failed", at, |machine, now| machine.on_failed(now, at, failure));
        }
    }
}

/// The socket after the answer, with the bytes that came behind it.
async fn shake_hands<N: Network>(
    worker: &Worker<N>,
    dial: &Dial,
    overlap: &Notify,
) -> Result<(N::Stream, Vec<u8>, Accepted), DialFailure> {
    let Dial { at, host, .. } = *dial;
    let config = &worker.config.dial;
    let mode = if config.http_upgrade {
        Mode::Upgrade
    } else {
        Mode::Plain
    };
    let offer = {
        let machine = worker.machine.borrow();
        let offer = Offer {
            path: &config.path,
            mode,
            host,
            identity: machine.identity(at),
            upstream_cluster: &dial.cluster,
            initiation_time_ms: u64::try_from(worker.net.wall().as_millis()).unwrap_or(u64::MAX),
            worker: worker.id,
            connection: dial.tunnel.serial,
            instance: Some(machine.instance(at)),
        };
        offer.encode()
    };
    let connected = first_of(|| worker.net.connect(host), overlap).await;
    let mut stream = connected.map_err(|error| failure(&error))?;
    worker.tell("connected", at, |machine, now| machine.on_connected(now, at));
    stream.give_up_after(BACKSTOP);
    stream.limit_unsent(UNSENT_MAX);
    stream.write_all(&offer).await.map_err(|_| DialFailure::Refused)?;
    let mut bytes = Vec::with_capacity(256);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(DialFailure::Refused),
            Ok(_) => {}
        }
        match response::parse(mode, &bytes) {
            Ok(None) => {}
            Ok(Some(Parsed { value, consumed })) => {
                let leftover = bytes.split_off(consumed);
                return Ok((stream, leftover, value));
            }
            Err(rejection) => return Err(rejected(host, rejection)),
        }
    }
}

/// The first of the connects that comes to something, be it a connection or a refusal. Another one starts whenever `overlap`
/// asks for it. One that this machine cannot make, such as for want of descriptors, does not end the others.
async fn first_of<S, C: Future<Output = io::Result<S>>>(
    connect: impl Fn() -> C,
    overlap: &Notify,
) -> io::Result<S> {
    let mut connects = vec![Box::pin(connect())];
    loop {
        let first = poll_fn(|cx| {
            let mut done = connects.iter_mut().enumerate();
            let done = done.find_map(|(n, connect)| match connect.as_mut().poll(cx) {
                Poll::Ready(connected) => Some((n, connected)),
                Poll::Pending => None,
            });
            done.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            biased;
            (n, connected) = first => {
                let is_refused = |error: &io::Error| failure(error) == DialFailure::Refused;
                if connects.len() == 1 || connected.as_ref().err().is_none_or(is_refused) {
                    return connected;
                }
                drop(connects.swap_remove(n));
            }
            () = overlap.notified() => connects.push(Box::pin(connect())),
        }
    }
}

fn failure(error: &io::Error) -> DialFailure {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    ) {
        DialFailure::Refused
    } else {
        DialFailure::Unreachable
    }
}

fn rejected(host: SocketAddr, rejection: Rejection) -> DialFailure {
    let reason = rejection.reason().into_owned();
    match rejection {
        Rejection::Status {
            code,
            retry_after,
            detail,
        } => {
            tracing::warn!(%host, code, detail, "the responder rejects this initiator");
            if code == TAKEN {
                DialFailure::Taken
            } else {
                DialFailure::Rejected { reason, retry_after }
            }
        }
        Rejection::Malformed | Rejection::Body | Rejection::HeadTooLarge => {
            tracing::warn!(%host, reason, "the responder's answer is none");
            DialFailure::Protocol
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// The name of the connect that has succeeded, instead of a stream.
    type Connected = &'static str;

    /// Connects that a test completes one by one, in any order.
    #[derive(Default)]
    struct Connects(RefCell<Vec<oneshot::Sender<io::Result<Connected>>>>);

    impl Connects {
        fn begin(&self) -> impl Future<Output = io::Result<Connected>> + use<> {
            let (complete, completed) = oneshot::channel();
            self.0.borrow_mut().push(complete);
            async { completed.await.unwrap() }
        }

        /// Completes the connect that was begun first or second.
        fn complete(&self, at: usize, result: io::Result<Connected>) {
            let (unused, _) = oneshot::channel();
            let complete = std::mem::replace(&mut self.0.borrow_mut()[at], unused);
            complete.send(result).unwrap();
        }
    }

    /// EMFILE: this process has no descriptor left.
    fn no_descriptor() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    /// The outcome of two connects, of which the second overlaps the first. `complete` runs when both are in flight.
    async fn overlapping(complete: impl AsyncFnOnce(&Connects)) -> io::Result<Connected> {
        let (connects, overlap) = (Connects::default(), Notify::new());
        let mut outcome = pin!(first_of(|| connects.begin(), &overlap));
        let two_in_flight = async {
            overlap.notify_one();
            while connects.0.borrow().len() < 2 {
                yield_now().await;
            }
            complete(&connects).await;
            yield_now().await;
        };
        tokio::select! {
            biased;
            outcome = outcome.as_mut() => outcome,
            () = two_in_flight => panic!("the dial waits for another connect"),
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_local_error_of_the_second_connect_leaves_the_first() {
        let outcome = overlapping(async |connects| {
            connects.complete(1, Err(no_descriptor()));
            yield_now().await;
            connects.complete(0, Ok("first"));
        });
        assert_eq!(outcome.await.unwrap(), "first");
    }

    #[tokio::test(flavor = "local")]
    async fn a_local_error_of_the_first_connect_leaves_the_second() {
        let outcome = overlapping(async |connects| {
            connects.complete(0, Err(no_descriptor()));
            yield_now().await;
            connects.complete(1, Ok("second"));
        });
        assert_eq!(outcome.await.unwrap(), "second");
    }

    #[tokio::test(flavor = "local")]
    async fn the_last_connect_that_fails_ends_the_dial() {
        let outcome = overlapping(async |connects| {
            connects.complete(1, Err(no_descriptor()));
            yield_now().await;
            connects.complete(0, Err(io::ErrorKind::TimedOut.into()));
        });
        assert_eq!(outcome.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(flavor = "local")]
    async fn a_refusal_of_either_connect_ends_the_dial() {
        for at in [0, 1] {
            let outcome = overlapping(async |connects| {
                connects.complete(at, Err(io::ErrorKind::ConnectionRefused.into()));
            });
            assert_eq!(
                failure(&outcome.await.unwrap_err()),
                DialFailure::Refused,
                "connect {at}"
            );
        }
    }
}
