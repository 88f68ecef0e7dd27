//! Follows what an HTTP/2 peer sends, frame by frame, for what an HTTP/2 library does not report: GOAWAY, the stream
//! limit in SETTINGS, and the acknowledgement of a PING that the library did not send.
//!
//! The HTTP/2 library of a server ends a connection without streams as soon as it reads a GOAWAY. But a responder that
//! drains still serves its clients, and may need the tunnel until they have gone. So the library of an initiator does not
//! receive the first GOAWAY (wire.md section 17, rule 7 of the initiator).

/// The client's preface (RFC 9113, section 3.4), which comes before its first frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's head (RFC 9113, section 4.1): length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// The type of a frame is the fourth byte of its head.
const KIND_AT: usize = 3;
/// The flags follow the type.
const FLAGS_AT: usize = 4;
/// RFC 9113, section 6.5.
const SETTINGS: u8 = 0x04;
/// RFC 9113, section 6.7.
const PING_KIND: u8 = 0x06;
/// RFC 9113, section 6.8.
const GOAWAY: u8 = 0x07;
/// The last stream and the error code of a GOAWAY.
const GOAWAY_BYTES: usize = 8;
/// The error code of a GOAWAY that says that the peer drains (RFC 9113, section 7).
pub const NO_ERROR: u32 = 0;
/// The error code of a frame that is too short (RFC 9113, section 7).
const FRAME_SIZE_ERROR: u32 = 6;
/// A type that is not defined: receivers ignore such frames (RFC 9113, section 4.1).
const IGNORED: u8 = 0xfa;
/// The flag of a SETTINGS or PING that acknowledges one.
const ACK: u8 = 0x01;
/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, section 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// An identifier of two bytes and a value of four (RFC 9113, section 6.5.1).
const SETTING_BYTES: usize = 6;

/// What marks a PING as ours: eight bytes that no HTTP/2 library sends by itself.
const PING_PAYLOAD: &[u8; 8] = b"eddyping";
/// The PING that asks a peer for a sign of life (RFC 9113, section 6.7).
pub const PING: [u8; 17] = ping(0);
/// Its acknowledgement.
const PONG: [u8; 17] = ping(ACK);

const fn ping(flags: u8) -> [u8; 17] {
    let [a, b, c, d, e, f, g, h] = *PING_PAYLOAD;
    [0, 0, 8, PING_KIND, flags, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// What has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first GOAWAY, with its error code.
    GoAway(u32),
    /// The first SETTINGS, whole: the peer takes the connection for HTTP/2.
    Settings,
    /// The peer allows so many streams at once.
    MaxStreams(u32),
}

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client: a preface comes first, and its first GOAWAY is hidden from the library.
    Client,
    /// A server.
    Server,
}

#[derive(Clone, Debug)]
enum State {
    Preface {
        seen: usize,
    },
    Head {
        bytes: [u8; HEAD_BYTES],
        seen: usize,
    },
    Payload {
        left: usize,
    },
    Settings {
        setting: [u8; SETTING_BYTES],
        seen: usize,
        left: usize,
    },
    /// The first GOAWAY, up to its error code; `left` counts what follows that, too.
    GoAway {
        bytes: [u8; GOAWAY_BYTES],
        seen: usize,
        left: usize,
    },
    /// It is not HTTP/2.
    Foreign,
}

const HEAD: State = State::Head {
    bytes: [0; HEAD_BYTES],
    seen: 0,
};

/// Follows one direction of a connection without keeping any of it.
#[derive(Clone, Debug)]
pub struct FrameWatch {
    sender: Sender,
    state: State,
    goaway: bool,
    settings: bool,
}

impl FrameWatch {
    /// Follows what `sender` sends.
    pub const fn new(sender: Sender) -> Self {
        let state = match sender {
            Sender::Client => State::Preface { seen: 0 },
            Sender::Server => HEAD,
        };
        Self {
            sender,
            state,
            goaway: false,
            settings: false,
        }
    }

