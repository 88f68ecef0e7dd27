//! What each event does in each state of the keepalive's two machines: the actions, and the timer that runs then.

use std::time::Duration;

use eddy_core::keepalive::{EchoAction, Echoer, PING, PingPolicy, Pinger, SilencePolicy};
use eddy_core::rng::Rng;
use eddy_core::time::{Deadline, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A machine, brought into a state or told of an event.
type Step<M> = fn(&mut M, Instant);

fn after(deadline: Option<Deadline>, otherwise: Instant) -> Instant {
    deadline.map_or(otherwise, |deadline| deadline.at)
}

fn timer(deadline: Option<Deadline>) -> &'static str {
    deadline.map_or("-", |deadline| deadline.reason)
}

/// One line for each state and event; a machine is `new` and its actions are drained by `drain`.
fn table<M>(
    states: &[(&str, Step<M>)],
    events: &[(&str, Step<M>)],
    new: fn() -> M,
    drain: fn(&mut M) -> String,
    deadline: fn(&M) -> Option<Deadline>,
) -> String {
    let now = Instant::from_origin(Duration::from_secs(100));
    let mut table = String::new();
    for (state, reach) in states {
        for (event, apply) in events {
            let mut machine = new();
            reach(&mut machine, now);
            drain(&mut machine);
            apply(&mut machine, now);
            let actions = drain(&mut machine);
            let line = format!(
                "{state:13} {event:10} -> {:13} {actions}",
                timer(deadline(&machine))
            );
            table += &format!("{}\n", line.trim_end());
        }
    }
    table
}

