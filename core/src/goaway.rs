//! Sees a GOAWAY pass by on a tunnel, which the HTTP/2 library of a server does not report: the responder drains, and
//! the initiator dials a replacement first (wire.md section 17, rule 7 of the initiator).

/// The client's preface (RFC 9113, section 3.4), which comes before its first frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's head (RFC 9113, section 4.1): length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// RFC 9113, section 6.8.
const GOAWAY: u8 = 0x07;

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
    /// Nothing more to see: it is not HTTP/2, or the GOAWAY has passed.
    Done,
}

/// Follows what an HTTP/2 client sends, frame by frame, without keeping any of it.
#[derive(Clone, Debug)]
pub struct GoAwayWatch(State);

impl Default for GoAwayWatch {
    fn default() -> Self {
        Self(State::Preface { seen: 0 })
    }
}

impl GoAwayWatch {
    /// Bytes of the client, cut anywhere. True once: when the head of its first GOAWAY is complete.
    pub fn on_bytes(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match &mut self.0 {
                State::Preface { seen } => {
                    let n = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..n] != PREFACE[*seen..*seen + n] {
                        self.0 = State::Done;
                        return false;
                    }
                    *seen += n;
                    bytes = &bytes[n..];
                    if *seen == PREFACE.len() {
                        self.0 = State::Head {
                            bytes: [0; HEAD_BYTES],
                            seen: 0,
                        };
                    }
                }
                State::Head { bytes: head, seen } => {
                    let n = bytes.len().min(HEAD_BYTES - *seen);
                    head[*seen..*seen + n].copy_from_slice(&bytes[..n]);
                    *seen += n;
                    bytes = &bytes[n..];
                    if *seen == HEAD_BYTES {
                        if head[3] == GOAWAY {
                            self.0 = State::Done;
                            return true;
                        }
                        let left =
                            usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                        self.0 = State::Payload { left };
                    }
                }
                State::Payload { left } => {
                    let n = bytes.len().min(*left);
                    *left -= n;
                    bytes = &bytes[n..];
                    if *left == 0 {
                        self.0 = State::Head {
                            bytes: [0; HEAD_BYTES],
                            seen: 0,
                        };
                    }
                }
                State::Done => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    /// Where the GOAWAY is seen, in reads of `size`.
    fn seen(stream: &[u8], size: usize) -> Vec<usize> {
        let mut watch = GoAwayWatch::default();
        let reads = stream.chunks(size).enumerate();
        reads
            .filter_map(|(i, read)| watch.on_bytes(read).then_some(i * size))
            .collect()
    }

    fn stream() -> Vec<u8> {
        [
            PREFACE.to_vec(),
            frame(4, &[]),
            frame(0, &[GOAWAY; 300]),
            frame(GOAWAY, &[0; 8]),
            frame(GOAWAY, &[0; 8]),
        ]
        .concat()
    }

    #[test]
    fn a_goaway_is_seen_once_however_the_stream_is_cut() {
        let head_ends = PREFACE.len() + 9 + 9 + 300 + 9;
        for size in 1..stream().len() {
            let expected = (head_ends - 1) / size * size;
            assert_eq!(seen(&stream(), size), [expected], "reads of {size}");
        }
    }

    #[test]
    fn data_that_looks_like_one_is_none() {
        let stream = [
            PREFACE.to_vec(),
            frame(0, &frame(GOAWAY, &[0; 8])),
            frame(6, &[GOAWAY; 8]),
        ]
        .concat();
        assert_eq!(seen(&stream, 7), []);
    }

    #[test]
    fn what_is_no_http2_is_not_looked_at() {
        assert_eq!(seen(b"GET / HTTP/1.1\r\n\r\n\0\0\x08\x07\0\0\0\0\0", 4), []);
    }
}
