//! HTTP/2 frames by hand (RFC 9113, section 4.1).

use super::hpack;

/// The client's preface (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
    pub(in super::super) const PRIORITY: u8 = 32;
}

/// Error codes (RFC 9113, section 7).
pub(super) mod code {
    pub(in super::super) const NO_ERROR: u32 = 0;
    pub(in super::super) const INTERNAL_ERROR: u32 = 2;
    pub(in super::super) const REFUSED_STREAM: u32 = 7;
}

/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, section 6.5.2).
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
/// The longest payload without settings.
pub(super) const PAYLOAD_MAX: usize = 16 << 10;
const HEAD_BYTES: usize = 9;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        let payload = payload.to_vec();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    pub(super) fn settings(values: &[(u16, u32)]) -> Self {
        let mut payload = Vec::new();
        for (id, value) in values {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        Self::new(kind::SETTINGS, 0, 0, &payload)
    }

    pub(super) fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(super) fn window_update(stream: u32, bytes: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    pub(super) fn data(stream: u32, ends: bool, bytes: &[u8]) -> Self {
        Self::new(kind::DATA, u8::from(ends), stream, bytes)
    }

    /// HEADERS, with CONTINUATIONs where one frame is not enough.
    pub(super) fn headers(stream: u32, ends: bool, fields: &[(&str, &str)]) -> Vec<Self> {
        let block = hpack::encode(fields);
        let mut pieces = block.chunks(PAYLOAD_MAX).peekable();
        let mut frames = Vec::new();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() {
                flag::END_HEADERS
            } else {
                0
            };
            let (kind, flags) = if frames.is_empty() {
                (kind::HEADERS, end | u8::from(ends))
            } else {
                (kind::CONTINUATION, end)
            };
            frames.push(Self::new(kind, flags, stream, piece));
        }
        frames
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The part of the payload that padding and priority leave; none if the frame is malformed.
    pub(super) fn content(&self) -> Option<&[u8]> {
        let mut content = &self.payload[..];
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (first, rest) = content.split_first()?;
            padding = usize::from(*first);
            content = rest;
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..)?;
        }
        content.get(..content.len().checked_sub(padding)?)
    }

    /// A number of 32 bits at the beginning of the payload.
    pub(super) fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(..4)?.try_into().ok()?))
    }

    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        let length = (self.payload.len() as u32).to_be_bytes();
        bytes.extend(&length[1..]);
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
    }

    /// Takes the first frame from a buffer, if it is whole.
    pub(super) fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let head = buffer.get(..HEAD_BYTES)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let frame = Self {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: buffer.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec(),
        };
        buffer.drain(..HEAD_BYTES + length);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_once_it_is_whole() {
        let frame = Frame::data(5, true, b"body");
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        let last = bytes.pop().unwrap();
        assert_eq!(Frame::take(&mut bytes), None);
        bytes.extend([last, 9]);
        assert_eq!(Frame::take(&mut bytes), Some(frame));
        assert_eq!(bytes, [9]);
    }

    #[test]
    fn long_heads_are_continued() {
        let value = "v".repeat(70_000);
        let frames = Frame::headers(1, false, &[(":status", "200"), ("x", &value)]);
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|frame| frame.payload.len() <= PAYLOAD_MAX));
        assert_eq!(frames.iter().filter(|f| f.has(flag::END_HEADERS)).count(), 1);
    }

    #[test]
    fn padding_and_priority_are_left_out() {
        let flags = flag::PADDED | flag::PRIORITY;
        let frame = Frame::new(kind::HEADERS, flags, 1, &[2, 0, 0, 0, 0, 9, 7, 0, 0]);
        assert_eq!(frame.content(), Some(&[7][..]));
        assert_eq!(Frame::new(kind::DATA, flag::PADDED, 1, &[9, 1]).content(), None);
    }
}
