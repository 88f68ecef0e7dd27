//! Why a tunnel ended: one closed set for both roles, the one source of log field and metric.

/// The reason of a close. Each tunnel ends with exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The peer ended the stream.
    PeerClosed,
    /// The connection broke: reset, or an error of the socket.
    PeerReset,
    /// No RPING echo in time (responder).
    PingTimeout,
    /// Nothing heard for too long (initiator, idle).
    Silent,
    /// Bytes on an idle tunnel that are neither a ping or its echo nor, at the initiator, the beginning of HTTP.
    UnexpectedBytes,
    /// No HTTP/2 PING answer in time.
    HttpPing,
    /// The peer broke HTTP.
    HttpError,
    /// The peer said goodbye.
    GoAway,
    /// This end said goodbye, and what ran has ended.
    Drained,
    /// The host is no longer configured, or its name no longer resolves to it.
    HostGone,
    /// Another tunnel has taken its place (responder).
    Superseded,
    /// The process ends.
    Shutdown,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PeerClosed,
        Self::PeerReset,
        Self::PingTimeout,
        Self::Silent,
        Self::UnexpectedBytes,
        Self::HttpPing,
        Self::HttpError,
        Self::GoAway,
        Self::Drained,
        Self::HostGone,
        Self::Superseded,
        Self::Shutdown,
    ];

    /// The reason in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::PingTimeout => "ping_timeout",
            Self::Silent => "silent",
            Self::UnexpectedBytes => "unexpected_bytes",
            Self::HttpPing => "http_ping",
            Self::HttpError => "http_error",
            Self::GoAway => "go_away",
            Self::Drained => "drained",
            Self::HostGone => "host_gone",
            Self::Superseded => "superseded",
            Self::Shutdown => "shutdown",
        }
    }

    /// What happened, and what usually stands behind it, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::PeerClosed => "the other end closed the connection: its process ended or was restarted",
            Self::PeerReset => {
                "the connection broke: the other process was killed, or something between cut it"
            }
            Self::PingTimeout => {
                "no echo of a ping in time: the initiator is frozen, or the network swallows packets"
            }
            Self::Silent => {
                "nothing heard for too long: the responder is frozen, or the network swallows packets"
            }
            Self::UnexpectedBytes => {
                "bytes other than pings on an idle tunnel: the other end, or something between, breaks the protocol"
            }
            Self::HttpPing => {
                "no answer to an HTTP/2 PING in time: the other end is frozen, or the network is cut"
            }
            Self::HttpError => "the other end broke HTTP/2",
            Self::GoAway => "the other end said goodbye: it drains",
            Self::Drained => "this end said goodbye, and what ran has ended",
            Self::HostGone => "the host is no longer configured, or its name no longer leads there",
            Self::Superseded => "a newer tunnel has taken its place",
            Self::Shutdown => "this process ends",
        }
    }
}
