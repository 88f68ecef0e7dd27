//! The bytes under way: which have arrived, and which the peer's kernel has acknowledged.

use std::net::IpAddr;
use std::task::Waker;
use std::time::Duration;

use super::bottleneck::{Bottleneck, FlowId};
use super::connection::Side;
use super::path::Passage;
use super::{ConnectionId, Fabric, State, now};

/// What a reader can take of a flow on a path with limited bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// Everything that the network delivers: so many bytes at most.
    UpTo(u64),
    /// Nothing before this time.
    At(Duration),
    /// Nothing until the path opens, if ever.
    Never,
}

impl State {
    /// One end of a connection has written.
    pub(super) fn wrote(&mut self, id: ConnectionId, writer: Side, bytes: usize, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let is_silent = connection.silent.is_some();
        let path = connection.path(writer);
        let flow = connection.flow(writer);
        flow.unread += bytes;
        flow.written += bytes as u64;
        if is_silent {
            return;
        }
        let has_queue = self.paths.bottlenecks.contains_key(&path) && !flow.is_dead() && !flow.is_cut();
        if !has_queue {
            let latency = *self.paths.conditions(path.0, path.1).latency.end();
            flow.schedule(now, bytes as u64, now + latency);
            return;
        }
        self.advance(path, now);
        if let Some(link) = self.paths.bottlenecks.get_mut(&path) {
            let connection = id;
            link.send(FlowId { connection, writer }, bytes as u64);
        }
        self.advance(path, now);
    }

    /// Computes a path with limited bandwidth up to `now`.
    fn advance(&mut self, path: (IpAddr, IpAddr), now: Duration) {
        let latency = *self.paths.conditions(path.0, path.1).latency.end();
        let Some(link) = self.paths.bottlenecks.get_mut(&path) else {
            return;
        };
        let connections = &mut self.connections;
        link.advance(now, |departure| {
            // A connection that nobody holds any more still has bytes under way.
            if let Some(connection) = connections.get_mut(&departure.flow.connection) {
                let flow = connection.flow(departure.flow.writer);
                flow.schedule(now, departure.bytes, departure.at + latency);
            }
        });
    }

    /// How many bytes the send buffer of a flow has room for, or when it may have some.
    pub(super) fn unsent_room(
        &mut self,
        id: ConnectionId,
        writer: Side,
        now: Duration,
    ) -> Result<u64, Option<Duration>> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok(u64::MAX);
        };
        let path = connection.path(writer);
        let Some(most) = connection.flow(writer).unsent_max else {
            return Ok(u64::MAX);
        };
        self.advance(path, now);
        let Some(link) = self.paths.bottlenecks.get(&path) else {
            return Ok(u64::MAX);
        };
        let connection = id;
        match most.saturating_sub(link.unsent(FlowId { connection, writer })) {
            0 => Err(link.next_departure()),
            room => Ok(room),
        }
    }

    /// What the reader of a flow can take, of which it has read `received` bytes.
    pub(super) fn readable(
        &mut self,
        id: ConnectionId,
        writer: Side,
        received: u64,
        now: Duration,
    ) -> Readable {
        let everything = Readable::UpTo(u64::MAX);
        let Some(path) = self
            .connections
            .get(&id)
            .map(|connection| connection.path(writer))
        else {
            return everything;
        };
        if !self.paths.bottlenecks.contains_key(&path) {
            return everything;
        }
        self.advance(path, now);
        let departure = self
            .paths
            .bottlenecks
            .get(&path)
            .and_then(Bottleneck::next_departure);
        let Some(connection) = self.connections.get_mut(&id) else {
            return everything;
        };
        let flow = connection.flow(writer);
        let arrived = flow.arrived(now);
        if flow.written <= received || arrived > received {
            // The end of the stream has no bytes of its own and may follow the last of them.
            let is_whole = arrived == flow.written;
            return Readable::UpTo(if is_whole { u64::MAX } else { arrived - received });
        }
        match flow.next_arrival(received) {
            Some(at) => Readable::At(at),
            None if flow.is_dead() => Readable::Never,
            // The bytes are in the send buffer: as soon as there is room in the queue, more is known.
            None => departure.map_or(Readable::Never, Readable::At),
        }
    }

    /// Has the reader of a flow woken when the condition of its path changes.
    pub(super) fn wake_reader(&mut self, id: ConnectionId, writer: Side, reader: &Waker) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.flow(writer).reader = Some(reader.clone());
        }
    }

    /// Has the writer of a flow woken when the condition of its path changes, or bytes are read.
    pub(super) fn wake_writer(&mut self, id: ConnectionId, writer: Side, waker: &Waker) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.flow(writer).writer = Some(waker.clone());
        }
    }

    /// Nobody reads what one end writes any more: what waits in its send buffer is dropped.
    pub(super) fn stop_sending(&mut self, id: ConnectionId, writer: Side) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let path = connection.path(writer);
        if let Some(link) = self.paths.bottlenecks.get_mut(&path) {
            let connection = id;
            link.drop_backlog(FlowId { connection, writer });
        }
    }

    fn set_passage(&mut self, now: Duration, from: IpAddr, to: IpAddr, passage: Passage) {
        self.advance((from, to), now);
        self.paths.set_passage(from, to, passage);
        if let Some(link) = self.paths.bottlenecks.get_mut(&(from, to)) {
            match passage {
                Passage::Open => link.open(now),
                Passage::Cut => link.cut(),
                Passage::Held => link.hold(),
            }
        }
        for connection in self.connections.values_mut() {
            for side in [Side::Client, Side::Server] {
                let path = connection.path(side);
                if path == (from, to) || path == (to, from) {
                    let condition = self.paths.condition(path.0, path.1);
                    connection.flow(side).set_condition(now, condition);
                }
            }
        }
        self.advance((from, to), now);
    }

    fn unacknowledged(&mut self, id: ConnectionId, writer: Side, now: Duration) -> Option<u64> {
        let path = self.connections.get(&id)?.path(writer);
        self.advance(path, now);
        let connection = self.connections.get_mut(&id)?;
        Some(connection.flow(writer).unacknowledged(now))
    }
}

