//! One direction of a connection: what was written, what has arrived, and what the peer's kernel has acknowledged.
//!
//! Bytes arrive in order. A kernel acknowledges what arrives, whether its process reads or not: a frozen process, or one
//! that does not read, still acknowledges until the window of the path is full, because then nothing more can be written.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

/// The arrival time of bytes that wait on a held path.
const HELD: Duration = Duration::MAX;

/// Bytes that are acknowledged one return trip after their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transit {
    /// The position after the last of the bytes.
    end: u64,
    arrives: Duration,
}

/// The state of the two paths that a flow needs: the one that its bytes take, and the one back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    /// Both paths are open.
    #[default]
    Open,
    /// Bytes get through; acknowledgements are lost.
    OneWay,
    /// Bytes are lost.
    Cut,
    /// Everything waits.
    Held,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes written by one end and not yet read by the other.
    pub(super) unread: usize,
    pub(super) written: u64,
    /// The writer, while the window or the send buffer is full.
    pub(super) writer: Option<Waker>,
    /// How many unsent bytes the send buffer takes at most, if the writer has set that.
    pub(super) unsent_max: Option<u64>,
    /// The reader, while it waits for a held path.
    pub(super) reader: Option<Waker>,
    /// How long an acknowledgement takes.
    back: Duration,
    /// Bytes on a bottleneck whose departure is not known yet lie behind these.
    transit: VecDeque<Transit>,
    /// The position after the last byte that is known to arrive.
    scheduled: u64,
    acknowledged: u64,
    condition: Condition,
    /// Bytes were lost: nothing behind them ever arrives.
    is_torn: bool,
    /// The connection swallows everything: nothing is acknowledged any more.
    is_silent: bool,
}

impl Flow {
    /// A flow whose acknowledgements take `back`.
    pub(super) fn new(back: Duration, condition: Condition) -> Self {
        Self {
            back,
            condition,
            ..Self::default()
        }
    }

    /// Schedules the arrival of the next `bytes`.
    pub(super) fn schedule(&mut self, now: Duration, bytes: u64, arrives: Duration) {
        self.settle(now);
        if self.is_torn {
            return;
        }
        self.scheduled += bytes;
        let arrives = match self.condition {
            Condition::Open | Condition::OneWay => arrives,
            Condition::Held => HELD,
            Condition::Cut => {
                self.is_torn = true;
                return;
            }
        };
        let end = self.scheduled;
        match self.transit.back_mut() {
            Some(last) if last.arrives >= arrives => last.end = end,
            Some(_) | None => self.transit.push_back(Transit { end, arrives }),
        }
    }

    /// Brings the acknowledgements up to `now`.
    fn settle(&mut self, now: Duration) {
        if self.condition != Condition::Open || self.is_silent {
            return;
        }
        while let Some(first) = self
            .transit
            .front()
            .filter(|first| first.arrives.saturating_add(self.back) <= now)
        {
            self.acknowledged = first.end;
            self.transit.pop_front();
        }
    }

    /// How many bytes have arrived at the peer's kernel.
    pub(super) fn arrived(&self, now: Duration) -> u64 {
        let arrived = self.transit.iter().take_while(|t| t.arrives <= now).last();
        arrived.map_or(self.acknowledged, |last| last.end)
    }

    /// When more bytes than `than` have arrived, as far as that is known.
    pub(super) fn next_arrival(&self, than: u64) -> Option<Duration> {
        let next = self.transit.iter().find(|transit| transit.end > than)?;
        (next.arrives != HELD).then_some(next.arrives)
    }

    /// Bytes that were written and that the peer's kernel has not acknowledged, as the writer's kernel counts them.
    pub(super) fn unacknowledged(&mut self, now: Duration) -> u64 {
        self.settle(now);
        self.written - self.acknowledged
    }

    /// The connection swallows everything from here on; what is under way still arrives.
    pub(super) fn fall_silent(&mut self, now: Duration) {
        self.settle(now);
        self.is_silent = true;
    }

    /// Whether nothing that is written from here on arrives.
    pub(super) const fn is_dead(&self) -> bool {
        self.is_torn || self.is_silent
    }

    /// Whether bytes that are written now are lost at once.
    pub(super) fn is_cut(&self) -> bool {
        self.condition == Condition::Cut
    }

