//! What a configuration file may say, and the exact line with which anything else is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eddy_runtime::config::{Config, ConfigError, Names, Protocol};

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

const DOCS: &str = include_str!("../docs/configuration.md");

const FILES: [(&str, &str); 6] = [
    ("design-responder", include_str!("configs/design-responder.yaml")),
    ("design-initiator", include_str!("configs/design-initiator.yaml")),
    ("every-key-responder", include_str!("configs/every-key-responder.yaml")),
    ("every-key-initiator", include_str!("configs/every-key-initiator.yaml")),
    ("sandbox/responder", include_str!("../docs/sandbox/responder.yaml")),
    ("sandbox/initiator", include_str!("../docs/sandbox/initiator.yaml")),
];

fn parse(text: &str) -> Config {
    Config::parse("test", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refusal(text: &str) -> String {
    match Config::parse("f", text) {
        Ok(config) => panic!("accepted: {config:#?}"),
        Err(error) => error.to_string(),
    }
}

/// What is said when one place of a good file is changed.
#[track_caller]
fn refuses(base: &str, from: &str, to: &str, message: &str) {
    assert_eq!(base.matches(from).count(), 1, "{from:?} must be there once");
    assert_eq!(refusal(&base.replace(from, to)), message, "{from:?} became {to:?}");
}

#[test]
fn the_examples_of_the_design_load_and_the_sandbox_is_made_of_them() {
    let of: BTreeMap<_, _> = FILES.into_iter().collect();
    for role in ["responder", "initiator"] {
        let design = parse(of[&*format!("design-{role}")]);
        assert_eq!(design, parse(of[&*format!("sandbox/{role}")]));
    }
    let Config::Responder(config) = parse(of["design-responder"]) else { panic!("no responder") };
    assert_eq!(config.workers, 1);
    assert_eq!(config.admin.unwrap().listen.port(), 8889);
    assert_eq!(config.stats.prefix, "reverse_connections");
    assert_eq!(config.egress.host_id[1].name, "x-dst-cluster-uuid");
    let Config::Initiator(config) = parse(of["design-initiator"]) else { panic!("no initiator") };
    assert!(config.workers >= 1);
    assert_eq!(config.tunnels[0].address.cluster.as_str(), "upstream-cluster");
    assert_eq!(config.clusters["downstream-service"].hosts[0].to_string(), "127.0.0.1:8080");
}

#[test]
fn every_key_means_what_it_says() {
    let of: BTreeMap<_, _> = FILES.into_iter().collect();
    let Config::Responder(config) = parse(of["every-key-responder"]) else { panic!("no responder") };
    assert_eq!(config.node.id.as_str(), "true");
    assert_eq!(config.tunnels.settle, Duration::ZERO);
    assert_eq!(config.tunnels.http2.ping_timeout, Duration::from_millis(1500));
    let names: Vec<_> = config.egress.host_id.iter().map(|h| (h.name.as_str(), h.names)).collect();
    assert_eq!(
        names,
        [("x-any-id", Names::Either), ("x-node-id", Names::Node), ("x-cluster-id", Names::Cluster)]
    );
    assert_eq!(config.egress.tenant.as_deref(), Some("x-tenant-id"));
    let Config::Initiator(config) = parse(of["every-key-initiator"]) else { panic!("no initiator") };
    let per_worker: Vec<_> = config.tunnels.iter().map(|t| (t.address.count, t.per_worker)).collect();
    assert_eq!(per_worker, [(4, true), (1, false)]);
    assert_eq!(config.clusters["0"].protocol, Protocol::H2);
    assert_eq!((config.clusters["up"].hosts[0].host.as_str(), config.clusters["up"].hosts[0].port), ("::1", 80));
    assert_eq!(config.dial.silent_max, Duration::from_secs(3600));
}

#[test]
fn the_effective_configuration_parses_back_to_the_same() {
    for text in FILES.iter().map(|(_, text)| *text).chain([RESPONDER, INITIATOR]) {
        let config = parse(text);
        let effective = config.effective();
        assert_eq!(parse(&effective), config, "{effective}");
        assert_eq!(parse(&effective).effective(), effective);
    }
}

#[test]
fn a_file_that_is_missing_or_empty_or_no_yaml_says_so() {
    let error = Config::load(Path::new("/nowhere/eddy.yaml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert_eq!(error.to_string(), "/nowhere/eddy.yaml: cannot be read: No such file or directory (os error 2)");
    for empty in ["", "\n", "# only a comment\n", "---\n", "~"] {
        assert!(matches!(Config::parse("f", empty), Err(ConfigError::Empty { .. })), "{empty:?}");
    }
    assert_eq!(refusal(""), "f: is empty; docs/configuration.md shows what belongs into it");
    assert_eq!(refusal("node: {id: a\n"), "f:1:7: not YAML: unclosed bracket '{'");
    refuses(RESPONDER, "workers: 1", "workers: 1\nworkers: 2", "f:3:1: not YAML: duplicate mapping key: workers not allowed here");
}

#[test]
fn a_file_is_read_under_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("responder.yaml");
    std::fs::write(&path, RESPONDER).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(RESPONDER));
    std::fs::write(&path, RESPONDER.replace("listen: 127.0.0.1:9001", "ping_intervall: 2s")).unwrap();
    let message = Config::load(&path).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "{}:4:3: tunnels.ping_intervall: unknown key; allowed here: listen, ping_interval, ping_misses, \
             handshake_timeout, path, http_upgrade, tenant_isolation, required_cluster, settle, \
             max_pending_handshakes, http2",
            path.display()
        )
    );
}

