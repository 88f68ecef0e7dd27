//! HTTP/2 on one tunnel, as the server.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Program;
use super::frame::{Frame, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, PAYLOAD_MAX, code, flag, kind};
use super::hpack::Decoder;
use super::replies::{Asked, Reply};
use crate::fabric::{ProcessId, SimStream, now};
use crate::journal::What;
use crate::scenario::Misdeed;
use crate::world::{ANSWER_BYTES, REQUEST_ID};

/// The window of a connection and of each stream without settings (RFC 9113, section 6.9.2).
const WINDOW: i64 = 65_535;

/// A request that is not answered yet.
struct Open {
    asked: Asked,
    misdeed: Option<Misdeed>,
    /// What the peer may still be sent on the stream.
    window: i64,
    /// The part of the body that is still to be sent, once the response has begun.
    body: Option<u64>,
    /// The stream is reset behind the body.
    resets: bool,
}

/// The state of one connection.
pub(super) struct Session {
    program: Rc<Program>,
    of: ProcessId,
    name: String,
    decoder: Decoder,
    /// Header blocks of which a CONTINUATION is to come: the stream, its flags, and the bytes.
    partial: Option<(u32, u8, Vec<u8>)>,
    streams: BTreeMap<u32, Open>,
    window: i64,
    initial_window: i64,
    ahead: Vec<u8>,
    out: Vec<u8>,
    replies: mpsc::UnboundedSender<Reply>,
    replied: mpsc::UnboundedReceiver<Reply>,
    /// A GOAWAY has come: the connection ends with its last stream.
    is_leaving: bool,
}

impl Session {
    pub(super) fn new(program: Rc<Program>, of: ProcessId, name: &str, ahead: Vec<u8>) -> Self {
        let (replies, replied) = mpsc::unbounded_channel();
        let mut session = Self {
            program,
            of,
            name: name.to_owned(),
            decoder: Decoder::default(),
            partial: None,
            streams: BTreeMap::new(),
            window: WINDOW,
            initial_window: WINDOW,
            ahead,
            out: Vec::new(),
            replies,
            replied,
            is_leaving: false,
        };
        let limit = session.program.peer.streams;
        let settings: Vec<_> = limit
            .map(|most| (MAX_CONCURRENT_STREAMS, most))
            .into_iter()
            .collect();
        session.send(&Frame::settings(&settings));
        session
    }

    fn send(&mut self, frame: &Frame) {
        frame.encode_into(&mut self.out);
    }

