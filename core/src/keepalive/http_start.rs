//! The first bytes of HTTP on a tunnel, as a responder sends them: the HTTP/2 preface, or the method of an HTTP/1 request.

/// The preface of an HTTP/2 client (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The part of the preface that looks like an HTTP/1 method. No request has that method (RFC 9113, section 11.6).
const RESERVED: usize = b"PRI ".len();
/// The longest method that is recognized: six bytes more than the longest registered one, `UPDATEREDIRECTREF`.
const METHOD_BYTES_MAX: usize = 24;

/// What some bytes are the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// More bytes are needed to tell.
    Partial,
    /// HTTP, of either version.
    Http,
    /// Neither version of HTTP.
    Unexpected,
}

/// Looks at all bytes since the last ping. [`Start::Partial`] is the result for at most 24 bytes.
pub(super) fn classify(bytes: &[u8]) -> Start {
    let shared = bytes.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
    if shared == PREFACE.len() {
        return Start::Http;
    }
    if shared == bytes.len() {
        return Start::Partial;
    }
    if shared >= RESERVED || !bytes[0].is_ascii_uppercase() {
        return Start::Unexpected;
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let method = bytes.iter().take_while(|byte| is_method(byte)).count();
    match bytes.get(method) {
        _ if method > METHOD_BYTES_MAX => Start::Unexpected,
        None => Start::Partial,
        Some(b' ') => Start::Http,
        Some(_) => Start::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_recognized_when_it_is_complete() {
        for length in 0..PREFACE.len() {
            assert_eq!(classify(&PREFACE[..length]), Start::Partial, "{length}");
        }
        assert_eq!(classify(PREFACE), Start::Http);
        assert_eq!(classify(&[&PREFACE[..], b"\0\0\0"].concat()), Start::Http);
    }

    #[test]
    fn the_preface_may_not_change_on_the_way() {
        for at in RESERVED..PREFACE.len() {
            let mut bytes = *PREFACE;
            bytes[at] ^= 0x20;
            assert_eq!(classify(&bytes[..=at]), Start::Unexpected, "{at}");
        }
    }

    #[test]
    fn a_method_ends_with_a_blank() {
        for method in [
            "G",
            "GET",
            "PR",
            "PRIX",
            "VERSION-CONTROL",
            "RPINX",
            &"A".repeat(24),
        ] {
            assert_eq!(classify(method.as_bytes()), Start::Partial, "{method}");
            assert_eq!(classify(format!("{method} ").as_bytes()), Start::Http, "{method}");
            for other in ["\r", "\0", ":", "g"] {
                let bytes = [method, other].concat();
                assert_eq!(classify(bytes.as_bytes()), Start::Unexpected, "{bytes:?}");
            }
        }
        assert_eq!(classify("A".repeat(25).as_bytes()), Start::Unexpected);
    }

    #[test]
    fn what_begins_neither_way_is_seen_at_its_first_byte() {
        for byte in 0..=u8::MAX {
            let expected = if byte.is_ascii_uppercase() {
                Start::Partial
            } else {
                Start::Unexpected
            };
            assert_eq!(classify(&[byte]), expected, "{byte:#x}");
        }
    }
}
