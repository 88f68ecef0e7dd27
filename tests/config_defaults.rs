//! The defaults that ship are those with which the core is tested.

use eddy_core::dialer::DialerPolicy;
use eddy_core::handshake::request::Demands;
use eddy_core::keepalive::{PingPolicy, SilencePolicy};
use eddy_core::policy;
use eddy_runtime::config::Config;

const RESPONDER: &str = "\
node: {id: hub-1, cluster: hub}
workers: 1
tunnels:
  listen: 127.0.0.1:9001
egress:
  listen: 127.0.0.1:8085
  host_id: [x-node]
  routes:
    - {prefix: /a}
";

const INITIATOR: &str = "\
node: {id: edge-1, cluster: edge}
workers: 1
tunnels:
  - rc://n:c:t@hub:1
clusters:
  hub: {hosts: [127.0.0.1:9001]}
  shop: {hosts: [127.0.0.1:8080]}
routes:
  - {prefix: /a, cluster: shop}
";

fn parse(text: &str) -> Config {
    Config::parse("test", text).unwrap_or_else(|error| panic!("{error}"))
}

/// The defaults of the configuration are those of `eddy_core::policy`, and so are the policies with which the core is tested.
#[test]
fn a_minimal_configuration_is_the_policy_of_the_core() {
    let Config::Responder(hub) = parse(RESPONDER) else {
        panic!("no responder")
    };
    let ping = PingPolicy::default();
    assert_eq!(
        (hub.tunnels.ping_interval, hub.tunnels.ping_misses),
        (ping.interval, ping.misses)
    );
    assert_eq!(
        (hub.tunnels.path, hub.tunnels.http_upgrade),
        (Demands::default().path, false)
    );
    let tunnels = [
        (hub.tunnels.handshake_timeout, policy::HANDSHAKE_TIMEOUT),
        (hub.tunnels.first_byte_timeout, policy::FIRST_BYTE_TIMEOUT),
        (hub.tunnels.settle, policy::SETTLE),
        (hub.tunnels.http2.ping_interval, policy::HTTP2_PING_INTERVAL),
        (hub.tunnels.http2.ping_timeout, policy::HTTP2_PING_TIMEOUT),
        (hub.egress.reconnect_grace, policy::RECONNECT_GRACE),
        (hub.egress.drain_delay, policy::DRAIN_DELAY),
        (hub.egress.routes[0].timeout, policy::EGRESS_TIMEOUT),
        (hub.egress.routes[0].body_idle_timeout, policy::BODY_IDLE_TIMEOUT),
        (hub.drain_timeout, policy::DRAIN_TIMEOUT),
    ];
    tunnels
        .iter()
        .for_each(|(shipped, policy)| assert_eq!(shipped, policy));
    assert_eq!(hub.tunnels.max_pending_handshakes, policy::MAX_PENDING_HANDSHAKES);
    assert_eq!(hub.tunnels.http2.max_streams, policy::MAX_STREAMS);
    assert_eq!(hub.egress.max_waiting, policy::MAX_WAITING);
    assert_eq!(hub.stats.prefix, policy::RESPONDER_STATS_PREFIX);
    assert_eq!(hub.stats.max_series, policy::MAX_SERIES);

    let Config::Initiator(edge) = parse(INITIATOR) else {
        panic!("no initiator")
    };
    let dialer = DialerPolicy::default();
    let dial = &edge.dial;
    assert_eq!(dial.max_in_flight, dialer.max_dials);
    let silence = SilencePolicy::default();
    assert_eq!(edge.liveness.intervals, silence.intervals);
    let durations = [
        (dial.timeout, dialer.dial_timeout),
        (dial.overlap, dialer.overlap),
        (dial.stable_after, dialer.stable_after),
        (edge.drain_timeout, dialer.drain_timeout),
        (dial.first_retry, dialer.backoff.first),
        (dial.refused_max, dialer.backoff.refused_max),
        (dial.silent_max, dialer.backoff.silent_max),
        (dial.rejected_max, dialer.backoff.rejected_max),
        (edge.liveness.first_ping, silence.first),
        (edge.dial.dns_refresh, policy::DNS_REFRESH),
        (edge.routes[0].timeout, policy::SERVICE_TIMEOUT),
        (edge.routes[0].body_idle_timeout, policy::BODY_IDLE_TIMEOUT),
        (edge.services.connect_timeout, policy::SERVICE_CONNECT_TIMEOUT),
        (edge.services.idle_timeout, policy::SERVICE_IDLE_TIMEOUT),
    ];
    durations
        .iter()
        .for_each(|(shipped, policy)| assert_eq!(shipped, policy));
    assert_eq!(edge.services.max_idle, policy::SERVICE_MAX_IDLE);
    assert_eq!(edge.stats.prefix, policy::INITIATOR_STATS_PREFIX);
}
