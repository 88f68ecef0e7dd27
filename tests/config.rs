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

const CASES: &str = include_str!("configs/refusals.txt");

const FILES: [(&str, &str); 6] = [
    ("design-responder", include_str!("configs/design-responder.yaml")),
    ("design-initiator", include_str!("configs/design-initiator.yaml")),
    (
        "every-key-responder",
        include_str!("configs/every-key-responder.yaml"),
    ),
    (
        "every-key-initiator",
        include_str!("configs/every-key-initiator.yaml"),
    ),
    (
        "sandbox/responder",
        include_str!("../docs/sandbox/responder.yaml"),
    ),
    (
        "sandbox/initiator",
        include_str!("../docs/sandbox/initiator.yaml"),
    ),
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
    assert_eq!(
        refusal(&base.replace(from, to)),
        message,
        "{from:?} became {to:?}"
    );
}

#[test]
fn the_examples_of_the_design_load_and_the_sandbox_is_made_of_them() {
    let of: BTreeMap<_, _> = FILES.into_iter().collect();
    for role in ["responder", "initiator"] {
        let design = parse(of[&*format!("design-{role}")]);
        assert_eq!(design, parse(of[&*format!("sandbox/{role}")]));
    }
    let Config::Responder(config) = parse(of["design-responder"]) else {
        panic!("no responder")
    };
    assert_eq!(config.workers, 1);
    assert_eq!(config.admin.unwrap().listen.port(), 8889);
    assert_eq!(config.stats.prefix, "reverse_connections");
    assert_eq!(config.egress.host_id[1].name, "x-dst-cluster-uuid");
    let Config::Initiator(config) = parse(of["design-initiator"]) else {
        panic!("no initiator")
    };
    assert!(config.workers >= 1);
    assert_eq!(config.tunnels[0].address.cluster.as_str(), "upstream-cluster");
    assert_eq!(
        config.clusters["downstream-service"].hosts[0].to_string(),
        "127.0.0.1:8080"
    );
}

#[test]
fn every_key_means_what_it_says() {
    let of: BTreeMap<_, _> = FILES.into_iter().collect();
    let Config::Responder(config) = parse(of["every-key-responder"]) else {
        panic!("no responder")
    };
    assert_eq!(config.node.id.as_str(), "true");
    assert_eq!(config.tunnels.settle, Duration::ZERO);
    assert_eq!(config.tunnels.http2.ping_timeout, Duration::from_millis(1500));
    let names: Vec<_> = config
        .egress
        .host_id
        .iter()
        .map(|h| (h.name.as_str(), h.names))
        .collect();
    assert_eq!(
        names,
        [
            ("x-any-id", Names::Either),
            ("x-node-id", Names::Node),
            ("x-cluster-id", Names::Cluster)
        ]
    );
    assert_eq!(config.egress.tenant.as_deref(), Some("x-tenant-id"));
    let Config::Initiator(config) = parse(of["every-key-initiator"]) else {
        panic!("no initiator")
    };
    let per_worker: Vec<_> = config
        .tunnels
        .iter()
        .map(|t| (t.address.count, t.per_worker))
        .collect();
    assert_eq!(per_worker, [(4, true), (1, false)]);
    assert_eq!(config.clusters["0"].protocol, Protocol::H2);
    assert_eq!(
        (
            config.clusters["up"].hosts[0].host.as_str(),
            config.clusters["up"].hosts[0].port
        ),
        ("::1", 80)
    );
    assert_eq!(config.dial.silent_max, Duration::from_secs(3600));
}

#[test]
fn defaults_of_pending_handshakes_follow_the_keys_that_bound_them() {
    let of = |keys: &str| {
        let listen = "listen: 127.0.0.1:9001";
        let Config::Responder(config) = parse(&RESPONDER.replace(listen, &format!("{listen}\n{keys}")))
        else {
            panic!("no responder")
        };
        let tunnels = config.tunnels;
        (tunnels.first_byte_timeout, tunnels.max_pending_per_source)
    };
    assert_eq!(of(""), (Duration::from_secs(3), 512));
    assert_eq!(of("  handshake_timeout: 2s\n"), (Duration::from_secs(2), 512));
    assert_eq!(of("  max_pending_handshakes: 7\n"), (Duration::from_secs(3), 3));
    assert_eq!(of("  max_pending_handshakes: 1\n"), (Duration::from_secs(3), 1));
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
    assert_eq!(
        error.to_string(),
        "/nowhere/eddy.yaml: cannot read the file: No such file or directory (os error 2)"
    );
    for empty in ["", "\n", "# only a comment\n", "---\n", "~"] {
        assert!(
            matches!(Config::parse("f", empty), Err(ConfigError::Empty { .. })),
            "{empty:?}"
        );
    }
    assert_eq!(
        refusal(""),
        "f: empty configuration; docs/configuration.md has examples"
    );
    assert_eq!(
        refusal("node: {id: a\n"),
        "f:1:7: invalid YAML: unclosed bracket '{'"
    );
    refuses(
        RESPONDER,
        "workers: 1",
        "workers: 1\nworkers: 2",
        "f:3:1: invalid YAML: duplicate mapping key: workers not allowed here",
    );
}

