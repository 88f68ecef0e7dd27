//! `eddy sandbox`: a service, a responder and an initiator in one process, on the seed's ports.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use eddy_runtime::admin::Admin;
use eddy_runtime::config::Config;
use eddy_runtime::hello;
use eddy_runtime::net::os::OsNetwork;
use eddy_runtime::net::{Network, Sharing};
use eddy_runtime::responder::Start;

use crate::failure::Failure;
use crate::logging::Wish;
use crate::process::{self, Threads};
use crate::signals::Signals;

/// The seed's ports, moved by an offset.
struct Ports {
    initiator_api: u16,
    tunnels: u16,
    initiator_admin: u16,
    responder_admin: u16,
    egress: u16,
}

impl Ports {
    const fn with_offset(offset: u16) -> Self {
        Self {
            initiator_api: 9000 + offset,
            tunnels: 9001 + offset,
            initiator_admin: 8888 + offset,
            responder_admin: 8889 + offset,
            egress: 8085 + offset,
        }
    }
}

fn responder_yaml(ports: &Ports, workers: u16) -> String {
    let Ports {
        tunnels,
        responder_admin,
        egress,
        ..
    } = ports;
    format!(
        "\
node: {{id: upstream-node, cluster: upstream-cluster}}
workers: {workers}
admin: {{listen: 127.0.0.1:{responder_admin}}}
stats: {{prefix: reverse_connections, detailed: true}}
tunnels:
  listen: 127.0.0.1:{tunnels}
  ping_interval: 2s
egress:
  listen: 127.0.0.1:{egress}
  host_id: [x-remote-node-id, x-dst-cluster-uuid, x-node-id, x-cluster-id]
  routes: [{{prefix: /downstream_service}}]
"
    )
}

fn initiator_yaml(ports: &Ports, workers: u16, service: SocketAddr) -> String {
    let Ports {
        tunnels,
        initiator_admin,
        initiator_api,
        ..
    } = ports;
    format!(
        "\
node: {{id: downstream-node, cluster: downstream-cluster}}
workers: {workers}
admin: {{listen: 127.0.0.1:{initiator_admin}}}
api: {{listen: 127.0.0.1:{initiator_api}}}
stats: {{prefix: downstream_reverse_connection, detailed: true}}
tunnels: [\"rc://downstream-node:downstream-cluster:downstream-tenant@upstream-cluster:1\"]
clusters:
  upstream-cluster: {{hosts: [\"127.0.0.1:{tunnels}\"]}}
  downstream-service: {{hosts: [\"{service}\"]}}
routes: [{{prefix: /downstream_service, cluster: downstream-service}}]
"
    )
}

/// Runs until a signal.
pub(crate) fn run(workers: u16, port_offset: u16, log: Wish) -> Result<(), Failure> {
    let logging = Rc::new(log.start(None)?);
    process::block_on(async {
        let ports = Ports::with_offset(port_offset);
        let mut signals = Signals::listen()?;
        let mut threads = Threads::new(signals.reopen());
        let service = start_hello().await?;
        let Config::Responder(config) = Config::parse("sandbox responder", &responder_yaml(&ports, workers))?
        else {
            return Err(Failure::Worker("the sandbox's responder is none".into()));
        };
        let responder =
            process::start_responder(config, &mut threads, Start::Fresh, Rc::clone(&logging)).await?;
        let yaml = initiator_yaml(&ports, workers, service);
        let Config::Initiator(config) = Config::parse("sandbox initiator", &yaml)? else {
            return Err(Failure::Worker("the sandbox's initiator is none".into()));
        };
        let initiator = process::start_initiator(config, &mut threads, Start::Fresh, logging).await?;
        let up = tokio::time::timeout(Duration::from_secs(5), tunnel_up(&responder)).await;
        if up.is_err() {
            tracing::warn!("the tunnel is not up after 5 s; see what the log says");
        }
        explain(&ports, service).map_err(Failure::Output)?;
        process::supervise(&mut threads, &mut signals, || {
            responder.drain();
            initiator.drain();
        })
        .await
    })?
}

async fn start_hello() -> Result<SocketAddr, Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let failed = |source| eddy_runtime::responder::StartError {
        key: "hello",
        addr: any,
        source,
    };
    let (addr, shares) = OsNetwork.bind(any, 1, Sharing::Alone).await.map_err(failed)?;
    for share in shares {
        let listener = OsNetwork.listen(share).map_err(failed)?;
        tokio::task::spawn_local(hello::serve(
            OsNetwork,
            listener,
            process::hello_of_this_machine()?,
        ));
    }
    Ok(addr)
}

async fn tunnel_up(responder: &Admin<OsNetwork>) {
    while responder.tunnels_open().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says what runs and what to try.
fn explain(ports: &Ports, service: SocketAddr) -> io::Result<()> {
    let Ports {
        initiator_api,
        tunnels,
        initiator_admin,
        responder_admin,
        egress,
    } = ports;
    let i = "downstream_reverse_connection";
    let host = format!("127.0.0.1:{tunnels}");
    let mut out = io::stdout().lock();
    write!(
        out,
        "\
A reverse tunnel is up on this machine (Ctrl-C ends it):

  client ──▶ egress :{egress}  RESPONDER  :{tunnels} ◀── dials ── INITIATOR ──▶ service {service}
                    admin :{responder_admin}                    admin :{initiator_admin}, API :{initiator_api}

Send a request to the service behind the initiator:

  $ curl -H \"x-remote-node-id: downstream-node\" -H \"x-dst-cluster-uuid: downstream-cluster\" http://localhost:{egress}/downstream_service -v
    HTTP/1.1 200 OK, content-type: text/plain, x-envoy-upstream-service-time, and
    Server address: {service}
    Server name: …
    Date: …
    URI: /downstream_service
    Request ID: …

What the initiator counts:

  $ curl http://localhost:{initiator_admin}/stats | grep reverse_connection
    {i}.cluster.upstream-cluster.connected: 1
    {i}.cluster.upstream-cluster.connecting: 0
    {i}.host.{host}.connected: 1
    {i}.host.{host}.connecting: 0
    … and the same lines for each worker

What the responder counts:

  $ curl http://localhost:{responder_admin}/stats | grep reverse_connections
    reverse_connections.clusters.downstream-cluster: 1
    reverse_connections.nodes.downstream-node: 1
    … and the same for each worker

Who is connected:

  $ curl http://localhost:{initiator_api}/reverse_connections
    {{\"accepted\":[],\"connected\":[\"upstream-cluster\"]}}
  $ curl http://localhost:{tunnels}/reverse_connections
    {{\"accepted\":[\"downstream-node\"],\"connected\":[]}}

See both sides live, in a browser: http://localhost:{responder_admin}/ and http://localhost:{initiator_admin}/
More: curl http://localhost:{responder_admin}/help
"
    )?;
    out.flush()
}
