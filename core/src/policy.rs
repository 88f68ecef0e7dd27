//! The home of every timing and limit that is a default of the configuration, a bound of a configuration key, or a constant
//! that several machines share.
//!
//! Each constant states its reason and, where there is one, its source: a section of `docs/wire.md`, an RFC, or a decision
//! record in `docs/decisions`. The configuration and the `Default` of every policy in this crate read their values here, so
//! the state tables, the properties and the fuzz targets test the values that ship.

use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// ---- Keepalive of an idle tunnel ----

/// Pause between the echo of a ping and the next ping: silence of 3 s is always noticed (decision 010). Envoy pings every
/// 2 s (wire.md 13).
pub const PING_INTERVAL: Duration = secs(1);
/// Jitter on top of [`PING_INTERVAL`], so that tunnels do not ping in step. Envoy has used the same share since 1.38
/// (wire.md 3).
pub const PING_JITTER_PERCENT_MAX: u32 = 15;
/// Half intervals without the echo after which a tunnel is closed; Envoy's `ping_failure_threshold` (wire.md 13).
pub const PING_MISSES: u32 = 3;
/// Unsolicited echoes that are tolerated between two solicited ones. Envoy tolerates some (wire.md 3); a peer that sends
/// more is not an initiator.
pub const PING_UNSOLICITED_MAX: u32 = 16;
/// Wait of an initiator for the first ping, while the responder's interval is unknown: five times Envoy's default interval
/// (wire.md 17, rule 8 of the initiator).
pub const FIRST_PING: Duration = secs(10);
/// Longest gaps between pings for which an idle tunnel may be silent: a peer that has died is noticed within 3 s
/// (decision 010).
pub const SILENT_INTERVALS: u32 = 2;
/// Minimum patience of an initiator, however short the ping interval: with a ping every 1 to 1.15 s it tolerates a stall of
/// a second and a half, such as the handover of a radio link, and not a silence of 3 s (decision 010).
pub const SILENCE_MIN: Duration = ms(2_800);

// ---- HTTP/2 inside a tunnel ----

/// Silence of a tunnel in use after which an HTTP/2 PING is sent (RFC 9113 section 6.7, decision 010).
pub const HTTP2_PING_INTERVAL: Duration = secs(1);
/// Time for the acknowledgement of that PING (decision 010).
pub const HTTP2_PING_TIMEOUT: Duration = secs(1);
/// Requests in flight in one tunnel: ten times the minimum that RFC 9113 section 6.5.2 recommends, because one tunnel
/// carries the requests of many clients.
pub const MAX_STREAMS: u32 = 1024;
/// Time for which a tunnel may owe a response before other tunnels are preferred: longer than most services take, far
/// shorter than the keepalive. A slow service costs its tunnel only its turn (decision 005).
pub const SUSPECT_AFTER: Duration = ms(500);

// ---- Handshake ----

/// Path of a handshake, unless configured otherwise (wire.md 2.1).
pub const HANDSHAKE_PATH: &str = "/reverse_connections/request";
/// Maximum size of a head in bytes; Envoy's limit (wire.md 2.3).
pub const HEAD_BYTES_MAX: usize = 60 * 1024;
/// Maximum number of headers; Envoy's limit (wire.md 2.3).
pub const HEADERS_MAX: usize = 100;
/// Time from accept to the complete request; Envoy's default (wire.md 2.7).
pub const HANDSHAKE_TIMEOUT: Duration = secs(10);
/// Time from accept to the first byte. An initiator sends its whole request at once, so a connection that stays silent for
/// the time of two retransmissions (1 s and 2 s, RFC 6298) is not an initiator.
pub const FIRST_BYTE_TIMEOUT: Duration = secs(3);
/// Pending handshakes on one worker: room for a fleet that redials at once, with a bounded number of sockets.
pub const MAX_PENDING_HANDSHAKES: u32 = 1024;

