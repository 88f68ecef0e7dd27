//! The body of a response whose first frame has been looked at.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Passes a body on, beginning with the frame that had arrived with the head.
#[derive(Debug)]
pub(crate) struct Begun<B = Incoming> {
    first: Option<Frame<Bytes>>,
    rest: B,
}

impl<B: Body<Data = Bytes> + Unpin> Begun<B> {
    /// Polls the body once, without waiting. A body that is broken from its beginning shows that here, while its head can
    /// still be withheld.
    ///
    /// # Errors
    ///
    /// Those of the body.
    pub(crate) async fn begin(mut rest: B) -> Result<Self, B::Error> {
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut rest).poll_frame(cx))).await;
        let first = match polled {
            Poll::Ready(frame) => frame.transpose()?,
            Poll::Pending => None,
        };
        Ok(Self { first, rest })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Begun<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        match self.first.as_ref().map(Frame::data_ref) {
            None => hint,
            Some(Some(data)) => {
                let held = data.len() as u64;
                // The upper bound first: the lower one must never exceed it.
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(hint.lower().saturating_add(held));
                hint
            }
            // Trailers have no size, but they are not nothing.
            Some(None) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;
    use hyper::HeaderMap;

    use super::*;

    /// A body that gives one frame for each poll; `None` is a poll that has to wait.
    struct Script(VecDeque<Option<Result<Frame<Bytes>, &'static str>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.get_mut().0.pop_front() {
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Some(frame)) => Poll::Ready(Some(frame)),
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let frames = self.0.iter().flatten().flatten().filter_map(Frame::data_ref);
            SizeHint::with_exact(frames.map(|data| data.len() as u64).sum())
        }
    }

    fn data(text: &'static str) -> Option<Result<Frame<Bytes>, &'static str>> {
        Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
    }

    fn script<const N: usize>(frames: [Option<Result<Frame<Bytes>, &'static str>>; N]) -> Script {
        Script(frames.into_iter().collect())
    }

    #[tokio::test]
    async fn a_body_is_passed_on_whole_whenever_it_comes() {
        for late in [false, true] {
            let mut frames: VecDeque<_> = [data("ab"), None, data("c")].into_iter().collect();
            if late {
                frames.push_front(None);
            }
            let begun = Begun::begin(Script(frames)).await.unwrap();
            assert_eq!(begun.size_hint().exact(), Some(3));
            assert!(!begun.is_end_stream());
            assert_eq!(begun.collect().await.unwrap().to_bytes(), "abc");
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_over_at_once() {
        let begun = Begun::begin(script([])).await.unwrap();
        assert!(begun.is_end_stream());
        assert_eq!(begun.size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn trailers_are_kept() {
        let begun = Begun::begin(script([Some(Ok(Frame::trailers(HeaderMap::new())))]))
            .await
            .unwrap();
        assert!(!begun.is_end_stream());
        assert_eq!(begun.size_hint().exact(), None);
        assert!(begun.collect().await.unwrap().trailers().is_some());
    }

    #[tokio::test]
    async fn an_error_at_the_beginning_shows_at_once_and_a_later_one_later() {
        assert_eq!(
            Begun::begin(script([Some(Err("broken"))])).await.err(),
            Some("broken")
        );
        let begun = Begun::begin(script([data("ab"), Some(Err("broken"))]))
            .await
            .unwrap();
        assert_eq!(begun.collect().await.err(), Some("broken"));
    }
}
