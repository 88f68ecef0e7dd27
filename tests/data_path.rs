//! Bodies, trailers and both HTTP versions through a tunnel, streamed and never held whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit::{Options, Pair};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type AnyBody = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), future)
            .await
            .expect("in time")
    })
}

fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn nothing() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Frames that come through a channel.
struct Frames(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// A body that is written from outside, frame by frame.
fn channel() -> (mpsc::UnboundedSender<Frame<Bytes>>, AnyBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Frames(receiver).boxed())
}

/// Echoes bodies with their trailers; answers `/down/N` with N bytes, and `/grpc` as a gRPC service does.
async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut response = match path.rsplit_once('/') {
        Some(("/routed/down", n)) => Response::new(whole(vec![b'x'; n.parse().unwrap()])),
        Some((_, "grpc")) => {
            assert_eq!(request.headers()["te"], "trailers");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = request.into_body().boxed();
            let frames = body.with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut response = Response::new(frames.boxed());
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
        Some((_, "empty")) => {
            let mut response = Response::new(nothing());
            *response.status_mut() = hyper::StatusCode::NO_CONTENT;
            response
        }
        _ => {
            let body = request.into_body();
            let mut response = Response::new(body.boxed());
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-sum"));
            response
        }
    };
    response
        .headers_mut()
        .insert("x-served", HeaderValue::from_static("yes"));
    Ok(response)
}

/// Starts the service on a thread of its own; says its port.
fn service() -> u16 {
    let (tell, port) = std::sync::mpsc::channel();
    kit::beside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::task::spawn_local(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
        });
    });
    port.recv().unwrap()
}

fn pair(protocol: &str) -> Pair {
    let port = service();
    Pair::with(Options {
        service_port: Some(port),
        protocol,
        ..Options::default()
    })
}

fn request(method: Method, path: &str, body: AnyBody) -> Request<AnyBody> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("http://app.example{path}"));
    builder
        .header("x-node-id", "edge")
        .header("host", "app.example")
        .body(body)
        .unwrap()
}

async fn http1(port: u16) -> hyper::client::conn::http1::SendRequest<AnyBody> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    sender
}

async fn http2(port: u16) -> hyper::client::conn::http2::SendRequest<AnyBody> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    sender
}

fn origin_form(mut request: Request<AnyBody>) -> Request<AnyBody> {
    *request.uri_mut() = request.uri().path().parse().unwrap();
    request
}

#[test]
fn a_mebibyte_goes_each_way_over_both_versions() {
    let pair = pair("h1");
    let body: Vec<u8> = (0..1 << 20)
        .map(|i: u32| i.to_le_bytes()[0] ^ i.to_le_bytes()[1])
        .collect();
    block_on(async {
        let post = || request(Method::POST, "/routed/echo", whole(body.clone()));
        let answer = http1(pair.egress)
            .await
            .send_request(origin_form(post()))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);
        let answer = http2(pair.egress).await.send_request(post()).await.unwrap();
        assert!(answer.into_body().collect().await.unwrap().to_bytes() == body);
    });
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let pair = pair("h1");
    block_on(async {
        let (send, body) = channel();
        send.send(Frame::data(Bytes::from_static(b"first"))).unwrap();
        let mut client = http2(pair.egress).await;
        let answer = client
            .send_request(request(Method::POST, "/routed/echo", body))
            .await
            .unwrap();
        let mut echoed = answer.into_body();
        for text in ["first", "second", "third"] {
            // The rest of the request is sent only after its beginning has come back.
            let frame = echoed.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), text);
            let next = if text == "first" { "second" } else { "third" };
            let _ = send.send(Frame::data(Bytes::from_static(next.as_bytes())));
        }
    });
}

#[test]
fn a_body_larger_than_any_buffer_passes_with_little_memory() {
    let pair = pair("h1");
    let size: u64 = 200 << 20;
    block_on(async {
        let mut client = http1(pair.egress).await;
        let get = origin_form(request(Method::GET, &format!("/routed/down/{size}"), nothing()));
        let mut body = client.send_request(get).await.unwrap().into_body();
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            got += frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
        }
        assert_eq!(got, size);
    });
    for eddy in [&pair.responder, &pair.initiator] {
        assert!(
            eddy.peak_memory_kib() < 60 << 10,
            "{} KiB",
            eddy.peak_memory_kib()
        );
    }
}