/// A strange character of the file does not break the line that blames it.
#[test]
fn a_message_is_one_line_whatever_it_quotes() {
    let said = refusal(&RESPONDER.replace("workers: 1", "work\u{85}ers: 1"));
    assert!(
        said.starts_with("f:2:1: work\\u{85}ers: unknown key; allowed here: "),
        "{said:?}"
    );
}

#[test]
fn ids_that_display_as_another_text_are_refused() {
    let said = "f:4:5: tunnels[0]: \"rc://n\\u{202e}:c:t@hub:1\": at byte 6: the node has '\\u{202e}' at byte 1, which changes how \
                the text around it is displayed; the form is rc://node:cluster:tenant@upstream_cluster:count";
    refuses(INITIATOR, "rc://n:c:t@hub:1", "\"rc://n\\u202E:c:t@hub:1\"", said);
    let said = refusal(&RESPONDER.replace("id: hub-1", "id: \"hub\\u2028x\""));
    assert_eq!(
        said,
        "f:1:12: node.id: \"hub\\u{2028}x\" has '\\u{2028}' at byte 3, which changes how the text around it is displayed"
    );
    let said = refusal(&RESPONDER.replace("workers: 1", "work\u{202E}ers: 1"));
    assert!(
        said.starts_with("f:2:1: work\\u{202e}ers: unknown key; allowed here: "),
        "{said:?}"
    );
}

#[test]
fn a_file_is_read_under_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("responder.yaml");
    std::fs::write(&path, RESPONDER).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(RESPONDER));
    std::fs::write(
        &path,
        RESPONDER.replace("listen: 127.0.0.1:9001", "ping_intervall: 2s"),
    )
    .unwrap();
    let message = Config::load(&path).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "{}:4:3: tunnels.ping_intervall: unknown key; allowed here: listen, ping_interval, ping_misses, \
             handshake_timeout, first_byte_timeout, path, http_upgrade, tenant_isolation, required_cluster, \
             duplicates, settle, max_pending_handshakes, max_pending_per_source, http2",
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

/// The cases of tests/configs/refusals.txt: one place of a good file changed.
#[test]
fn every_mistake_gets_its_own_message() {
    let unescape = |text: &str| text.replace("\\n", "\n");
    let mut count = 0;
    for case in CASES.split("\n\n") {
        let mut lines = case.lines().filter(|line| !line.starts_with('#'));
        let base = match lines.next() {
            Some("responder") => RESPONDER,
            Some("initiator") => INITIATOR,
            Some(other) => panic!("no role: {other}"),
            None => continue,
        };
        let (mut from, mut to) = (String::new(), String::new());
        for line in lines {
            let (sign, text) = line.split_at(1);
            let text = text.strip_prefix(' ').unwrap_or(text);
            match sign {
                "-" => from = unescape(text),
                "+" => to = unescape(text),
                "~" => drop(parse(&base.replace(&from, &unescape(text)))),
                "=" => refuses(base, &from, &to, text),
                _ => panic!("no case: {line}"),
            }
        }
        count += 1;
    }
    assert_eq!(count, CASES.matches("\n= ").count());
}

