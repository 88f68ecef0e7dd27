//! The admin listener of both roles. Each answer is put together from what the workers report when asked, so
//! that no number is shared with the request path.

mod body;
mod drain;
mod explain;
mod logging;
mod metrics;
mod overview;
mod text;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::closed::PER_IDENTITY;
use eddy_core::identity::Identity;
use eddy_core::stats::{Name, Sheet};
use eddy_core::timings::Timings;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::{HostName, NodeConfig, StatsConfig};
use crate::http::query::{parameters, parameters_with_plus};
use crate::net::{BACKSTOP, Listener, Network, Stream};
use crate::record::Lost;
use crate::report::{Ask, ClosedLine, HostLine, IdentityLine, Report, TunnelLine, round};
use crate::{api, initiator, responder};

use self::body::AdminBody;
pub use self::logging::Logging;

/// A pause where accepting fails because something has run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whose admin this is.
pub enum Role<N: Network> {
    /// A responder's.
    Responder(responder::Control<N>),
    /// An initiator's.
    Initiator(initiator::Control),
}

/// What the admin knows without asking.
pub struct Admin<N: Network> {
    /// The workers.
    pub role: Role<N>,
    /// The process's clock.
    pub clock: Clock,
    /// When the process began, since 1970.
    pub began: Duration,
    /// The effective configuration, as text.
    pub config: String,
    /// Set by [`Admin::drain`].
    pub draining: Cell<bool>,
    /// What is logged, if that can be changed.
    pub logging: Option<Rc<Logging>>,
    /// What the writers of requests have lost, by their names.
    pub losses: Vec<(&'static str, Lost)>,
    /// How many status pages are live.
    pub live: Rc<Cell<u32>>,
}

impl<N: Network> Admin<N> {
    /// Tells the workers to finish.
    pub fn drain(&self) {
        self.draining.set(true);
        match &self.role {
            Role::Responder(control) => control.drain(),
            Role::Initiator(control) => control.drain(),
        }
    }

    /// Every number with its name, as `/stats` shows them.
    pub fn stats(&self, reports: &[Report]) -> Vec<(String, u64)> {
        self.sum(reports).lines(&self.stats_config().prefix, false)
    }

    /// How many tunnels are open.
    pub async fn tunnels_open(&self) -> usize {
        let reports = self.reports(&Ask::Everything).await;
        reports.iter().map(|report| report.tunnels.len()).sum()
    }

    /// Asks every worker.
    pub async fn reports(&self, ask: &Ask) -> Vec<Report> {
        match &self.role {
            Role::Responder(control) => control.reports(ask).await,
            Role::Initiator(control) => control.reports(ask).await,
        }
    }

    /// The numbers of the process.
    fn sum(&self, reports: &[Report]) -> Sheet {
        let mut sheet = Sheet::default();
        for report in reports {
            report.add_to(&mut sheet);
        }
        for (writer, lost) in &self.losses {
            sheet.add(Name::RecordsLost(writer), lost.count());
        }
        if let Some(logging) = &self.logging {
            sheet.add(Name::LogLinesLost, logging.lines_lost());
        }
        sheet
    }

    fn stats_config(&self) -> &StatsConfig {
        match &self.role {
            Role::Responder(control) => &control.config.stats,
            Role::Initiator(control) => &control.config.stats,
        }
    }

    fn node(&self) -> &NodeConfig {
        match &self.role {
            Role::Responder(control) => &control.config.node,
            Role::Initiator(control) => &control.config.node,
        }
    }

    /// The names under which the admin may be addressed.
    fn hosts(&self) -> &[HostName] {
        let admin = match &self.role {
            Role::Responder(control) => &control.config.admin,
            Role::Initiator(control) => &control.config.admin,
        };
        admin.as_ref().map_or(&[], |admin| &admin.hosts)
    }

    const fn role_label(&self) -> &'static str {
        match self.role {
            Role::Responder(_) => "responder",
            Role::Initiator(_) => "initiator",
        }
    }

