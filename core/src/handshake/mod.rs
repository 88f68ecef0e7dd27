//! The handshake of a tunnel (wire.md section 2): one HTTP/1.1 request and its answer, both roles.
//!
//! Parsers are given everything that came so far, each time more came, and answer "more", a value with how
//! many bytes it took, or a verdict. Memory is bounded by [`HEAD_BYTES_MAX`].

mod refusal;
pub mod request;
pub mod response;

pub use refusal::{IdKind, Refusal};

/// Where an initiator asks for a tunnel.
pub const DEFAULT_PATH: &str = "/reverse_connections/request";
/// The longest head, in bytes (wire.md 2.3: Envoy's limit).
pub const HEAD_BYTES_MAX: usize = 60 * 1024;
/// The most headers (wire.md 2.3: Envoy's limit).
pub const HEADERS_MAX: usize = 100;
/// The token of the upgrade mode.
pub(crate) const UPGRADE_TOKEN: &str = "reverse-tunnel";

/// How the handshake looks to what is between the two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A request answered with 200.
    #[default]
    Plain,
    /// An upgrade answered with 101, for proxies that pass upgrades only.
    Upgrade,
}

/// A value, and how many bytes it took. What follows is someone else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// How many bytes that took.
    pub consumed: usize,
}

/// The end of a head: behind the first empty line. LF alone ends a line too (RFC 9112, section 2.2).
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line_is_empty = false;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if line_is_empty => return Some(at + 1),
            b'\n' => line_is_empty = true,
            b'\r' => {}
            _ => line_is_empty = false,
        }
    }
    None
}

/// How far an empty chunked body has come.
enum EmptyBody {
    /// More bytes are needed.
    Partial,
    /// It ends after this many bytes.
    Ends(usize),
    /// It is not empty, or no chunked body.
    Not,
}

/// Reads a chunked body that must be empty: `0`, perhaps trailers, an empty line.
fn empty_chunked(bytes: &[u8]) -> EmptyBody {
    match httparse::parse_chunk_size(bytes) {
        Ok(httparse::Status::Partial) => EmptyBody::Partial,
        Ok(httparse::Status::Complete((line, 0))) => {
            let trailers = &bytes[line..];
            // No trailer: the empty line comes at once.
            let end = match trailers {
                [b'\n', ..] => Some(1),
                [b'\r', b'\n', ..] => Some(2),
                _ => head_end(trailers),
            };
            end.map_or(EmptyBody::Partial, |end| EmptyBody::Ends(line + end))
        }
        Ok(httparse::Status::Complete(_)) | Err(_) => EmptyBody::Not,
    }
}
