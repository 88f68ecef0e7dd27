//! `eddy-sim` as its users run it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn eddy_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eddy-sim"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Between them: eight workers, restarts, cut links, names that move, cut and glued bytes, a fleet, peers, misbehaving
/// services, stalled clients, a slow link.
const TOLD_TWICE: [&str; 10] = [
    "scenarios/03-many-workers.yaml",
    "scenarios/04-responder-restart.yaml",
    "scenarios/05-initiator-restart.yaml",
    "scenarios/12-dns-moves-the-responder.yaml",
    "scenarios/19-fleet-loses-the-responder.yaml",
    "scenarios/20-pings-in-pieces.yaml",
    "scenarios/28-refused-streams.yaml",
    "scenarios/29-hostile-services.yaml",
    "scenarios/30-stalled-clients.yaml",
    "scenarios/32-slow-link.yaml",
];

#[test]
fn two_processes_tell_the_same_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    // Under a seed of its own, so that instants, latencies and segments vary too.
    for seed in [None, Some("77")] {
        let tell = |name: &str| {
            let trace = folder.path().join(name);
            let mut arguments = vec!["run", "--timeline", "--trace", trace.to_str().unwrap()];
            arguments.extend(seed.iter().flat_map(|seed| ["--seed", seed]));
            arguments.extend(TOLD_TWICE);
            let output = eddy_sim(&arguments);
            assert!(output.status.success(), "{}", stdout(&output));
            (stdout(&output), fs::read(trace).unwrap())
        };
        let (first, second) = (tell("first"), tell("second"));
        assert!(first.0.lines().count() > 500, "{}", first.0);
        assert_eq!(first.0, second.0);
        assert!(first.1 == second.1, "the traces differ under seed {seed:?}");
    }
}

#[test]
fn each_line_of_a_trace_is_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = eddy_sim(&[
        "run",
        "scenarios/01-first-contact.yaml",
        "--trace",
        trace.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stdout(&output));
    let mut events = 0;
    let mut last = 0;
    for line in fs::read_to_string(trace).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let at = event["at_us"].as_u64().unwrap();
        assert!(at + 1000 >= last, "time goes on by ticks: {line}");
        last = at.max(last);
        assert!(event["host"].is_string() && event["event"].is_string(), "{line}");
        events += 1;
    }
    assert!(events > 100);
}

#[test]
fn another_seed_is_another_run() {
    let told = |seed| {
        stdout(&eddy_sim(&[
            "run",
            "scenarios/04-responder-restart.yaml",
            "--seed",
            seed,
        ]))
    };
    assert_ne!(told("5"), told("6"));
}

