//! The answer as an initiator reads it (wire.md 2.5).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::head::{self, Body};
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Mode, Parsed};

/// How much of a refusal's text is kept for the log, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// A tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Over how long the responder asks to spread redials, once it refuses connections (Eddy).
    pub spread: Option<Duration>,
}

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
    /// The answer, with interim ones before it, is longer than [`HEAD_BYTES_MAX`], or has more headers than
    /// [`HEADERS_MAX`].
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

    /// When the responder wants to be asked again, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Malformed | Self::Body | Self::HeadTooLarge => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, detail, .. } if detail.is_empty() => write!(f, "the answer is {code}"),
            Self::Status { code, detail, .. } => write!(f, "the answer is {code}: {detail}"),
            Self::Malformed => f.write_str("the answer is no HTTP"),
            Self::Body => f.write_str("the answer has a body"),
            Self::HeadTooLarge => f.write_str("the answer's head is too large"),
        }
    }
}

impl std::error::Error for Rejection {}

/// Reads the answer from all that has come so far; `None` needs more. What follows `consumed` is the
/// tunnel's first bytes.
///
/// # Errors
///
/// [`Rejection`] says why this connection is no tunnel.
pub fn parse(mode: Mode, bytes: &[u8]) -> Result<Option<Parsed<Accepted>>, Rejection> {
    let window = head::window(bytes);
    let mut from = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let end = match answer.parse(&window[from..]) {
            Ok(httparse::Status::Complete(end)) if from + end <= HEAD_BYTES_MAX => from + end,
            Ok(httparse::Status::Partial) if window.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadTooLarge),
            Err(_) => return Err(Rejection::Malformed),
        };
        // Three digits, the first of which is none but 1 to 9 (RFC 9110, section 15).
        let code = answer
            .code
            .filter(|code| *code >= 100)
            .ok_or(Rejection::Malformed)?;
        let accepted = Accepted {
            spread: spread(answer.headers),
        };
        match (mode, code) {
            (Mode::Plain, 200) => {
                return match head::empty_body(answer.headers, &bytes[end..]) {
                    Body::Ends(body) => Ok(Some(Parsed {
                        value: accepted,
                        consumed: end + body,
                    })),
                    Body::Partial => Ok(None),
                    Body::Payload => Err(Rejection::Body),
                    Body::Malformed => Err(Rejection::Malformed),
                    Body::TooLarge => Err(Rejection::HeadTooLarge),
                };
            }
            (Mode::Upgrade, 101) => {
                return Ok(Some(Parsed {
                    value: accepted,
                    consumed: end,
                }));
            }
            // An interim answer comes before the one that counts (RFC 9110, section 15.2).
            (Mode::Plain | Mode::Upgrade, 100 | 102..=199) => from = end,
            (Mode::Plain | Mode::Upgrade, _) => {
                let retry_after = (code == 429).then(|| retry_after(answer.headers)).flatten();
                let detail = detail(answer.headers, &bytes[end..]);
                return Err(Rejection::Status {
                    code,
                    retry_after,
                    detail,
                });
            }
        }
    }
}

