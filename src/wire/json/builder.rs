//! Writing messages, canonical from the start.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::canonical::is_canonical;
use super::object::Object;
use super::scan::{Key, Member, Span};
use super::unsigned::{self, Unsigned};
use super::{canonical, strings, walk};

use crate::identity::Identity;

/// Collects the members of a message in any order and writes them in canonical form.
///
/// A member given twice has the value given last.
#[derive(Debug, Clone)]
pub struct Builder {
    /// `"name":value` of each member, one after the other.
    text: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where in [`Builder::text`] a member is.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    value: Span,
}

impl Entry {
    /// From the quote before the name to the end of the value.
    fn range(&self) -> std::ops::Range<usize> {
        self.key.span.start as usize - 1..self.value.end as usize
    }
}

impl Builder {
    /// A message of this type.
    pub fn new(type_: &str) -> Self {
        Self::untyped().str("type", type_)
    }

    /// An object without a `type`, such as a payload.
    pub fn untyped() -> Self {
        Self { text: Vec::with_capacity(512), entries: Vec::with_capacity(12) }
    }

    /// Adds a string.
    pub fn str(self, key: &str, value: &str) -> Self {
        self.add(key, |out| strings::write(value, out))
    }

    /// Adds a string if there is one.
    pub fn opt_str(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.str(key, value),
            None => self,
        }
    }

    /// Adds a number.
    pub fn u64(self, key: &str, value: u64) -> Self {
        self.add(key, |out| out.extend_from_slice(value.to_string().as_bytes()))
    }

    /// Adds a number.
    pub fn i64(self, key: &str, value: i64) -> Self {
        self.add(key, |out| out.extend_from_slice(value.to_string().as_bytes()))
    }

    /// Adds true or false.
    pub fn bool(self, key: &str, value: bool) -> Self {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.add(key, |out| out.extend_from_slice(text))
    }

    /// Adds a null.
    pub fn null(self, key: &str) -> Self {
        self.add(key, |out| out.extend_from_slice(b"null"))
    }

    /// Adds an array of strings.
    pub fn strings<S: AsRef<str>>(self, key: &str, values: &[S]) -> Self {
        self.add(key, |out| {
            write_array(values, out, |value, out| strings::write(value.as_ref(), out));
        })
    }

    /// Adds JSON text that is in canonical form already, such as what
    /// [`canonicalize_json`](super::canonicalize_json) gives. It is not checked again.
    pub fn raw(self, key: &str, value: &[u8]) -> Self {
        debug_assert!(is_canonical(value), "the value of {key:?} must be canonical");
        self.add(key, |out| out.extend_from_slice(value))
    }

    /// Adds an array of JSON texts that are in canonical form already. They are not checked again.
    pub fn array<'a>(self, key: &str, values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.add(key, |out| {
            write_array(values, out, |value, out| {
                debug_assert!(is_canonical(value), "elements of {key:?} must be canonical");
                out.extend_from_slice(value);
            });
        })
    }

    /// Adds an object, whatever form it is in.
    pub fn object(self, key: &str, value: &Object) -> Self {
        self.add(key, |out| write_object(value, out))
    }

    /// Adds an array of objects, whatever form they are in.
    pub fn objects<'a>(self, key: &str, values: impl IntoIterator<Item = &'a Object>) -> Self {
        self.add(key, |out| write_array(values, out, write_object))
    }

    fn add(mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let start = self.text.len();
        strings::write(key, &mut self.text);
        let (key, _) = walk::string(&self.text, start);
        self.text.push(b':');
        let value = self.text.len();
        write(&mut self.text);
        let value = Span::new(value, self.text.len());
        // Kept sorted as it grows: there are few members, and comparing names is cheap.
        let place = self.entries.binary_search_by(|entry| entry.key.compare(key, &self.text));
        let entry = Entry { key, value };
        match place {
            Ok(index) => self.entries[index] = entry,
            Err(index) => self.entries.insert(index, entry),
        }
        self
    }

    /// The message, unsigned.
    pub fn build(self) -> Object {
        let (raw, members) = self.write(0, |_| true);
        Object::from_canonical(raw.into(), members)
    }

    /// The message, to be signed over everything but the members named in `uncovered`.
    pub fn unsigned(self, uncovered: &'static [&'static str]) -> Unsigned {
        let (text, members) = self.write(unsigned::ROOM, |name| name != "signature");
        Unsigned::new(text, members, uncovered)
    }

    /// The message with a `signature` over everything but the members named in `uncovered`.
    pub fn sign(self, identity: &Identity, uncovered: &[&str]) -> Object {
        let (text, members) = self.write(unsigned::ROOM, |name| name != "signature");
        let signature = identity.sign(&unsigned::signing_bytes(&text, &members, uncovered));
        Unsigned::new(text, members, &[]).with_signature(&URL_SAFE_NO_PAD.encode(signature))
    }

    /// Writes the members whose names are wanted out as an object, and where they are in it.
    fn write(&self, room: usize, wanted: impl Fn(&str) -> bool) -> (Vec<u8>, Vec<Member>) {
        // Room for the braces, commas, a line's end, and what is put in later.
        let mut out = Vec::with_capacity(self.text.len() + self.entries.len() + 3 + room);
        let mut members = Vec::with_capacity(self.entries.len() + 1);
        out.push(b'{');
        for entry in &self.entries {
            if !wanted(&strings::decode(entry.key.span.of(&self.text))) {
                continue;
            }
            if out.len() > 1 {
                out.push(b',');
            }
            let (from, to) = (entry.range().start, out.len());
            out.extend_from_slice(&self.text[entry.range()]);
            let key = Key { span: entry.key.span.moved(from, to), ..entry.key };
            members.push(Member::new(key, entry.value.moved(from, to), &out));
        }
        out.push(b'}');
        (out, members)
    }
}

