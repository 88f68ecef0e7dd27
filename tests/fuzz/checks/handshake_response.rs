//! What an initiator makes of the answer to its handshake.
//!
//! The first byte of the input says which mode was asked for; the rest is what comes.

use eddy_core::handshake::response::{self, Rejection};
use eddy_core::handshake::{HEAD_BYTES_MAX, Mode, Parsed};

use super::one_line;

/// A head, and a body that is empty but for its trailers, each at its limit; one byte more decides.
const NEEDS_AT_MOST: usize = 2 * HEAD_BYTES_MAX + 1;
/// What a log line can bear of a peer's words.
const DETAIL_MAX: usize = 200;

pub(crate) fn check(data: &[u8]) {
    let Some((flags, bytes)) = data.split_first() else {
        return;
    };
    let mode = if flags & 1 == 0 {
        Mode::Plain
    } else {
        Mode::Upgrade
    };
    let decided = response::parse(mode, bytes);
    if bytes.len() >= NEEDS_AT_MOST {
        assert_ne!(decided, Ok(None), "more than {NEEDS_AT_MOST} bytes are wanted");
    }
    match &decided {
        Ok(None) => {}
        Ok(Some(Parsed { consumed, .. })) => assert!(*consumed <= bytes.len()),
        Err(rejection) => {
            if let Rejection::Status { detail, code, .. } = rejection {
                assert!((100..1000).contains(code) && detail.len() <= DETAIL_MAX);
            }
            one_line(&rejection.to_string());
        }
    }
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 512) {
        match response::parse(mode, &bytes[..cut]) {
            Ok(None) => {}
            // The text of a refusal may still be on its way.
            Err(early) => assert_eq!(
                decided.as_ref().map_err(Rejection::reason),
                Err(early.reason()),
                "cut at {cut}"
            ),
            taken => assert_eq!(decided, taken, "cut at {cut}"),
        }
    }
}
