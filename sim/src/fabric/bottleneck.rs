//! One direction of a link with a limited rate, and the queue in front of it.
//!
//! ```text
//! send buffer of flow A ──┐ one segment each,   ┌───────────────┐
//! send buffer of flow B ──┼─► in turn ─────────►│ queue (FIFO)  ├──► link, at its rate ──► latency ──► peer
//! send buffer of flow C ──┘                     └───────────────┘
//! ```
//!
//! All flows between two machines share the queue. Bytes that find it full stay in the send buffer of their flow, which the
//! window of the path bounds. Nothing is dropped: the model is a loss-free bottleneck with fair senders.

use std::collections::VecDeque;
use std::time::Duration;

use super::conditions::SEGMENT;
use super::connection::{ConnectionId, Side};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowId {
    pub(super) connection: ConnectionId,
    pub(super) writer: Side,
}

/// A segment that has entered the queue, which decides when it leaves the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) flow: FlowId,
    pub(super) bytes: u64,
    /// When its last byte has left the link.
    pub(super) at: Duration,
}

/// One direction of a link between two machines.
#[derive(Debug)]
pub(super) struct Bottleneck {
    /// Bytes per second.
    rate: u64,
    /// How many bytes the queue holds.
    capacity: u64,
    queue: VecDeque<Departure>,
    queued: u64,
    /// Bytes in send buffers; the first flow is the next to put a segment into the queue.
    backlog: VecDeque<(FlowId, u64)>,
    busy_until: Duration,
    /// Time as far as the link has been computed.
    now: Duration,
    is_held: bool,
}

impl Bottleneck {
    pub(super) fn new(rate: u64, capacity: u64) -> Self {
        Self {
            rate: rate.max(1),
            capacity,
            queue: VecDeque::new(),
            queued: 0,
            backlog: VecDeque::new(),
            busy_until: Duration::ZERO,
            now: Duration::ZERO,
            is_held: false,
        }
    }

    /// Changes rate and capacity for the segments that enter the queue from here on.
    pub(super) fn set_limits(&mut self, rate: u64, capacity: u64) {
        self.rate = rate.max(1);
        self.capacity = capacity;
    }

    /// Puts bytes into the send buffer of a flow. Call [`Bottleneck::advance`] before and after.
    pub(super) fn send(&mut self, flow: FlowId, bytes: u64) {
        match self.backlog.iter_mut().find(|(waiting, _)| *waiting == flow) {
            Some((_, waiting)) => *waiting += bytes,
            None => self.backlog.push_back((flow, bytes)),
        }
    }

    /// Computes the link up to `now`; reports each segment that enters the queue.
    pub(super) fn advance(&mut self, now: Duration, mut entered: impl FnMut(Departure)) {
        self.now = self.now.max(now);
        if self.is_held {
            return;
        }
        while let Some(first) = self.queue.front().filter(|first| first.at <= self.now) {
            let at = first.at;
            self.queued -= first.bytes;
            self.queue.pop_front();
            self.fill(at, &mut entered);
        }
        self.fill(self.now, &mut entered);
    }

    /// Moves segments from send buffers into the queue as long as there is room.
    fn fill(&mut self, now: Duration, entered: &mut impl FnMut(Departure)) {
        while let Some((flow, waiting)) = self.backlog.pop_front() {
            let bytes = waiting.min(SEGMENT as u64);
            // A queue that is smaller than a segment still passes one at a time.
            if self.queued > 0 && self.queued + bytes > self.capacity {
                self.backlog.push_front((flow, waiting));
                return;
            }
            let takes = Duration::from_nanos(bytes * 1_000_000_000 / self.rate);
            self.busy_until = self.busy_until.max(now) + takes;
            let departure = Departure {
                flow,
                bytes,
                at: self.busy_until,
            };
            self.queue.push_back(departure);
            self.queued += bytes;
            entered(departure);
            if waiting > bytes {
                self.backlog.push_back((flow, waiting - bytes));
            }
        }
    }

    /// When the next segment leaves the link, if one is queued.
    pub(super) fn next_departure(&self) -> Option<Duration> {
        self.queue.front().map(|first| first.at)
    }

    /// How many bytes the send buffer of a flow holds that have not been sent.
    pub(super) fn unsent(&self, flow: FlowId) -> u64 {
        let waiting = self.backlog.iter().find(|(waiting, _)| *waiting == flow);
        waiting.map_or(0, |(_, bytes)| *bytes)
    }

    /// Forgets the send buffer of a flow: nobody reads it any more.
    pub(super) fn drop_backlog(&mut self, flow: FlowId) {
        self.backlog.retain(|(waiting, _)| *waiting != flow);
    }

