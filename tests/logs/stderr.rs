//! The log on standard error: a reader that does not read, and peers that cause lines at any rate.

use crate::kit::{Pair, exchange, monotonic, wait_for};

const REFUSED: &[u8] = b"GET /elsewhere HTTP/1.1\r\nhost: h\r\n\r\n";

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