    fn node_info(&self) -> NodeInfo<'_> {
        let node = self.node();
        NodeInfo {
            id: node.id.as_str(),
            cluster: node.cluster.as_str(),
        }
    }

    const fn state_label(&self) -> &'static str {
        if self.draining.get() { "DRAINING" } else { "LIVE" }
    }

    fn workers(&self) -> u16 {
        match &self.role {
            Role::Responder(control) => control.config.workers,
            Role::Initiator(control) => control.config.workers,
        }
    }
}

type Answer = Response<AdminBody>;

/// Serves the admin endpoints until dropped.
pub async fn serve<N: Network>(listener: N::Listener, admin: Rc<Admin<N>>) {
    accept(listener, admin, async |admin, request| {
        let mut answer = admin_answer(&admin, &request).await;
        // Nobody's page may take these answers for its own kind.
        answer
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    })
    .await;
}

/// Serves an initiator's JSON API until dropped.
pub async fn serve_api<N: Network>(listener: N::Listener, admin: Rc<Admin<N>>) {
    accept(listener, admin, async |admin, request| {
        let reports = admin.reports(&Ask::Numbers).await;
        api::of_initiator(&request, &connected(&reports)).map(AdminBody::Whole)
    })
    .await;
}

/// Tunnels that are up, by upstream cluster.
fn connected(reports: &[Report]) -> BTreeMap<String, u32> {
    let mut clusters = BTreeMap::new();
    for host in reports.iter().flat_map(|r| &r.hosts) {
        *clusters.entry(host.cluster.clone()).or_insert(0) += host.connected;
    }
    clusters
}

async fn accept<L: Listener, A: 'static>(
    listener: L,
    admin: Rc<A>,
    answer: impl AsyncFn(Rc<A>, Request<Incoming>) -> Answer + Copy + 'static,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let admin = Rc::clone(&admin);
        // A status page whose laptop sleeps gives its place back.
        stream.give_up_after(BACKSTOP);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let admin = Rc::clone(&admin);
                async move { Ok::<_, Infallible>(answer(admin, request).await) }
            });
            // A client that breaks off ends its own connection only.
            let _ = crate::http::server(None)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn whole(text: impl Into<Bytes>) -> AdminBody {
    AdminBody::Whole(Full::new(text.into()))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    let utf8 = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, utf8);
    response
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            let mut response = Response::new(whole(text + "\n"));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

const HELP: &str = "\
GET /               the status page
GET /overview       what the status page shows (JSON); ?search=TEXT, &after=CURSOR
GET /overview/live  the same once a second, as server-sent events
GET /stats          every number, one line each, sorted
                      ?filter=REGEX   lines whose name matches
                      ?usedonly       lines that are not 0
                      ?hidden=include also what is hidden by default
                      ?format=json    the same lines as JSON; ?format=prometheus is /metrics
GET /metrics        the numbers for Prometheus; also at /stats/prometheus
GET /ready          200 LIVE while this process can do its job, else 503 and why
GET /server_info    version, role, node, uptime, workers (JSON)
GET /config_dump    the configuration in force, every default spelled out (YAML)
GET /tunnels        every tunnel, and why the last ones closed (JSON)
GET /explain        ?node=ID or ?cluster=ID: which tunnel the next request takes and why, or why none (JSON)
                      &tenant=ID      where tenants are kept apart
                      &format=text    for people
POST /drain         end: say goodbye to every peer, finish what runs, exit; as SIGTERM does
                      ?node=ID, ?cluster=ID, ?tenant=ID, ?tunnel=ID   only those tunnels: the initiator dials others
                      in their place, and the process goes on
GET /logging        what is logged
POST /logging       ?level=FILTER: log that from now on; as --log does
GET /help           this
";