#[test]
fn the_pinger() {
    fn pinged(pinger: &mut Pinger, _: Instant) {
        let at = after(pinger.poll_timeout(), Instant::ZERO);
        pinger.handle_timeout(at, || None);
    }
    let table = table::<Pinger>(
        &[
            ("resting", |_, _| {}),
            ("half an echo", |p, now| p.on_bytes(now, b"RPI")),
            ("awaiting", pinged),
            ("wanted", |p, now| {
                pinged(p, now);
                p.hand_off(now);
            }),
            ("settling", |p, now| {
                p.on_bytes(now, b"RPI");
                p.hand_off(now);
            }),
            ("done", |p, now| p.hand_off(now)),
        ],
        &[
            ("echo", |p, now| p.on_bytes(now, PING)),
            ("rest of it", |p, now| p.on_bytes(now, b"NG")),
            ("half of it", |p, now| p.on_bytes(now, b"RPI")),
            ("data", |p, now| p.on_bytes(now, PREFACE)),
            ("due", |p, now| {
                p.handle_timeout(after(p.poll_timeout(), now), || None)
            }),
            ("hand off", |p, now| p.hand_off(now)),
        ],
        || {
            Pinger::new(
                Instant::from_origin(Duration::from_secs(100)),
                PingPolicy::default(),
                Rng::from_seed(1),
            )
        },
        |pinger| {
            let actions = std::iter::from_fn(|| pinger.poll_action());
            actions
                .map(|action| {
                    format!("{action:?}")
                        .split(' ')
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                        + " "
                })
                .collect()
        },
        Pinger::poll_timeout,
    );
    insta::assert_snapshot!(table, @r"
        resting       echo       -> ping
        resting       rest of it -> -             Unexpected
        resting       half of it -> ping
        resting       data       -> -             Unexpected
        resting       due        -> echo missing  Ping
        resting       hand off   -> -             HandOff
        half an echo  echo       -> -             Unexpected
        half an echo  rest of it -> ping
        half an echo  half of it -> -             Unexpected
        half an echo  data       -> -             Unexpected
        half an echo  due        -> echo missing  Ping
        half an echo  hand off   -> half an echo
        awaiting      echo       -> ping          Echoed
        awaiting      rest of it -> -             Unexpected
        awaiting      half of it -> echo missing
        awaiting      data       -> -             Unexpected
        awaiting      due        -> echo missing  Missed
        awaiting      hand off   -> echo missing
        wanted        echo       -> -             Echoed HandOff
        wanted        rest of it -> -             Unexpected
        wanted        half of it -> echo missing
        wanted        data       -> -             Unexpected
        wanted        due        -> echo missing  Missed
        wanted        hand off   -> echo missing
        settling      echo       -> -             Unexpected
        settling      rest of it -> -             HandOff
        settling      half of it -> -             Unexpected
        settling      data       -> -             Unexpected
        settling      due        -> -             Dead
        settling      hand off   -> half an echo
        done          echo       -> -
        done          rest of it -> -
        done          half of it -> -
        done          data       -> -
        done          due        -> -
        done          hand off   -> -
    ");
}

#[test]
fn the_echoer() {
    let table = table::<Echoer>(
        &[
            ("quiet", |_, _| {}),
            ("half a ping", |e, now| e.on_bytes(now, b"RPI")),
            ("pinged", |e, now| e.on_bytes(now, PING)),
            ("half a start", |e, now| e.on_bytes(now, &PREFACE[..2])),
            ("handed off", |e, now| e.on_bytes(now, PREFACE)),
            ("unexpected", |e, now| e.on_bytes(now, b"\0")),
            ("half-way", |e, now| {
                e.handle_timeout(after(e.poll_timeout(), now), || None)
            }),
            ("silent", |e, now| {
                e.handle_timeout(after(e.poll_timeout(), now), || None);
                e.handle_timeout(after(e.poll_timeout(), now), || None);
            }),
        ],
        &[
            ("ping", |e, now| e.on_bytes(now, PING)),
            ("rest of it", |e, now| e.on_bytes(now, b"NG")),
            ("half of it", |e, now| e.on_bytes(now, b"RPI")),
            ("data", |e, now| e.on_bytes(now, PREFACE)),
            ("start", |e, now| e.on_bytes(now, &PREFACE[2..])),
            ("method", |e, now| e.on_bytes(now, b"GET /")),
            ("junk", |e, now| e.on_bytes(now, b"\0")),
            ("nothing", |e, now| e.on_bytes(now, b"")),
            ("due", |e, now| {
                e.handle_timeout(after(e.poll_timeout(), now), || None)
            }),
        ],
        || {
            Echoer::new(
                Instant::from_origin(Duration::from_secs(100)),
                SilencePolicy::default(),
            )
        },
        |echoer| {
            let text = |action| match action {
                EchoAction::HandOff(bytes) => format!("HandOff({}) ", bytes.escape_ascii()),
                EchoAction::Echo | EchoAction::Silent | EchoAction::Unexpected => format!("{action:?} "),
            };
            std::iter::from_fn(|| echoer.poll_action()).map(text).collect()
        },
        Echoer::poll_timeout,
    );
    insta::assert_snapshot!(table, @r"
        quiet         ping       -> silence       Echo
        quiet         rest of it -> silence
        quiet         half of it -> silence
        quiet         data       -> -             HandOff(PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        quiet         start      -> -             HandOff(I * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        quiet         method     -> -             HandOff(GET /)
        quiet         junk       -> -             Unexpected
        quiet         nothing    -> silence
        quiet         due        -> silence
        half a ping   ping       -> silence
        half a ping   rest of it -> silence       Echo
        half a ping   half of it -> silence
        half a ping   data       -> -             HandOff(RPIPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half a ping   start      -> -             HandOff(RPII * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half a ping   method     -> -             HandOff(RPIGET /)
        half a ping   junk       -> -             Unexpected
        half a ping   nothing    -> silence
        half a ping   due        -> silence
        pinged        ping       -> silence       Echo
        pinged        rest of it -> silence
        pinged        half of it -> silence
        pinged        data       -> -             HandOff(PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        pinged        start      -> -             HandOff(I * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        pinged        method     -> -             HandOff(GET /)
        pinged        junk       -> -             Unexpected
        pinged        nothing    -> silence
        pinged        due        -> silence
        half a start  ping       -> silence
        half a start  rest of it -> silence
        half a start  half of it -> silence
        half a start  data       -> -             HandOff(PRPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half a start  start      -> -             HandOff(PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half a start  method     -> -             HandOff(PRGET /)
        half a start  junk       -> -             Unexpected
        half a start  nothing    -> silence
        half a start  due        -> silence
        handed off    ping       -> -
        handed off    rest of it -> -
        handed off    half of it -> -
        handed off    data       -> -
        handed off    start      -> -
        handed off    method     -> -
        handed off    junk       -> -
        handed off    nothing    -> -
        handed off    due        -> -
        unexpected    ping       -> -
        unexpected    rest of it -> -
        unexpected    half of it -> -
        unexpected    data       -> -
        unexpected    start      -> -
        unexpected    method     -> -
        unexpected    junk       -> -
        unexpected    nothing    -> -
        unexpected    due        -> -
        half-way      ping       -> silence       Echo
        half-way      rest of it -> silence
        half-way      half of it -> silence
        half-way      data       -> -             HandOff(PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half-way      start      -> -             HandOff(I * HTTP/2.0\r\n\r\nSM\r\n\r\n)
        half-way      method     -> -             HandOff(GET /)
        half-way      junk       -> -             Unexpected
        half-way      nothing    -> silence
        half-way      due        -> -             Silent
        silent        ping       -> -
        silent        rest of it -> -
        silent        half of it -> -
        silent        data       -> -
        silent        start      -> -
        silent        method     -> -
        silent        junk       -> -
        silent        nothing    -> -
        silent        due        -> -
    ");
}
