//! Bodies of answers: our own short texts, or what streams in, with something that ends with the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Collected;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Method, StatusCode};

/// The body of a request on its way into a tunnel.
#[derive(Debug)]
pub(crate) enum Question {
    /// What the client sends, never held whole.
    Stream(Incoming),
    /// The same, and somebody wants to know how much there was.
    Counted(Incoming, Arc<AtomicU64>),
    /// What can be sent again.
    Whole(Whole),
}

/// A body that is all there; the default is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl From<Collected<Bytes>> for Whole {
    fn from(collected: Collected<Bytes>) -> Self {
        let trailers = collected.trailers().cloned();
        let data = collected.to_bytes();
        Self { data, trailers }
    }
}

impl Question {
    /// What a client sends; `count` is told how much, if there is one.
    pub(crate) fn of(body: Incoming, count: Option<&Arc<AtomicU64>>) -> Self {
        match count {
            Some(count) => Self::Counted(body, Arc::clone(count)),
            None => Self::Stream(body),
        }
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Stream(from) => Pin::new(from).poll_frame(cx),
            Self::Counted(from, count) => {
                let frame = std::task::ready!(Pin::new(from).poll_frame(cx));
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                    count.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                Poll::Ready(frame)
            }
            Self::Whole(whole) if !whole.data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut whole.data)))))
            }
            Self::Whole(whole) => Poll::Ready(
                whole
                    .trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(from) | Self::Counted(from, _) => from.is_end_stream(),
            Self::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(from) | Self::Counted(from, _) => from.size_hint(),
            Self::Whole(whole) => SizeHint::with_exact(whole.data.len() as u64),
        }
    }
}

/// Follows a streamed body. Dropping it ends what the body keeps busy.
pub(crate) trait Follow {
    /// So many bytes more have gone.
    fn passed(&mut self, bytes: usize);
    /// The body came to its end.
    fn finished(&mut self);
    /// The body broke off.
    fn broken(&mut self, error: &hyper::Error);
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer<F, B = Incoming> {
    /// A text of our own.
    Text(Option<Bytes>),
    /// What the other side sends, never held whole.
    Stream {
        /// Where it comes from.
        from: B,
        /// What lasts as long as it does.
        follow: F,
    },
}

/// Whether a body has nothing more to give, though its end may come in a frame of its own that nobody waits for.
fn is_over(from: &impl Body) -> bool {
    from.is_end_stream() || from.size_hint().exact() == Some(0)
}

/// Whether the answer to a request has no body, whatever its headers say (RFC 9110, section 6.4.1).
pub(crate) fn is_bodiless(asked: &Method, status: StatusCode) -> bool {
    *asked == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl<F, B> Answer<F, B> {
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()))
    }
}

impl<F: Follow, B: Body> Answer<F, B> {
    /// `bodiless` if the answer has no body by its kind: to HEAD, or with a status that has none.
    pub(crate) fn stream(from: B, mut follow: F, bodiless: bool) -> Self {
        // An answer without a body is over before anyone polls it.
        if bodiless || is_over(&from) {
            follow.finished();
        }
        Self::Stream { from, follow }
    }
}

impl<F, B> Body for Answer<F, B>
where
    F: Follow + Unpin,
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(text) => {
                Poll::Ready(text.take().filter(|t| !t.is_empty()).map(|t| Ok(Frame::data(t))))
            }
            Self::Stream { from, follow } => {
                let frame = std::task::ready!(Pin::new(&mut *from).poll_frame(cx));
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                    follow.passed(data.len());
                }
                match &frame {
                    None => follow.finished(),
                    Some(Err(error)) => follow.broken(error),
                    // Whoever counts the bytes of a body may never ask for its end.
                    Some(Ok(_)) if is_over(from) => follow.finished(),
                    Some(Ok(_)) => {}
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream { from, .. } => from.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            Self::Stream { from, .. } => from.size_hint(),
        }
    }
}
