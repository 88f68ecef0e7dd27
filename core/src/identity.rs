//! Who an initiator is: tenant, cluster and node, validated on construction and never glued together.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub use crate::policy::ID_BYTES_MAX;

/// Why a text is no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// It has no characters.
    Empty,
    /// It has more than [`ID_BYTES_MAX`] bytes.
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// A character cannot travel in an HTTP header (RFC 9110, section 5.5).
    Character {
        /// Where it begins, in bytes from the start.
        at: usize,
        /// The character.
        found: char,
    },
    /// A character changes how the text around it is displayed, as in a log or on a terminal.
    Formatting {
        /// Where it begins, in bytes from the start.
        at: usize,
        /// The character.
        found: char,
    },
    /// It begins or ends with a blank, which a header would lose.
    OuterBlank,
    /// The bytes are not UTF-8.
    NotUtf8,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { bytes } => write!(f, "has {bytes} bytes; at most {ID_BYTES_MAX} are allowed"),
            Self::Character { at, found } => {
                write!(
                    f,
                    "has {found:?} at byte {at}, which cannot travel in an HTTP header"
                )
            }
            Self::Formatting { at, found } => {
                write!(
                    f,
                    "has {found:?} at byte {at}, which changes how the text around it is displayed"
                )
            }
            Self::OuterBlank => f.write_str("begins or ends with a blank"),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
        }
    }
}

impl std::error::Error for IdError {}

/// Whether a character is invisible and changes how the text around it is displayed: marks, embeddings, overrides and isolates
/// of bidirectional text (Unicode Standard Annex #9), line and paragraph separators, and the byte order mark. With these, one id
/// can look like another one, or like the rest of a log line.
pub const fn is_formatting(c: char) -> bool {
    matches!(
        c,
        '\u{061C}'
            | '\u{200E}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}'
            | '\u{FEFF}'
    )
}

fn validate(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    if let Some((at, found)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(IdError::Character { at, found });
    }
    if let Some((at, found)) = text.char_indices().find(|(_, c)| is_formatting(*c)) {
        return Err(IdError::Formatting { at, found });
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(IdError::OuterBlank);
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to 255 bytes of UTF-8 without control characters, [formatting characters](is_formatting) or outer
            /// blanks.
            ///
            /// # Errors
            ///
            /// [`IdError`] says which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                validate(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text as it travels.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

identifier!(
    /// The id of one initiator.
    NodeId
);
identifier!(
    /// The id of a group of initiators that serve the same thing.
    ClusterId
);
identifier!(
    /// The id of whoever owns a node.
    TenantId
);
identifier!(
    /// The name of an upstream cluster in an initiator's configuration: a set of hosts to dial or to call.
    ClusterName
);

/// Who is at the other end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it serves.
    pub cluster: ClusterId,
    /// Which one it is.
    pub node: NodeId,
}

/// One worker of a process, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker_{}", self.0)
    }
}

/// A tunnel within its process. Never used again after the tunnel is gone, so that a late event about it
/// can only ever mean it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId {
    /// The worker that named the tunnel (not always the one that owns its socket).
    pub named_by: WorkerId,
    /// Counts up for each tunnel of that worker.
    pub serial: u64,
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.named_by.0, self.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_hold_what_a_header_can() {
        for good in ["a", "node:1@x", "käse", "with blank", &"x".repeat(255)] {
            assert_eq!(NodeId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn each_rule_names_itself() {
        assert_eq!(NodeId::parse(""), Err(IdError::Empty));
        assert_eq!(
            NodeId::parse(&"x".repeat(256)),
            Err(IdError::TooLong { bytes: 256 })
        );
        assert_eq!(
            NodeId::parse("a\nb"),
            Err(IdError::Character { at: 1, found: '\n' })
        );
        assert_eq!(
            NodeId::parse("a\u{202E}b"),
            Err(IdError::Formatting {
                at: 1,
                found: '\u{202E}'
            })
        );
        assert_eq!(NodeId::parse(" a"), Err(IdError::OuterBlank));
        assert_eq!(NodeId::parse("a "), Err(IdError::OuterBlank));
    }

    /// The list of the rule, character by character; neighbours of each range are allowed.
    #[test]
    fn control_and_formatting_characters_are_refused() {
        let refused = [
            0x00..=0x1F,
            0x7F..=0x9F,
            0x061C..=0x061C,
            0x200E..=0x200F,
            0x2028..=0x202E,
            0x2066..=0x2069,
            0xFEFF..=0xFEFF,
        ];
        for c in '\0'..=char::MAX {
            let id = NodeId::parse(&format!("a{c}b"));
            let is_refused = refused.iter().any(|range| range.contains(&u32::from(c)));
            assert_eq!(id.is_err(), is_refused, "{c:?}");
            if let Err(why) = id {
                assert!(why.to_string().is_ascii(), "{why:?} is escaped");
            }
        }
    }

    #[test]
    fn what_is_logged_says_whose_and_which() {
        let tunnel = TunnelId {
            named_by: WorkerId(3),
            serial: 17,
        };
        assert_eq!(
            (tunnel.to_string(), WorkerId(3).to_string()),
            ("3-17".into(), "worker_3".into())
        );
        let node = NodeId::parse("a\"b").unwrap();
        assert_eq!(format!("{node} {node:?}"), r#"a"b "a\"b""#);
    }

    #[test]
    fn each_rule_has_a_text() {
        let text = |bad: &str| NodeId::parse(bad).unwrap_err().to_string();
        assert_eq!(text(""), "is empty");
        assert_eq!(text(&"x".repeat(256)), "has 256 bytes; at most 255 are allowed");
        assert_eq!(
            text("a\nb"),
            r"has '\n' at byte 1, which cannot travel in an HTTP header"
        );
        assert_eq!(
            text("a\u{2028}b"),
            r"has '\u{2028}' at byte 1, which changes how the text around it is displayed"
        );
        assert_eq!(text(" a"), "begins or ends with a blank");
        assert_eq!(IdError::NotUtf8.to_string(), "is not UTF-8");
    }
}
