//! The clients: they send what the workload says, and write down what came back.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use eddy_core::rng::Rng;
use http_body_util::BodyExt;
use hyper::Request as HttpRequest;
use hyper::header::{CONTENT_LENGTH, HOST};

use super::connections::{Connections, Sender, failure_kind};
use super::upload::Upload;
use super::{ANSWER_BYTES, ANSWERED_BY, CLUSTER_HEADER, NODE_HEADER, REQUEST_ID};
use crate::fabric::{ProcessId, now};
use crate::journal::{Journal, What};
use crate::ledger::Ledger;
use crate::request::{Outcome, Request};
use crate::scenario::{CLIENTS, Pace, Reading, Target, Workload};

/// Eddy's own word on why it answered itself.
const REASON: &str = "x-eddy-reason";
/// The host that requests name.
const HOST_NAME: &str = "eddy.example";

/// What all clients share.
pub(crate) struct Clients {
    pub(crate) connections: Connections,
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
    let to = clients.egress[via].0;
    send(clients, index, workload, via, None, to).await;
}

/// A request of the oracle's own to one node, at one worker of a responder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    pub(crate) node: String,
    pub(crate) via: usize,
    pub(crate) worker: u16,
}

/// Sends a probe.
pub(crate) async fn probe(clients: Rc<Clients>, probe: Probe) {
    let Probe { node, via, worker } = probe;
    let to = clients.connections.net.door(clients.egress[via].0, worker);
    send(clients, None, asking(node, via), via, Some(worker), to).await;
}

async fn send(
    clients: Rc<Clients>,
    index: Option<usize>,
    workload: Rc<Workload>,
    via: usize,
    worker: Option<u16>,
    to: SocketAddr,
) {
    let id = clients.ledger.send(Request {
        workload: index,
        via: ProcessId(via),
        worker,
        target: workload.target.clone(),
        idempotent: workload.method != "POST",
        sent: now(),
        delivered: Vec::new(),
        is_mistreated: false,
        ended: None,
    });
    let request = What::Request {
        id,
        workload: workload.name.clone(),
        via: clients.egress[via].1.clone(),
    };
    clients.journal.record(now(), CLIENTS, request);
    let exchange = async {
        let mut sender = clients.connections.get(index, &workload, to).await?;
        exchange(&mut sender, &workload, id).await
    };
    let stops = matches!(workload.reading, Reading::StopsAfter(_)) || workload.sends_until.is_some();
    let outcome = match tokio::time::timeout(workload.timeout, exchange).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Broken(error),
        Err(_) if stops => Outcome::Stopped,
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

/// Sends a request over a connection, and reads the response.
async fn exchange(sender: &mut Sender, workload: &Workload, id: u64) -> Result<Outcome, String> {
    let body = Upload::new(workload.body, workload.sends_until);
    let mut request = HttpRequest::builder().method(workload.method);
    request = if workload.http2 {
        request.uri(format!("http://{HOST_NAME}{}", workload.path))
    } else {
        request.uri(&workload.path).header(HOST, HOST_NAME)
    };
    request = request
        .header(CONTENT_LENGTH, workload.body)
        .header(REQUEST_ID, id)
        .header(ANSWER_BYTES, workload.answer);
    request = match &workload.target {
        Target::Node(node) => request.header(NODE_HEADER, node),
        Target::Cluster(cluster) => request.header(CLUSTER_HEADER, cluster),
        Target::Nobody => request,
    };
    let request = request.body(body).map_err(|error| error.to_string())?;
    let response = sender.send(request).await.map_err(|error| failure_kind(&error))?;
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (status, reason) = (response.status().as_u16(), header(REASON));
    let by = header(ANSWERED_BY).and_then(|by| by.parse().ok());
    let of: Option<u64> = header(REQUEST_ID).and_then(|of| of.parse().ok());
    if let Some(of) = of.filter(|of| *of != id) {
        return Ok(Outcome::Foreign(of));
    }
    let mut read = 0;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failure_kind(&error))?;
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

/// How long the oracle's own requests may take.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_secs(8);

/// The workload of a probe.
fn asking(node: String, via: usize) -> Rc<Workload> {
    Rc::new(Workload {
        name: format!("probe of {node}"),
        via: vec![via],
        target: Target::Node(node),
        method: "GET",
        path: "/".to_owned(),
        pace: Pace::Users(1, Duration::ZERO),
        start: Duration::ZERO,
        end: Duration::ZERO,
        body: 0,
        answer: 10,
        timeout: PROBE_PATIENCE,
        reading: Reading::Fast,
        sends_until: None,
        http2: false,
    })
}