fn spread(headers: &[httparse::Header<'_>]) -> Option<Duration> {
    let value = head::value(headers, super::REDIAL_SPREAD)?;
    let millis = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

fn retry_after(headers: &[httparse::Header<'_>]) -> Option<Duration> {
    let value = head::value(headers, "retry-after")?;
    let seconds = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|after| !after.is_zero())
}

/// The text of a refusal, as far as it came with its head; one line, printable.
fn detail(headers: &[httparse::Header<'_>], rest: &[u8]) -> String {
    let text = if head::is_chunked(headers) {
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
    let mut detail = String::new();
    for c in String::from_utf8_lossy(&text[..text.len().min(DETAIL_BYTES_MAX)]).chars() {
        let c = if c.is_alphanumeric() || c.is_ascii_punctuation() {
            c
        } else {
            ' '
        };
        if detail.len() + c.len_utf8() > DETAIL_BYTES_MAX {
            break;
        }
        detail.push(c);
    }
    detail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keepalive::PING;

    const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    fn plain(bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        parse(Mode::Plain, bytes).map(|parsed| parsed.map(|p| p.consumed))
    }

    fn status(code: u16) -> Rejection {
        Rejection::Status {
            code,
            retry_after: None,
            detail: String::new(),
        }
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
    fn a_responder_may_ask_to_spread_redials() {
        let spread = |text: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{text}\r\n");
            parse(Mode::Plain, head.as_bytes()).unwrap().unwrap().value.spread
        };
        assert_eq!(spread(""), None);
        assert_eq!(
            spread("X-Eddy-Redial-Spread: 1500\r\n"),
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(spread("x-eddy-redial-spread: soon\r\n"), None);
        let demands = super::super::request::Demands::default();
        let accept = demands.accept_and_spread(Duration::from_secs(2));
        let parsed = parse(Mode::Plain, &accept).unwrap().unwrap();
        assert_eq!(parsed.value.spread, Some(Duration::from_secs(2)));
        assert_eq!(parsed.consumed, accept.len());
    }

    #[test]
    fn every_status_but_the_one_asked_for_is_a_no() {
        for code in [201, 204, 301, 403, 404, 500, 101] {
            assert_eq!(
                plain(format!("HTTP/1.1 {code} X\r\n\r\n").as_bytes()),
                Err(status(code)),
                "{code}"
            );
        }
        let upgrade = |bytes: &[u8]| parse(Mode::Upgrade, bytes).map(|parsed| parsed.map(|p| p.consumed));
        assert_eq!(upgrade(YES), Err(status(200)));
        assert_eq!(
            upgrade(b"HTTP/1.1 101 Switching Protocols\r\n\r\nRPING"),
            Ok(Some(36))
        );
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
            assert_eq!(
                plain(answer),
                Ok(Some(answer.len())),
                "{}",
                String::from_utf8_lossy(answer)
            );
            for cut in 0..answer.len() {
                let half = plain(&answer[..cut]);
                assert_eq!(half, Ok(None), "{} cut at {cut}", String::from_utf8_lossy(answer));
            }
        }
    }

    #[test]
    fn a_yes_with_a_body_is_none() {
        assert_eq!(
            plain(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Err(Rejection::Body)
        );
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(plain(chunked), Err(Rejection::Body));
    }

    #[test]
    fn a_no_says_why_as_far_as_the_text_is_here() {
        let answer = b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n11\r\nvalidation_failed\r\n0\r\n\r\n";
        let detail = "validation_failed".to_owned();
        assert_eq!(
            plain(answer),
            Err(Rejection::Status {
                code: 403,
                retry_after: None,
                detail
            })
        );
    }

    #[test]
    fn a_detail_is_short_and_fit_for_a_log() {
        let detail = |body: &[u8]| {
            let answer = [&b"HTTP/1.1 500 No\r\ncontent-length: 999\r\n\r\n"[..], body].concat();
            match plain(&answer) {
                Err(Rejection::Status { detail, .. }) => detail,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(detail(b"a\r\n\x1b[31mb\xff\xe2\x80\xae"), "a   [31mb  ");
        for length in [DETAIL_BYTES_MAX - 1, DETAIL_BYTES_MAX, DETAIL_BYTES_MAX + 1] {
            assert_eq!(detail(&b"x".repeat(length)).len(), length.min(DETAIL_BYTES_MAX));
        }
        assert_eq!(
            detail("ä".repeat(DETAIL_BYTES_MAX).as_bytes()).len(),
            DETAIL_BYTES_MAX
        );
        let cut_within = detail(["x", &"ä".repeat(DETAIL_BYTES_MAX)].concat().as_bytes());
        assert_eq!(cut_within.len(), DETAIL_BYTES_MAX, "half a letter is a blank");
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
        assert_eq!(plain(b"HTTP/1.1 000 OK\r\n\r\n"), Err(Rejection::Malformed));
    }

    #[test]
    fn a_head_without_end_is_bounded() {
        let mut answer = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        answer.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(plain(&answer), Ok(None));
        answer.push(b'a');
        assert_eq!(plain(&answer), Err(Rejection::HeadTooLarge));
    }

    #[test]
    fn a_head_may_fill_the_limit_and_no_more() {
        let answer =
            |length: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(length - 24)).into_bytes();
        for length in [HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX] {
            assert_eq!(plain(&answer(length)), Ok(Some(length)));
        }
        assert_eq!(plain(&answer(HEAD_BYTES_MAX + 1)), Err(Rejection::HeadTooLarge));
        let lines = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(plain(lines(HEADERS_MAX).as_bytes()).is_ok());
        assert_eq!(
            plain(lines(HEADERS_MAX + 1).as_bytes()),
            Err(Rejection::HeadTooLarge)
        );
    }

    #[test]
    fn interim_answers_without_end_are_bounded() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_BYTES_MAX / 25 + 1);
        assert_eq!(plain(&answer[..HEAD_BYTES_MAX]), Ok(None));
        assert_eq!(plain(&answer), Err(Rejection::HeadTooLarge));
    }

    #[test]
    fn every_rejection_has_a_text_for_the_log() {
        let told = Rejection::Status {
            code: 429,
            retry_after: Some(Duration::from_secs(7)),
            detail: "full".into(),
        };
        assert_eq!(told.to_string(), "the answer is 429: full");
        assert_eq!(
            (told.retry_after(), status(429).retry_after()),
            (Some(Duration::from_secs(7)), None)
        );
        assert_eq!(status(403).to_string(), "the answer is 403");
        assert_eq!(Rejection::Malformed.to_string(), "the answer is no HTTP");
        assert_eq!(Rejection::Body.to_string(), "the answer has a body");
        assert_eq!(
            Rejection::HeadTooLarge.to_string(),
            "the answer's head is too large"
        );
    }

    #[test]
    fn reasons_are_spelt_as_envoy_does() {
        assert_eq!(status(403).reason(), "http.403");
        assert_eq!(Rejection::Malformed.reason(), "malformed");
        assert_eq!(Rejection::Body.reason(), "body");
        assert_eq!(Rejection::HeadTooLarge.reason(), "head_too_large");
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(YES.to_vec()),
            Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"transfer-encoding: chunked\r\n\r\n".to_vec()),
            Just(b"0\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec()),
            Just(PING.to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        /// However the bytes are cut, the answer is the same; all that may grow is the text of a refusal.
        #[test]
        fn segmentation_changes_nothing(pieces in proptest::collection::vec(piece(), 0..6)) {
            let bytes = pieces.concat();
            let kind = |cut: usize| match plain(&bytes[..cut]) {
                Ok(answer) => Ok(answer),
                Err(rejection) => Err(rejection.reason()),
            };
            let whole = kind(bytes.len());
            let first = (0..=bytes.len()).map(kind).find(|outcome| *outcome != Ok(None));
            prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
        }
    }
}
