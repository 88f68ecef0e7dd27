//! What the status page shows: `GET /overview` as JSON, and `GET /overview/live` the same as server-sent events, one a second.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::histogram::{Histogram, Quantile};
use eddy_core::identity::{ClusterId, Identity, NodeId, TenantId};
use eddy_core::time::Instant;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode, Uri};
use serde::Serialize;
use tokio::sync::mpsc;

use super::body::AdminBody;
use super::{Admin, Answer, NodeInfo, Role, json, plain};
use crate::http::query::parameters;
use crate::net::Network;
use crate::overview::{Event, Overview, PAGE, Requests, Row, Tunnels, Wanted};
use crate::report::{HostLine, round};

/// How often a page that is looked at changes.
const LIVE_EVERY: Duration = Duration::from_secs(1);
/// Over how long rates and quantiles are taken.
const WINDOW: usize = 10;
/// How many pages may be live at once: each costs a look at every tunnel a second.
const LIVE_MAX: u32 = 16;
/// How many hosts of an initiator are shown.
const HOSTS_MAX: usize = 200;

#[derive(Serialize)]
struct Page<'a> {
    role: &'static str,
    node: NodeInfo<'a>,
    version: &'static str,
    state: &'static str,
    uptime_seconds: f64,
    workers: u16,
    at_unix_ms: u64,
    tunnels: Tunnels,
    nodes: u64,
    clusters: u64,
    requests: Rates,
    search: &'a str,
    matching: u64,
    rows: Vec<Line<'a>>,
    next: Option<String>,
    hosts: &'a [HostLine],
    more_hosts: usize,
    events: &'a [Event],
}

#[derive(Serialize)]
struct Line<'a> {
    tenant: &'a str,
    cluster: &'a str,
    node: &'a str,
    #[serde(flatten)]
    row: &'a Row,
}

/// Requests since the start, and as they are now.
#[derive(Default, Serialize)]
struct Rates {
    total: u64,
    in_flight: u64,
    errors: u64,
    per_second: Option<f64>,
    errors_per_second: Option<f64>,
    p50_seconds: Option<f64>,
    p50_above: Option<f64>,
    p99_seconds: Option<f64>,
    p99_above: Option<f64>,
}

/// The last looks, the oldest first.
#[derive(Default)]
struct History(VecDeque<(Instant, Requests)>);

impl History {
    /// What has changed since the oldest look.
    fn look(&mut self, now: Instant, requests: &Requests) -> Rates {
        let mut rates = Rates {
            total: requests.total,
            in_flight: requests.in_flight,
            errors: requests.errors,
            ..Rates::default()
        };
        if let Some((then, before)) = self.0.front() {
            let passed = (now - *then).as_secs_f64().max(0.001);
            let rate =
                |now: u64, then: u64| Some((now.saturating_sub(then) as f64 / passed * 10.0).round() / 10.0);
            rates.per_second = rate(requests.total, before.total);
            rates.errors_per_second = rate(requests.errors, before.errors);
            let lately = requests.durations.since(&before.durations);
            (rates.p50_seconds, rates.p50_above) = quantile(&lately, 500);
            (rates.p99_seconds, rates.p99_above) = quantile(&lately, 990);
        }
        self.0.push_back((now, requests.clone()));
        if self.0.len() > WINDOW {
            self.0.pop_front();
        }
        rates
    }
}

fn quantile(durations: &Histogram, per_mille: u64) -> (Option<f64>, Option<f64>) {
    match durations.quantile(per_mille) {
        Some(Quantile::Within(bound)) => (Some(bound.as_secs_f64()), None),
        Some(Quantile::Above(bound)) => (None, Some(bound.as_secs_f64())),
        None => (None, None),
    }
}

