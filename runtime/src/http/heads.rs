//! Limits of heads: how large they may be, and which encoding of a body they may announce.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};

/// The most fields of a head: Envoy's limit.
const FIELDS_MAX: usize = 100;
/// The longest head of a client's request: what fits here fits into a tunnel, whose ends take 60 KiB (Envoy) and 64 KiB.
const REQUEST_HEAD_BYTES_MAX: usize = 48 << 10;
/// The longest head of a service's response, as HTTP/2 counts: Envoy's limit at the other end of the tunnel.
const RESPONSE_HEAD_BYTES_MAX: usize = 60 << 10;
/// What HTTP/2 counts for each field besides its name and value (RFC 9113, section 6.5.2).
const FIELD_BYTES: usize = 32;

/// Whether the head of a client's request is too large: it has too many fields, or too many bytes as HTTP/1.1 writes it.
/// HTTP/2 counts more, and its library refuses what is too large by that count.
pub(crate) fn is_request_head_too_large(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let line = method.as_str().len() + scheme + authority + path + "  HTTP/1.1\r\n".len();
    let field =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    let fields: usize = headers.iter().map(field).sum();
    headers.len() > FIELDS_MAX || line + fields + "\r\n".len() > REQUEST_HEAD_BYTES_MAX
}

/// Whether the head of a service's response is too large for a tunnel.
pub(crate) fn is_response_head_too_large(headers: &HeaderMap) -> bool {
    let status = ":status".len() + "200".len() + FIELD_BYTES;
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + FIELD_BYTES;
    let fields: usize = headers.iter().map(field).sum();
    headers.len() > FIELDS_MAX || status + fields > RESPONSE_HEAD_BYTES_MAX
}

/// Whether the body is encoded for this hop in another way than in chunks. Envoy answers such requests with 501.
pub(crate) fn has_other_transfer_encoding(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn a_head_is_measured_to_the_byte() {
        let request = |length: usize| {
            // 25 bytes of request line, 7 of the name and what surrounds it, 2 at the end.
            let value = "v".repeat(length - 34);
            let head = headers(&[("abc", &value)]);
            is_request_head_too_large(&Method::GET, &"http://h/a".parse().unwrap(), &head)
        };
        let limit = 48 << 10;
        assert_eq!([limit - 1, limit, limit + 1].map(request), [false, false, true]);
        let response = |length: usize| {
            let value = "v".repeat(length - 42 - 35);
            is_response_head_too_large(&headers(&[("abc", &value)]))
        };
        let limit = 60 << 10;
        assert_eq!([limit - 1, limit, limit + 1].map(response), [false, false, true]);
    }

    #[test]
    fn a_head_has_at_most_a_hundred_fields() {
        let fields = |count| headers(&vec![("a", "b"); count]);
        let request = |count| is_request_head_too_large(&Method::GET, &Uri::from_static("/"), &fields(count));
        let response = |count| is_response_head_too_large(&fields(count));
        assert_eq!([99, 100, 101].map(request), [false, false, true]);
        assert_eq!([99, 100, 101].map(response), [false, false, true]);
    }

    #[test]
    fn chunked_alone_is_the_encoding_that_is_known() {
        let other = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            has_other_transfer_encoding(&headers(&pairs))
        };
        assert!(!other(&[]) && !other(&["chunked"]) && !other(&["Chunked"]));
        for values in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["identity"],
            &["chunked", "chunked"],
            &[""],
        ] {
            assert!(other(values), "{values:?}");
        }
    }
}
