//! The listener for clients: HTTP/1.1 and cleartext HTTP/2 on one port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use eddy_core::responder::Responder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client::Client;
use super::proxy;
use super::worker::Worker;
use crate::http::HEAD_TIMEOUT;
use crate::limited_log::LimitedLog;
use crate::net::counted::Counted;
use crate::net::{Listener, Network, Stream};

/// A pause where accepting fails because something has run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Keeps the worker from ending while a client is there.
pub(super) struct Presence<N: Network>(Rc<Worker<N>>);

impl<N: Network> Presence<N> {
    pub(super) fn new(worker: &Rc<Worker<N>>) -> Self {
        worker.machine.borrow_mut().on_client();
        Self(Rc::clone(worker))
    }
}

impl<N: Network> Drop for Presence<N> {
    fn drop(&mut self) {
        self.0.with(Responder::on_client_gone);
    }
}

/// Accepts until the listener is to be closed, and then those clients that have come already. They count even before they are
/// accepted: `_attending` is one.
pub(super) async fn run<N: Network>(worker: Rc<Worker<N>>, listener: N::Listener, _attending: Presence<N>) {
    let failures = LimitedLog::new(worker.clock, |suppressed| {
        tracing::warn!(suppressed, "accepting clients failed more often");
    });
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = worker.signals.egress_closed.wait() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let present = Presence::new(&worker);
                tokio::task::spawn_local(client(Rc::clone(&worker), stream, peer, present));
            }
            Err(error) => {
                failures.line(|| tracing::warn!(%error, "cannot accept a client"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn client<N: Network>(
    worker: Rc<Worker<N>>,
    stream: N::Stream,
    peer: SocketAddr,
    _present: Presence<N>,
) {
    let load = worker.clients.loads.of(peer.ip());
    let reader = worker.clients.readers.enter();
    let client = Rc::new(Client::new(peer, load, reader, stream.meter()));
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        async move { Ok::<_, Infallible>(proxy::proxy(worker, request, client).await) }
    });
    let server = crate::http::server(None);
    let (stream, watched) = Counted::new(stream);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let silent = async {
        tokio::time::sleep(HEAD_TIMEOUT).await;
        if watched.has_heard_enough() {
            std::future::pending().await
        }
    };
    tokio::select! {
        biased;
        // A client that goes away or speaks no HTTP ends its own connection only.
        _ = connection.as_mut() => return,
        () = worker.signals.clients_released.wait() => connection.as_mut().graceful_shutdown(),
        // HTTP/1 heads have this limit from their first byte on; this is for those who do not say what they speak.
        () = silent => return,
        () = client.reader.ended() => return watched.reset_on_close(),
    }
    tokio::select! {
        biased;
        _ = connection.as_mut() => {}
        () = client.reader.ended() => watched.reset_on_close(),
    }
}

/// Follows the memory of the process and ends clients that do not read, without end.
pub(super) async fn watch_readers<N: Network>(worker: Rc<Worker<N>>) {
    let ended = LimitedLog::new(worker.clock, |suppressed| {
        tracing::warn!(suppressed, "more often clients were ended that do not read");
    });
    let on_look = || {
        let excess = worker.clients.memory.excess();
        let count = worker.clients.readers.look(worker.clock.now(), excess);
        if count > 0 {
            let is_memory_short = excess.is_some();
            ended.line(|| tracing::warn!(clients = count, is_memory_short, "clients ended that do not read"));
        }
    };
    let memory = &worker.clients.memory;
    memory.follow(&worker.net, &worker.config.memory, on_look).await;
}