#[test]
fn a_reader_that_stalls_does_not_stall_the_others() {
    let pair = pair("h1");
    block_on(async {
        let down = || origin_form(request(Method::GET, "/routed/down/50000000", nothing()));
        let mut stalled = Vec::new();
        for _ in 0..4 {
            let mut client = http1(pair.egress).await;
            stalled.push((client.send_request(down()).await.unwrap(), client));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..50 {
            let mut client = http1(pair.egress).await;
            let get = origin_form(request(Method::GET, "/routed/down/5000", nothing()));
            let answer = tokio::time::timeout(Duration::from_secs(1), client.send_request(get)).await;
            let body = answer
                .expect("at once")
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap();
            assert_eq!(body.to_bytes().len(), 5000);
        }
    });
}

#[test]
fn trailers_pass_over_http1_and_http2() {
    let pair = pair("h1");
    block_on(async {
        let (send, body) = channel();
        send.send(Frame::data(Bytes::from_static(b"body"))).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        send.send(Frame::trailers(trailers)).unwrap();
        drop(send);
        let mut post = request(Method::POST, "/routed/echo", body);
        post.headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        post.headers_mut()
            .insert("trailer", HeaderValue::from_static("x-sum"));
        let answer = http2(pair.egress).await.send_request(post).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-sum"], "42");
        assert_eq!(answer.to_bytes(), "body");
    });
    let raw = "POST /routed/echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nte: trailers\r\ntrailer: x-sum\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n";
    let answer = String::from_utf8(kit::exchange(pair.egress, raw.as_bytes())).unwrap();
    assert!(answer.contains("\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n"), "{answer}");
}

#[test]
fn grpc_works_where_the_service_speaks_http2() {
    let pair = pair("h2");
    block_on(async {
        let mut client = http2(pair.egress).await;
        for _ in 0..3 {
            let mut call = request(Method::POST, "/routed/grpc", whole(&b"\0\0\0\0\x02hi"[..]));
            call.headers_mut()
                .insert("te", HeaderValue::from_static("trailers"));
            call.headers_mut()
                .insert("content-type", HeaderValue::from_static("application/grpc"));
            let answer = client.send_request(call).await.unwrap();
            assert_eq!(answer.headers()["content-type"], "application/grpc");
            let answer = answer.into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(answer.to_bytes(), &b"\0\0\0\0\x02hi"[..]);
        }
    });
}

#[test]
fn answers_without_a_body_have_none() {
    let pair = pair("h1");
    block_on(async {
        let mut client = http1(pair.egress).await;
        let head = origin_form(request(Method::HEAD, "/routed/down/5000", nothing()));
        let answer = client.send_request(head).await.unwrap();
        assert_eq!(answer.headers()["content-length"], "5000");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        let empty = origin_form(request(Method::GET, "/routed/empty", nothing()));
        let answer = client.send_request(empty).await.unwrap();
        assert_eq!(answer.status(), 204);
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
fn two_hundred_in_a_row_and_sixty_four_at_once_are_right() {
    let pair = pair("h1");
    block_on(async {
        let mut client = http1(pair.egress).await;
        for n in 0..200 {
            let get = origin_form(request(Method::GET, &format!("/routed/down/{n}"), nothing()));
            let body = client
                .send_request(get)
                .await
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap();
            assert_eq!(body.to_bytes().len(), n);
        }
        let client = http2(pair.egress).await;
        let calls: Vec<_> = (0..64)
            .map(|n| {
                let mut client = client.clone();
                tokio::task::spawn_local(async move {
                    let post = request(Method::POST, "/routed/echo", whole(vec![n; 10_000]));
                    let answer = client.send_request(post).await.unwrap();
                    answer.into_body().collect().await.unwrap().to_bytes() == vec![n; 10_000]
                })
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap());
        }
    });
}