fn write_array<T>(values: impl IntoIterator<Item = T>, out: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(value, out);
    }
    out.push(b']');
}

fn write_object(value: &Object, out: &mut Vec<u8>) {
    if value.is_canonical() {
        out.extend_from_slice(value.raw());
    } else {
        canonical::write_checked(value.raw(), out);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::json::{SignatureError, verify_object};

    fn sample() -> Builder {
        let loose = Object::parse(Bytes::from_static(br#"{"b":1, "a":"\u0041"}"#)).unwrap();
        Builder::new("task")
            .u64("timestamp", u64::MAX)
            .i64("offset", i64::MIN)
            .str("é", "ü\n")
            .opt_str("there", Some("x"))
            .opt_str("absent", None)
            .bool("yes", true)
            .bool("no", false)
            .null("none")
            .strings("list", &["b", "a"])
            .raw("payload", br#"{"k":[1.50]}"#)
            .array("texts", [&b"1"[..], b"[]"])
            .object("loose", &loose)
            .objects("all", [&loose, &loose])
            .str("there", "again")
    }

    #[test]
    fn output_is_canonical_and_indexed() {
        let built = sample().build();
        let expected = concat!(
            r#"{"all":[{"a":"A","b":1},{"a":"A","b":1}],"list":["b","a"],"loose":{"a":"A","b":1},"#,
            r#""no":false,"none":null,"offset":-9223372036854775808,"payload":{"k":[1.50]},"#,
            r#""texts":[1,[]],"there":"again","timestamp":18446744073709551615,"type":"task","#,
            r#""yes":true,"\u00e9":"\u00fc\n"}"#
        );
        assert_eq!(std::str::from_utf8(built.raw()).unwrap(), expected);
        let parsed = Object::parse(built.raw().clone()).unwrap();
        assert!(parsed.is_canonical() && built.is_canonical());
        assert!(parsed.members().eq(built.members()));
        assert_eq!(Builder::untyped().build().raw(), "{}");
    }

    #[test]
    fn signatures_cover_all_but_what_is_named() {
        let identity = Identity::from_seed([1; 32]);
        let id = identity.id();
        let signed = sample().u64("ttl", 5).sign(&identity, &["ttl"]);
        let check = |object: &Object, uncovered: &[&str]| verify_object(object, &id, uncovered);
        assert_eq!(check(&signed, &["ttl"]), Ok(()));
        assert_eq!(check(&signed, &[]), Err(SignatureError::Invalid));
        let fewer = signed.with_member("ttl", b"4");
        assert_eq!(check(&fewer, &["ttl"]), Ok(()));
        let changed = signed.with_member("yes", b"false");
        assert_eq!(check(&changed, &["ttl"]), Err(SignatureError::Invalid));
        let added = signed.with_member("extra", b"1");
        assert_eq!(check(&added, &["ttl"]), Err(SignatureError::Invalid));
        let other = Identity::from_seed([2; 32]).id();
        assert_eq!(verify_object(&signed, &other, &["ttl"]), Err(SignatureError::Invalid));
        assert_eq!(check(&sample().build(), &[]), Err(SignatureError::Missing));
    }

    #[test]
    fn signing_again_replaces_the_signature() {
        let identity = Identity::from_seed([1; 32]);
        let once = sample().sign(&identity, &[]);
        let twice = sample().str("signature", "old").sign(&identity, &[]);
        assert_eq!(once, twice);
    }

    #[test]
    fn malformed_signatures_are_told_apart() {
        let identity = Identity::from_seed([1; 32]);
        let signed = Builder::new("x").sign(&identity, &[]);
        let text = signed.str("signature").unwrap().unwrap();
        assert_eq!(text.len(), 86);
        // 64 bytes leave four bits of the last character unused; `B` sets one of them.
        let loose_bits = format!("\"{}B\"", &text[..85]);
        for malformed in [
            "\"\"".to_owned(),
            "7".to_owned(),
            format!("\"{text}==\""),
            format!("\"{}\"", &text[..84]),
            format!("\"{text}AAAA\""),
            format!("\"+{}\"", &text[1..]),
            loose_bits,
        ] {
            let object = signed.with_member("signature", malformed.as_bytes());
            let result = verify_object(&object, &identity.id(), &[]);
            assert_eq!(result, Err(SignatureError::Malformed), "{malformed}");
        }
        let null = signed.with_member("signature", b"null");
        assert_eq!(verify_object(&null, &identity.id(), &[]), Err(SignatureError::Missing));
    }
}
