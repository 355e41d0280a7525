//! Writing messages, canonical from the start.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::canonical::is_canonical;
use super::object::Object;
use super::scan::{Key, Span};
use super::unsigned::{self, Unsigned};
use super::{canonical, strings};
use crate::identity::{Identity, NodeId};

/// Collects the members of a message in any order and writes them in canonical form. Who gives them in the order of their
/// names has them written once; else they are put in order at the end.
///
/// A member given twice has the value given last.
#[derive(Debug, Clone)]
pub struct Builder {
    /// The opening brace, then `"name":value,` of each member, as they were given.
    text: Vec<u8>,
    /// By code points of their names.
    entries: Vec<Entry>,
    /// Whether that is how they stand in the text, each once.
    in_order: bool,
}

/// Where in a text a member is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) value: Span,
}

impl Entry {
    /// From the quote before the name to the end of the value.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.key.span.start as usize - 1..self.value.end as usize
    }

    /// Whether this is its name, which is one without escapes.
    pub(super) fn is(&self, name: &str, text: &[u8]) -> bool {
        self.key.span.of(text) == name.as_bytes()
    }
}

/// Where the next member may begin without being far from the last: see [`Builder::raw`].
const REST: usize = 512;

impl Builder {
    /// A message of this type.
    pub fn new(type_: &str) -> Self {
        Self::untyped().str("type", type_)
    }

    /// An object without a `type`, such as a payload.
    pub fn untyped() -> Self {
        let mut text = Vec::with_capacity(REST);
        text.push(b'{');
        Self { text, entries: Vec::with_capacity(12), in_order: true }
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

    /// Adds the text of a node's id.
    pub fn node(self, key: &str, value: &NodeId) -> Self {
        self.add(key, |out| {
            out.push(b'"');
            out.extend_from_slice(&value.text());
            out.push(b'"');
        })
    }

    /// Adds a number.
    pub fn u64(self, key: &str, value: u64) -> Self {
        self.add(key, |out| write_digits(value, out))
    }

    /// Adds a number.
    pub fn i64(self, key: &str, value: i64) -> Self {
        self.add(key, |out| {
            if value < 0 {
                out.push(b'-');
            }
            write_digits(value.unsigned_abs(), out);
        })
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
        self.add(key, |out| {
            // With some room for what follows: else what is long would be moved again, into twice the room it needs.
            out.reserve(value.len() + REST);
            out.extend_from_slice(value);
        })
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
        let end = self.text.len();
        let key = Key { span: Span::new(start + 1, end - 1), escaped: end - start != key.len() + 2 };
        self.text.push(b':');
        let value = self.text.len();
        write(&mut self.text);
        let entry = Entry { key, value: Span::new(value, self.text.len()) };
        self.text.push(b',');
        if self.entries.last().is_none_or(|last| last.key.compare(key, &self.text).is_lt()) {
            self.entries.push(entry);
            return self;
        }
        // Kept sorted as it grows: there are few members, and comparing names is cheap.
        self.in_order = false;
        match self.entries.binary_search_by(|entry| entry.key.compare(key, &self.text)) {
            Ok(index) => self.entries[index] = entry,
            Err(index) => self.entries.insert(index, entry),
        }
        self
    }

    /// The message, unsigned.
    pub fn build(self) -> Object {
        let (text, entries) = self.finish();
        unsigned::object(text, &entries)
    }

    /// The message, to be signed over everything but the members named in `uncovered`.
    pub fn unsigned(mut self, uncovered: &'static [&'static str]) -> Unsigned {
        self.remove("signature");
        let (text, entries) = self.finish();
        Unsigned::new(text, entries, uncovered)
    }

    /// The message with a `signature` over everything but the members named in `uncovered`.
    pub fn sign(mut self, identity: &Identity, uncovered: &[&str]) -> Object {
        self.remove("signature");
        let (text, entries) = self.finish();
        let signature = identity.sign(&unsigned::signing_bytes(&text, &entries, uncovered));
        Unsigned::new(text, entries, &[]).with_signature(URL_SAFE_NO_PAD.encode(signature).as_bytes())
    }

    fn remove(&mut self, name: &str) {
        if let Some(index) = self.entries.iter().position(|entry| entry.is(name, &self.text)) {
            self.entries.remove(index);
            self.in_order = false;
        }
    }

    /// The text in order, and where its members are in it.
    fn finish(mut self) -> (Vec<u8>, Vec<Entry>) {
        if self.in_order {
            match self.text.last_mut() {
                Some(comma @ b',') => *comma = b'}',
                _ => self.text.push(b'}'),
            }
            return (self.text, self.entries);
        }
        // Room for what is put in later.
        let mut out = Vec::with_capacity(self.text.len() + 1 + unsigned::ROOM);
        out.push(b'{');
        for entry in &mut self.entries {
            if out.len() > 1 {
                out.push(b',');
            }
            let (from, to) = (entry.range().start, out.len());
            out.extend_from_slice(&self.text[entry.range()]);
            entry.key.span = entry.key.span.moved(from, to);
            entry.value = entry.value.moved(from, to);
        }
        out.push(b'}');
        (out, self.entries)
    }
}

/// Writes a number.
fn write_digits(mut value: u64, out: &mut Vec<u8>) {
    // The largest has so many.
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        // Below ten, so it fits.
        digits[start] += (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
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
    fn the_order_they_are_given_in_changes_nothing() {
        let id = Identity::from_seed([1; 32]).id();
        let add = |b: Builder, n: usize| match n {
            0 => b.str("a", "x"),
            1 => b.str("aa", ""),
            2 => b.u64("b", 0),
            3 => b.node("c", &id),
            4 => b.str("\n", "y"),
            _ => b.str("é", "z"),
        };
        let built = |order: &[usize]| order.iter().fold(Builder::untyped(), |b, n| add(b, *n)).build();
        let in_order = built(&[4, 0, 1, 2, 3, 5]);
        assert_eq!(in_order.str("c").unwrap().unwrap(), id.to_string());
        assert!(Object::parse(in_order.raw().clone()).unwrap().is_canonical());
        for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 2, 1]] {
            let other = built(&order);
            assert_eq!(other, in_order);
            assert!(other.members().eq(in_order.members()));
        }
        let twice = built(&[0, 0]);
        assert_eq!(twice.raw(), r#"{"a":"x"}"#);
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for n in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX / 10, u64::MAX] {
            assert_eq!(Builder::untyped().u64("n", n).build().get("n"), Some(n.to_string().as_bytes()));
        }
        for n in [i64::MIN, -10, -1, 0, i64::MAX] {
            assert_eq!(Builder::untyped().i64("n", n).build().get("n"), Some(n.to_string().as_bytes()));
        }
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