    /// The path is cut: everything that has not left is lost.
    pub(super) fn cut(&mut self) {
        self.queue.clear();
        self.queued = 0;
        self.backlog.clear();
        self.busy_until = self.now;
        self.is_held = false;
    }

    /// The path holds everything back: queued segments count as sent and arrive when the path opens; send buffers wait.
    pub(super) fn hold(&mut self) {
        self.queue.clear();
        self.queued = 0;
        self.is_held = true;
    }

    /// The path is open again. Call [`Bottleneck::advance`] after.
    pub(super) fn open(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.is_held {
            self.is_held = false;
            self.busy_until = self.now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 146_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn flow(id: u64) -> FlowId {
        FlowId {
            connection: ConnectionId(id),
            writer: Side::Client,
        }
    }

    /// What entered the queue up to `now`, as (flow, bytes, departure in ms).
    fn advance(link: &mut Bottleneck, now: u64) -> Vec<(u64, u64, u64)> {
        let mut entered = Vec::new();
        link.advance(ms(now), |departure| {
            let at = u64::try_from(departure.at.as_millis()).unwrap();
            entered.push((departure.flow.connection.0, departure.bytes, at));
        });
        entered
    }

    #[test]
    fn a_segment_takes_its_size_divided_by_the_rate() {
        let mut link = Bottleneck::new(RATE, 64 << 10);
        link.send(flow(1), 1460 + 146);
        assert_eq!(advance(&mut link, 0), [(1, 1460, 10), (1, 146, 11)]);
        assert_eq!(link.next_departure(), Some(ms(10)));
        assert_eq!(advance(&mut link, 11), []);
        assert_eq!(link.next_departure(), None);
    }

    #[test]
    fn an_idle_link_starts_at_once() {
        let mut link = Bottleneck::new(RATE, 64 << 10);
        link.send(flow(1), 1460);
        advance(&mut link, 0);
        assert_eq!(advance(&mut link, 500), []);
        link.send(flow(1), 1460);
        assert_eq!(advance(&mut link, 500), [(1, 1460, 510)]);
    }

    #[test]
    fn a_full_queue_keeps_bytes_in_the_send_buffer() {
        let mut link = Bottleneck::new(RATE, 2 * 1460);
        link.send(flow(1), 5 * 1460);
        assert_eq!(advance(&mut link, 0), [(1, 1460, 10), (1, 1460, 20)]);
        assert_eq!(advance(&mut link, 9), []);
        assert_eq!((link.unsent(flow(1)), link.unsent(flow(2))), (3 * 1460, 0));
        // Computed late, the result is the same.
        assert_eq!(advance(&mut link, 25), [(1, 1460, 30), (1, 1460, 40)]);
        assert_eq!(advance(&mut link, 100), [(1, 1460, 50)]);
    }

    #[test]
    fn a_small_flow_waits_for_the_queue_but_not_for_the_send_buffer_of_a_large_one() {
        let mut link = Bottleneck::new(RATE, 2 * 1460);
        link.send(flow(1), 100 * 1460);
        advance(&mut link, 0);
        link.send(flow(2), 146);
        assert_eq!(advance(&mut link, 10), [(1, 1460, 30)]);
        assert_eq!(advance(&mut link, 20), [(2, 146, 31)]);
        assert_eq!(advance(&mut link, 31), [(1, 1460, 41), (1, 1460, 51)]);
    }

    #[test]
    fn a_held_link_stops_and_goes_on_at_its_rate() {
        let mut link = Bottleneck::new(RATE, 1460);
        link.send(flow(1), 3 * 1460);
        assert_eq!(advance(&mut link, 0), [(1, 1460, 10)]);
        link.hold();
        assert_eq!(advance(&mut link, 1000), []);
        link.open(ms(1000));
        assert_eq!(advance(&mut link, 1000), [(1, 1460, 1010)]);
        assert_eq!(advance(&mut link, 1010), [(1, 1460, 1020)]);
    }

    #[test]
    fn a_cut_link_loses_everything() {
        let mut link = Bottleneck::new(RATE, 1460);
        link.send(flow(1), 3 * 1460);
        advance(&mut link, 0);
        link.cut();
        assert_eq!(advance(&mut link, 1000), []);
        link.send(flow(2), 1460);
        assert_eq!(advance(&mut link, 1000), [(2, 1460, 1010)]);
    }

    #[test]
    fn the_send_buffer_of_a_closed_flow_is_dropped() {
        let mut link = Bottleneck::new(RATE, 1460);
        link.send(flow(1), 3 * 1460);
        link.send(flow(2), 1460);
        advance(&mut link, 0);
        link.drop_backlog(flow(1));
        assert_eq!(advance(&mut link, 10), [(2, 1460, 20)]);
    }
}
