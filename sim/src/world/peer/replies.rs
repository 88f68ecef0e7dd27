//! What a peer responds: well, or against the rules.

use std::rc::Rc;

use super::Program;
use super::frame::{Frame, code};
use crate::scenario::Misdeed;
use crate::world::{ANSWERED_BY, REQUEST_ID};

/// The value of a header that makes a head larger than a peer has to accept.
const LARGE: usize = 70_000;

/// What goes out on one stream: frames at once, and then so many bytes of a body as flow control allows.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) stream: u32,
    pub(super) frames: Vec<Frame>,
    /// The size of the body that follows, whose last frame ends the stream; none if the frames do.
    pub(super) body: Option<u64>,
    /// The stream is reset behind its body: the rest of the request is not wanted.
    pub(super) resets: bool,
}

/// A request, as far as its response depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) stream: u32,
    /// Its number.
    pub(super) id: u64,
    /// The size of the body that it asks for.
    pub(super) size: u64,
    /// The process that responds.
    pub(super) by: usize,
}

impl Asked {
    /// Waits as long as a response takes; returns it.
    pub(super) async fn reply(self, program: Rc<Program>, misdeed: Option<Misdeed>) -> Reply {
        if !program.peer.takes.is_zero() {
            tokio::time::sleep(program.peer.takes).await;
        }
        match misdeed {
            Some(misdeed) => self.spoiled(&program, misdeed).await,
            None => self.whole(self.size, &[]),
        }
    }

    fn whole(self, length: u64, more: &[(&str, &str)]) -> Reply {
        let (by, id, length) = (self.by.to_string(), self.id.to_string(), length.to_string());
        let mut fields = vec![
            (":status", "200"),
            (ANSWERED_BY, &by),
            (REQUEST_ID, &id),
            ("content-length", &length),
        ];
        fields.extend(more);
        Reply {
            stream: self.stream,
            frames: Frame::headers(self.stream, false, &fields),
            body: Some(self.size),
            resets: false,
        }
    }

    fn only(self, frames: Vec<Frame>) -> Reply {
        Reply {
            stream: self.stream,
            frames,
            body: None,
            resets: false,
        }
    }

    async fn spoiled(self, program: &Program, misdeed: Misdeed) -> Reply {
        let stream = self.stream;
        match misdeed {
            Misdeed::RefuseStream => self.only(vec![Frame::reset(stream, code::REFUSED_STREAM)]),
            Misdeed::ResetStream => self.only(vec![Frame::reset(stream, code::INTERNAL_ERROR)]),
            Misdeed::NoStatus => self.only(Frame::headers(stream, true, &[("x-no", "status")])),
            Misdeed::Unsolicited101 => self.only(Frame::headers(stream, true, &[(":status", "101")])),
            Misdeed::ConnectionHeader => self.whole(self.size, &[("connection", "close")]),
            Misdeed::LongLength => self.whole(self.size + 1000, &[]),
            Misdeed::ShortLength => self.whole(self.size.saturating_sub(1), &[]),
            Misdeed::OversizedHead => self.whole(self.size, &[("x-large", &"v".repeat(LARGE))]),
            Misdeed::EarlyResponse => Reply {
                resets: true,
                ..self.whole(self.size, &[])
            },
            Misdeed::Stall => {
                if program.conduct.stall().await {
                    self.whole(self.size, &[])
                } else {
                    self.only(vec![Frame::reset(stream, code::INTERNAL_ERROR)])
                }
            }
            // Those of services alone.
            Misdeed::BrokenChunk
            | Misdeed::BrokenChunkLate
            | Misdeed::Garbage
            | Misdeed::ForbiddenTrailer => self.only(vec![Frame::reset(stream, code::INTERNAL_ERROR)]),
        }
    }
}