/// Reads `search` and `after`.
fn wanted(uri: &Uri) -> Result<Wanted, String> {
    const FORM: &str = "allowed: ?search=TEXT, and &after=CURSOR as `next` of the page before says it";
    let mut wanted = Wanted::default();
    for (key, value) in parameters(uri) {
        match &*key {
            "search" => wanted.search = value.to_lowercase(),
            "after" if value.is_empty() => {}
            "after" => {
                wanted.after =
                    Some(identity(&value).ok_or_else(|| format!("after: {value:?} is no cursor; {FORM}"))?)
            }
            _ => return Err(format!("{key}: no such parameter; {FORM}")),
        }
    }
    Ok(wanted)
}

fn cursor(
    Identity {
        tenant,
        cluster,
        node,
    }: &Identity,
) -> String {
    serde_json::Value::from_iter([tenant.as_str(), cluster.as_str(), node.as_str()]).to_string()
}

fn identity(cursor: &str) -> Option<Identity> {
    let (tenant, cluster, node): (String, String, String) = serde_json::from_str(cursor).ok()?;
    Some(Identity {
        tenant: TenantId::parse(&tenant).ok()?,
        cluster: ClusterId::parse(&cluster).ok()?,
        node: NodeId::parse(&node).ok()?,
    })
}

/// What all workers know together; `None` once they have ended.
async fn look<N: Network>(
    admin: &Admin<N>,
    wanted: &Arc<Wanted>,
) -> Option<(Overview, Option<Arc<Identity>>)> {
    let parts = match &admin.role {
        Role::Responder(control) => control.overviews(wanted).await,
        Role::Initiator(control) => control.overviews(wanted).await,
    };
    let mut all = parts.into_iter().reduce(|mut all, part| {
        all.merge(part);
        all
    })?;
    let next = all.cut_page();
    if let Role::Responder(control) = &admin.role {
        let whose: Arc<[_]> = all.rows.keys().cloned().collect();
        let counts = control.requests(&whose).await;
        for (row, count) in all.rows.values_mut().zip(counts) {
            row.requests = count;
        }
    }
    Some((all, next))
}

fn page<'a, N: Network>(
    admin: &'a Admin<N>,
    wanted: &'a Wanted,
    all: &'a Overview,
    next: Option<&Identity>,
    requests: Rates,
) -> Page<'a> {
    let now = admin.clock.now().since_origin();
    let lines = all.rows.iter().map(|(identity, row)| Line {
        tenant: identity.tenant.as_str(),
        cluster: identity.cluster.as_str(),
        node: identity.node.as_str(),
        row,
    });
    let hosts = &all.hosts[..all.hosts.len().min(HOSTS_MAX)];
    Page {
        role: admin.role_label(),
        node: admin.node_info(),
        version: env!("CARGO_PKG_VERSION"),
        state: state(admin, all),
        uptime_seconds: round(now),
        workers: admin.workers(),
        at_unix_ms: u64::try_from((admin.began + now).as_millis()).unwrap_or(u64::MAX),
        tunnels: all.tunnels,
        nodes: all.nodes,
        clusters: all.clusters,
        requests,
        search: &wanted.search,
        matching: all.matching + all.here.len() as u64,
        rows: lines.take(PAGE).collect(),
        next: next.map(cursor),
        hosts,
        more_hosts: all.hosts.len() - hosts.len(),
        events: &all.events,
    }
}

/// As `/ready` says it.
fn state<N: Network>(admin: &Admin<N>, all: &Overview) -> &'static str {
    let usable = all.tunnels.open - all.tunnels.draining;
    match admin.role {
        Role::Initiator(_) if usable == 0 && !admin.draining.get() => "NOT READY",
        Role::Responder(_) | Role::Initiator(_) => admin.state_label(),
    }
}

