//! HTTP/1.1 by hand: a service that breaks the rules cannot leave the bytes to a library that keeps them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest request head.
const HEAD_MAX: usize = 1 << 20;
/// How much is read or written at once.
const PIECE: usize = 64 << 10;

/// The head of a request, as far as the simulation needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body: Body,
    fields: Vec<(String, String)>,
}

/// How the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

impl Head {
    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let request = lines.next().unwrap_or_default();
        if !request.ends_with(" HTTP/1.1") {
            return Err(invalid("the request line"));
        }
        let mut head = Self {
            body: Body::Length(0),
            fields: Vec::new(),
        };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header"))?;
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            match &*name {
                "content-length" => {
                    let length = value.parse().map_err(|_| invalid("the content-length"))?;
                    head.body = Body::Length(length);
                }
                "transfer-encoding" => head.body = Body::Chunked,
                _ => head.fields.push((name, value.to_owned())),
            }
        }
        Ok(head)
    }

    /// The number in a header, if there is one.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let (_, value) = self.fields.iter().find(|(known, _)| known == name)?;
        value.parse().ok()
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The server's end of a connection.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    /// What was read and not used yet.
    ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Reads more; returns whether there was more.
    async fn more(&mut self) -> io::Result<bool> {
        self.ahead.reserve(PIECE);
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }

    /// The bytes up to an end, without it; none at the end of the connection.
    async fn until(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let from = searched;
            let found = self.ahead[from..]
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                let rest = self.ahead.split_off(from + at + end.len());
                let mut taken = std::mem::replace(&mut self.ahead, rest);
                taken.truncate(from + at);
                return Ok(Some(taken));
            }
            searched = self.ahead.len().saturating_sub(end.len() - 1);
            if self.ahead.len() > HEAD_MAX {
                return Err(invalid("the head is too long"));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// The next request; none when the peer has ended the connection.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(bytes) = self.until(b"\r\n\r\n").await? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the head"))?;
        Head::parse(text).map(Some)
    }

    /// Reads a body and drops it.
    pub(super) async fn skip(&mut self, body: Body) -> io::Result<()> {
        let Body::Chunked = body else {
            let Body::Length(length) = body else { return Ok(()) };
            return self.skip_bytes(length).await;
        };
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            self.skip_bytes(size + 2).await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let line = self.until(b"\r\n").await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        String::from_utf8(line).map_err(|_| invalid("a line"))
    }

    async fn skip_bytes(&mut self, mut left: u64) -> io::Result<()> {
        loop {
            let have = self.ahead.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.ahead.drain(..have);
            left -= have as u64;
            if left == 0 {
                return Ok(());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits until the peer closes its end, in the middle of a request; what it sends until then is kept.
    pub(super) async fn hung_up(&mut self) {
        while let Ok(true) = self.more().await {}
    }

    /// Waits until the peer has closed the connection; what it sends until then is dropped.
    pub(super) async fn until_closed(&mut self) -> io::Result<()> {
        loop {
            self.ahead.clear();
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Writes a head and `size` bytes of a body: a small body in one piece with the head.
    pub(super) async fn respond(&mut self, head: &str, size: u64) -> io::Result<()> {
        let mut bytes = head.as_bytes().to_vec();
        let mut left = size;
        loop {
            let room = PIECE.saturating_sub(bytes.len());
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(room);
            bytes.resize(bytes.len() + piece, b'e');
            left -= piece as u64;
            self.stream.write_all(&bytes).await?;
            bytes.clear();
            if left == 0 {
                return Ok(());
            }
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(bytes: &[u8]) -> Connection<io::Cursor<Vec<u8>>> {
        Connection::new(io::Cursor::new(bytes.to_vec()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn requests_follow_each_other() {
        let mut connection = connection(
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nx-sim-request: 7\r\n\r\nabc\
              PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
              GET / HTTP/1.1\r\n\r\n",
        );
        block_on(async {
            let first = connection.head().await.unwrap().unwrap();
            assert_eq!(
                (first.body, first.number("x-sim-request")),
                (Body::Length(3), Some(7))
            );
            connection.skip(first.body).await.unwrap();
            let second = connection.head().await.unwrap().unwrap();
            assert_eq!(second.body, Body::Chunked);
            connection.skip(second.body).await.unwrap();
            let third = connection.head().await.unwrap().unwrap();
            assert_eq!(third.body, Body::Length(0));
            assert_eq!(connection.head().await.unwrap(), None);
        });
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let mut connection = connection(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc");
        block_on(async {
            let head = connection.head().await.unwrap().unwrap();
            assert!(connection.skip(head.body).await.is_err());
        });
    }
}