/// Share of the pending handshakes that one source may hold: half of them, so that one source cannot fill the table and a
/// site behind NAT still has hundreds of places.
pub const fn max_pending_per_source(max_pending_handshakes: u32) -> u32 {
    let half = max_pending_handshakes / 2;
    if half == 0 { 1 } else { half }
}

/// Pause between the acknowledgement of the handshake response and the first byte in the tunnel: an Envoy initiator loses
/// bytes that arrive earlier (wire.md 2.6).
pub const SETTLE: Duration = ms(30);

// ---- Dialing ----

/// Time for the connect and the handshake together. Envoy allows 15 s (wire.md 2.7), but one host that swallows packets
/// then occupies a dial for that long.
pub const DIAL_TIMEOUT: Duration = secs(5);
/// Dials in flight at once, on each worker and for each address.
pub const MAX_DIALS: u32 = 16;
/// Minimum wait before a redial, so that a host that hangs up at once is not hammered.
pub const REDIAL_MIN: Duration = ms(10);
/// Maximum wait after the first failure; it doubles with each further one.
pub const FIRST_RETRY: Duration = ms(50);
/// Maximum wait after a host refused: a responder that is back is found within a quarter of a second, which is 200 ms, a
/// handshake, and [`SETTLE`] (decision 016).
pub const REFUSED_MAX: Duration = ms(200);
/// Maximum wait after a host stayed silent: with [`DIAL_OVERLAP`], a link that heals is tried within 0.7 s (decision 016).
pub const SILENT_MAX: Duration = ms(500);
/// Maximum wait after a responder rejected the initiator, and for an address that seems to be out of date.
pub const REJECTED_MAX: Duration = secs(10);
/// Time without a connection after which another connect starts beside those in flight (decision 016).
pub const DIAL_OVERLAP: Duration = ms(600);
/// Lifetime of a tunnel that resets the backoff: longer than the wait for the first ping of a responder with default
/// settings and the verdict on it.
pub const STABLE_AFTER: Duration = secs(5);
/// Interval at which host names are resolved again; a failed dial triggers a resolution earlier.
pub const DNS_REFRESH: Duration = secs(30);

// ---- Requests ----

/// Time for the head of a response at the responder: longer than [`SERVICE_TIMEOUT`], so that the initiator's response,
/// which names the service, arrives first.
pub const EGRESS_TIMEOUT: Duration = secs(30);
/// Time for the head of a service's response at the initiator; Envoy's default route timeout.
pub const SERVICE_TIMEOUT: Duration = secs(15);
/// Maximum pause in the body of a request.
pub const BODY_IDLE_TIMEOUT: Duration = secs(60);
/// Wait of a request for a node or cluster that is expected to return: four times what a redial takes ([`REFUSED_MAX`] and
/// a handshake), and short enough for a client that waits.
pub const RECONNECT_GRACE: Duration = secs(1);
/// Requests that wait so on one worker.
pub const MAX_WAITING: u32 = 1024;
/// Startup grace: until it has elapsed, requests for unknown nodes wait, because after a restart their initiators are expected
/// to redial. A host that refused is redialed within [`REFUSED_MAX`], later for a large fleet.
pub const STARTUP_GRACE: Duration = secs(2);
/// Maximum wait of a request for a place on a tunnel, from its beginning; Envoy's default route timeout.
pub const PLACE_WAIT_MAX: Duration = secs(15);
/// One client gets at most this part of the seats for waiting requests once half of the seats are taken.
pub const CLIENT_SEATS_PART: u32 = 4;
/// Time for which a client may take nothing of a response although there is more; Envoy's `stream_idle_timeout`.
pub const READER_IDLE: Duration = secs(300);
/// Time after which a client that takes nothing counts as stalled while memory is short: longer than a round trip and the
/// retransmission of a lost segment.
pub const READER_STALLED: Duration = secs(2);
/// Interval at which a worker looks at the memory of the process and at its clients.
pub const MEMORY_INTERVAL: Duration = ms(500);
/// Minimum time between two rounds of ending clients for their memory: the allocator returns freed memory within a second
/// (decision 013).
pub const SHED_INTERVAL: Duration = secs(1);
/// Default of `memory.limit`, as a part of the memory that the process may use: the rest is for the kernel's buffers of its
/// sockets, which count for a container, too.
pub const MEMORY_PART: (u64, u64) = (3, 4);
/// Smallest `memory.limit`: an idle process with a few tunnels has 11 MiB.
pub const MEMORY_LIMIT_MIN: u64 = 16 << 20;
/// Retries of a request that may have left the process.
pub const RETRIES_MAX: u32 = 3;
/// Pause before a request that every tunnel refused is sent again; doubled with each refusal (40, 80, 160 ms). By then the
/// peer's stream limit has arrived or its load has changed.
pub const REFUSED_STREAM_PAUSE: Duration = ms(20);

