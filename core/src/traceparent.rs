//! The W3C's `traceparent` header (Trace Context, section 3.2): which trace a request belongs to.

use std::fmt;

use crate::rng::Rng;

/// The header.
pub const HEADER: &str = "traceparent";
const SAMPLED: u8 = 1;

/// A position in a trace. Neither id is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: u128,
    /// The span that asks.
    pub span: u64,
    /// The flags; the lowest bit says that the trace is recorded.
    pub flags: u8,
}

impl TraceParent {
    /// The first span of a new trace that is recorded.
    pub fn begin(rng: &mut Rng) -> Self {
        let trace = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        Self {
            trace: trace.max(1),
            span: rng.next_u64().max(1),
            flags: SAMPLED,
        }
    }

    /// The next span of this trace.
    #[must_use]
    pub fn child(self, rng: &mut Rng) -> Self {
        Self {
            span: rng.next_u64().max(1),
            ..self
        }
    }

    /// Whether the trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Reads a header of version 00, or the parts of a later version that it has in common with that one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2).filter(|version| *version < 0xff)?;
        let parent = Self {
            trace: hex(parts.next()?, 32).filter(|id| *id > 0)?,
            span: u64::try_from(hex(parts.next()?, 16).filter(|id| *id > 0)?).ok()?,
            flags: u8::try_from(hex(parts.next()?, 2)?).ok()?,
        };
        (version > 0 || parts.next().is_none()).then_some(parent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// So many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let well = text.len() == digits && text.bytes().all(lower);
    well.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    /// The first is the specification's own example.
    #[test]
    fn what_is_no_traceparent_is_none() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed = TraceParent::parse(good).unwrap();
        assert!(parsed.is_sampled());
        assert_eq!(parsed.to_string(), good);
        let later =
            TraceParent::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").unwrap();
        assert!(!later.is_sampled());
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_child_is_of_the_same_trace() {
        let mut rng = Rng::from_seed(1);
        let first = TraceParent::begin(&mut rng);
        let child = first.child(&mut rng);
        assert!(first.is_sampled() && child.is_sampled());
        assert!(child.trace == first.trace && child.span != first.span);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., flags in any::<u8>()) {
            let parent = TraceParent { trace, span, flags };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn any_text_has_a_verdict(text in "[0-9a-f-]{0,80}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
