//! The members of a message as the types they must be.

use std::borrow::Cow;

use super::error::FieldError;
use super::object::Object;
use super::{number, strings, walk};

impl Object {
    /// A member that is a string. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn str(&self, key: &str) -> Result<Option<String>, FieldError> {
        Ok(self.text(key)?.map(Cow::into_owned))
    }

    /// Like [`str`](Self::str), borrowed from the bytes where the string has no escapes.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn text(&self, key: &str) -> Result<Option<Cow<'_, str>>, FieldError> {
        self.field(key, "a string", unquote)
    }

    /// A member that is a whole number from 0 to 2^64 - 1, without fraction or exponent. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, FieldError> {
        self.field(key, "a whole number from 0 to 2^64 - 1", parse_plain)
    }

    /// A member that is a whole number of 64 bits, without fraction or exponent. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, FieldError> {
        self.field(key, "a whole number of 64 bits", parse_plain)
    }

    /// A member that is any number, as the nearest finite float. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it is something else, or an integer too large for a float.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, FieldError> {
        self.field(key, "a number", |raw| match raw.first() {
            Some(b'-' | b'0'..=b'9') => number::parse(raw).filter(|value| value.is_finite()),
            _ => None,
        })
    }

    /// A member that is true or false. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FieldError> {
        self.field(key, "true or false", |raw| match raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        })
    }

    /// A member that is an array of strings. Absent or null: `None`.
    ///
    /// # Errors
    ///
    /// When it, or an element, is something else.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, FieldError> {
        self.field(key, "an array of strings", |raw| {
            if raw.first() != Some(&b'[') {
                return None;
            }
            walk::elements(raw).into_iter().map(|span| unquote(span.of(raw)).map(Cow::into_owned)).collect()
        })
    }

    fn field<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        match self.get(key) {
            None | Some(b"null") => Ok(None),
            Some(raw) => match read(raw) {
                Some(value) => Ok(Some(value)),
                None => Err(FieldError::new(key, expected)),
            },
        }
    }
}

/// What the JSON text of a string means; `None` if it is the text of something else.
fn unquote(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(strings::decode(inner))
}

fn parse_plain<T: std::str::FromStr>(raw: &[u8]) -> Option<T> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn parse(text: &str) -> Object {
        Object::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn members_have_types() {
        let object = parse(
            r#" {"s":"a\u00e9\ud83d\ude00\n","n":18446744073709551615,"i":-5,"f":1.5e3,"b":true,
                 "z":null,"l":["x","\u0079"],"o":{"k":1},"":0} "#,
        );
        assert!(!object.is_canonical());
        assert_eq!(object.str("s").unwrap().unwrap(), "aé😀\n");
        assert_eq!(object.u64("n"), Ok(Some(u64::MAX)));
        assert_eq!(object.i64("i"), Ok(Some(-5)));
        assert_eq!(object.f64("f"), Ok(Some(1500.0)));
        assert_eq!(object.f64("i"), Ok(Some(-5.0)));
        assert_eq!(object.bool("b"), Ok(Some(true)));
        assert_eq!(object.strings("l").unwrap().unwrap(), ["x", "y"]);
        assert_eq!(object.get("o"), Some(&br#"{"k":1}"#[..]));
        assert_eq!(object.get(""), Some(&b"0"[..]));
        assert_eq!(object.get("k"), None);
        for key in ["z", "absent"] {
            assert_eq!(object.str(key), Ok(None));
            assert_eq!(object.u64(key), Ok(None));
            assert!(object.child(key).is_none() && object.children(key).is_none());
        }
        assert!(object.get("z").is_some());
        let wrong = object.str("n").unwrap_err();
        assert_eq!(wrong.to_string(), r#"member "n" must be a string"#);
        assert!(object.u64("i").is_err() && object.u64("f").is_err() && object.i64("n").is_err());
        assert!(object.f64("s").is_err() && object.bool("n").is_err() && object.strings("s").is_err());
        assert!(parse(r#"{"l":["x",1]}"#).strings("l").is_err());
        let names: Vec<_> = object.members().map(|(name, _)| name).collect();
        assert_eq!(names, ["", "b", "f", "i", "l", "n", "o", "s", "z"]);
    }
}
