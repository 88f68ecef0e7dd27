//! The clients: they send what the workload says, and write down what came back.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eddy_core::rng::Rng;
use eddy_runtime::net::Network;
use http_body_util::{BodyExt, Full};
use hyper::Request as HttpRequest;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper_util::rt::TokioIo;

use super::ledger::{Ledger, Outcome, Request};
use super::{ANSWER_BYTES, ANSWERED_BY, CLUSTER_HEADER, NODE_HEADER, REQUEST_ID};
use crate::fabric::{ProcessId, SimNetwork, now};
use crate::journal::{Journal, What};
use crate::scenario::{CLIENTS, Pace, Reading, Target, Workload};

/// Eddy's own word on why it answered itself.
const REASON: &str = "x-eddy-reason";

/// What all clients share.
pub(crate) struct Clients {
    pub(crate) net: SimNetwork,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) journal: Journal,
    /// The egress address and name of each process; initiators have none.
    pub(crate) egress: Vec<(SocketAddr, String)>,
    pub(crate) rng: RefCell<Rng>,
}

/// Runs one workload to its end.
pub(crate) async fn run(clients: Rc<Clients>, index: usize, workload: Rc<Workload>, shake: bool) {
    tokio::time::sleep(workload.start).await;
    match workload.pace {
        Pace::Every(pause) => {
            let mut turn = 0;
            while now() < workload.end {
                let via = workload.via[turn % workload.via.len()];
                turn += 1;
                tokio::task::spawn_local(one(Rc::clone(&clients), Some(index), Rc::clone(&workload), via));
                let pause = if shake {
                    clients.rng.borrow_mut().between(pause / 2, pause + pause / 2)
                } else {
                    pause
                };
                tokio::time::sleep(pause).await;
            }
        }
        Pace::Users(users, think) => {
            for user in 0..users as usize {
                let (clients, workload) = (Rc::clone(&clients), Rc::clone(&workload));
                tokio::task::spawn_local(async move {
                    let mut turn = user;
                    while now() < workload.end {
                        let via = workload.via[turn % workload.via.len()];
                        turn += 1;
                        one(Rc::clone(&clients), Some(index), Rc::clone(&workload), via).await;
                        tokio::time::sleep(think).await;
                    }
                });
            }
        }
    }
}

/// Sends one request and waits for what comes.
pub(crate) async fn one(clients: Rc<Clients>, index: Option<usize>, workload: Rc<Workload>, via: usize) {
    let id = clients.ledger.send(Request {
        workload: index,
        via: ProcessId(via),
        target: workload.target.clone(),
        idempotent: workload.method != "POST",
        sent: now(),
        delivered: Vec::new(),
        ended: None,
    });
    let (to, name) = &clients.egress[via];
    let request = What::Request {
        id,
        workload: workload.name.clone(),
        via: name.clone(),
    };
    clients.journal.record(now(), CLIENTS, request);
    let exchange = exchange(&clients.net, *to, &workload, id);
    let outcome = match tokio::time::timeout(workload.timeout, exchange).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Broken(error),
        Err(_) if matches!(workload.reading, Reading::StopsAfter(_)) => Outcome::Stopped,
        Err(_) => Outcome::TimedOut,
    };
    let (text, good) = (outcome.to_string(), outcome.is_good());
    let took = clients.ledger.end(id, now(), outcome);
    let answered = What::Answered {
        id,
        outcome: text,
        good,
        ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    clients.journal.record(now(), CLIENTS, answered);
}

async fn exchange(net: &SimNetwork, to: SocketAddr, workload: &Workload, id: u64) -> Result<Outcome, String> {
    let stream = net.connect(to).await.map_err(|error| kind(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    // The connection ends with the sender, or with an error that the sender tells.
    let driver = tokio::task::spawn_local(async move { drop(connection.await) });
    let _driver = Ending(driver);
    let body = vec![b'q'; usize::try_from(workload.body).unwrap_or(0)];
    let mut request = HttpRequest::builder()
        .method(workload.method)
        .uri(&workload.path)
        .header(HOST, "eddy.example")
        .header(CONTENT_LENGTH, workload.body)
        .header(REQUEST_ID, id)
        .header(ANSWER_BYTES, workload.answer);
    request = match &workload.target {
        Target::Node(node) => request.header(NODE_HEADER, node),
        Target::Cluster(cluster) => request.header(CLUSTER_HEADER, cluster),
        Target::Nobody => request,
    };
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| said(&error))?;
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (status, reason) = (response.status().as_u16(), header(REASON));
    let by = header(ANSWERED_BY).and_then(|by| by.parse().ok());
    let mut read = 0;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| said(&error))?;
        read += frame.data_ref().map_or(0, Bytes::len) as u64;
        if matches!(workload.reading, Reading::StopsAfter(most) if read >= most) {
            std::future::pending::<()>().await;
        }
    }
    if by.is_some() && read != workload.answer {
        return Err(format!("{read} bytes of {}", workload.answer));
    }
    Ok(Outcome::Answer { status, reason, by })
}

/// Ends a task with its owner.
struct Ending(tokio::task::JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn kind(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}

/// The kind of a failure, without what differs from run to run of the libraries.
fn said(error: &hyper::Error) -> String {
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

/// How long the oracle's own requests may take.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_secs(8);

/// A request of the oracle's own, to one node.
pub(crate) fn probe(node: &str, via: usize) -> Rc<Workload> {
    Rc::new(Workload {
        name: format!("probe of {node}"),
        via: vec![via],
        target: Target::Node(node.to_owned()),
        method: "GET",
        path: "/".to_owned(),
        pace: Pace::Users(1, Duration::ZERO),
        start: Duration::ZERO,
        end: Duration::ZERO,
        body: 0,
        answer: 10,
        timeout: PROBE_PATIENCE,
        reading: Reading::Fast,
    })
}
