//! What can be wrong with the JSON of a message.

use crate::limits::{MAX_INTEGER_DIGITS, MAX_JSON_DEPTH};

/// Why bytes are not JSON we accept. The sender is at fault; the same bytes never become acceptable.
///
/// `offset` counts bytes from the start of the text. Of the text itself at most one byte is shown, so that a hostile
/// message can't write into logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ends in the middle of a value.
    #[error("the JSON ends at byte {offset}, before it is complete")]
    Truncated {
        /// Length of the text.
        offset: usize,
    },
    /// A byte that can't stand here.
    #[error("expected {expected} at byte {offset}, found byte 0x{found:02x}")]
    Unexpected {
        /// Where.
        offset: usize,
        /// What could have stood here.
        expected: &'static str,
        /// What stands here.
        found: u8,
    },
    /// A message is an object; this is something else.
    #[error("expected a JSON object at byte {offset}")]
    NotAnObject {
        /// Where the other value starts.
        offset: usize,
    },
    /// Something other than white space follows the value.
    #[error("bytes after the end of the JSON, at byte {offset}")]
    Trailing {
        /// Where the first of them is.
        offset: usize,
    },
    /// The text is not UTF-8.
    #[error("invalid UTF-8 at byte {offset}")]
    InvalidUtf8 {
        /// The first byte that is not part of valid UTF-8.
        offset: usize,
    },
    /// Half of a surrogate pair: it stands for no character, and languages disagree on what to make of it.
    #[error("half a surrogate pair at byte {offset}")]
    LoneSurrogate {
        /// Where its escape starts.
        offset: usize,
    },
    /// A backslash followed by something that is no escape.
    #[error("invalid escape at byte {offset}")]
    BadEscape {
        /// Where the backslash is.
        offset: usize,
    },
    /// A control character stands in a string as itself; it must be escaped.
    #[error("control character 0x{found:02x} in a string at byte {offset}")]
    ControlCharacter {
        /// Where.
        offset: usize,
        /// Which.
        found: u8,
    },
    /// A number that JSON's grammar doesn't allow, such as `01`, `1.` or `+1`.
    #[error("malformed number at byte {offset}")]
    BadNumber {
        /// Where it stops being a number.
        offset: usize,
    },
    /// A number with a fraction or an exponent that is too large for a 64-bit float, or not finite.
    #[error("the number at byte {offset} is not finite")]
    NotFinite {
        /// Where it starts.
        offset: usize,
    },
    /// An integer with more digits than [`MAX_INTEGER_DIGITS`].
    #[error("the integer at byte {offset} has more than {MAX_INTEGER_DIGITS} digits")]
    IntegerTooLong {
        /// Where it starts.
        offset: usize,
    },
    /// More open objects and arrays than [`MAX_JSON_DEPTH`].
    #[error("more than {MAX_JSON_DEPTH} levels deep at byte {offset}")]
    TooDeep {
        /// Where the level too many opens.
        offset: usize,
    },
    /// A member's name appears twice in one object (names are compared as what they mean, not as they are spelled).
    #[error("a member appears twice, again at byte {offset}")]
    Duplicate {
        /// Where the name stands the second time.
        offset: usize,
    },
    /// More than 4 GiB.
    #[error("the text is too long ({offset} bytes)")]
    TooLong {
        /// Its length.
        offset: usize,
    },
}

impl JsonError {
    /// Where in the text, in bytes from its start.
    pub fn offset(&self) -> usize {
        match *self {
            Self::Truncated { offset }
            | Self::Unexpected { offset, .. }
            | Self::NotAnObject { offset }
            | Self::Trailing { offset }
            | Self::InvalidUtf8 { offset }
            | Self::LoneSurrogate { offset }
            | Self::BadEscape { offset }
            | Self::ControlCharacter { offset, .. }
            | Self::BadNumber { offset }
            | Self::NotFinite { offset }
            | Self::IntegerTooLong { offset }
            | Self::TooDeep { offset }
            | Self::Duplicate { offset }
            | Self::TooLong { offset } => offset,
        }
    }
}

/// A member of a message is not of the type it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("member {member:?} must be {expected}")]
pub struct FieldError {
    /// The member's name: ours, not the sender's.
    pub member: String,
    /// What it must be, such as "a string".
    pub expected: &'static str,
}

impl FieldError {
    /// `member` should have been `expected`.
    pub fn new(member: &str, expected: &'static str) -> Self {
        Self { member: member.to_owned(), expected }
    }
}
