//! What a path does to the bytes on it.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How far the cutting of a connection's bytes into small pieces goes, so that megabytes are not sent one by one:
/// behind it pieces are as large as an Ethernet frame carries.
pub(super) const CUT_UNTIL: u64 = 1024;
/// The payload of a full Ethernet frame.
pub(super) const SEGMENT: usize = 1460;
/// What Linux waits before it sends a lost segment again, at least (RFC 6298 with Linux' minimum).
pub(super) const RETRANSMISSION: Duration = Duration::from_millis(200);

/// The queue in front of a link with limited bandwidth.
const QUEUE: u64 = 64 * 1024;

/// The condition of one direction of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// How long a segment takes.
    pub latency: RangeInclusive<Duration>,
    /// The share of segments that are lost once and come after a retransmission.
    pub loss: f64,
    /// Bytes per second, if that is limited.
    pub bandwidth: Option<u64>,
    /// Bytes that wait in front of a link with limited bandwidth, of all connections between the two machines.
    pub queue: u64,
    /// Bytes that may be under way or unread, which is when the writer has to wait.
    pub window: usize,
    /// Reads and writes move at most so many bytes at a time, for the first KiB of a connection.
    pub cut: Option<usize>,
    /// Segments that come close together are read as one.
    pub glue: bool,
    /// Pauses.
    pub stall: Option<Stall>,
    /// Connections that fall silent.
    pub silence: Option<Silence>,
}

/// A chance that a read is late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// The share of reads.
    pub chance: f64,
    /// How long.
    pub pause: Duration,
}

/// The first connections of a path fall silent in both directions once so many bytes went along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Bytes that still go through.
    pub after: u64,
    /// How many connections.
    pub connections: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1)..=Duration::from_millis(5),
            loss: 0.0,
            bandwidth: None,
            queue: QUEUE,
            window: 256 * 1024,
            cut: None,
            glue: false,
            stall: None,
            silence: None,
        }
    }
}
