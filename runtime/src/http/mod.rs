//! HTTP as both roles speak it: limits, the executor, bodies, headers that end at each hop, counters.

pub(crate) mod begun;
pub(crate) mod body;
pub(crate) mod counters;
pub(crate) mod heads;
pub(crate) mod hygiene;
pub(crate) mod limits;
pub(crate) mod liveness;
pub(crate) mod query;

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use eddy_core::close::CloseReason;
use hyper::rt::Executor;
use hyper_util::rt::TokioTimer;

use crate::config::{Http2Config, StreamsConfig};

/// What one stream of a tunnel may have in flight: 96 KiB fill 1.9 MB/s at 50 ms. As much is kept in memory for a
/// reader that stalls, and half as much again, as the frames of streams that go on share buffers with it (decision 013).
const STREAM_WINDOW: u32 = 96 << 10;
/// What a tunnel may have in flight: a stream's window for each of the streams that it may carry by default, so that
/// readers that stall never take the window of those that read (field-notes.md 3c).
const CONNECTION_WINDOW: u32 = 128 << 20;
const _: () = assert!(CONNECTION_WINDOW >= STREAM_WINDOW * CLIENT_STREAMS_MAX);
/// What an HTTP/1 connection to a service reads ahead, and holds back, at most: it must have room for a whole head. A longer
/// one is an error of the service, below the limit of [`heads`]: room for that limit would cost 32 KiB of each stalled stream.
pub(crate) const BUFFER_BYTES_MAX: usize = 48 << 10;
/// The same of an HTTP/1 client: more than a head may have, so that [`heads`] refuses it and counts that. What does not fit
/// here is refused with 431 by the library.
const CLIENT_BUFFER_BYTES_MAX: usize = 52 << 10;
/// What is kept of one body on its way out of HTTP/2 for a receiver that stalls.
pub(crate) const SEND_BYTES_MAX: usize = 32 << 10;
/// What one request of an HTTP/2 client may have in flight, and all of them together: a client cannot make the egress
/// keep more than this for services that stall.
const CLIENT_STREAM_WINDOW: u32 = 128 << 10;
const CLIENT_CONNECTION_WINDOW: u32 = 16 << 20;
/// What one response of an HTTP/2 service may have in flight, and all of one connection together: readers that stall must
/// not take the window of those that read.
pub(crate) const SERVICE_STREAM_WINDOW: u32 = STREAM_WINDOW;
pub(crate) const SERVICE_CONNECTION_WINDOW: u32 = CONNECTION_WINDOW;
/// Requests at once on one connection of a client; also the default of a tunnel.
const CLIENT_STREAMS_MAX: u32 = 1024;
/// An HTTP/2 client that rests is asked this often whether it is there, and has as long to answer.
const CLIENT_PING: Duration = Duration::from_secs(20);
/// The default (RFC 9113, section 4.2). A frame that waits for its reader keeps the buffer that it was read into: with frames of
/// 64 KiB, 900 stalled readers cost the responder 296 MiB, with these 104.
const FRAME_BYTES_MAX: u32 = 16 << 10;
/// How many resets of one peer are remembered before its connection is ended. A tunnel carries the resets of
/// all clients, so the limit of a single client's connection (20) would let one of them end the tunnel.
const RESETS_MAX: usize = 1024;
/// The longest header list that is taken from a tunnel, in bytes: Envoy's own limit is 60 KiB.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// The longest header list of an HTTP/2 client, as HTTP/2 counts: it is refused with 431 by the library.
const CLIENT_HEADER_LIST_BYTES_MAX: u32 = 48 << 10;
/// The longest response head of a service that speaks HTTP/2, as HTTP/2 counts: what a tunnel to an Envoy takes.
pub(crate) const SERVICE_HEADER_LIST_BYTES_MAX: u32 = 60 << 10;
/// How long a client of the egress may take for the head of its request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs what hyper spawns on the worker that called it, in a stable order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Why a connection ended, by the error that its HTTP library saw. A peer that ended the stream without a word
/// shows as a broken pipe or an unexpected end there.
pub(crate) fn ended_by(error: &std::io::Error) -> CloseReason {
    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) {
        CloseReason::PeerClosed
    } else {
        CloseReason::PeerReset
    }
}

/// The responder's end of a tunnel: the HTTP/2 client. Its PINGs are ours ([`liveness`]).
pub(crate) fn tunnel_client(config: &Http2Config) -> hyper::client::conn::http2::Builder<LocalExec> {
    let mut builder = hyper::client::conn::http2::Builder::new(LocalExec);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .initial_max_send_streams(usize::try_from(config.max_streams).unwrap_or(usize::MAX));
    builder
}

/// A server of both HTTP versions: the initiator's end of a tunnel (`tunnel`), or the egress.
pub(crate) fn server(tunnel: Option<&StreamsConfig>) -> hyper_util::server::conn::auto::Builder<LocalExec> {
    let mut builder = hyper_util::server::conn::auto::Builder::new(LocalExec);
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(CLIENT_BUFFER_BYTES_MAX)
        .half_close(false);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(tunnel.map_or(CLIENT_HEADER_LIST_BYTES_MAX, |_| HEADER_LIST_BYTES_MAX))
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_concurrent_streams(tunnel.map_or(CLIENT_STREAMS_MAX, |t| t.max_streams));
    if tunnel.is_some() {
        http2
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(None);
    } else {
        http2
            .initial_stream_window_size(CLIENT_STREAM_WINDOW)
            .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
            .keep_alive_interval(CLIENT_PING)
            .keep_alive_timeout(CLIENT_PING);
    }
    builder
}
