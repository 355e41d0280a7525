//! JSON that came from another node: its text, and the value for who looks at it.

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::task::Payload;

/// JSON as it came over the wire: a [`Value`] to who uses it as one, which is made of the text when it is first asked for. What
/// is only handed on, as by an echo or a gateway, is never taken apart.
///
/// Integers beyond 64 bits lose digits in the value; [`text`](Self::text) keeps them.
///
/// ```
/// # fn handler(payload: elo::Json) -> Result<serde_json::Value, elo::TaskError> {
/// let words = payload["text"].as_str().unwrap_or_default().split_whitespace().count();
/// # Ok(serde_json::json!(words))
/// # }
/// ```
#[derive(Clone)]
pub struct Json {
    /// Checked when it came: JSON, and so UTF-8.
    text: Bytes,
    value: OnceLock<Value>,
}

impl Json {
    pub(crate) fn new(text: Bytes) -> Self {
        Self { text, value: OnceLock::new() }
    }

    /// The text, digit for digit as it was written.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("null")
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// The value.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| serde_json::from_slice(&self.text).unwrap_or_default())
    }

    /// The value, for keeps.
    pub fn into_value(mut self) -> Value {
        match self.value.take() {
            Some(value) => value,
            None => serde_json::from_slice(&self.text).unwrap_or_default(),
        }
    }
}

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value()
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        json.into_value()
    }
}

impl From<Json> for Payload {
    fn from(json: Json) -> Self {
        Self::raw(json.text)
    }
}

/// As its value: also with strings, numbers and booleans, as a [`Value`] is.
impl<T: ?Sized> PartialEq<T> for Json
where
    Value: PartialEq<T>,
{
    fn eq(&self, other: &T) -> bool {
        self.value() == other
    }
}

impl PartialEq<Json> for Value {
    fn eq(&self, other: &Json) -> bool {
        self == other.value()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The text.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &'static str) -> Json {
        Json::new(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn it_is_a_value_to_who_looks_and_a_text_to_who_does_not() {
        let json = of(r#"{"n":12345678901234567890123,"x":[1.50]}"#);
        assert!(json.value.get().is_none());
        assert_eq!(json["x"][0], 1.5);
        assert_eq!(json.text(), json.to_string());
        assert_eq!(json.clone().into_value()["x"], json!([1.5]));
        assert_eq!(serde_json::to_string(&of("[1]")).unwrap(), "[1]");
        // Handed on, it keeps its digits.
        let sent = Payload::from(json).into_bytes().unwrap();
        assert_eq!(sent, r#"{"n":12345678901234567890123,"x":[1.5]}"#.as_bytes());
    }

    #[test]
    fn it_equals_what_says_the_same() {
        assert_eq!(of("[1, 2]"), of("[1,2]"));
        assert_eq!(of("[1, 2]"), json!([1, 2]));
        assert_eq!(of("\"x\""), "x");
        assert_eq!(of("7"), 7);
        assert_ne!(of("[1,2]"), of("[2,1]"));
    }
}
