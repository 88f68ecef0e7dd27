//! HTTP/2 frames, written and read by hand (RFC 9113, section 4.1).

use std::io::{Read, Write};
use std::net::TcpStream;

/// The client's preface (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
}

/// Error codes (RFC 9113, section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INTERNAL_ERROR: u32 = 2;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
}

/// `SETTINGS_HEADER_TABLE_SIZE` (RFC 9113, section 6.5.2).
pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
/// `SETTINGS_MAX_CONCURRENT_STREAMS`.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// The longest frame that a peer takes by default (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16 << 10;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn settings(values: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = values
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        Self::new(kind::SETTINGS, 0, 0, &payload)
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(crate) fn goaway(last: u32, code: u32) -> Self {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        Self::new(kind::GOAWAY, 0, 0, &payload)
    }

    pub(crate) fn data(stream: u32, end: bool, bytes: &[u8]) -> Self {
        Self::new(kind::DATA, u8::from(end), stream, bytes)
    }

    /// HEADERS of literals without indexing (RFC 7541, section 6.2.2).
    pub(crate) fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Self {
        let block: Vec<u8> = fields.iter().flat_map(|(n, v)| literal(n, v)).collect();
        Self::new(kind::HEADERS, flag::END_HEADERS | u8::from(end), stream, &block)
    }

    pub(crate) fn is(&self, kind: u8) -> bool {
        self.kind == kind
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & flag::END_STREAM != 0
    }

    /// The error code of a RST_STREAM.
    pub(crate) fn reset_code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The bytes. A header block that is longer than a frame may be goes on in CONTINUATION frames (RFC 9113, section 6.10).
    pub(crate) fn encode(&self) -> Vec<u8> {
        if !self.is(kind::HEADERS) || self.payload.len() <= FRAME_BYTES_MAX {
            return self.encode_whole();
        }
        let mut parts = self.payload.chunks(FRAME_BYTES_MAX).peekable();
        let mut kind = self.kind;
        let mut flags = self.flags & !flag::END_HEADERS;
        let mut bytes = Vec::new();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                flags |= self.flags & flag::END_HEADERS;
            }
            bytes.extend(Self::new(kind, flags, self.stream, part).encode_whole());
            (kind, flags) = (kind::CONTINUATION, 0);
        }
        bytes
    }

    fn encode_whole(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub(crate) fn write(&self, to: &mut TcpStream) {
        to.write_all(&self.encode()).unwrap();
    }

    /// The next frame; none when the peer has ended the connection.
    pub(crate) fn read(from: &mut TcpStream) -> Option<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).ok()?;
        Some(Self {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The status in a block of response headers, as far as Eddy's encoder writes it.
    pub(crate) fn status(&self) -> u16 {
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        // The size of the dynamic table stands before the first field after it has changed (RFC 7541, section 6.3).
        let block = self.payload.strip_prefix(b"\x20").unwrap_or(&self.payload);
        match block[0] {
            indexed @ 0x88..=0x8e => INDEXED[usize::from(indexed - 0x88)],
            // A literal whose name is `:status`; its value is three digits, plain or in Huffman's code.
            0x08 | 0x48 | 0x18 => digits(&block[1..]),
            other => panic!("status expected, not {other:#x}"),
        }
    }
}

/// Three digits (RFC 7541, appendix B has the codes).
fn digits(bytes: &[u8]) -> u16 {
    let (huffman, length) = (bytes[0] & 0x80 != 0, usize::from(bytes[0] & 0x7f));
    let text = &bytes[1..=length];
    if !huffman {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let bits: u64 = text.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = 8 * length;
    let mut take = |n: usize| {
        left -= n;
        (bits >> left) & ((1 << n) - 1)
    };
    let mut value = 0;
    for _ in 0..3 {
        let short = take(5);
        // 0 to 2 have five bits, 3 to 9 have six.
        let digit = if short <= 2 {
            short
        } else {
            (short << 1 | take(1)) - 0x19 + 3
        };
        value = value * 10 + u16::try_from(digit).unwrap();
    }
    value
}

/// A literal without indexing (RFC 7541, section 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).unwrap());
        return;
    }
    bytes.push(127);
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap());
}

#[test]
fn digits_are_read_in_both_forms() {
    assert_eq!(digits(b"\x03503"), 503);
    // h2 encodes 503 as 011011 00000 011001: 16 bits and a half.
    let bits: u32 = 0b0_1101_1000_0001_1001 << 7 | 0b1111111;
    assert_eq!(digits(&[&[0x83], &bits.to_be_bytes()[1..]].concat()), 503);
}
