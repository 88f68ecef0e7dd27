//! The log on standard error: a reader that does not read, and peers that cause lines at any rate.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use crate::kit::{Options, Pair, connect, exchange, get, monotonic, read_head, stats, wait_for};

const REFUSED: &[u8] = b"GET /elsewhere HTTP/1.1\r\nhost: h\r\n\r\n";

/// A pair whose responder writes its log into a pipe that nobody reads, and has more lines to write than fit.
fn pair_with_stuck_log() -> Pair {
    let pair = Pair::with(Options {
        stderr_pipe: true,
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    });
    for _ in 0..2_100 {
        assert!(exchange(pair.tunnels, REFUSED).starts_with(b"HTTP/1.1 404"));
    }
    let mut client = connect(pair.egress);
    let request = format!(
        "GET /routed HTTP/1.1\r\nhost: h\r\nx-node-id: {}\r\n\r\n",
        "x".repeat(200)
    );
    wait_for("the first lost line", || {
        for _ in 0..500 {
            client.write_all(request.as_bytes()).unwrap();
            let head = read_head(&mut client).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            client.read_exact(&mut body).unwrap();
        }
        (stats(pair.responder_admin)["log.lost"] > 0).then_some(())
    });
    pair
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_request() {
    let mut pair = pair_with_stuck_log();
    pair.assert_good();
    let page = get(pair.responder_admin, "/metrics", &[]).body;
    let lost = page
        .lines()
        .find_map(|line| line.strip_prefix("eddy_log_lines_lost_total "));
    assert_ne!(lost.unwrap(), "0");
    let asked = monotonic();
    pair.responder.signal("TERM");
    assert_eq!(pair.responder.wait().code(), Some(0));
    assert!(monotonic() - asked < Duration::from_secs(5));
}

#[test]
fn the_log_says_how_many_lines_were_lost_once_it_is_read_again() {
    let mut pair = pair_with_stuck_log();
    let lost = stats(pair.responder_admin)["log.lost"];
    let log = BufReader::new(pair.responder.stderr());
    let mut lines = log.lines().map(|line| line.unwrap());
    let report = lines.find(|line| line.contains("log lines lost")).unwrap();
    assert!(report.ends_with(&format!("lines={lost}")), "{report}");
    pair.assert_good();
}

/// A scanner or a fleet with a wrong configuration may be refused thousands of times per second.
#[test]
fn refused_handshakes_are_logged_up_to_a_rate_and_the_others_are_counted() {
    let pair = Pair::start();
    let before = monotonic();
    for _ in 0..200 {
        assert!(exchange(pair.tunnels, REFUSED).starts_with(b"HTTP/1.1 404"));
    }
    let seconds = usize::try_from((monotonic() - before).as_secs()).unwrap() + 1;
    let (lines, suppressed) = wait_for("the count of suppressed lines", || {
        let log = pair.responder.log();
        let lines = log.matches(" handshake refused ").count();
        let counts = log
            .lines()
            .filter_map(|line| line.split("more handshakes refused suppressed=").nth(1));
        let suppressed: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
        (lines + suppressed >= 200).then_some((lines, suppressed))
    });
    assert_eq!(lines + suppressed, 200);
    assert!((1..=5 * seconds).contains(&lines), "{lines} lines in {seconds} s");
}