    /// The condition of the paths has changed.
    pub(super) fn set_condition(&mut self, now: Duration, condition: Condition) {
        if condition == self.condition {
            return;
        }
        self.settle(now);
        match condition {
            Condition::Open | Condition::OneWay => {
                for transit in &mut self.transit {
                    // Bytes that waited arrive at once. Bytes that arrived meanwhile are acknowledged from here on.
                    if transit.arrives == HELD || transit.arrives <= now {
                        transit.arrives = now;
                    }
                }
            }
            Condition::Cut => {
                let arrived = self.arrived(now);
                self.transit.retain(|transit| transit.arrives <= now);
                self.is_torn |= arrived < self.written;
            }
            Condition::Held => {
                for transit in self.transit.iter_mut().filter(|t| t.arrives > now) {
                    transit.arrives = HELD;
                }
            }
        }
        self.condition = condition;
        for waiting in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A flow with acknowledgements that take 10 ms, on which so many bytes were written at each of these times. They
    /// take 5 ms.
    fn written(writes: &[(u64, u64)]) -> Flow {
        let mut flow = Flow::new(ms(10), Condition::Open);
        for (at, bytes) in writes {
            write(&mut flow, *at, *bytes);
        }
        flow
    }

    fn write(flow: &mut Flow, at: u64, bytes: u64) {
        flow.written += bytes;
        flow.schedule(ms(at), bytes, ms(at + 5));
    }

    #[test]
    fn bytes_are_acknowledged_one_return_trip_after_their_arrival() {
        let mut flow = written(&[(0, 100), (2, 50)]);
        assert_eq!((flow.arrived(ms(4)), flow.unacknowledged(ms(4))), (0, 150));
        assert_eq!((flow.arrived(ms(5)), flow.unacknowledged(ms(14))), (100, 150));
        assert_eq!(flow.unacknowledged(ms(15)), 50);
        assert_eq!((flow.arrived(ms(17)), flow.unacknowledged(ms(17))), (150, 0));
    }

    #[test]
    fn nothing_is_acknowledged_while_a_path_is_cut() {
        let mut flow = written(&[(0, 100)]);
        flow.set_condition(ms(7), Condition::OneWay);
        assert_eq!(flow.unacknowledged(ms(1000)), 100);
        write(&mut flow, 1000, 10);
        assert_eq!(flow.arrived(ms(1005)), 110, "bytes still get through");
        flow.set_condition(ms(2000), Condition::Open);
        assert_eq!(flow.unacknowledged(ms(2009)), 110);
        assert_eq!(flow.unacknowledged(ms(2010)), 0);
    }

    #[test]
    fn what_a_cut_path_loses_is_never_acknowledged() {
        let mut flow = written(&[(0, 100), (4, 20)]);
        flow.set_condition(ms(6), Condition::Cut);
        flow.set_condition(ms(50), Condition::Open);
        assert_eq!(flow.arrived(ms(1000)), 100);
        assert_eq!(flow.unacknowledged(ms(1000)), 20);
        write(&mut flow, 1000, 7);
        assert_eq!(flow.unacknowledged(ms(9000)), 27, "nothing arrives behind a gap");
        assert!(flow.is_dead());
    }

    #[test]
    fn a_flow_that_rests_survives_a_cut() {
        let mut flow = written(&[(0, 100)]);
        assert_eq!(flow.unacknowledged(ms(50)), 0);
        flow.set_condition(ms(60), Condition::Cut);
        flow.set_condition(ms(90), Condition::Open);
        write(&mut flow, 100, 9);
        assert_eq!(flow.unacknowledged(ms(114)), 9);
        assert_eq!(flow.unacknowledged(ms(115)), 0);
    }

    #[test]
    fn a_held_path_delays_and_loses_nothing() {
        let mut flow = written(&[(0, 100)]);
        flow.set_condition(ms(3), Condition::Held);
        write(&mut flow, 4, 20);
        assert_eq!((flow.arrived(ms(500)), flow.next_arrival(0)), (0, None));
        flow.set_condition(ms(500), Condition::Open);
        assert_eq!(flow.arrived(ms(500)), 120);
        assert_eq!(flow.unacknowledged(ms(509)), 120);
        assert_eq!(flow.unacknowledged(ms(510)), 0);
    }

    #[test]
    fn a_silent_connection_acknowledges_nothing() {
        let mut flow = written(&[(0, 100), (10, 50)]);
        flow.fall_silent(ms(16));
        assert_eq!(flow.unacknowledged(ms(5000)), 50);
        assert_eq!(flow.arrived(ms(16)), 150, "what was under way still arrives");
    }
}