#[test]
fn the_old_spelling_of_a_key_is_accepted_with_a_warning() {
    let of = |keys: &str| {
        let text = INITIATOR.replace("workers: 1", keys);
        let Config::Initiator(config) = Config::parse("edge.yaml", &text).unwrap() else {
            panic!("no initiator")
        };
        config
    };
    let old = of("liveness: {first_ping: 5s, http2: {ping_timeout: 2s, max_streams: 7}}");
    let new = of("liveness: {first_ping: 5s, http2: {ping_timeout: 2s}}\nhttp2: {max_streams: 7}");
    assert_eq!(old, new);
    assert_eq!(old.http2.max_streams, 7);
    assert!(new.warnings.lines.is_empty());
    let said = "edge.yaml:2:54: liveness.http2.max_streams: deprecated key; use http2.max_streams instead";
    assert_eq!(old.warnings.lines, [said]);
    let effective = Config::Initiator(old).effective();
    assert!(effective.contains("\nhttp2:\n  max_streams: 7\n"), "{effective}");
}

#[test]
fn eddy_check_prints_warnings_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.yaml");
    std::fs::write(
        &path,
        format!("{INITIATOR}liveness: {{http2: {{max_streams: 7}}}}\n"),
    )
    .unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_eddy"));
    let output = check.arg("check").arg("-c").arg(&path).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("http2:\n  max_streams: 7\n"));
    let said = "edge.yaml:10:20: liveness.http2.max_streams: deprecated key; use http2.max_streams instead";
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.starts_with("eddy: warning: ") && stderr.contains(said),
        "{stderr}"
    );
}

/// The log's own parser accepts every filter that the configuration accepts.
#[test]
fn the_filters_of_the_log_are_those_of_the_configuration() {
    let accepts = |filter: &str| {
        let text = RESPONDER.replace("workers: 1", &format!("log: {{filter: '{filter}'}}"));
        Config::parse("f", &text).is_ok()
    };
    for good in [
        "info",
        "OFF",
        "warn,eddy_runtime=debug",
        "eddy_runtime::http=trace",
        "a-b=off",
        "a.b",
    ] {
        assert!(accepts(good), "{good}");
        assert!(
            good.parse::<tracing_subscriber::filter::Targets>().is_ok(),
            "{good}"
        );
    }
    for bad in ["", "a=loud", "a=b=info", "a=", "=info", "info,", "a b"] {
        assert!(!accepts(bad), "{bad}");
    }
}

#[test]
fn the_admin_is_on_the_loopback_address_where_no_other_is_named() {
    let text = "node: {id: a, cluster: b}\nadmin: {listen: ':8889'}\ntunnels: {listen: 0.0.0.0:1}\n\
        egress: {listen: 0.0.0.0:2, host_id: [x], routes: [{prefix: /}]}\n";
    let Config::Responder(config) = parse(text) else {
        panic!("a responder's");
    };
    assert_eq!(config.admin.unwrap().listen, "127.0.0.1:8889".parse().unwrap());
    let everywhere = refusal(&text.replace("0.0.0.0:1", "':1'"));
    assert!(
        everywhere.contains("tunnels.listen: invalid listen address \":1\": missing IP address"),
        "{everywhere}"
    );
}

#[test]
fn a_path_has_at_most_255_bytes() {
    let long = format!("/{}", "x".repeat(255));
    let said =
        format!("f:9:16: egress.routes[0].prefix: invalid path {long:?}: a path has at most 255 bytes");
    refuses(RESPONDER, "/a", &long, &said);
    parse(&RESPONDER.replace("/a", &long[..255]));
}

