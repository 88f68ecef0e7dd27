//! What requests and answers share: the limit of a head, header values, and the body that must be empty.

use super::{HEAD_BYTES_MAX, HEADERS_MAX};

/// As much of `bytes` as a head may fill, and one byte more, by which it is seen to be too long.
///
/// Parsers look no further, so that an error far behind the limit cannot hide that the limit was passed.
pub(super) fn window(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HEAD_BYTES_MAX + 1)]
}

/// The values of all headers of that name, without blanks around them.
pub(super) fn values<'h>(
    headers: &'h [httparse::Header<'h>],
    name: &'h str,
) -> impl Iterator<Item = &'h [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

/// The value of the first header of that name.
pub(super) fn value<'h>(headers: &'h [httparse::Header<'h>], name: &'h str) -> Option<&'h [u8]> {
    values(headers, name).next()
}

/// Whether the body comes in chunks, and in no other encoding.
pub(super) fn is_chunked(headers: &[httparse::Header<'_>]) -> bool {
    let mut codings = values(headers, "transfer-encoding");
    codings
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// How far a body that must be empty has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// More bytes are needed to tell.
    Partial,
    /// It is empty and ends after this many bytes.
    Ends(usize),
    /// It is not empty.
    Payload,
    /// It is no chunked body, though the head says so.
    Malformed,
    /// Its trailers break the limits of a head.
    TooLarge,
}

/// Reads the body that follows a head with these headers. One that is announced is refused unseen.
pub(super) fn empty_body(headers: &[httparse::Header<'_>], rest: &[u8]) -> Body {
    if values(headers, "content-length").any(|length| length != b"0") {
        Body::Payload
    } else if is_chunked(headers) {
        empty_chunked(window(rest))
    } else if value(headers, "transfer-encoding").is_some() {
        Body::Payload
    } else {
        Body::Ends(0)
    }
}

/// `0`, perhaps an extension, perhaps trailers, an empty line.
fn empty_chunked(bytes: &[u8]) -> Body {
    let partial = if bytes.len() > HEAD_BYTES_MAX {
        Body::TooLarge
    } else {
        Body::Partial
    };
    let zeros = bytes.iter().take_while(|byte| **byte == b'0').count();
    match bytes.get(zeros) {
        None => return partial,
        Some(b';' | b' ' | b'\t' | b'\r' | b'\n') if zeros > 0 => {}
        Some(byte) if byte.is_ascii_hexdigit() => return Body::Payload,
        Some(_) => return Body::Malformed,
    }
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else {
        return partial;
    };
    let trailers_at = line + 1;
    let mut trailers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(&bytes[trailers_at..], &mut trailers) {
        Ok(httparse::Status::Complete((length, _))) if trailers_at + length <= HEAD_BYTES_MAX => {
            Body::Ends(trailers_at + length)
        }
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => Body::TooLarge,
        Ok(httparse::Status::Partial) => partial,
        Err(_) => Body::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_chunked_body_ends_with_an_empty_line() {
        for body in [
            "0\r\n\r\n",
            "000\r\n\r\n",
            "0;x=y\r\n\r\n",
            "0\n\n",
            "0\r\na: b\r\nc: d\r\n\r\n",
        ] {
            assert_eq!(empty_chunked(body.as_bytes()), Body::Ends(body.len()), "{body:?}");
            let more = [body, "0\r\n\r\n"].concat();
            assert_eq!(empty_chunked(more.as_bytes()), Body::Ends(body.len()), "{more:?}");
            for cut in 0..body.len() {
                assert_eq!(
                    empty_chunked(&body.as_bytes()[..cut]),
                    Body::Partial,
                    "{body:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_payload_shows_with_its_first_digit() {
        for body in ["5", "05", "a", "F\r\n"] {
            assert_eq!(empty_chunked(body.as_bytes()), Body::Payload, "{body:?}");
        }
        for body in ["x", "\r\n", ";", "0x0", "-1", "0\r\n: b\r\n"] {
            assert_eq!(empty_chunked(body.as_bytes()), Body::Malformed, "{body:?}");
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let body = |length: usize| format!("0\r\na: {}\r\n\r\n", "b".repeat(length - 10)).into_bytes();
        for length in [HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX] {
            assert_eq!(empty_chunked(window(&body(length))), Body::Ends(length));
        }
        assert_eq!(empty_chunked(window(&body(HEAD_BYTES_MAX + 1))), Body::TooLarge);
        assert_eq!(empty_chunked(window(&[b'0'; HEAD_BYTES_MAX])), Body::Partial);
        assert_eq!(empty_chunked(window(&[b'0'; HEAD_BYTES_MAX + 1])), Body::TooLarge);
    }

    #[test]
    fn every_announcement_of_a_body_counts() {
        let body = |lines: &str| {
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let lines = format!("{lines}\r\n\r\n");
            let parsed = httparse::parse_headers(lines.as_bytes(), &mut headers)
                .unwrap()
                .unwrap()
                .1;
            empty_body(parsed, b"")
        };
        assert_eq!(body("a: b"), Body::Ends(0));
        assert_eq!(body("Content-Length: 0"), Body::Ends(0));
        assert_eq!(body("content-length: 0\r\ncontent-length: 0"), Body::Ends(0));
        assert_eq!(body("content-length: 0\r\ncontent-length: 5"), Body::Payload);
        assert_eq!(body("content-length: x"), Body::Payload);
        assert_eq!(body("transfer-encoding: Chunked"), Body::Partial);
        assert_eq!(body("transfer-encoding: gzip, chunked"), Body::Payload);
        assert_eq!(
            body("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            Body::Payload
        );
    }
}