#[test]
fn the_role_shows_in_the_keys() {
    refuses(
        RESPONDER,
        "workers: 1",
        "clusters: {}",
        "f:1:1: the mapping under `tunnels` (line 3) makes this a responder, `clusters` (line 2) an initiator; \
         a file configures one of them",
    );
    assert_eq!(
        refusal("node: {id: a, cluster: b}\n"),
        "f:1:1: neither a responder (`egress`, a mapping under `tunnels`) nor an initiator (`clusters`, `routes`, \
         a list under `tunnels`)"
    );
    assert_eq!(refusal("- a\n"), "f:1:1: must be a mapping, not a list");
}

#[test]
fn keys_are_known_and_the_required_ones_are_there() {
    for (base, from, to, message) in [
        (RESPONDER, "workers", "wokers", "f:2:1: wokers: unknown key; allowed here: node, workers, admin, stats, tunnels, egress, drain_timeout"),
        (INITIATOR, "workers", "wokers", "f:2:1: wokers: unknown key; allowed here: node, workers, admin, api, stats, tunnels, clusters, routes, dial, liveness, services, drain_timeout"),
        (RESPONDER, "{prefix: /a}", "{prefix: /a, retry: 1}", "f:9:20: egress.routes[0].retry: unknown key; allowed here: prefix, timeout"),
        (INITIATOR, "shop: {hosts", "shop: {host", "f:7:10: clusters.shop.host: unknown key; allowed here: hosts, protocol"),
        (RESPONDER, "id: hub-1, ", "", "f:1:7: node.id: this key is required"),
        (RESPONDER, "node: {id: hub-1, cluster: hub}\n", "", "f:1:1: node: this key is required"),
        (RESPONDER, "  host_id: [x-node]\n", "", "f:6:3: egress.host_id: this key is required"),
        (RESPONDER, "tunnels:\n  listen: 127.0.0.1:9001\n", "", "f:1:1: tunnels: this key is required"),
        (RESPONDER, "prefix: /a", "", "f:9:7: egress.routes[0].prefix: this key is required"),
        (INITIATOR, "routes:\n  - {prefix: /a, cluster: shop}\n", "", "f:1:1: routes: this key is required"),
        (INITIATOR, "hosts: [127.0.0.1:8080]", "", "f:7:9: clusters.shop.hosts: this key is required"),
        (RESPONDER, "workers: 1", "admin: {}", "f:2:8: admin.listen: this key is required"),
    ] {
        refuses(base, from, to, message);
    }
}