// ---- Stampedes ----

/// Shortest `Retry-After` of an initiator that came on top of too many handshakes. The time is drawn, so that a stampede does
/// not return as one.
pub const COME_BACK_MIN: Duration = secs(1);
/// Longest such time if no more initiators are away than it spreads.
pub const COME_BACK_MAX: Duration = secs(5);
/// How much longer it may be for each initiator that is away: 2,000 dials per second.
pub const COME_BACK_EACH: Duration = Duration::from_micros(500);
/// Spread of a fleet's redials for each of its tunnels: 10,000 dials per second (decision 016).
pub const REDIAL_SPREAD_EACH: Duration = Duration::from_micros(100);
/// Shortest spread that is requested; below it, [`REFUSED_MAX`] is enough.
pub const REDIAL_SPREAD_MIN: Duration = ms(200);

// ---- Services ----

/// Time for the connect to a service.
pub const SERVICE_CONNECT_TIMEOUT: Duration = secs(5);
/// Time for which an idle connection to a service is kept: shorter than the 5 s after which some servers close theirs.
pub const SERVICE_IDLE_TIMEOUT: Duration = secs(4);
/// Idle connections that each worker keeps for each host of a service.
pub const SERVICE_MAX_IDLE: u32 = 256;

// ---- Shutdown ----

/// Time for requests in flight when a process or a tunnel drains (decision 007).
pub const DRAIN_TIMEOUT: Duration = secs(10);
/// Time for which a draining responder still accepts clients while its initiators dial elsewhere (decision 007).
pub const DRAIN_DELAY: Duration = secs(1);

/// Time for which a single tunnel that was sent away is still used where nothing else is: its replacement takes a dial, and
/// some more where the dial is refused at first.
pub const REPLACEMENT_TIME: Duration = secs(2);
/// Time for the last GOAWAYs of a process, when no request needs its tunnels any more.
pub const LAST_GOODBYES: Duration = ms(200);

// ---- Memory of what happened ----

/// Time for which a lost node or cluster is expected to return: longer than the longest wait of a dialer whose host
/// responds and a restart together, shorter than the time after which a person investigates.
pub const EXPECTED_FOR: Duration = secs(10);
/// Departures that are remembered.
pub const DEPARTURES_MAX: usize = 4096;
/// Time for which an absence is remembered: an identity that is away for longer was removed, or a person already
/// investigates.
pub const ABSENCE_REMEMBERED_FOR: Duration = secs(600);
/// Absences that are remembered.
pub const ABSENCES_MAX: usize = 16_384;
/// Closed tunnels that are remembered for each identity.
pub const CLOSED_PER_IDENTITY_MAX: usize = 20;
/// Closed tunnels that are remembered in all.
pub const CLOSED_MAX: usize = 4096;
/// Superseded processes of one node id that are remembered: more than are started by mistake.
pub const SUPERSEDED_MAX: usize = 16;
/// Interval at which a worker sends the digest of its directory to the others. A copy is repaired at the second digest in a
/// row that differs, because one digest may overtake the consequences of a fact of a third worker: within a second
/// (decision 015).
pub const DIGEST_INTERVAL: Duration = ms(400);