    /// Bytes of the sender, cut anywhere; frames that the library must not receive become frames that it ignores.
    /// `report` is called for everything seen, in order.
    pub fn on_bytes(&mut self, mut bytes: &mut [u8], mut report: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Preface { seen } => {
                    let n = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..n] == PREFACE[*seen..*seen + n] {
                        *seen += n;
                        if *seen == PREFACE.len() {
                            self.state = HEAD;
                        }
                    } else {
                        self.state = State::Foreign;
                    }
                    n
                }
                State::Head { .. } => self.on_head(bytes, &mut report),
                State::Payload { left } => {
                    let n = bytes.len().min(*left);
                    *left -= n;
                    if *left == 0 {
                        self.state = HEAD;
                    }
                    n
                }
                State::Settings { setting, seen, left } => {
                    let n = bytes.len().min(SETTING_BYTES - *seen);
                    setting[*seen..*seen + n].copy_from_slice(&bytes[..n]);
                    *seen += n;
                    *left -= n;
                    if *seen == SETTING_BYTES {
                        *seen = 0;
                        let [id_high, id_low, value @ ..] = *setting;
                        if u16::from_be_bytes([id_high, id_low]) == MAX_CONCURRENT_STREAMS {
                            report(Seen::MaxStreams(u32::from_be_bytes(value)));
                        }
                    }
                    if *left == 0 {
                        self.state = HEAD;
                        self.settings_end(&mut report);
                    }
                    n
                }
                State::GoAway {
                    bytes: goaway,
                    seen,
                    left,
                } => {
                    let n = bytes.len().min(GOAWAY_BYTES - *seen);
                    goaway[*seen..*seen + n].copy_from_slice(&bytes[..n]);
                    *seen += n;
                    *left -= n;
                    if *seen == GOAWAY_BYTES {
                        let [_, _, _, _, code @ ..] = *goaway;
                        self.state = if *left == 0 {
                            HEAD
                        } else {
                            State::Payload { left: *left }
                        };
                        report(Seen::GoAway(u32::from_be_bytes(code)));
                    }
                    n
                }
                State::Foreign => return,
            };
            bytes = &mut bytes[taken..];
        }
    }

    fn on_head(&mut self, bytes: &mut [u8], report: &mut impl FnMut(Seen)) -> usize {
        let State::Head { bytes: head, seen } = &mut self.state else {
            return bytes.len();
        };
        if *seen == 0 && bytes.starts_with(&PONG) {
            bytes[KIND_AT] = IGNORED;
            return PONG.len();
        }
        let n = bytes.len().min(HEAD_BYTES - *seen);
        head[*seen..*seen + n].copy_from_slice(&bytes[..n]);
        if self.sender == Sender::Client
            && !self.goaway
            && let Some(kind) = KIND_AT.checked_sub(*seen).and_then(|at| bytes.get_mut(at))
            && *kind == GOAWAY
        {
            *kind = IGNORED;
        }
        *seen += n;
        if *seen < HEAD_BYTES {
            return n;
        }
        let [high, middle, low, kind, flags, ..] = *head;
        debug_assert_eq!((head[KIND_AT], head[FLAGS_AT]), (kind, flags));
        let left = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.state = match kind {
            SETTINGS if flags & ACK == 0 && left > 0 && left.is_multiple_of(SETTING_BYTES) => {
                State::Settings {
                    setting: [0; SETTING_BYTES],
                    seen: 0,
                    left,
                }
            }
            GOAWAY if !self.goaway && left >= GOAWAY_BYTES => State::GoAway {
                bytes: [0; GOAWAY_BYTES],
                seen: 0,
                left,
            },
            _ if left == 0 => HEAD,
            _ => State::Payload { left },
        };
        if kind == GOAWAY && !std::mem::replace(&mut self.goaway, true) && left < GOAWAY_BYTES {
            report(Seen::GoAway(FRAME_SIZE_ERROR));
        }
        if kind == SETTINGS && flags & ACK == 0 && left == 0 {
            self.settings_end(report);
        }
        n
    }

    fn settings_end(&mut self, report: &mut impl FnMut(Seen)) {
        if !std::mem::replace(&mut self.settings, true) {
            report(Seen::Settings);
        }
    }
}

#[cfg(test)]
mod tests;