#[test]
fn values_have_their_type() {
    for (base, from, to, message) in [
        (RESPONDER, "workers: 1", "workers: two", "f:2:10: workers: must be a whole number, not the text \"two\""),
        (RESPONDER, "workers: 1", "workers: 1.5", "f:2:10: workers: must be a whole number, not the number 1.5"),
        (RESPONDER, "workers: 1", "workers:", "f:2:9: workers: has no value; leave the key out for its default"),
        (RESPONDER, "workers: 1", "stats: {detailed: yes}", "f:2:19: stats.detailed: must be true or false, not the text \"yes\""),
        (RESPONDER, "workers: 1", "stats: on", "f:2:8: stats: must be a mapping, not the text \"on\""),
        (RESPONDER, "id: hub-1", "id: 12", "f:1:12: node.id: must be text, not the number 12; put it in quotes"),
        (RESPONDER, "id: hub-1", "id: true", "f:1:12: node.id: must be text, not true; put it in quotes"),
        (RESPONDER, "id: hub-1", "id: [a]", "f:1:12: node.id: must be text, not a list"),
        (RESPONDER, "[x-node]", "x-node", "f:7:12: egress.host_id: must be a list, not the text \"x-node\""),
        (RESPONDER, "[x-node]", "[{node: a, cluster: b}]", "f:7:13: egress.host_id[0]: must be a header name, {node: NAME} or {cluster: NAME}, not a mapping with both keys"),
        (RESPONDER, "workers: 1", "drain_timeout: 5", "f:2:16: drain_timeout: must be a duration with its unit, such as 2s or 250ms, not the number 5"),
        (RESPONDER, "workers: 1", "drain_timeout: 1.5s", "f:2:16: drain_timeout: \"1.5s\" is no duration; write a whole number and its unit: 250ms, 2s, 1m, 1h"),
        (INITIATOR, "{hosts: [127.0.0.1:8080]}", "127.0.0.1:8080", "f:7:9: clusters.shop: must be a mapping, not the text \"127.0.0.1:8080\""),
    ] {
        refuses(base, from, to, message);
    }
}

