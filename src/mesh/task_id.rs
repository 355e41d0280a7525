//! A task's id, as it is kept and looked up here.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A task's id. As a UUID, which all nodes make them, it is kept in 16 bytes; any other text as it is. Cheap to clone, to
/// compare and to hash either way.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TaskId(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// A UUID in the one spelling that has no other: 32 digits in lower case and 4 hyphens.
    Uuid([u64; 2]),
    Text(Arc<str>),
}

/// What a character is worth as a digit; `NONE`: it is none.
const DIGITS: [u8; 256] = {
    let mut digits = [NONE; 256];
    let mut n = 0;
    while n < 16 {
        digits[HEX[n] as usize] = n as u8;
        n += 1;
    }
    digits
};

/// How each byte is written.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut n = 0;
    while n < 256 {
        pairs[n] = [HEX[n >> 4], HEX[n & 15]];
        n += 1;
    }
    pairs
};

const HEX: &[u8; 16] = b"0123456789abcdef";

const NONE: u8 = 0x80;

/// Where the digits of a UUID's bytes stand.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// A UUID's text.
pub(super) fn spelled(bits: u128) -> [u8; 36] {
    let (mut text, bytes) = ([b'-'; 36], bits.to_be_bytes());
    for n in 0..16 {
        [text[PLACES[n]], text[PLACES[n] + 1]] = PAIRS[usize::from(bytes[n])];
    }
    text
}

/// The bits of a UUID, if the text is one.
fn read(text: &str) -> Option<u128> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let (mut bytes, mut seen) = ([0; 16], 0);
    for n in 0..16 {
        let digit = |at: usize| DIGITS[usize::from(text[at])];
        let (high, low) = (digit(PLACES[n]), digit(PLACES[n] + 1));
        seen |= high | low;
        bytes[n] = high << 4 | low;
    }
    let hyphens = [text[8], text[13], text[18], text[23]] == *b"----";
    (seen & NONE == 0 && hyphens).then(|| u128::from_be_bytes(bytes))
}

impl TaskId {
    /// The UUID of these bits.
    pub(super) fn from_bits(bits: u128) -> Self {
        Self(Form::Uuid([(bits >> 64) as u64, bits as u64]))
    }

    /// A UUID's bits.
    pub(super) fn bits(&self) -> Option<u128> {
        match self.0 {
            Form::Uuid([high, low]) => Some(u128::from(high) << 64 | u128::from(low)),
            Form::Text(_) => None,
        }
    }

    /// Gives its text to somebody.
    fn with_text<R>(&self, take: impl FnOnce(&str) -> R) -> R {
        match (self.bits(), &self.0) {
            // Digits and hyphens are text.
            (Some(bits), _) => take(std::str::from_utf8(&spelled(bits)).unwrap_or_default()),
            (_, Form::Text(text)) => take(text),
            _ => take(""),
        }
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        self.with_text(str::to_owned)
    }
}

impl From<&str> for TaskId {
    fn from(text: &str) -> Self {
        read(text).map_or_else(|| Self(Form::Text(text.into())), Self::from_bits)
    }
}

impl From<&String> for TaskId {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl Hash for Form {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Uuid([high, low]) => {
                state.write_u64(*high);
                state.write_u64(*low);
            }
            Self::Text(text) => text.hash(state),
        }
    }
}

/// By their texts.
impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            // In texts of one length with digits at the same places the digits decide.
            (Form::Uuid(a), Form::Uuid(b)) => a.cmp(b),
            _ => self.with_text(|a| other.with_text(|b| a.cmp(b))),
        }
    }
}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.pad(text))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| fmt::Debug::fmt(text, f))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts that are UUIDs, nearly so, and not at all.
    fn text() -> impl Strategy<Value = String> {
        let uuid = any::<u128>().prop_map(|bits| TaskId::from_bits(bits).to_text());
        let nearly = (any::<u128>(), 0usize..36, "[ -~]").prop_map(|(bits, at, other)| {
            let mut text = TaskId::from_bits(bits).to_text();
            text.replace_range(at..=at, &other);
            text
        });
        prop_oneof![uuid, nearly, "[ -~]{1,64}", "[0-9a-f-]{36}"]
    }

    #[test]
    fn only_uuids_in_their_one_spelling_are_kept_as_bits() {
        let id = TaskId::from("01234567-89ab-8def-8123-456789abcdef");
        assert_eq!(id.bits(), Some(0x0123_4567_89ab_8def_8123_4567_89ab_cdef));
        for other in [
            "01234567-89AB-8def-8123-456789abcdef",
            "0123456789ab8def8123456789abcdef",
            "01234567-89ab-8def-8123-456789abcde",
            "01234567-89ab-8def-8123-456789abcdef0",
            "01234567-89ab-8def-8123_456789abcdef",
            "+1234567-89ab-8def-8123-456789abcdef",
            "",
        ] {
            assert_eq!((TaskId::from(other).bits(), TaskId::from(other).to_text().as_str()), (None, other));
        }
    }

    proptest! {
        #[test]
        fn an_id_is_its_text(a in text(), b in text()) {
            let (x, y) = (TaskId::from(&a), TaskId::from(&b));
            prop_assert_eq!(x.to_string(), a.clone());
            prop_assert_eq!(format!("{x:?}"), format!("{a:?}"));
            prop_assert_eq!(x == y, a == b);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
