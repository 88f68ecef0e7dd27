use std::path::Path;

use crate::scenario::Scenario;

fn with(expect: &str) -> Result<Scenario, String> {
    let text = format!(
        "title: t\nduration: 10s\nhosts:\n- {{name: hub, role: responder}}\n\
         - {{name: edge, role: initiator, count: 2, tunnels: {{hub: 1}}}}\n\
         workload:\n- {{name: steady, via: hub, to: {{cluster: edge}}, rate: 10/s}}\n\
         timeline:\n- {{at: 3s, crash: hub}}\n- {{at: 4s, start: hub}}\nexpect:\n- {expect}\n"
    );
    Scenario::parse(Path::new("x.yaml"), &text).map_err(|error| error.to_string())
}

#[test]
fn the_sentences_of_the_guide_are_understood() {
    for good in [
        "availability of steady >= 99%",
        "lost requests = 0",
        "longest request <= 2s",
        "longest outage of steady <= 1500ms",
        "answers 503 <= 3",
        "refusals no_tunnel >= 1",
        "mistreated requests of steady >= 1",
        "served by edge-2 >= 1",
        "dials in 100ms <= 50",
        "within 2s of start: every tunnel is up",
        "within 1s of every crash: edge has no tunnel",
        "at 5s: edge-1 has 1 tunnel",
        "by 9s: hub stat reverse_tunnel_acceptor.nodes.edge-1 = 1",
    ] {
        assert!(with(good).is_ok(), "{good}: {:?}", with(good).err());
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (bad, message) in [
        (
            "availabilty >= 99%",
            "x.yaml:12:3: expect[0]: \"availabilty >= 99%\" is no expectation; write one of:",
        ),
        (
            "availability of stead >= 99%",
            "x.yaml:12:3: expect[0]: \"stead\" is no workload; there are: steady",
        ),
        (
            "within 2s of heal: every tunnel is up",
            "x.yaml:12:3: expect[0]: \"heal\" does not happen in the timeline",
        ),
        (
            "within 2s of healing: every tunnel is up",
            "x.yaml:12:3: expect[0]: \"healing\" is no verb; there are: partition,",
        ),
        (
            "by 11s: every tunnel is up",
            "x.yaml:12:3: expect[0]: 11s is out of range; allowed: 0s to the duration, 10s",
        ),
        (
            "by 9s: all is well",
            "x.yaml:12:10: expect[0].by 9s: \"all is well\" is no condition; write one of:",
        ),
        (
            "by 9s: edge stat x = 1",
            "x.yaml:12:10: expect[0].by 9s: \"edge\" is a group; name one of its hosts",
        ),
    ] {
        let said = with(bad).unwrap_err();
        assert!(said.starts_with(message), "{said}");
    }
}