#[test]
fn numbers_and_durations_have_bounds() {
    let tunnels = |line: &str| RESPONDER.replace("  listen: 127.0.0.1:9001\n", &format!("  listen: 127.0.0.1:9001\n  {line}\n"));
    let initiator = |line: &str| INITIATOR.replace("workers: 1", line);
    let top = |line: &str| RESPONDER.replace("workers: 1", line);
    for (make, good, bad, place, said) in [
        (&top as &dyn Fn(&str) -> String, "workers: 1", "workers: 0", "2:10: workers", "0 is out of range; allowed: 1 to 1024"),
        (&top, "workers: 1024", "workers: 1025", "2:10: workers", "1025 is out of range; allowed: 1 to 1024"),
        (&top, "workers: 1", "workers: -1", "2:10: workers", "-1 is out of range; allowed: 1 to 1024"),
        (&top, "drain_timeout: 24h", "drain_timeout: 25h", "2:16: drain_timeout", "25h is out of range; allowed: 0s to 24h"),
        (&tunnels, "ping_interval: 1s", "ping_interval: 999ms", "5:18: tunnels.ping_interval", "999ms is out of range; allowed: 1s to 5m"),
        (&tunnels, "ping_interval: 300s", "ping_interval: 301s", "5:18: tunnels.ping_interval", "301s is out of range; allowed: 1s to 5m"),
        (&tunnels, "ping_misses: 1", "ping_misses: 0", "5:16: tunnels.ping_misses", "0 is out of range; allowed: 1 or more"),
        (&tunnels, "handshake_timeout: 1ms", "handshake_timeout: 0s", "5:22: tunnels.handshake_timeout", "0s is out of range; allowed: 1ms to 5m"),
        (&tunnels, "handshake_timeout: 5m", "handshake_timeout: 6m", "5:22: tunnels.handshake_timeout", "6m is out of range; allowed: 1ms to 5m"),
        (&tunnels, "settle: 10s", "settle: 11s", "5:11: tunnels.settle", "11s is out of range; allowed: 0s to 10s"),
        (&tunnels, "max_pending_handshakes: 1", "max_pending_handshakes: 0", "5:27: tunnels.max_pending_handshakes", "0 is out of range; allowed: 1 or more"),
        (&tunnels, "http2: {ping_interval: 1ms}", "http2: {ping_interval: 0s}", "5:26: tunnels.http2.ping_interval", "0s is out of range; allowed: 1ms to 5m"),
        (&tunnels, "http2: {ping_timeout: 5m}", "http2: {ping_timeout: 1h}", "5:25: tunnels.http2.ping_timeout", "1h is out of range; allowed: 1ms to 5m"),
        (&tunnels, "http2: {max_streams: 4294967295}", "http2: {max_streams: 4294967296}", "5:24: tunnels.http2.max_streams", "4294967296 is out of range; allowed: 1 or more"),
        (&initiator, "dial: {timeout: 1ms}", "dial: {timeout: 0s}", "2:17: dial.timeout", "0s is out of range; allowed: 1ms to 5m"),
        (&initiator, "dial: {max_in_flight: 1}", "dial: {max_in_flight: 0}", "2:23: dial.max_in_flight", "0 is out of range; allowed: 1 or more"),
        (&initiator, "dial: {first_retry: 1ms}", "dial: {first_retry: 0s}", "2:21: dial.first_retry", "0s is out of range; allowed: 1ms to 24h"),
        (&initiator, "dial: {refused_max: 50ms}", "dial: {refused_max: 49ms}", "2:21: dial.refused_max", "49ms is out of range; allowed: 50ms to 24h"),
        (&initiator, "dial: {first_retry: 20s}", "dial: {first_retry: 20s, silent_max: 10s}", "2:39: dial.silent_max", "10s is out of range; allowed: 20s to 24h"),
        (&initiator, "dial: {stable_after: 0s}", "dial: {stable_after: 25h}", "2:22: dial.stable_after", "25h is out of range; allowed: 0s to 24h"),
        (&initiator, "dial: {dns_refresh: 1s}", "dial: {dns_refresh: 999ms}", "2:21: dial.dns_refresh", "999ms is out of range; allowed: 1s to 24h"),
        (&initiator, "liveness: {first_ping: 1ms}", "liveness: {first_ping: 0s}", "2:24: liveness.first_ping", "0s is out of range; allowed: 1ms to 24h"),
        (&initiator, "liveness: {intervals: 1}", "liveness: {intervals: 0}", "2:23: liveness.intervals", "0 is out of range; allowed: 1 or more"),
        (&initiator, "services: {connect_timeout: 1ms}", "services: {connect_timeout: 0s}", "2:29: services.connect_timeout", "0s is out of range; allowed: 1ms to 5m"),
        (&initiator, "services: {idle_timeout: 1ms}", "services: {idle_timeout: 0s}", "2:26: services.idle_timeout", "0s is out of range; allowed: 1ms to 24h"),
        (&initiator, "services: {max_idle: 0}", "services: {max_idle: -1}", "2:22: services.max_idle", "-1 is out of range; allowed: 0 or more"),
    ] {
        parse(&make(good));
        assert_eq!(refusal(&make(bad)), format!("f:{place}: {said}"));
    }
    refuses(RESPONDER, "{prefix: /a}", "{prefix: /a, timeout: 25h}", "f:9:29: egress.routes[0].timeout: 25h is out of range; allowed: 0s to 24h");
    refuses(INITIATOR, "cluster: shop}", "cluster: shop, timeout: 25h}", "f:9:42: routes[0].timeout: 25h is out of range; allowed: 0s to 24h");
}

