//! Bodies of answers: our own short texts, or what streams in, with something that ends with the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Collected;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::oneshot;

use super::hygiene;
use super::limits::Upload;
use crate::clock::Clock;

/// The body of a request on its way into a tunnel.
#[derive(Debug)]
pub(crate) enum Question {
    /// Nothing, or nothing yet that anybody watches.
    Stream(Incoming),
    /// What the client sends, never held whole.
    Watched(Incoming, Arc<Upload>),
    /// The same, until it is asked for the first time.
    Lent(Lent),
    /// What can be sent again.
    Whole(Whole),
}

/// A streamed body that goes back to its lender if it is dropped before it was asked for anything: an HTTP library that cannot
/// send a request drops it.
#[derive(Debug)]
pub(crate) struct Lent {
    from: Option<Incoming>,
    upload: Arc<Upload>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(back), Some(body)) = (self.back.take(), self.from.take()) {
            // The request may have been given up.
            let _ = back.send(body);
        }
    }
}

/// The claim of a lender to a body.
#[derive(Debug)]
pub(crate) struct Loan {
    back: oneshot::Receiver<Incoming>,
    upload: Arc<Upload>,
}

impl Loan {
    /// The body, if nothing of it was used.
    pub(crate) fn reclaim(mut self) -> Option<Question> {
        let body = self.back.try_recv().ok()?;
        Some(Question::Watched(body, self.upload))
    }
}

/// A body that is all there; the default is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl Default for Question {
    fn default() -> Self {
        Self::Whole(Whole::default())
    }
}

impl From<Collected<Bytes>> for Whole {
    fn from(collected: Collected<Bytes>) -> Self {
        let trailers = collected.trailers().cloned();
        let data = collected.to_bytes();
        Self { data, trailers }
    }
}

impl Question {
    /// The request of a client, and the watch on its body, if it has one; `count` gets how many bytes there were.
    pub(crate) fn of(
        request: Request<Incoming>,
        clock: Clock,
        count: Option<&Arc<AtomicU64>>,
    ) -> (Request<Self>, Option<Arc<Upload>>) {
        if request.body().is_end_stream() {
            return (request.map(Self::Stream), None);
        }
        let upload = Arc::new(Upload::new(clock, count.map(Arc::clone)));
        let watch = Arc::clone(&upload);
        (request.map(|body| Self::Watched(body, watch)), Some(upload))
    }

    /// Lends a streamed body for one attempt.
    pub(crate) fn lend(self) -> (Self, Option<Loan>) {
        let Self::Watched(from, upload) = self else {
            return (self, None);
        };
        let (sender, receiver) = oneshot::channel();
        let loan = Loan {
            back: receiver,
            upload: Arc::clone(&upload),
        };
        let lent = Lent {
            from: Some(from),
            upload,
            back: Some(sender),
        };
        (Self::Lent(lent), Some(loan))
    }
}

type Framed = Option<Result<Frame<Bytes>, hyper::Error>>;

fn poll_watched(from: &mut Incoming, upload: &Upload, cx: &mut Context<'_>) -> Poll<Framed> {
    let Poll::Ready(frame) = Pin::new(&mut *from).poll_frame(cx) else {
        upload.on_awaited();
        return Poll::Pending;
    };
    let frame = frame.and_then(|frame| frame.map(passed).transpose());
    if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
        upload.on_bytes(data.len());
    }
    // A library that counts the bytes of a body may never ask for its end.
    if frame.is_none() || is_over(from) {
        upload.on_whole();
    }
    Poll::Ready(frame)
}

/// Takes the fields out of trailers that may not stand there; none is left where all were such.
fn passed(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            hygiene::strip_trailers(&mut trailers);
            (!trailers.is_empty()).then(|| Frame::trailers(trailers))
        }
        Err(data) => Some(data),
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
            Self::Watched(from, upload) => poll_watched(from, upload, cx),
            Self::Lent(lent) => {
                lent.back = None;
                let from = lent.from.as_mut();
                from.map_or(Poll::Ready(None), |from| poll_watched(from, &lent.upload, cx))
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
            Self::Stream(from) | Self::Watched(from, _) => from.is_end_stream(),
            Self::Lent(lent) => lent.from.as_ref().is_none_or(Body::is_end_stream),
            Self::Whole(whole) => whole.data.is_empty() && whole.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(from) | Self::Watched(from, _) => from.size_hint(),
            Self::Lent(lent) => lent.from.as_ref().map(Body::size_hint).unwrap_or_default(),
            Self::Whole(whole) => SizeHint::with_exact(whole.data.len() as u64),
        }
    }
}

/// Follows a streamed body. Dropping it ends what the body keeps busy.
pub(crate) trait Follow {
    /// The receiver has taken this many more bytes, and has not asked for more yet.
    fn passed(&mut self, bytes: usize);
    /// The receiver asks for more, and none has arrived yet.
    fn awaited(&mut self) {}
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
                let Poll::Ready(frame) = Pin::new(&mut *from).poll_frame(cx) else {
                    follow.awaited();
                    return Poll::Pending;
                };
                let frame = frame.and_then(|frame| frame.map(passed).transpose());
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
