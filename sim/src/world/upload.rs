//! The body of a request: whole at once, or up to where the client stops sending.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// How much a client that stops sends at once.
const PIECE: u64 = 16 << 10;

/// A body of so many bytes.
pub(crate) struct Upload {
    left: u64,
    /// The bytes that are sent before the client stops.
    until: Option<u64>,
}

impl Upload {
    pub(super) const fn new(size: u64, until: Option<u64>) -> Self {
        Self { left: size, until }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = match &mut self.until {
            None => self.left,
            // Nothing wakes the body again: the rest never comes.
            Some(0) => return Poll::Pending,
            Some(until) => {
                let piece = PIECE.min(*until);
                *until -= piece;
                piece
            }
        };
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        let piece = vec![b'q'; usize::try_from(bytes).unwrap_or(0)];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
