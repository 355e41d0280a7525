//! Payloads on their way out: canonical, and small and shallow enough for the wire.

use bytes::Bytes;
use serde_json::Value;

use crate::error::ErrorCode;
use crate::limits::{MAX_JSON_DEPTH, MAX_PAYLOAD};
use crate::wire::{JsonError, canonicalize_json, canonicalize_value, end_of_string, is_canonical};

/// How many levels of nesting a message and a relay put around a payload, with one to spare.
const AROUND: usize = 4;

/// The longest error message that is sent, in bytes.
const MAX_ERROR_TEXT: usize = 8 * 1024;

/// Why a payload can't be sent.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("{size} bytes of JSON, the limit is {MAX_PAYLOAD}")]
    TooLarge { size: usize },
    #[error("nested deeper than {} levels", MAX_JSON_DEPTH - AROUND)]
    TooDeep,
    #[error("{0}")]
    Json(#[from] JsonError),
}

impl PayloadError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::TooDeep | Self::Json(_) => ErrorCode::BadRequest,
        }
    }
}

/// Of a value.
pub(crate) fn from_value(value: &Value) -> Result<Bytes, PayloadError> {
    fits(canonicalize_value(value)?)
}

/// Of JSON text.
pub(crate) fn from_json(text: &str) -> Result<Bytes, PayloadError> {
    if text.len() > MAX_PAYLOAD * 2 {
        // White space may be taken out of it, but hardly as much as that.
        return Err(PayloadError::TooLarge { size: text.len() });
    }
    fits(respell(&canonicalize_json(text.as_bytes())?))
}

/// Of JSON that came from another node. Most of it is as it must be. It is copied all the same: it is a slice of all that
/// came with it, and the answer that it becomes is kept.
pub(crate) fn from_raw(json: &Bytes) -> Result<Bytes, PayloadError> {
    if json.len() <= MAX_PAYLOAD && is_canonical(json) {
        let shape = Shape::of(json);
        if !shape.has_floats && !shape.is_too_deep() {
            return Ok(Bytes::copy_from_slice(json));
        }
    }
    from_json(std::str::from_utf8(json).unwrap_or_default())
}

/// What there is to know of canonical JSON beside its strings, which are most of it and are passed over.
struct Shape {
    /// How deep it is nested.
    depth: usize,
    /// Whether there is anything to respell.
    has_floats: bool,
}

impl Shape {
    fn of(json: &[u8]) -> Self {
        let (mut depth, mut deepest, mut has_floats, mut last) = (0usize, 0, false, b' ');
        let mut at = 0;
        while let Some(byte) = json.get(at) {
            at += 1;
            match byte {
                b'"' => at = end_of_string(json, at - 1),
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                // `e` is also in `true` and `false`, and `-0` is a number of its own.
                b'.' | b'E' => has_floats = true,
                b'e' if last.is_ascii_digit() => has_floats = true,
                b'0' if last == b'-' => has_floats = true,
                _ => {}
            }
            last = *byte;
        }
        Self { depth: deepest, has_floats }
    }

    fn is_too_deep(&self) -> bool {
        self.depth > MAX_JSON_DEPTH - AROUND
    }
}

/// Writes the floats of canonical JSON as Python would print them: a node of the Python package checks a signature by
/// reading the message and writing it again. Integers keep their digits.
fn respell(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut rest, mut in_string) = (json, false);
    while let Some((byte, tail)) = rest.split_first() {
        if in_string && *byte == b'\\' {
            // The escaped character comes along, or a quote would seem to end the string.
            out.extend_from_slice(&rest[..2.min(rest.len())]);
            rest = &rest[2.min(rest.len())..];
            continue;
        }
        if !in_string && (byte.is_ascii_digit() || *byte == b'-') {
            let end = rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
            let (number, tail) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend_from_slice(&respell_number(number));
            rest = tail;
            continue;
        }
        in_string ^= *byte == b'"';
        out.push(*byte);
        rest = tail;
    }
    out
}

fn respell_number(number: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if number == b"-0" {
        return b"0".as_slice().into();
    }
    if !number.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return number.into();
    }
    let value = serde_json::from_slice::<Value>(number).ok();
    match value.and_then(|v| canonicalize_value(&v).ok()) {
        Some(text) => text.into(),
        None => number.into(),
    }
}

fn fits(json: Vec<u8>) -> Result<Bytes, PayloadError> {
    if json.len() > MAX_PAYLOAD {
        return Err(PayloadError::TooLarge { size: json.len() });
    }
    if Shape::of(&json).is_too_deep() {
        return Err(PayloadError::TooDeep);
    }
    Ok(json.into())
}

/// Cuts an error's text to what is sent.
pub(crate) fn cut(text: &mut String) {
    if text.len() > MAX_ERROR_TEXT {
        let end = (0..=MAX_ERROR_TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" …");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_respelled_and_nothing_else() {
        let of = |text: &str| String::from_utf8(from_json(text).unwrap().to_vec()).unwrap();
        assert_eq!(of("[1E5, 1.50, -0, -0.0, 0.1, 1e-7]"), "[100000.0,1.5,0,-0.0,0.1,1e-07]");
        assert_eq!(of("12345678901234567890123"), "12345678901234567890123");
        assert_eq!(of(r#"{"a\"1.50": "1E5 \\", "b": 2.50}"#), r#"{"a\"1.50":"1E5 \\","b":2.5}"#);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_size() {
        let deep = "[".repeat(61) + &"]".repeat(61);
        assert_eq!(from_json(&deep), Err(PayloadError::TooDeep));
        assert!(from_json(&deep[1..deep.len() - 1]).is_ok());
        let long = format!("\"{}\"", "x".repeat(MAX_PAYLOAD - 1));
        assert_eq!(from_json(&long), Err(PayloadError::TooLarge { size: MAX_PAYLOAD + 1 }));
        assert!(matches!(from_json("{"), Err(PayloadError::Json(_))));
    }

    fn json() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("JSON has none", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        ];
        let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let leaf = prop_oneof![number, string, "true|false|null", r#""[-0-9.eE\\\\u]{0,8}""#];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let member = ("[\"][a-c]{1,2}[\"]", inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..4).prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        })
    }

    proptest! {
        /// The short way to it leads to the same.
        #[test]
        fn what_came_is_sent_as_what_is_given(text in json()) {
            let of = |text: &str| from_raw(&Bytes::copy_from_slice(text.as_bytes()));
            let given = from_json(&text);
            prop_assert_eq!(of(&text), given.clone());
            if let Ok(canonical) = given {
                prop_assert_eq!(from_raw(&canonical), Ok(canonical));
            }
        }
    }

    #[test]
    fn what_came_has_the_same_bounds() {
        let edges = [
            "[".repeat(60) + &"]".repeat(60),
            "[".repeat(61) + &"]".repeat(61),
            format!("\"{}\"", "x".repeat(MAX_PAYLOAD - 2)),
            format!("\"{}\"", "x".repeat(MAX_PAYLOAD - 1)),
            "9".repeat(4300),
            "9".repeat(4301),
            "-0".into(),
            "{\"a\":1,\"a\":2}".into(),
            "{\"b\":1,\"a\":2}".into(),
            "[1, 2]".into(),
            String::new(),
        ];
        for text in edges {
            let shown = &text[..text.len().min(20)];
            assert_eq!(from_raw(&Bytes::from(text.clone())), from_json(&text), "{shown} of {} bytes", text.len());
        }
    }
}
