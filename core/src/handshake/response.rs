//! The answer as an initiator reads it (wire.md 2.5).

use std::borrow::Cow;
use std::time::Duration;

use super::{EmptyBody, HEAD_BYTES_MAX, HEADERS_MAX, Mode, Parsed, empty_chunked, head_end};

/// How much of a refusal's text is kept for the log, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// Why there is no tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The responder said no.
    Status {
        /// With this status.
        code: u16,
        /// And when to come back (429 with `retry-after` in seconds, above 0).
        retry_after: Option<Duration>,
        /// What it says, as far as it is at hand.
        detail: String,
    },
    /// What came is no HTTP answer.
    Malformed,
    /// It said yes and sent a body, which no tunnel survives.
    Body,
    /// The head of the answer has no end.
    HeadTooLarge,
}

impl Rejection {
    /// The reason in one word; a status is spelt as Envoy does.
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Status { code, .. } => format!("http.{code}").into(),
            Self::Malformed => "malformed".into(),
            Self::Body => "body".into(),
            Self::HeadTooLarge => "head_too_large".into(),
        }
    }
}

/// Reads the answer from all that has come so far; `None` needs more. What follows `consumed` is the
/// tunnel's first bytes.
///
/// # Errors
///
/// [`Rejection`] says why this connection is no tunnel.
pub fn parse(mode: Mode, bytes: &[u8]) -> Result<Option<Parsed<()>>, Rejection> {
    let mut from = 0;
    loop {
        let rest = &bytes[from..];
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let Some(end) = head_end(rest) else {
            if rest.len() > HEAD_BYTES_MAX {
                return Err(Rejection::HeadTooLarge);
            }
            // Refuse early what cannot become an answer.
            return answer.parse(rest).map(|_| None).map_err(|_| Rejection::Malformed);
        };
        let Ok(httparse::Status::Complete(_)) = answer.parse(&rest[..end]) else {
            return Err(Rejection::Malformed);
        };
        let code = answer.code.ok_or(Rejection::Malformed)?;
        let wanted = match mode {
            Mode::Plain => 200,
            Mode::Upgrade => 101,
        };
        if code == wanted {
            let body = if code == 101 { Some(0) } else { empty_body(answer.headers, &rest[end..])? };
            return Ok(body.map(|body| Parsed { value: (), consumed: from + end + body }));
        }
        // An interim answer comes before the one that counts (RFC 9110, section 15.2).
        if (100..200).contains(&code) && code != 101 {
            from += end;
            continue;
        }
        let retry_after = (code == 429).then(|| retry_after(answer.headers)).flatten();
        return Err(Rejection::Status { code, retry_after, detail: detail(answer.headers, &rest[end..]) });
    }
}

fn value<'h>(headers: &[httparse::Header<'h>], name: &str) -> Option<&'h [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value.trim_ascii())
}

