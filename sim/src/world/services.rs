//! The services behind the initiators: each has its own port, so that what reaches it is known to have come
//! through its own initiator.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eddy_runtime::net::Listener;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::ledger::Ledger;
use super::{ANSWER_BYTES, ANSWERED_BY, REQUEST_ID};
use crate::fabric::{ProcessId, SimNetwork, SimStream, now};
use crate::journal::{Journal, What};

/// How a service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers after a while.
    Well(Duration),
    /// It refuses connections.
    Stopped,
    /// It breaks off every request.
    Resetting,
}

/// One initiator's service.
pub(crate) struct Service {
    pub(crate) of: ProcessId,
    pub(crate) name: String,
    pub(crate) port: u16,
    mood: Cell<Mood>,
    changed: Notify,
    ledger: Rc<Ledger>,
    journal: Journal,
}

impl Service {
    pub(crate) fn new(
        of: ProcessId,
        name: &str,
        port: u16,
        ledger: Rc<Ledger>,
        journal: Journal,
    ) -> Rc<Self> {
        Rc::new(Self {
            of,
            name: name.to_owned(),
            port,
            mood: Cell::new(Mood::Well(Duration::ZERO)),
            changed: Notify::new(),
            ledger,
            journal,
        })
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.mood.set(mood);
        self.changed.notify_waiters();
    }

    async fn until(&self, wanted: impl Fn(Mood) -> bool) {
        while !wanted(self.mood.get()) {
            self.changed.notified().await;
        }
    }

    /// Serves until the simulation ends.
    pub(crate) async fn run(self: Rc<Self>, net: SimNetwork) -> io::Result<()> {
        loop {
            self.until(|mood| mood != Mood::Stopped).await;
            let listener = net.listen_at(self.port).await?;
            loop {
                tokio::select! {
                    biased;
                    () = self.until(|mood| mood == Mood::Stopped) => break,
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            tokio::task::spawn_local(Rc::clone(&self).serve(stream));
                        }
                    }
                }
            }
        }
    }

    async fn serve(self: Rc<Self>, stream: SimStream) {
        let service = service_fn(|request| {
            let service = Rc::clone(&self);
            async move { service.answer(request).await }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            biased;
            () = self.until(|mood| mood == Mood::Stopped) => {}
            // A broken connection is the initiator's to tell.
            _ = connection => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let number = |name: &str| {
            let value = request.headers().get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let (id, size) = (number(REQUEST_ID).unwrap_or(0), number(ANSWER_BYTES).unwrap_or(0));
        self.ledger.deliver(id, self.of);
        self.journal.record(now(), &self.name, What::Delivered { id });
        request.into_body().collect().await.map_err(io::Error::other)?;
        match self.mood.get() {
            Mood::Well(pause) => tokio::time::sleep(pause).await,
            Mood::Stopped | Mood::Resetting => return Err(io::ErrorKind::ConnectionReset.into()),
        }
        let body = vec![b'e'; usize::try_from(size).unwrap_or(0)];
        let mut response = Response::new(Full::new(Bytes::from(body)));
        let of = HeaderValue::from(self.of.0);
        response.headers_mut().insert(ANSWERED_BY, of);
        Ok(response)
    }
}
