//! Responses that break the rules, as raw bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::http1::Connection;
use crate::scenario::Misdeed;
use crate::world::conduct::Conduct;

/// The size of an oversized head: more than a peer has to accept.
const HEAD_BYTES: usize = 70_000;
/// The size of one of its headers.
const HEADER_BYTES: usize = 7_000;

/// What becomes of the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request may come.
    Next,
    /// The service closes the connection.
    Close,
}

/// One response that is to be spoiled.
pub(super) struct Response<'a> {
    /// The header lines that a good response has, each with its end, but for those of the body.
    pub(super) fields: &'a str,
    /// The size of the body.
    pub(super) size: u64,
    pub(super) conduct: &'a Conduct,
}

impl Response<'_> {
    /// Writes the response with a fault.
    pub(super) async fn spoil<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        how: Misdeed,
        connection: &mut Connection<S>,
    ) -> io::Result<Then> {
        let Self { fields, size, .. } = self;
        let ok = format!("HTTP/1.1 200 OK\r\n{fields}");
        let (first, second) = (size / 2, size - size / 2);
        match how {
            Misdeed::OversizedHead => {
                let header = format!("x-large: {}\r\n", "v".repeat(HEADER_BYTES));
                let many = header.repeat(HEAD_BYTES / HEADER_BYTES);
                let head = format!("{ok}{many}content-length: {size}\r\n\r\n");
                connection.respond(&head, *size).await?;
                Ok(Then::Next)
            }
            Misdeed::Unsolicited101 => {
                let head =
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                connection.write(head.as_bytes()).await?;
                connection.until_closed().await?;
                Ok(Then::Close)
            }
            Misdeed::BrokenChunk => {
                let head = format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\n");
                connection.write(head.as_bytes()).await?;
                connection.until_closed().await?;
                Ok(Then::Close)
            }
            Misdeed::BrokenChunkLate => {
                let head = format!("{ok}transfer-encoding: chunked\r\n\r\n{:x}\r\n", first.max(1));
                connection.respond(&head, first.max(1)).await?;
                connection.stream.flush().await?;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                connection.write(b"\r\n-5\r\n").await?;
                connection.until_closed().await?;
                Ok(Then::Close)
            }
            Misdeed::LongLength => {
                let head = format!("{ok}content-length: {}\r\n\r\n", size + 1000);
                connection.respond(&head, *size).await?;
                Ok(Then::Close)
            }
            Misdeed::ShortLength => {
                let head = format!("{ok}content-length: {size}\r\n\r\n");
                // If the second is taken for the response to another request, the client sees the wrong number. Both
                // are written at once: if the second came after the next request, nothing would tell it from an
                // early response to that (RFC 9112, section 9.3).
                let body = "e".repeat(usize::try_from(*size).unwrap_or_default());
                connection
                    .write(format!("{head}{body}{head}{body}").as_bytes())
                    .await?;
                Ok(Then::Next)
            }
            Misdeed::EarlyResponse => {
                let head = format!("{ok}connection: close\r\ncontent-length: {size}\r\n\r\n");
                connection.respond(&head, *size).await?;
                Ok(Then::Close)
            }
            Misdeed::Stall => {
                let head = format!("{ok}content-length: {size}\r\n\r\n");
                connection.respond(&head, first).await?;
                if !self.conduct.stall().await {
                    return Ok(Then::Close);
                }
                connection.respond("", second).await?;
                Ok(Then::Next)
            }
            Misdeed::Garbage => {
                connection
                    .write(b"\x16\x03\x01 this is not a response\r\n\r\n")
                    .await?;
                connection.until_closed().await?;
                Ok(Then::Close)
            }
            Misdeed::ForbiddenTrailer => {
                let head =
                    format!("{ok}transfer-encoding: chunked\r\ntrailer: content-length\r\n\r\n{size:x}\r\n");
                connection.respond(&head, *size).await?;
                let end = if *size > 0 { "\r\n0\r\n" } else { "" };
                let trailers = format!("{end}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
                connection.write(trailers.as_bytes()).await?;
                Ok(Then::Next)
            }
            // Those of peers.
            Misdeed::RefuseStream | Misdeed::ResetStream | Misdeed::NoStatus | Misdeed::ConnectionHeader => {
                Ok(Then::Close)
            }
        }
    }
}
