//! What each event does in each state.

use super::*;

const EVENTS: &[&str] = &[
    "established",
    "failed",
    "goaway",
    "renew",
    "closed",
    "due",
    "gone",
    "drain",
];

/// State × event → outcome, as one table to read.
#[test]
fn every_event_in_every_state_has_one_outcome() {
    type Setup = fn() -> Script;
    let states: [(&str, Setup); 5] = [
        ("backoff", || {
            let mut s = Script::dialing(1);
            s.failed('a', &DialFailure::Refused);
            s
        }),
        ("waiting", || {
            let mut s = Script::new(DialerPolicy {
                max_dials: 1,
                ..policy()
            });
            s.targets(&[(1, 1)]).actions();
            s.failed('a', &DialFailure::Refused)
                .targets(&[(1, 1), (2, 1)])
                .actions();
            s.at(50).tick();
            s
        }),
        ("connecting", || Script::dialing(1)),
        ("established", || Script::up(1)),
        ("draining", || {
            let mut s = Script::up(1);
            s.targets(&[(1, 0)]).actions();
            s
        }),
    ];
    let mut table = String::new();
    for (state, setup) in states {
        for event in EVENTS {
            let mut s = setup();
            match *event {
                "established" => s.established('a'),
                "failed" => s.failed('a', &DialFailure::Protocol),
                "goaway" => s.goaway('a'),
                "renew" => s.renew('a'),
                "closed" => s.closed('a'),
                "due" => {
                    s.now = s.dialer.poll_timeout().map_or(s.now, |deadline| deadline.at);
                    s.tick()
                }
                "gone" => s.targets(&[(2, 1)]),
                _ => s.drain(),
            };
            let actions = s.actions().join(", ");
            let of_host_1 = s.dialer.hosts().find(|v| v.host == host(1));
            let stands = of_host_1.map_or_else(
                || "forgotten".to_owned(),
                |v| {
                    let counts = [
                        ("connected", v.connected),
                        ("connecting", v.connecting),
                        ("backing off", v.backing_off),
                        ("draining", v.draining),
                    ];
                    let some: Vec<_> = counts
                        .iter()
                        .filter(|(_, n)| *n > 0)
                        .map(|(name, _)| *name)
                        .collect();
                    if some.is_empty() {
                        "none".to_owned()
                    } else {
                        some.join("+")
                    }
                },
            );
            table.push_str(format!("{state:11} {event:11} -> {stands:19} {actions}").trim_end());
            table.push('\n');
        }
    }
    insta::assert_snapshot!(table, @r"
        backoff     established -> backing off
        backoff     failed      -> backing off
        backoff     goaway      -> backing off
        backoff     renew       -> backing off
        backoff     closed      -> backing off
        backoff     due         -> connecting          dial b h1
        backoff     gone        -> forgotten           dial b h2
        backoff     drain       -> none
        waiting     established -> backing off
        waiting     failed      -> backing off
        waiting     goaway      -> backing off
        waiting     renew       -> backing off
        waiting     closed      -> backing off
        waiting     due         -> connecting          time out b, dial c h1
        waiting     gone        -> forgotten
        waiting     drain       -> none                abort b
        connecting  established -> connected
        connecting  failed      -> backing off
        connecting  goaway      -> connecting
        connecting  renew       -> connecting
        connecting  closed      -> backing off
        connecting  due         -> backing off         time out a
        connecting  gone        -> forgotten           abort a, dial b h2
        connecting  drain       -> none                abort a
        established established -> connected
        established failed      -> backing off
        established goaway      -> connecting+draining dial b h1
        established renew       -> connecting+draining dial b h1
        established closed      -> backing off
        established due         -> connected
        established gone        -> draining            drain a, dial b h2
        established drain       -> draining            drain a
        draining    established -> draining
        draining    failed      -> none
        draining    goaway      -> draining
        draining    renew       -> draining
        draining    closed      -> none
        draining    due         -> none                close a
        draining    gone        -> draining            dial b h2
        draining    drain       -> draining            drain a
    ");
}