#[test]
fn a_run_that_fails_says_why_and_how_to_replay_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("too-much.yaml");
    let text = fs::read_to_string(root().join("scenarios/04-responder-restart.yaml")).unwrap();
    fs::write(&path, text.replace("availability >= 78%", "availability >= 99%")).unwrap();
    let path = path.to_str().unwrap();
    let output = eddy_sim(&["run", path, "--update-snapshots"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("FAIL availability >= 99%"),
        "{}",
        stdout(&output)
    );
    let output = eddy_sim(&["explore", path, "--seeds", "3", "--start", "8", "--jobs", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(told.contains("seed 8 fails"), "{told}");
    assert!(
        told.ends_with(&format!("replay: eddy-sim run {path} --seed 8\n")),
        "{told}"
    );
}

#[test]
fn a_changed_snapshot_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |ending: &str| {
        let name = format!("01-first-contact.{ending}");
        let to = folder.path().join(&name);
        fs::copy(root().join("scenarios").join(&name), &to).unwrap();
        to
    };
    let (scenario, snapshot) = (copy("yaml"), copy("snap"));
    let run = || eddy_sim(&["run", scenario.to_str().unwrap()]);
    assert_eq!(run().status.code(), Some(0));
    let kept = fs::read_to_string(&snapshot).unwrap();
    fs::write(&snapshot, kept.replace("nodes.edge: 1", "nodes.edge: 2")).unwrap();
    assert_eq!(run().status.code(), Some(1));
    fs::remove_file(&snapshot).unwrap();
    assert_eq!(run().status.code(), Some(1));
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let output = eddy_sim(&[
        "run",
        "scenarios/04-responder-restart.yaml",
        "--report",
        page.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stdout(&output));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("crash hub") && page.contains("\"incarnation\":2"));
    for outside in ["src=", "href=", "@import", "url(", "fetch("] {
        assert!(
            !page.contains(outside),
            "the page asks for something outside: {outside}"
        );
    }
}

#[test]
fn a_few_seeds_of_each_scenario_are_well() {
    let mut files: Vec<_> = fs::read_dir(root().join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{files:?}");
    let mut arguments = vec!["explore", "--seeds", "5", "--start", "1"];
    arguments.extend(files.iter().map(String::as_str));
    let output = eddy_sim(&arguments);
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn wrong_input_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    let good = fs::read_to_string(root().join("scenarios/04-responder-restart.yaml")).unwrap();
    for (from, to, message) in [
        (
            "seed: 4",
            "sede: 4",
            "sede: unknown key; allowed here: title, story, seed, duration, hosts, names, links, workload, noise, timeline, expect",
        ),
        (
            "duration: 15s",
            "duration: 15",
            "duration: must be a duration with its unit, such as 2s or 250ms, not the number 15",
        ),
        (
            "role: responder",
            "role: router",
            "hosts[0].role: \"router\" is no role; allowed: responder, initiator",
        ),
        (
            "workers: 2",
            "workers: 0",
            "hosts[0].workers: 0 is out of range; allowed: 1 to 64",
        ),
        (
            "workers: 2",
            "config: {tunnels: {ping_intervall: 1s}}",
            "hosts[0].config.tunnels.ping_intervall: unknown key; allowed here: listen, ping_interval,",
        ),
        (
            "tunnels: {hub: 2}",
            "tunnels: {hug: 2}",
            "\"hug\" is no responder and no name under `names`; there are: hub",
        ),
        (
            "name: edge",
            "name: services",
            "hosts[1].name: \"services\" is the simulation's own; choose another name",
        ),
        (
            "name: edge",
            "name: hub",
            "hosts[1].name: a host named hub is already on line",
        ),
        (
            "via: hub",
            "via: edge",
            "workload[0].via: \"edge\" is no responder; requests go in at one",
        ),
        (
            "to: {cluster: edge}",
            "to: {cluster: edges}",
            "workload[0].to.cluster: \"edges\" is no cluster; there are: edge",
        ),
        (
            "rate: 20/s",
            "rate: 20",
            "workload[0].rate: must be text, not the number 20",
        ),
        (
            "rate: 20/s",
            "users: 0",
            "workload[0].users: 0 is out of range; allowed: 1 to 1000",
        ),
        (
            "rate: 20/s",
            "think: 1s",
            "needs either `rate` (open loop) or `users` and `think` (closed loop)",
        ),
        (
            "at: 4s, crash: hub",
            "at: 16s, crash: hub",
            "timeline[0].at: 16s is out of range; allowed: 0s to 15s",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, crash: hub, heal: [hub, edge]",
            "\"heal and crash\" is not one verb;",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, crush: hub",
            "timeline[0].crush: unknown key; allowed here: at, every, times, partition,",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, partition: [hub]",
            "timeline[0].partition: \"1 entries\" is not two hosts; write [here, there]",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, crash: hug",
            "timeline[0].crash: \"hug\" is no host; there are: hub, edge",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, stop_service: hub",
            "\"hub\" is a responder; services belong to initiators",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, misbehave: {of: edge, how: refuse_stream}",
            "misbehave.how: \"refuse_stream\" is no way to misbehave; there are: oversized_head, unsolicited_101,",
        ),
        (
            "at: 4s, crash: hub",
            "at: 4s, probe: edge",
            "timeline[0].probe: \"edge\" is not a responder; only responders have routes",
        ),
        (
            "name: edge, role: initiator",
            "name: edge, streams: 5, role: initiator",
            "hosts[1].streams: \"edge-1\" is not a peer; streams and takes are keys of a peer",
        ),
        (
            "timeline:",
            "links:\n- {between: [edge, hub], queue: 64KiB}\ntimeline:",
            "links[0].queue: \"64KiB\" needs a `bandwidth`: a link without a limit has no queue",
        ),
        (
            "timeline:",
            "links:\n- {between: [edge, hub], profile: wifi}\ntimeline:",
            "links[0].profile: \"wifi\" is no profile; there are: lan, wan, lte, satellite, hotel-wifi",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let output = eddy_sim(&["run", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{to}");
        let said = stderr(&output);
        let place = format!("{}:", path.display());
        assert!(said.starts_with(&place) && said.contains(message), "{to}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_and_arguments_that_make_no_sense_are_wrong_input() {
    let output = eddy_sim(&["run", "scenarios/none.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("scenarios/none.yaml: cannot read the file:"));
    for arguments in [
        &["run"][..],
        &["explore", "scenarios/01-first-contact.yaml", "--seeds", "0"],
        &["explore", "scenarios/01-first-contact.yaml", "--jobs", "0"],
        &["fly"],
        &[
            "run",
            "scenarios/01-first-contact.yaml",
            "scenarios/04-responder-restart.yaml",
            "--report",
            "x.html",
        ],
    ] {
        assert_eq!(eddy_sim(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_list_has_every_story_in_a_line() {
    let output = eddy_sim(&["list"]);
    assert!(output.status.success());
    let told = stdout(&output);
    assert!(told.lines().count() >= 20, "{told}");
    assert!(
        told.lines()
            .next()
            .unwrap()
            .starts_with("scenarios/01-first-contact.yaml"),
        "{told}"
    );
}

/// What a reader copies from the guide works.
#[test]
fn the_tutorial_s_scenario_plays_as_the_guide_says() {
    let guide = fs::read_to_string(root().join("docs/simulation.md")).unwrap();
    let yaml = guide
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.yaml");
    fs::write(&path, yaml).unwrap();
    let output = eddy_sim(&["run", path.to_str().unwrap(), "--update-snapshots"]);
    assert!(output.status.success(), "{}", stdout(&output));
    let told = stdout(&output);
    for verdict in told.lines().filter_map(|line| line.strip_prefix("  ok   ")) {
        let sentence = verdict.split("   ").next().unwrap();
        assert!(
            guide.contains(&format!("  ok   {sentence} ")),
            "the guide does not show: {sentence}"
        );
    }
    let changed = yaml.replace(
        "tunnels: {hub: 1}",
        "tunnels: {hub: 1}, config: {dial: {refused_max: 5s}}",
    );
    fs::write(&path, changed).unwrap();
    assert!(stdout(&eddy_sim(&["run", path.to_str().unwrap()])).contains("FAIL within 2s of start"));
}