#[test]
fn an_rc_address_breaks_one_rule_at_a_time() {
    for (address, rule) in [
        ("http://n:c:t@hub:1", "at byte 0: must begin with \"rc://\""),
        ("RC://n:c:t@hub:1", "at byte 0: must begin with \"rc://\""),
        ("rc://n:c:t:hub:1", "at byte 16: must have exactly one '@', has 0"),
        ("rc://n:c:t@h@b:1", "at byte 12: must have exactly one '@', has 2"),
        (
            "rc://n:c@hub:1",
            "at byte 8: must have exactly two ':' before the '@', has 1",
        ),
        (
            "rc://n:c:t:x@hub:1",
            "at byte 10: must have exactly two ':' before the '@', has 3",
        ),
        (
            "rc://n:c:t@hub",
            "at byte 14: must have exactly one ':' behind the '@', has 0",
        ),
        (
            "rc://n:c:t@hub:1:2",
            "at byte 16: must have exactly one ':' behind the '@', has 2",
        ),
        ("rc://:c:t@hub:1", "at byte 5: the node is empty"),
        ("rc://n::t@hub:1", "at byte 7: the cluster is empty"),
        (
            "rc://n:c:@hub:1",
            "at byte 9: the tenant may not be empty: responders since Envoy 1.40 refuse such handshakes",
        ),
        ("rc://n:c:t@:1", "at byte 11: the upstream cluster is empty"),
        (
            "rc://n: c:t@hub:1",
            "at byte 7: the cluster begins or ends with a blank",
        ),
        (
            "rc://n:c:t@hub:x",
            "at byte 15: the count must be a number from 0 to 1024, is \"x\"",
        ),
        (
            "rc://n:c:t@hub:-1",
            "at byte 15: the count must be a number from 0 to 1024, is \"-1\"",
        ),
        (
            "rc://n:c:t@hub:1025",
            "at byte 15: the count must be from 0 to 1024, is 1025",
        ),
    ] {
        let form = "the form is rc://node:cluster:tenant@upstream_cluster:count";
        let said = format!("f:4:5: tunnels[0]: {address:?}: {rule}; {form}");
        refuses(INITIATOR, "rc://n:c:t@hub:1", &format!("{address:?}"), &said);
    }
    let (long, most) = ("x".repeat(256), "x".repeat(255));
    let said = format!(
        "f:4:5: tunnels[0]: \"rc://n:c:{long}@hub:1\": at byte 9: the tenant has 256 bytes; at most 255 are allowed; \
         the form is rc://node:cluster:tenant@upstream_cluster:count"
    );
    refuses(INITIATOR, ":t@", &format!(":{long}@"), &said);
    parse(&INITIATOR.replace(":t@", &format!(":{most}@")));
    let said = "f:4:5: tunnels[0]: \"rc://n:a\\tb:t@hub:1\": at byte 8: the cluster has '\\t' at byte 1, which cannot travel \
                in an HTTP header; the form is rc://node:cluster:tenant@upstream_cluster:count";
    refuses(INITIATOR, "rc://n:c:t@hub:1", "\"rc://n:a\\tb:t@hub:1\"", said);
}

/// The paths of the keys in [`Config::effective`]'s block style, with the values of those that have one: two
/// blanks deeper is inside, four is inside a list's entry.
fn keys(effective: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in effective.lines() {
        let text = line.trim_start_matches([' ', '-']);
        let depth = line.len() - text.len();
        above.retain(|(outer, _)| *outer < depth);
        let section = text.strip_suffix(':').map(|key| (key, ""));
        let Some((key, value)) = section.or_else(|| text.split_once(": ")) else {
            continue;
        };
        let path = match above.last() {
            None => key.to_owned(),
            Some((_, path)) if path == "clusters" => format!("{path}.<name>"),
            Some((outer, path)) if depth - outer == 4 => format!("{path}[].{key}"),
            Some((_, path)) => format!("{path}.{key}"),
        };
        if !value.is_empty() {
            found.push((path.clone(), value.trim().to_owned()));
        }
        above.push((depth, path));
    }
    found
}

/// The rows of the tables of docs/configuration.md for one role: key → default.
fn documented(role: &str) -> BTreeMap<&'static str, &'static str> {
    let (_, section) = DOCS
        .split_once(&format!("\n## {role}\n"))
        .expect("a section for each role");
    let section = section.split("\n## ").next().unwrap_or(section);
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
        documented.retain(|key| {
            !matches!(
                *key,
                "clusters.<name>.hosts" | "egress.host_id[]" | "admin.hosts[]"
            )
        });
        assert_eq!(keys.keys().collect::<Vec<_>>(), documented, "{effective}");
    }
}

#[test]
fn every_default_is_documented_as_it_is() {
    for (role, text) in [("Responder", RESPONDER), ("Initiator", INITIATOR)] {
        let documented = documented(role);
        for (key, value) in keys(&parse(text).effective()) {
            let key = match &*key {
                "admin" | "api" => format!("{key}.listen"),
                "access_log" => format!("{key}.file"),
                "traces" => format!("{key}.otlp"),
                _ => key,
            };
            let default = documented
                .get(&*key)
                .unwrap_or_else(|| panic!("{key} is not documented"));
            let given = default.is_empty() || key == "workers";
            let none = *default == "none" && value == "null";
            assert!(
                given || none || *default == format!("`{value}`"),
                "{key}: {default} is not {value}"
            );
        }
    }
}

#[test]
fn the_examples_of_the_documentation_load() {
    let examples: Vec<_> = DOCS
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 2);
    assert!(matches!(parse(examples[0]), Config::Responder(_)));
    assert!(matches!(parse(examples[1]), Config::Initiator(_)));
}