/// One look.
pub(super) async fn once<N: Network>(admin: &Admin<N>, uri: &Uri) -> Answer {
    let wanted = match wanted(uri) {
        Ok(wanted) => Arc::new(wanted),
        Err(wrong) => return plain(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    let Some((all, next)) = look(admin, &wanted).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the workers have ended\n");
    };
    let rates = History::default().look(admin.clock.now(), &all.requests);
    json(&page(admin, &wanted, &all, next.as_deref(), rates))
}

/// A place among the pages that are live; given back when dropped.
struct Seat(Rc<Cell<u32>>);

impl Seat {
    fn take(live: &Rc<Cell<u32>>) -> Option<Self> {
        let taken = live.get();
        (taken < LIVE_MAX).then(|| {
            live.set(taken + 1);
            Self(Rc::clone(live))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Looks again each second, as long as somebody reads.
pub(super) fn live<N: Network>(admin: &Rc<Admin<N>>, uri: &Uri) -> Answer {
    let wanted = match wanted(uri) {
        Ok(wanted) => Arc::new(wanted),
        Err(wrong) => return plain(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    let Some(seat) = Seat::take(&admin.live) else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{LIVE_MAX} pages are live already\n"),
        );
    };
    // One update waits at most: a reader that stalls gets fewer.
    let (updates, body) = mpsc::channel(1);
    let admin = Rc::clone(admin);
    tokio::task::spawn_local(async move {
        let _seat = seat;
        let mut history = History::default();
        while let Some((all, next)) = look(&admin, &wanted).await {
            let rates = history.look(admin.clock.now(), &all.requests);
            let page = page(&admin, &wanted, &all, next.as_deref(), rates);
            let Ok(text) = serde_json::to_string(&page) else {
                return;
            };
            if updates
                .send(Bytes::from(format!("data: {text}\n\n")))
                .await
                .is_err()
            {
                return;
            }
            let closed = tokio::time::timeout(LIVE_EVERY, updates.closed()).await;
            if closed.is_ok() {
                return;
            }
        }
    });
    let mut response = Response::new(AdminBody::Live(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use eddy_core::stats::Hop;
    use eddy_core::timings::{Outcome, Timing};

    use super::*;

    fn requests(took: &[u64], errors: u64) -> Requests {
        let mut durations = Timing::Request(Hop::Egress, Outcome::Answered).histogram();
        for ms in took {
            durations.record(Duration::from_millis(*ms));
        }
        Requests {
            total: took.len() as u64,
            in_flight: 0,
            errors,
            durations,
        }
    }

    fn at(s: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(s))
    }

    #[test]
    fn rates_are_of_the_last_looks() {
        let mut history = History::default();
        let first = history.look(at(0), &requests(&[1], 0));
        assert!(first.per_second.is_none() && first.p50_seconds.is_none());
        let second = history.look(at(2), &requests(&[1, 4, 4, 4, 60_000], 1));
        assert_eq!(
            (second.per_second, second.errors_per_second),
            (Some(2.0), Some(0.5))
        );
        assert_eq!((second.p50_seconds, second.p99_above), (Some(0.005), Some(15.0)));
        for s in 3..20 {
            history.look(at(s), &requests(&[1, 4, 4, 4, 60_000], 1));
        }
        let quiet = history.look(at(20), &requests(&[1, 4, 4, 4, 60_000], 1));
        assert_eq!((quiet.per_second, quiet.p99_seconds), (Some(0.0), None));
    }

    #[test]
    fn a_cursor_is_read_back_whatever_the_ids_hold() {
        let odd = Identity {
            tenant: TenantId::parse("a\"b").unwrap(),
            cluster: ClusterId::parse("ü,]").unwrap(),
            node: NodeId::parse("x:y").unwrap(),
        };
        assert_eq!(identity(&cursor(&odd)), Some(odd));
        for bad in ["", "[]", "x", "[\"a\",\"b\"]", "[\"a\",\"b\",\"\"]"] {
            assert_eq!(identity(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_question_that_is_none_is_refused() {
        let read = |uri: &str| wanted(&uri.parse().unwrap()).map(|wanted| wanted.search);
        assert_eq!(read("/overview?search=Edge%2D+7"), Ok("edge- 7".to_owned()));
        assert!(
            read("/overview?after=nonsense")
                .unwrap_err()
                .starts_with("after: \"nonsense\"")
        );
        assert!(read("/overview?serch=x").unwrap_err().starts_with("serch: "));
    }
}