impl Fabric {
    /// Lets segments pass from one address to another, or not. What turmoil does to the segments is set apart.
    pub fn set_passage(&self, now: Duration, from: IpAddr, to: IpAddr, passage: Passage) {
        self.state().set_passage(now, from, to, passage);
    }

    /// How many bytes one end of a connection has written that the kernel of its peer has not acknowledged yet; `None`
    /// once both ends are closed.
    pub fn unacknowledged(&self, id: ConnectionId, writer: Side) -> Option<u64> {
        self.state().unacknowledged(id, writer, now())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::Conditions;
    use super::super::connection::{Connection, End};
    use super::super::flow::Flow;
    use super::*;

    const ID: ConnectionId = ConnectionId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 1))
    }

    /// Two connections over a link of 1,460 bytes per 10 ms and 5 ms latency, with a queue of two segments.
    fn slow() -> State {
        let mut state = State::default();
        let conditions = Conditions {
            latency: ms(5)..=ms(5),
            bandwidth: Some(146_000),
            queue: 2 * 1460,
            ..Conditions::default()
        };
        let (here, there) = (address(1), address(2));
        state
            .paths
            .set_conditions(here.ip(), there.ip(), conditions.clone());
        state.paths.set_conditions(there.ip(), here.ip(), conditions);
        for id in [1, 2] {
            let flows = [(); 2].map(|()| Flow::new(ms(5), Default::default()));
            let mut connection = Connection::new(here, there, ms(0), flows);
            connection.set_end(Side::Client, End::Open(0));
            connection.set_end(Side::Server, End::Open(1));
            state.connections.insert(ConnectionId(id), connection);
        }
        state
    }

    fn unacknowledged(state: &mut State, at: u64) -> u64 {
        state.unacknowledged(ID, Side::Client, ms(at)).unwrap()
    }

    #[test]
    fn bytes_arrive_after_queue_transmission_and_latency_and_are_acknowledged_one_trip_later() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 3 * 1460, ms(0));
        assert_eq!(state.readable(ID, Side::Client, 0, ms(0)), Readable::At(ms(15)));
        assert_eq!(state.readable(ID, Side::Client, 0, ms(15)), Readable::UpTo(1460));
        assert_eq!(
            state.readable(ID, Side::Client, 1460, ms(15)),
            Readable::At(ms(25))
        );
        assert_eq!(unacknowledged(&mut state, 19), 3 * 1460);
        assert_eq!(unacknowledged(&mut state, 20), 2 * 1460);
        assert_eq!(unacknowledged(&mut state, 30), 1460);
        assert_eq!(unacknowledged(&mut state, 40), 0);
    }

    #[test]
    fn a_process_that_does_not_read_still_acknowledges() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 1460, ms(0));
        assert_eq!(unacknowledged(&mut state, 20), 0);
        let connection = state.connections.get_mut(&ID).unwrap();
        assert_eq!(connection.flow(Side::Client).unread, 1460);
    }

    #[test]
    fn connections_share_the_queue_and_take_turns_at_it() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 100 * 1460, ms(0));
        state.wrote(ConnectionId(2), Side::Client, 1460, ms(1));
        let other = state.readable(ConnectionId(2), Side::Client, 0, ms(20));
        // Three segments of the other one are ahead: two in the queue, and one that takes its turn first.
        assert_eq!(other, Readable::At(ms(45)));
    }

    #[test]
    fn a_limited_send_buffer_has_room_when_its_bytes_have_been_sent() {
        let mut state = slow();
        let connection = state.connections.get_mut(&ID).unwrap();
        connection.flow(Side::Client).unsent_max = Some(2000);
        assert_eq!(state.unsent_room(ID, Side::Client, ms(0)), Ok(2000));
        // Two segments are in the queue.
        state.wrote(ID, Side::Client, 4 * 1460, ms(0));
        assert_eq!(state.unsent_room(ID, Side::Client, ms(9)), Err(Some(ms(10))));
        assert_eq!(state.unsent_room(ID, Side::Client, ms(10)), Ok(540));
        assert_eq!(state.unsent_room(ID, Side::Server, ms(10)), Ok(u64::MAX));
    }

    #[test]
    fn directions_do_not_wait_for_each_other() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 100 * 1460, ms(0));
        state.wrote(ID, Side::Server, 146, ms(0));
        assert_eq!(state.unacknowledged(ID, Side::Server, ms(11)), Some(0));
    }

    #[test]
    fn a_cut_loses_what_is_under_way_and_acknowledges_nothing_until_it_ends() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 3 * 1460, ms(0));
        let (here, there) = (address(1).ip(), address(2).ip());
        state.set_passage(ms(17), here, there, Passage::Cut);
        state.set_passage(ms(17), there, here, Passage::Cut);
        assert_eq!(unacknowledged(&mut state, 900), 3 * 1460);
        state.set_passage(ms(1000), here, there, Passage::Open);
        state.set_passage(ms(1000), there, here, Passage::Open);
        assert_eq!(unacknowledged(&mut state, 1005), 2 * 1460);
        assert_eq!(unacknowledged(&mut state, 9000), 2 * 1460);
        assert_eq!(state.readable(ID, Side::Client, 1460, ms(9000)), Readable::Never);
    }

    #[test]
    fn a_hold_delays_and_the_send_buffer_follows_at_the_rate_of_the_link() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 3 * 1460, ms(0));
        let (here, there) = (address(1).ip(), address(2).ip());
        state.set_passage(ms(2), here, there, Passage::Held);
        state.set_passage(ms(2), there, here, Passage::Held);
        assert_eq!(state.readable(ID, Side::Client, 0, ms(999)), Readable::Never);
        assert_eq!(unacknowledged(&mut state, 999), 3 * 1460);
        state.set_passage(ms(1000), here, there, Passage::Open);
        state.set_passage(ms(1000), there, here, Passage::Open);
        assert_eq!(
            state.readable(ID, Side::Client, 0, ms(1000)),
            Readable::UpTo(2 * 1460)
        );
        assert_eq!(unacknowledged(&mut state, 1005), 1460);
        assert_eq!(unacknowledged(&mut state, 1020), 0);
    }

    #[test]
    fn a_silent_connection_delivers_what_was_written_before_and_acknowledges_no_more() {
        let mut state = slow();
        state.wrote(ID, Side::Client, 3 * 1460, ms(0));
        state.connections.get_mut(&ID).unwrap().fall_silent(ms(12));
        state.wrote(ID, Side::Client, 100, ms(13));
        assert_eq!(
            state.readable(ID, Side::Client, 0, ms(35)),
            Readable::UpTo(3 * 1460)
        );
        assert_eq!(unacknowledged(&mut state, 9000), 3 * 1460 + 100);
    }
}
