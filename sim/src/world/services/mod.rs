//! The services behind the initiators: each has its own port, so that what reaches it is known to have come
//! through its own initiator.

mod http1;
mod misdeeds;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use eddy_runtime::net::Listener;
use tokio::sync::Notify;

use self::http1::{Connection, Head};
use self::misdeeds::{Response, Then};
use super::conduct::Conduct;
use super::{ANSWER_BYTES, ANSWERED_BY, REQUEST_ID};
use crate::fabric::{ProcessId, SimNetwork, SimStream, now};
use crate::journal::{Journal, What};
use crate::ledger::Ledger;
use crate::scenario::Misdeed;

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
    conduct: Rc<Conduct>,
    ledger: Rc<Ledger>,
    journal: Journal,
}

impl Service {
    pub(crate) fn new(
        of: ProcessId,
        name: &str,
        port: u16,
        conduct: Rc<Conduct>,
        ledger: Rc<Ledger>,
        journal: Journal,
    ) -> Rc<Self> {
        Rc::new(Self {
            of,
            name: name.to_owned(),
            port,
            mood: Cell::new(Mood::Well(Duration::ZERO)),
            changed: Notify::new(),
            conduct,
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
        let mut connection = Connection::new(stream);
        tokio::select! {
            biased;
            () = self.until(|mood| mood == Mood::Stopped) => {}
            // A broken connection is the initiator's to report.
            _ = self.serve_requests(&mut connection) => {}
        }
    }

    async fn serve_requests(&self, connection: &mut Connection<SimStream>) -> io::Result<()> {
        while let Some(head) = connection.head().await? {
            if self.serve_one(&head, connection).await? == Then::Close {
                break;
            }
        }
        Ok(())
    }

    async fn serve_one(&self, head: &Head, connection: &mut Connection<SimStream>) -> io::Result<Then> {
        let number = |name: &str| head.number(name).unwrap_or(0);
        let (id, size) = (number(REQUEST_ID), number(ANSWER_BYTES));
        self.ledger.deliver(id, self.of);
        self.journal.record(now(), &self.name, What::Delivered { id });
        let misdeed = self.conduct.draw();
        if let Some(misdeed) = misdeed {
            self.ledger.mistreat(id);
            let how = misdeed.label();
            self.journal
                .record(now(), &self.name, What::Misbehaved { id, how });
        }
        if misdeed != Some(Misdeed::EarlyResponse) {
            connection.skip(head.body).await?;
        }
        match self.mood.get() {
            Mood::Well(pause) => tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                () = connection.hung_up() => return Ok(Then::Close),
            },
            Mood::Stopped | Mood::Resetting => return Ok(Then::Close),
        }
        let fields = format!("{ANSWERED_BY}: {}\r\n{REQUEST_ID}: {id}\r\n", self.of.0);
        match misdeed {
            None => {
                let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {size}\r\n\r\n");
                connection.respond(&head, size).await?;
                Ok(Then::Next)
            }
            Some(how) => {
                let response = Response {
                    fields: &fields,
                    size,
                    conduct: &self.conduct,
                };
                response.spoil(how, connection).await
            }
        }
    }
}
