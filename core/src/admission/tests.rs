//! The table as scripts of inputs and exact outcomes, and against a model that searches a list.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const A: Source = Source::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: Source = Source::V4(Ipv4Addr::new(10, 0, 0, 2));
const C: Source = Source::V6(7);

fn at(millis: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(millis))
}

fn limits(pending_max: usize, per_source_max: usize) -> Limits {
    Limits {
        pending_max,
        per_source_max,
        first_byte: Duration::from_secs(3),
        handshake: Duration::from_secs(10),
    }
}

/// A table whose connections are called by the order of their accept.
struct Script {
    table: Admission,
    accepted: usize,
}

impl Script {
    fn new(pending_max: usize, per_source_max: usize) -> Self {
        Self {
            table: Admission::new(limits(pending_max, per_source_max)),
            accepted: 0,
        }
    }

    /// The next connection, which nobody has to leave for.
    fn accept(&mut self, source: Source) -> &mut Self {
        self.evicts(source, None)
    }

    fn evicts(&mut self, source: Source, evicted: Option<(u64, Eviction)>) -> &mut Self {
        let admitted = self.table.on_accept(at(0), source);
        assert_eq!(admitted.ticket, Ticket(self.accepted as u64));
        let evicted = evicted.map(|(ticket, why)| Evicted {
            ticket: Ticket(ticket),
            why,
        });
        assert_eq!(admitted.evicted, evicted, "at connection {}", self.accepted);
        self.accepted += 1;
        self
    }

    fn full(&mut self, source: Source, evicted: u64) -> &mut Self {
        self.evicts(source, Some((evicted, Eviction::TableFull)))
    }

    fn share(&mut self, source: Source, evicted: u64) -> &mut Self {
        self.evicts(source, Some((evicted, Eviction::SourceShare)))
    }

    fn bytes(&mut self, ticket: u64) -> &mut Self {
        self.table.on_bytes(Ticket(ticket));
        self
    }

    fn end(&mut self, ticket: u64) -> &mut Self {
        self.table.on_end(Ticket(ticket));
        self
    }
}

#[test]
fn a_table_with_room_evicts_nobody() {
    let mut script = Script::new(3, 3);
    script.accept(A).accept(A).accept(A);
    assert_eq!(script.table.len(), 3);
    script.end(1).accept(B).full(B, 0);
    assert_eq!(script.table.len(), 3);
}

#[test]
fn a_full_table_evicts_the_oldest_silent_connection_first() {
    let mut script = Script::new(3, 3);
    script.accept(A).accept(B).accept(B);
    script.bytes(0).full(C, 1).full(C, 2).full(B, 3);
}

#[test]
fn without_a_silent_one_the_largest_source_loses_its_oldest() {
    let mut script = Script::new(4, 4);
    script.accept(A).accept(B).accept(B).accept(A);
    script.bytes(0).bytes(1).bytes(2).bytes(3);
    // A and B have two each: the source with the oldest connection loses it.
    script.full(C, 0).bytes(4);
    script.full(C, 1);
}

#[test]
fn a_source_at_its_share_loses_its_own_connections() {
    let mut script = Script::new(8, 2);
    script.accept(B).accept(A).accept(A);
    script.bytes(1).share(A, 2).share(A, 3).bytes(4);
    script.share(A, 1);
    assert_eq!(script.table.len(), 3);
}

/// The rule that keeps a full table from being refilled by the source that filled it.
#[test]
fn a_source_at_its_share_makes_room_itself_when_the_table_is_full_too() {
    let mut script = Script::new(2, 1);
    script.accept(B).accept(A).share(A, 1).full(C, 0);
}

#[test]
fn a_share_above_the_table_has_no_effect() {
    let mut script = Script::new(2, usize::MAX);
    script.accept(A).accept(A).full(A, 0);
}

#[test]
fn limits_of_zero_count_as_one() {
    let mut script = Script::new(0, 0);
    script.accept(A).share(A, 0).full(B, 1);
    assert_eq!(script.table.len(), 1);
}

#[test]
fn a_silent_connection_has_less_time_than_one_in_its_head() {
    let mut table = Admission::new(limits(2, 2));
    let first = table.on_accept(at(1_000), A).ticket;
    let deadline = |millis, reason| {
        Some(Deadline {
            at: at(millis),
            reason,
        })
    };
    assert_eq!(table.deadline(first), deadline(4_000, "first byte"));
    table.on_bytes(first);
    assert_eq!(table.deadline(first), deadline(11_000, "handshake"));
    table.on_bytes(first);
    assert_eq!(table.deadline(first), deadline(11_000, "handshake"));
    let second = table.on_accept(at(500), A).ticket;
    let ignored = "time that goes backwards is ignored";
    assert_eq!(table.deadline(second), deadline(4_000, "first byte"), "{ignored}");
}

#[test]
fn a_first_byte_limit_above_the_handshake_limit_is_lowered() {
    let mut table = Admission::new(Limits {
        handshake: Duration::from_secs(1),
        ..limits(1, 1)
    });
    let ticket = table.on_accept(at(0), A).ticket;
    assert_eq!(table.deadline(ticket).unwrap().at, at(1_000));
}