/// Whether a browser sends this on behalf of a page that is not this admin's own (Fetch, section 3.2): whoever runs a process opens
/// its admin in a browser that other pages run in too.
fn is_from_elsewhere(request: &Request<Incoming>) -> bool {
    let value = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = value(HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    match value(ORIGIN) {
        Some(origin) => origin.split_once("://").map(|(_, from)| from) != host,
        None => value(HeaderName::from_static("sec-fetch-site")) == Some("cross-site"),
    }
}

/// Whether a request is addressed to this admin as only those address it who know it: by an IP address, as `localhost`, or by a
/// name of the configuration. A page that makes its own name stand for this machine (DNS rebinding) is told by that name.
/// Clients without a `Host` are no browsers.
fn is_addressed(request: &Request<Incoming>, hosts: &[HostName]) -> bool {
    let authority = request.uri().authority().map(Authority::as_str);
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().ok(),
        None if authority.is_none() => return true,
        None => authority,
    };
    let Some(host) = host.and_then(|host| Authority::try_from(host).ok()) else {
        return false;
    };
    let name = host.host().to_ascii_lowercase();
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&name);
    address.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || hosts.iter().any(|known| known.as_str() == name)
}

/// The page needs nothing but itself and this admin.
const PAGE_MAY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn status_page() -> Answer {
    let mut response = Response::new(whole(include_str!("page.html")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_MAY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn admin_answer<N: Network>(admin: &Rc<Admin<N>>, request: &Request<Incoming>) -> Answer {
    if !is_addressed(request, admin.hosts()) {
        let why = "this admin answers to an IP address, to localhost, and to the names in admin.hosts\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, why);
    }
    let path = request.uri().path();
    if !matches!(
        path,
        "/" | "/help"
            | "/favicon.ico"
            | "/overview"
            | "/overview/live"
            | "/stats"
            | "/stats/prometheus"
            | "/metrics"
            | "/ready"
            | "/server_info"
            | "/config_dump"
            | "/tunnels"
            | "/explain"
            | "/drain"
            | "/logging"
    ) {
        return plain(StatusCode::NOT_FOUND, format!("nothing at {path}\n\n{HELP}"));
    }
    let posts = *request.method() == Method::POST;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let (fits, verb, allowed) = match path {
        "/drain" => (posts, "POST", "POST"),
        "/logging" => (posts || reads, "GET and POST", "GET, HEAD, POST"),
        _ => (reads, "GET", "GET, HEAD"),
    };
    if !fits {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("{path} answers {verb}\n"));
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(allowed));
        return answer;
    }
    if posts && is_from_elsewhere(request) {
        let why = "a page from elsewhere may not change anything here\n";
        return plain(StatusCode::FORBIDDEN, why);
    }
    match path {
        "/" => status_page(),
        "/favicon.ico" => plain(StatusCode::NO_CONTENT, ""),
        "/overview" => overview::once(admin, request.uri()).await,
        // An answer to HEAD has no end of its own where there is no body.
        "/overview/live" if *request.method() == Method::HEAD => plain(StatusCode::OK, ""),
        "/overview/live" => overview::live(admin, request.uri()),
        "/drain" => drain::answer(admin, request.uri()).await,
        "/stats" => stats(admin, request.uri()).await,
        "/stats/prometheus" | "/metrics" => metrics(admin).await,
        "/ready" => ready(admin).await,
        "/server_info" => server_info(admin),
        "/config_dump" => plain(StatusCode::OK, admin.config.clone()),
        "/tunnels" => tunnels(admin).await,
        "/logging" => logging::answer(admin, request.method(), request.uri()),
        "/explain" => explained(admin, request.uri()).await,
        _ => plain(StatusCode::OK, HELP),
    }
}

async fn stats<N: Network>(admin: &Admin<N>, uri: &Uri) -> Answer {
    let query = match text::Query::parse(&parameters_with_plus(uri.query().unwrap_or_default())) {
        Ok(query) => query,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let sheet = || async { admin.sum(&admin.reports(&Ask::Numbers).await) };
    let prefix = &admin.stats_config().prefix;
    match query.format {
        text::Format::Text => plain(StatusCode::OK, query.render(&sheet().await, prefix)),
        text::Format::Json => json(&query.lines(&sheet().await, prefix)),
        text::Format::Prometheus => metrics(admin).await,
    }
}

async fn metrics<N: Network>(admin: &Admin<N>) -> Answer {
    let reports = admin.reports(&Ask::Numbers).await;
    let mut timings = Timings::default();
    reports.iter().for_each(|report| timings.merge(&report.timings));
    let node = admin.node();
    let about = metrics::About {
        role: admin.role_label(),
        node: node.id.as_str(),
        cluster: node.cluster.as_str(),
        began: round(admin.began),
        draining: admin.draining.get(),
        max_series: admin.stats_config().max_series,
    };
    match metrics::render(&about, &admin.sum(&reports), &identities(&reports), &timings) {
        Ok(page) => {
            let mut answer = plain(StatusCode::OK, page);
            let version = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, version);
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// How many tunnels each identity has, where such numbers are wanted.
fn identities(reports: &[Report]) -> BTreeMap<Arc<Identity>, u64> {
    let mut all = BTreeMap::new();
    for (_, identities) in reports.iter().filter_map(|report| report.identities.as_ref()) {
        for (identity, count) in identities {
            *all.entry(Arc::clone(identity)).or_default() += count;
        }
    }
    all
}

async fn explained<N: Network>(admin: &Admin<N>, uri: &Uri) -> Answer {
    let query = parameters(uri);
    let asked = match explain::asked(&query) {
        Ok(asked) => asked,
        Err(wrong) => return plain(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
    };
    let explanation = explain::explain(admin, &asked).await;
    if query.get("format").is_some_and(|format| format == "text") {
        plain(StatusCode::OK, explain::as_text(&explanation))
    } else {
        json(&explanation)
    }
}

async fn ready<N: Network>(admin: &Admin<N>) -> Answer {
    let reports = admin.reports(&Ask::Numbers).await;
    let unfit = if admin.draining.get() || reports.len() < usize::from(admin.workers()) {
        Some("draining")
    } else {
        match admin.role {
            Role::Responder(_) => None,
            Role::Initiator(_) if connected(&reports).values().any(|n| *n > 0) => None,
            Role::Initiator(_) => Some("no tunnel is up"),
        }
    };
    match unfit {
        None => plain(StatusCode::OK, "LIVE\n"),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[derive(Serialize)]
struct ServerInfo<'a> {
    version: &'a str,
    role: &'a str,
    state: &'a str,
    node: NodeInfo<'a>,
    uptime_seconds: f64,
    workers: u16,
}

#[derive(Serialize)]
struct NodeInfo<'a> {
    id: &'a str,
    cluster: &'a str,
}

fn server_info<N: Network>(admin: &Admin<N>) -> Answer {
    json(&ServerInfo {
        version: env!("CARGO_PKG_VERSION"),
        role: admin.role_label(),
        state: admin.state_label(),
        node: admin.node_info(),
        uptime_seconds: round(admin.clock.now().since_origin()),
        workers: admin.workers(),
    })
}

#[derive(Serialize)]
struct Tunnels {
    role: &'static str,
    tunnels: Vec<TunnelLine>,
    hosts: Vec<HostLine>,
    closed: Vec<ClosedLine>,
}

async fn tunnels<N: Network>(admin: &Admin<N>) -> Answer {
    let mut all = Tunnels {
        role: admin.role_label(),
        tunnels: vec![],
        hosts: vec![],
        closed: vec![],
    };
    let mut streams: BTreeMap<String, u32> = BTreeMap::new();
    for report in admin.reports(&Ask::Everything).await {
        all.tunnels.extend(report.tunnels);
        all.hosts.extend(report.hosts);
        all.closed.extend(report.closed);
        for (tunnel, count) in report.streams {
            *streams.entry(tunnel).or_default() += count;
        }
    }
    for tunnel in &mut all.tunnels {
        tunnel.streams += streams.get(&tunnel.id).copied().unwrap_or(0);
    }
    all.closed
        .sort_by_key(|closed| std::cmp::Reverse(closed.at_unix_ms));
    // Each worker remembers as many.
    let mut of_identity: BTreeMap<IdentityLine, usize> = BTreeMap::new();
    all.closed.retain(|closed| {
        let count = of_identity.entry(closed.identity.clone()).or_default();
        *count += 1;
        *count <= PER_IDENTITY
    });
    json(&all)
}