    /// Serves until the connection ends.
    pub(super) async fn run(mut self, stream: SimStream) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        loop {
            while let Some(frame) = Frame::take(&mut self.ahead) {
                self.receive(&frame).ok_or(io::ErrorKind::InvalidData)?;
            }
            self.send_bodies();
            if self.is_leaving && self.streams.is_empty() && self.out.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(reply) = self.replied.recv() => self.begin(reply),
                read = reader.read_buf(&mut self.ahead) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                wrote = writer.write(&self.out), if !self.out.is_empty() => {
                    self.out.drain(..wrote?);
                }
            }
        }
    }

    /// Takes one frame; none if it is malformed.
    fn receive(&mut self, frame: &Frame) -> Option<()> {
        match frame.kind {
            kind::HEADERS => self.collect(frame.stream, frame.flags, frame.content()?.to_vec()),
            kind::CONTINUATION => {
                let (stream, flags, mut block) = self.partial.take()?;
                block.extend(&frame.payload);
                self.collect(stream, flags | frame.flags & flag::END_HEADERS, block)
            }
            kind::DATA => {
                self.give_back(frame);
                if frame.has(flag::END_STREAM) {
                    self.complete(frame.stream);
                }
                Some(())
            }
            kind::SETTINGS if !frame.has(flag::ACK) => {
                self.apply_settings(&frame.payload);
                self.send(&Frame::new(kind::SETTINGS, flag::ACK, 0, b""));
                Some(())
            }
            kind::PING if !frame.has(flag::ACK) => {
                self.send(&Frame::new(kind::PING, flag::ACK, 0, &frame.payload));
                Some(())
            }
            kind::WINDOW_UPDATE => {
                let bytes = i64::from(frame.number()?);
                match self.streams.get_mut(&frame.stream) {
                    Some(open) => open.window += bytes,
                    None if frame.stream == 0 => self.window += bytes,
                    None => {}
                }
                Some(())
            }
            kind::RST_STREAM => {
                self.streams.remove(&frame.stream);
                Some(())
            }
            kind::GOAWAY => {
                self.is_leaving = true;
                Some(())
            }
            _ => Some(()),
        }
    }

    /// What was received is consumed at once.
    fn give_back(&mut self, frame: &Frame) {
        let bytes = frame.payload.len() as u32;
        if bytes > 0 {
            self.send(&Frame::window_update(0, bytes));
            if !frame.has(flag::END_STREAM) && self.streams.contains_key(&frame.stream) {
                self.send(&Frame::window_update(frame.stream, bytes));
            }
        }
    }

    fn apply_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            if id == INITIAL_WINDOW_SIZE {
                let change = i64::from(value) - self.initial_window;
                self.initial_window += change;
                self.streams.values_mut().for_each(|open| open.window += change);
            }
        }
    }

    /// Collects the block of a request.
    fn collect(&mut self, stream: u32, flags: u8, block: Vec<u8>) -> Option<()> {
        if flags & flag::END_HEADERS == 0 {
            self.partial = Some((stream, flags, block));
            return Some(());
        }
        // Every block is decoded: it may change the table.
        let fields = self.decoder.decode(&block)?;
        let number = |wanted: &str| {
            let value = fields.iter().find(|(name, _)| name == wanted);
            value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        if !self.streams.contains_key(&stream) {
            let asked = Asked {
                stream,
                id: number(REQUEST_ID),
                size: number(ANSWER_BYTES),
                by: self.of.0,
            };
            self.accept(asked);
        }
        if flags & flag::END_STREAM != 0 {
            self.complete(stream);
        }
        Some(())
    }

    /// Takes a request, or refuses it.
    fn accept(&mut self, asked: Asked) {
        let limit = self.program.peer.streams;
        if limit.is_some_and(|most| self.streams.len() >= most as usize) {
            self.send(&Frame::reset(asked.stream, code::REFUSED_STREAM));
            return;
        }
        let misdeed = self.program.conduct.draw();
        let (program, id) = (Rc::clone(&self.program), asked.id);
        if let Some(misdeed) = misdeed {
            program.ledger.mistreat(id);
            let how = misdeed.label();
            program
                .journal
                .record(now(), &self.name, What::Misbehaved { id, how });
        }
        // A stream that is refused was not processed.
        if misdeed != Some(Misdeed::RefuseStream) {
            program.ledger.deliver(id, self.of);
            program.journal.record(now(), &self.name, What::Delivered { id });
        }
        let open = Open {
            asked,
            misdeed,
            window: self.initial_window,
            body: None,
            resets: false,
        };
        self.streams.insert(asked.stream, open);
        if misdeed == Some(Misdeed::EarlyResponse) {
            self.respond(asked, misdeed);
        }
    }

    /// A request is complete.
    fn complete(&self, stream: u32) {
        if let Some(open) = self.streams.get(&stream)
            && open.misdeed != Some(Misdeed::EarlyResponse)
        {
            let (asked, misdeed) = (open.asked, open.misdeed);
            self.respond(asked, misdeed);
        }
    }

    fn respond(&self, asked: Asked, misdeed: Option<Misdeed>) {
        let (program, replies) = (Rc::clone(&self.program), self.replies.clone());
        tokio::task::spawn_local(async move {
            // The connection may have ended.
            let _ = replies.send(asked.reply(program, misdeed).await);
        });
    }

    /// Sends the beginning of a response.
    fn begin(&mut self, reply: Reply) {
        // The responder may have reset the stream meanwhile.
        let Some(open) = self.streams.get_mut(&reply.stream) else {
            return;
        };
        open.body = reply.body;
        open.resets = reply.resets;
        if reply.body.is_none() {
            self.streams.remove(&reply.stream);
        }
        for frame in &reply.frames {
            self.send(frame);
        }
    }

    /// Sends as much of the bodies as flow control allows.
    fn send_bodies(&mut self) {
        let mut ended = Vec::new();
        for (&stream, open) in &mut self.streams {
            let Some(left) = &mut open.body else { continue };
            loop {
                let room = u64::try_from(self.window.min(open.window)).unwrap_or(0);
                let piece = (*left).min(room).min(PAYLOAD_MAX as u64);
                if piece == 0 && *left > 0 {
                    break;
                }
                *left -= piece;
                self.window -= piece as i64;
                open.window -= piece as i64;
                let ends = *left == 0;
                Frame::data(stream, ends, &vec![b'e'; piece as usize]).encode_into(&mut self.out);
                if ends {
                    if open.resets {
                        Frame::reset(stream, code::NO_ERROR).encode_into(&mut self.out);
                    }
                    ended.push(stream);
                    break;
                }
            }
        }
        for stream in ended {
            self.streams.remove(&stream);
        }
    }
}