#[test]
fn a_stale_ticket_is_a_no_op() {
    let mut script = Script::new(1, 1);
    script.accept(A).full(B, 0);
    let stale = Ticket(0);
    assert_eq!(script.table.deadline(stale), None);
    script.bytes(0).end(0);
    assert_eq!(script.table.len(), 1);
    script.end(1).end(1);
    assert!(script.table.is_empty());
    assert!(script.table.sources.is_empty() && script.table.ranks.is_empty());
}

#[test]
fn sources_are_addresses_of_ipv4_and_networks_of_ipv6() {
    let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(source("10.0.0.1"), A);
    assert_eq!(source("::ffff:10.0.0.1"), A, "mapped into IPv6");
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    assert_eq!(
        source("2001:db8:1:2::1"),
        source("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_eq!(source("2001:db8:1:2::1"), Source::V6(0x2001_0db8_0001_0002));
}

#[derive(Clone, Debug)]
enum Step {
    Accept(usize),
    Bytes(Index),
    End(Index),
    /// An event for a connection that has left the table.
    Stale(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4).prop_map(Step::Accept),
        2 => any::<Index>().prop_map(Step::Bytes),
        1 => any::<Index>().prop_map(Step::End),
        1 => any::<Index>().prop_map(Step::Stale),
    ]
}

/// A pending connection: when it was accepted, and whether it is silent.
type Row = (Ticket, Source, Instant, bool);

/// The pending connections in the order of their accept.
#[derive(Default)]
struct Model(Vec<Row>);

impl Model {
    fn victim(&self, limits: &Limits, source: Source) -> Option<(Ticket, Eviction)> {
        let of = |source| self.0.iter().filter(move |own| own.1 == source);
        let oldest_silent = |mut rows: Vec<&Row>| {
            rows.retain(|row| row.3);
            rows.first().map(|row| row.0)
        };
        if of(source).count() >= limits.per_source_max {
            let oldest = of(source).next().map(|own| own.0);
            let ticket = oldest_silent(of(source).collect()).or(oldest)?;
            return Some((ticket, Eviction::SourceShare));
        }
        if self.0.len() < limits.pending_max {
            return None;
        }
        let size = |row: &Row| of(row.1).count();
        let largest = self.0.iter().map(size).max()?;
        let of_largest = self.0.iter().find(|row| size(row) == largest)?.0;
        let ticket = oldest_silent(self.0.iter().collect()).unwrap_or(of_largest);
        Some((ticket, Eviction::TableFull))
    }
}

proptest! {
    /// After any history the table has what the model has: the same victims, the same deadlines, the same bounds.
    #[test]
    fn the_table_is_a_list_that_is_searched(
        pending_max in 1usize..8, per_source_max in 1usize..9, steps in prop::collection::vec(step(), 0..80),
    ) {
        let limits = limits(pending_max, per_source_max);
        let (mut table, mut model, mut stale) = (Admission::new(limits), Model::default(), Vec::new());
        for (now, step) in (0u64..).map(at).zip(steps) {
            match step {
                Step::Accept(source) => {
                    let source = [A, B, C, Source::V6(8)][source];
                    let expected = model.victim(&limits, source);
                    let admitted = table.on_accept(now, source);
                    prop_assert_eq!(admitted.evicted.map(|gone| (gone.ticket, gone.why)), expected);
                    if let Some((gone, _)) = expected {
                        model.0.retain(|row| row.0 != gone);
                        stale.push(gone);
                    }
                    prop_assert!(stale.iter().chain(model.0.iter().map(|row| &row.0)).all(|old| *old < admitted.ticket));
                    model.0.push((admitted.ticket, source, now, true));
                }
                Step::Bytes(which) if !model.0.is_empty() => {
                    let row = which.index(model.0.len());
                    table.on_bytes(model.0[row].0);
                    model.0[row].3 = false;
                }
                Step::End(which) if !model.0.is_empty() => {
                    let row = model.0.remove(which.index(model.0.len()));
                    table.on_end(row.0);
                    stale.push(row.0);
                }
                Step::Stale(which) if !stale.is_empty() => {
                    let ticket = stale[which.index(stale.len())];
                    table.on_bytes(ticket);
                    table.on_end(ticket);
                    prop_assert_eq!(table.deadline(ticket), None);
                }
                Step::Bytes(_) | Step::End(_) | Step::Stale(_) => {}
            }
            prop_assert_eq!(table.len(), model.0.len());
            prop_assert!(table.len() <= pending_max);
            for (ticket, source, accepted, silent) in &model.0 {
                let limit = if *silent { limits.first_byte } else { limits.handshake };
                prop_assert_eq!(table.deadline(*ticket).map(|deadline| deadline.at), Some(*accepted + limit));
                let own = model.0.iter().filter(|row| row.1 == *source).count();
                prop_assert!(own <= per_source_max);
            }
            prop_assert_eq!(table.ranks.len(), table.sources.len());
        }
    }

    /// One source, whatever it does, cannot evict a connection of another source while the others leave its share free.
    #[test]
    fn one_source_cannot_evict_the_others(
        share in 1usize..5, honest in 1usize..5, steps in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        let mut table = Admission::new(limits(share + honest, share));
        let others: Vec<_> = (0..honest as u64).map(|n| table.on_accept(at(0), Source::V6(100 + n)).ticket).collect();
        for speaks in steps {
            let admitted = table.on_accept(at(1), A);
            if speaks {
                table.on_bytes(admitted.ticket);
            }
        }
        prop_assert!(others.iter().all(|other| table.deadline(*other).is_some()));
    }
}
