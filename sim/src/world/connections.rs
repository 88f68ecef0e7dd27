//! The connections of clients: one for each request, or one that all requests of a workload share.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use eddy_runtime::net::Network;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinHandle;

use super::upload::Upload;
use crate::fabric::SimNetwork;
use crate::scenario::Workload;

/// Sends requests over a connection.
pub(crate) enum Sender {
    /// One request after the other; the connection ends with the sender.
    Alone {
        sender: http1::SendRequest<Upload>,
        _ending: Ending,
    },
    /// Requests beside each other.
    Shared(http2::SendRequest<Upload>, Rc<Ending>),
}

impl Sender {
    pub(super) async fn send(&mut self, request: Request<Upload>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Alone { sender, .. } => sender.send_request(request).await,
            Self::Shared(sender, _) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Another sender over the same connection, if it is shared and still there.
    fn another(&self) -> Option<Self> {
        match self {
            Self::Shared(sender, ending) if !sender.is_closed() => {
                Some(Self::Shared(sender.clone(), Rc::clone(ending)))
            }
            Self::Shared(..) | Self::Alone { .. } => None,
        }
    }
}

/// Ends a task with its owner.
pub(crate) struct Ending(JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs what an HTTP/2 connection starts beside itself.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Opens the connections of clients.
pub(crate) struct Connections {
    pub(crate) net: SimNetwork,
    /// The connections that the requests of a workload share, by workload and responder.
    shared: RefCell<BTreeMap<(usize, SocketAddr), Sender>>,
}

impl Connections {
    pub(crate) const fn new(net: SimNetwork) -> Self {
        Self {
            net,
            shared: RefCell::new(BTreeMap::new()),
        }
    }

    /// A connection for one request of a workload.
    pub(super) async fn get(
        &self,
        index: Option<usize>,
        workload: &Workload,
        to: SocketAddr,
    ) -> Result<Sender, String> {
        if !workload.http2 {
            let stream = self.net.connect(to).await.map_err(|error| io_kind(&error))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failure_kind(&error))?;
            // The connection ends with the sender, or with an error that the sender reports.
            let driver = tokio::task::spawn_local(async move { drop(connection.await) });
            return Ok(Sender::Alone {
                sender,
                _ending: Ending(driver),
            });
        }
        let key = (index.unwrap_or(usize::MAX), to);
        if let Some(sender) = self.shared.borrow().get(&key).and_then(Sender::another) {
            return Ok(sender);
        }
        let stream = self.net.connect(to).await.map_err(|error| io_kind(&error))?;
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure_kind(&error))?;
        let driver = tokio::task::spawn_local(async move { drop(connection.await) });
        let ending = Rc::new(Ending(driver));
        let shared = Sender::Shared(sender.clone(), Rc::clone(&ending));
        self.shared.borrow_mut().insert(key, shared);
        Ok(Sender::Shared(sender, ending))
    }
}

fn io_kind(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}

/// The kind of a failure, without what differs from run to run of the libraries.
pub(super) fn failure_kind(error: &hyper::Error) -> String {
    let kind = if error.is_incomplete_message() {
        "connection closed"
    } else if error.is_canceled() {
        "cancelled"
    } else if error.is_closed() {
        "closed"
    } else {
        "connection reset"
    };
    kind.to_owned()
}
