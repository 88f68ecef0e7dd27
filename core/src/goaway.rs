//! Takes the GOAWAY out of what a responder sends: it says that the responder drains, and that the initiator should dial
//! a replacement first (wire.md section 17, rule 7 of the initiator).
//!
//! The HTTP/2 library of a server does not report a GOAWAY, and ends a connection on which nothing runs at once. But a
//! responder that drains still serves its clients, and may need the tunnel until they have gone. So the library does not
//! get to see the first GOAWAY.

/// The client's preface (RFC 9113, section 3.4), which comes before its first frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame's head (RFC 9113, section 4.1): length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// The type of a frame is the fourth byte of its head.
const KIND_AT: usize = 3;
/// RFC 9113, section 6.8.
const GOAWAY: u8 = 0x07;
/// No type that is defined: frames of such are ignored (RFC 9113, section 4.1).
const IGNORED: u8 = 0xfa;

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

/// Follows what an HTTP/2 client sends, frame by frame, without keeping any of it. The first GOAWAY does not get through.
#[derive(Clone, Debug)]
pub struct GoAwayWatch(State);

impl Default for GoAwayWatch {
    fn default() -> Self {
        Self(State::Preface { seen: 0 })
    }
}

impl GoAwayWatch {
    /// Bytes of the client, cut anywhere; its first GOAWAY becomes a frame that is ignored. True once: when the head of
    /// that GOAWAY is complete.
    pub fn on_bytes(&mut self, mut bytes: &mut [u8]) -> bool {
        while !bytes.is_empty() {
            match &mut self.0 {
                State::Preface { seen } => {
                    let n = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..n] != PREFACE[*seen..*seen + n] {
                        self.0 = State::Done;
                        return false;
                    }
                    *seen += n;
                    bytes = &mut bytes[n..];
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
                    if let Some(kind) = KIND_AT.checked_sub(*seen).and_then(|at| bytes.get_mut(at))
                        && *kind == GOAWAY
                    {
                        *kind = IGNORED;
                    }
                    *seen += n;
                    bytes = &mut bytes[n..];
                    if *seen == HEAD_BYTES {
                        if head[KIND_AT] == GOAWAY {
                            self.0 = State::Done;
                            return true;
                        }
                        let [high, middle, low, ..] = *head;
                        let left = u32::from_be_bytes([0, high, middle, low]) as usize;
                        self.0 = State::Payload { left };
                    }
                }
                State::Payload { left } => {
                    let n = bytes.len().min(*left);
                    *left -= n;
                    bytes = &mut bytes[n..];
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
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    /// Where the GOAWAY is seen, in reads of `size`.
    fn seen(stream: &[u8], size: usize) -> Vec<usize> {
        let mut watch = GoAwayWatch::default();
        let mut stream = stream.to_vec();
        let reads = stream.chunks_mut(size).enumerate();
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
    fn the_first_goaway_alone_is_made_a_frame_to_be_ignored_however_the_stream_is_cut() {
        let kind = PREFACE.len() + 9 + 9 + 300 + KIND_AT;
        let mut expected = stream();
        expected[kind] = IGNORED;
        for size in 1..stream().len() {
            let (mut watch, mut passed) = (GoAwayWatch::default(), stream());
            passed.chunks_mut(size).for_each(|read| _ = watch.on_bytes(read));
            assert_eq!(passed, expected, "reads of {size}");
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

    proptest! {
        /// Frames of any kind and length, full of what looks like a GOAWAY, in any reads: the first one is seen, once,
        /// in the read that completes its head.
        #[test]
        fn the_first_goaway_is_seen_whatever_is_before_it_and_however_it_is_cut(
            frames in prop::collection::vec((0..10u8, prop_oneof![0..600usize, 65_000..140_000usize]), 0..5),
            cuts in prop::collection::vec(1..50_000usize, 0..20),
        ) {
            let mut stream = PREFACE.to_vec();
            let mut head_ends = None;
            for (kind, length) in frames {
                if kind == GOAWAY && head_ends.is_none() {
                    head_ends = Some(stream.len() + HEAD_BYTES);
                }
                stream.extend(frame(kind, &vec![GOAWAY; length]));
            }
            let (mut watch, mut from, mut cuts) = (GoAwayWatch::default(), 0, cuts.into_iter());
            while from < stream.len() {
                let to = cuts.next().map_or(stream.len(), |length| (from + length).min(stream.len()));
                let expected = head_ends.is_some_and(|end| (from + 1..=to).contains(&end));
                prop_assert_eq!(watch.on_bytes(&mut stream[from..to]), expected);
                from = to;
            }
        }

        #[test]
        fn any_bytes_are_borne(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
            let mut watch = GoAwayWatch::default();
            let mut reads = reads;
            prop_assert!(reads.iter_mut().filter_map(|read| watch.on_bytes(read).then_some(())).count() <= 1);
        }
    }
}