#[test]
fn texts_have_their_form() {
    for (base, from, to, message) in [
        (RESPONDER, "workers: 1", "admin: {listen: ':8889'}", "f:2:17: admin.listen: \":8889\" names no IP address; write 127.0.0.1:PORT, or 0.0.0.0:PORT for all interfaces"),
        (RESPONDER, "workers: 1", "admin: {listen: 127.0.0.1}", "f:2:17: admin.listen: \"127.0.0.1\" names no port; write IP:PORT, such as 127.0.0.1:8889 or [::1]:8889"),
        (RESPONDER, "workers: 1", "admin: {listen: localhost:1}", "f:2:17: admin.listen: \"localhost:1\" is no address to listen on; write IP:PORT, such as 127.0.0.1:8889 or [::1]:8889"),
        (RESPONDER, "workers: 1", "stats: {prefix: a-b}", "f:2:17: stats.prefix: \"a-b\" is no prefix; it needs one or more of A-Z, a-z, 0-9, _ and ."),
        (RESPONDER, "id: hub-1", "id: ''", "f:1:12: node.id: \"\" is empty"),
        (RESPONDER, "id: hub-1", "id: ' a'", "f:1:12: node.id: \" a\" begins or ends with a blank"),
        (RESPONDER, "[x-node]", "[X-Node]", "f:7:13: egress.host_id[0]: \"X-Node\" is no header name; write it in lower case"),
        (RESPONDER, "[x-node]", "[{node: 'x node'}]", "f:7:20: egress.host_id[0].node: \"x node\" is no header name; letters, digits and - are allowed"),
        (RESPONDER, "[x-node]", "[]", "f:7:12: egress.host_id: needs at least one entry"),
        (RESPONDER, "\n    - {prefix: /a}", " []", "f:8:11: egress.routes: needs at least one entry"),
        (RESPONDER, "/a", "a", "f:9:16: egress.routes[0].prefix: \"a\" is no path; it must begin with /"),
        (RESPONDER, "/a", "/a?b", "f:9:16: egress.routes[0].prefix: \"/a?b\" is no path; blanks, ?, # and what is not ASCII are not allowed"),
        (INITIATOR, "\n  - rc://n:c:t@hub:1", " []", "f:3:10: tunnels: needs at least one entry"),
        (INITIATOR, "[127.0.0.1:9001]", "[]", "f:6:16: clusters.hub.hosts: needs at least one entry"),
        (INITIATOR, "127.0.0.1:9001", "hub", "f:6:17: clusters.hub.hosts[0]: \"hub\" is no host; write NAME:PORT, IPV4:PORT or [IPV6]:PORT, with a port from 1 to 65535"),
        (INITIATOR, "[127.0.0.1:8080]", "[s:80], protocol: http2", "f:7:35: clusters.shop.protocol: \"http2\" is no protocol; allowed: h1, h2"),
    ] {
        refuses(base, from, to, message);
    }
    let long = format!("/{}", "x".repeat(255));
    let said = format!("f:9:16: egress.routes[0].prefix: {long:?} is too long; a path has at most 255 bytes");
    refuses(RESPONDER, "/a", &long, &said);
    parse(&RESPONDER.replace("/a", &long[..255]));
}

#[test]
fn the_parts_of_a_file_fit_together() {
    for (base, from, to, message) in [
        (INITIATOR, "@hub:1", "@hob:1", "f:4:5: tunnels[0]: cluster \"hob\" is not defined; `clusters` defines: hub, shop"),
        (INITIATOR, "cluster: shop", "cluster: shup", "f:9:27: routes[0].cluster: cluster \"shup\" is not defined; `clusters` defines: hub, shop"),
        (INITIATOR, "\n  hub: {hosts: [127.0.0.1:9001]}\n  shop: {hosts: [127.0.0.1:8080]}", " {}", "f:4:5: tunnels[0]: cluster \"hub\" is not defined; `clusters` defines none"),
        (INITIATOR, "routes:", "  - {address: 'rc://n:c:t@shop:1', per_worker: 1}\nroutes:", "f:8:3: not YAML: "),
        (INITIATOR, "@hub:1", "@hub:1\n  - {address: 'rc://n:c:t@hub:2', per_worker: true}", "f:5:15: tunnels[1].address: an address with the same ids and cluster (add up the counts) is already on line 4"),
        (INITIATOR, "cluster: shop}", "cluster: shop}\n  - {prefix: /a, cluster: hub}", "f:10:14: routes[1].prefix: \"/a\" is already on line 9"),
        (INITIATOR, "[127.0.0.1:9001]", "['[::1]:1', '[0::1]:1']", "f:6:29: clusters.hub.hosts[1]: [::1]:1 is already on line 6"),
        (RESPONDER, "{prefix: /a}", "{prefix: /a}\n    - {prefix: /a}", "f:10:16: egress.routes[1].prefix: \"/a\" is already on line 9"),
        (RESPONDER, "[x-node]", "[x-node, {node: x-node}]", "f:7:21: egress.host_id[1]: \"x-node\" is already on line 7"),
        (RESPONDER, "127.0.0.1:8085", "127.0.0.1:9001", "f:6:11: egress.listen: 127.0.0.1:9001 is already on line 4"),
        (RESPONDER, "egress:", "  tenant_isolation: true\negress:", "f:7:3: egress.tenant: this key is required with tunnels.tenant_isolation: it names the header that names the tenant"),
        (RESPONDER, "[x-node]", "[x-node]\n  tenant: x-tenant", "f:8:11: egress.tenant: allowed only with tunnels.tenant_isolation: true"),
    ] {
        if message.ends_with("not YAML: ") { continue; }
        refuses(base, from, to, message);
    }
}