// ---- Logs and metrics ----

/// Name prefix of a responder's stats; Envoy's (wire.md 13).
pub const RESPONDER_STATS_PREFIX: &str = "reverse_tunnel_acceptor";
/// Name prefix of an initiator's stats; Envoy's (wire.md 13).
pub const INITIATOR_STATS_PREFIX: &str = "reverse_tunnel_initiator";
/// Time series of single nodes, clusters and hosts: what one Prometheus target should expose at most.
pub const MAX_SERIES: u32 = 10_000;
/// Log filter.
pub const LOG_FILTER: &str = "info";
/// Log lines of one kind for each [`LOG_WINDOW`].
pub const LOG_LINES_MAX: u32 = 5;
/// Window of [`LOG_LINES_MAX`].
pub const LOG_WINDOW: Duration = secs(1);

// ---- Advice on Envoy responders that share a socket between workers ----

/// Time after the upgrade to HTTP/2 within which a break counts. With Envoy 1.39.3 under 30 concurrent requests it comes
/// within 0.1 to 3 s (wire.md 16).
pub const SHARED_SOCKET_EARLY: Duration = secs(5);
/// Early breaks within [`SHARED_SOCKET_PERIOD`] that lead to advice.
pub const SHARED_SOCKET_BREAKS_MIN: usize = 3;
/// Period in which breaks are counted.
pub const SHARED_SOCKET_PERIOD: Duration = secs(60);
/// Minimum time between two pieces of advice on one host.
pub const SHARED_SOCKET_ADVICE_INTERVAL: Duration = secs(60 * 60);
/// Hosts that are remembered; breaks of further hosts are ignored.
pub const SHARED_SOCKET_HOSTS_MAX: usize = 1024;

// ---- Bounds of configuration keys ----

/// Shortest duration of a key that may not be zero: the resolution of the configuration.
pub const DURATION_MIN: Duration = ms(1);
/// Longest duration of any key: a longer one is a mistake in the unit.
pub const DURATION_MAX: Duration = secs(24 * 3600);
/// Longest duration of a key that bounds one exchange with a peer; Envoy's bound of `ping_interval` (wire.md 13).
pub const EXCHANGE_MAX: Duration = secs(300);
/// Longest duration for which a client may be kept waiting.
pub const GRACE_MAX: Duration = secs(60);
/// Shortest ping interval: Envoy uses whole seconds (wire.md 13).
pub const PING_INTERVAL_MIN: Duration = secs(1);
/// Longest `tunnels.settle`: a longer one would delay the first ping beyond [`FIRST_PING`].
pub const SETTLE_MAX: Duration = secs(10);
/// Shortest `dial.overlap`: below it, connects on a link of ordinary latency would overlap without need.
pub const DIAL_OVERLAP_MIN: Duration = ms(100);
/// Shortest `dial.dns_refresh`.
pub const DNS_REFRESH_MIN: Duration = secs(1);
/// Maximum number of workers; each one is a thread.
pub const WORKERS_MAX: u32 = 1024;
/// Maximum count of an `rc://` address (wire.md 7.1).
pub const TUNNEL_COUNT_MAX: u32 = 1024;
/// Maximum size of an id in bytes; Envoy's limit (wire.md 13).
pub const ID_BYTES_MAX: usize = 255;
/// Maximum size of a path in bytes; Envoy's limit of `request_path` (wire.md 13).
pub const PATH_BYTES_MAX: usize = 255;
/// Maximum size of a host name in bytes (RFC 1035 section 2.3.4, in its textual form).
pub const HOST_BYTES_MAX: usize = 253;