fn is_chunked(headers: &[httparse::Header<'_>]) -> bool {
    value(headers, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case(b"chunked"))
}

fn empty_body(headers: &[httparse::Header<'_>], rest: &[u8]) -> Result<Option<usize>, Rejection> {
    if is_chunked(headers) {
        return match empty_chunked(rest) {
            EmptyBody::Ends(end) => Ok(Some(end)),
            EmptyBody::Partial if rest.len() > HEAD_BYTES_MAX => Err(Rejection::HeadTooLarge),
            EmptyBody::Partial => Ok(None),
            EmptyBody::Not => Err(Rejection::Body),
        };
    }
    match value(headers, "content-length") {
        None | Some(b"0") => Ok(Some(0)),
        Some(_) => Err(Rejection::Body),
    }
}

fn retry_after(headers: &[httparse::Header<'_>]) -> Option<Duration> {
    let seconds = std::str::from_utf8(value(headers, "retry-after")?).ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|after| !after.is_zero())
}

/// The text of a refusal, as far as it came with its head; one line, printable.
fn detail(headers: &[httparse::Header<'_>], rest: &[u8]) -> String {
    let text = if is_chunked(headers) {
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((line, length))) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let chunk = &rest[line..];
                &chunk[..chunk.len().min(length)]
            }
            Ok(httparse::Status::Partial) | Err(_) => &[],
        }
    } else {
        rest
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(DETAIL_BYTES_MAX)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    fn plain(bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        parse(Mode::Plain, bytes).map(|parsed| parsed.map(|p| p.consumed))
    }

    fn status(code: u16) -> Rejection {
        Rejection::Status { code, retry_after: None, detail: String::new() }
    }

    #[test]
    fn yes_is_200_and_what_follows_is_the_tunnel_s() {
        assert_eq!(plain(YES), Ok(Some(38)));
        assert_eq!(plain(&[YES, b"RPINGPRI * HTTP/2.0"].concat()), Ok(Some(38)));
        for cut in 0..YES.len() {
            assert_eq!(plain(&YES[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn every_status_but_the_one_asked_for_is_a_no() {
        for code in [201, 204, 301, 403, 404, 500, 101] {
            assert_eq!(plain(format!("HTTP/1.1 {code} X\r\n\r\n").as_bytes()), Err(status(code)), "{code}");
        }
        let upgrade = |bytes: &[u8]| parse(Mode::Upgrade, bytes).map(|parsed| parsed.map(|p| p.consumed));
        assert_eq!(upgrade(YES), Err(status(200)));
        assert_eq!(upgrade(b"HTTP/1.1 101 Switching Protocols\r\n\r\nRPING"), Ok(Some(36)));
    }

    #[test]
    fn an_interim_answer_is_skipped() {
        let both = [b"HTTP/1.1 100 Continue\r\n\r\n", YES].concat();
        assert_eq!(plain(&both), Ok(Some(both.len())));
        for cut in 0..both.len() {
            assert_eq!(plain(&both[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_envoy_tolerates_is_tolerated() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\nx: y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n",
            b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        ] {
            assert_eq!(plain(answer), Ok(Some(answer.len())), "{}", String::from_utf8_lossy(answer));
            for cut in 0..answer.len() {
                let half = plain(&answer[..cut]);
                assert_eq!(half, Ok(None), "{} cut at {cut}", String::from_utf8_lossy(answer));
            }
        }
    }

    #[test]
    fn a_yes_with_a_body_is_none() {
        assert_eq!(plain(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Err(Rejection::Body));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(plain(chunked), Err(Rejection::Body));
    }

    #[test]
    fn a_no_says_why_as_far_as_the_text_is_here() {
        let answer = b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n11\r\nvalidation_failed\r\n0\r\n\r\n";
        let detail = "validation_failed".to_owned();
        assert_eq!(plain(answer), Err(Rejection::Status { code: 403, retry_after: None, detail }));
        assert_eq!(status(403).reason(), "http.403");
    }

    #[test]
    fn a_429_may_say_when_to_come_back_in_seconds() {
        let after = |value: &str| {
            let answer = format!("HTTP/1.1 429 Too Many Requests\r\nretry-after: {value}\r\n\r\n");
            match plain(answer.as_bytes()) {
                Err(Rejection::Status { retry_after, .. }) => retry_after,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("0"), None);
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        let unavailable = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\n\r\n";
        assert_eq!(plain(unavailable), Err(status(503)), "only a 429 says so");
    }

    #[test]
    fn what_is_no_http_is_refused_at_once() {
        assert_eq!(plain(b"SSH-2.0-OpenSSH"), Err(Rejection::Malformed));
        assert_eq!(plain(b"\x16\x03\x01"), Err(Rejection::Malformed));
        assert_eq!(plain(b"HTTP/1.1 2x0 OK\r\n\r\n"), Err(Rejection::Malformed));
    }

    #[test]
    fn a_head_without_end_is_bounded() {
        let mut answer = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        answer.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(plain(&answer), Ok(None));
        answer.push(b'a');
        assert_eq!(plain(&answer), Err(Rejection::HeadTooLarge));
    }
}