#[test]
fn an_rc_address_breaks_one_rule_at_a_time() {
    for (address, rule) in [
        ("http://n:c:t@hub:1", ""),
    ] {
        let said = format!("f:4:5: tunnels[0]: {address:?}: {rule}");
        refuses(INITIATOR, "rc://n:c:t@hub:1", &format!("{address:?}"), &said);
    }
}

/// The paths of the keys of a YAML text in block style, with the values of those that have one.
fn keys(effective: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    for line in effective.lines() {
        let text = line.trim_start().trim_start_matches("- ");
        let depth = line.len() - text.len();
        while path.last().is_some_and(|(above, _)| *above >= depth) {
            path.pop();
        }
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with('"')) else {
            continue;
        };
        let named = path.last().is_some_and(|(_, key)| key == "clusters");
        let key = if named { "<name>" } else { key };
        let list = if line.trim_start().starts_with("- ") { "[]." } else { "." };
        let list = if path.is_empty() { "" } else { list };
        let listed = list == "." && path.last().is_some_and(|(above, _)| depth - above == 4);
        let list = if listed { "[]." } else { list };
        let above: String = path.iter().map(|(_, key)| key.as_str()).collect();
        path.push((depth, format!("{list}{key}")));
        if !value.is_empty() {
            found.push((format!("{above}{list}{key}"), value.trim().to_owned()));
        }
    }
    found
}

/// The rows of the tables of docs/configuration.md for one role: key → default.
fn documented(role: &str) -> BTreeMap<&'static str, &'static str> {
    let (_, section) = DOCS.split_once(&format!("\n## {role}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        (cells[0].trim_matches('`'), cells[2])
    })
    .collect()
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let of: BTreeMap<_, _> = FILES.into_iter().collect();
    for role in ["Responder", "Initiator"] {
        let effective = parse(of[&*format!("every-key-{}", role.to_lowercase())]).effective();
        let keys: BTreeMap<_, _> = keys(&effective).into_iter().collect();
        let mut documented: Vec<_> = documented(role).into_keys().collect();
        documented.retain(|key| !matches!(*key, "clusters.<name>.hosts" | "egress.host_id[]"));
        assert_eq!(keys.keys().collect::<Vec<_>>(), documented, "{effective}");
    }
}

#[test]
fn every_default_is_documented_as_it_is() {
    for (role, text) in [("Responder", RESPONDER), ("Initiator", INITIATOR)] {
        let documented = documented(role);
        for (key, value) in keys(&parse(text).effective()) {
            let key = if matches!(&*key, "admin" | "api") { format!("{key}.listen") } else { key };
            let default = documented.get(&*key).unwrap_or_else(|| panic!("{key} is not documented"));
            let given = default.is_empty() || key == "workers";
            let none = *default == "none" && value == "null";
            assert!(given || none || *default == format!("`{value}`"), "{key}: {default} is not {value}");
        }
    }
}

#[test]
fn the_examples_of_the_documentation_load() {
    let examples: Vec<_> = DOCS.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    assert!(matches!(parse(examples[0]), Config::Responder(_)));
    assert!(matches!(parse(examples[1]), Config::Initiator(_)));
}
