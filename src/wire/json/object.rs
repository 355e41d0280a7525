//! A message as it was received: its bytes, checked, and where its members lie.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::JsonError;
use super::scan::{self, Member, Span};
use super::{canonical, quick, strings, walk};

/// Up to so many members are looked through one by one.
const FEW: usize = 16;

/// A checked JSON object in the bytes it arrived as. Cloning is cheap.
///
/// It keeps alive the buffer its bytes are a part of; what is stored for longer should be [`detached`](Self::detached).
#[derive(Clone)]
pub struct Object {
    raw: Bytes,
    /// Top-level members by code points of their names.
    members: Arc<[Member]>,
    canonical: bool,
}

impl Object {
    /// Checks the bytes of a message.
    ///
    /// # Errors
    ///
    /// When they aren't one JSON object in valid UTF-8, when a member appears twice at any depth, or a limit of
    /// [`limits`](crate::limits) is passed; see [`JsonError`].
    pub fn parse(raw: Bytes) -> Result<Self, JsonError> {
        // As a rule it is another elo's.
        if let Some(members) = quick::members(&raw) {
            return Ok(Self { raw, members, canonical: true });
        }
        let scan = scan::object(&raw)?;
        Ok(Self { raw, members: scan.members.into(), canonical: scan.canonical })
    }

    /// Puts together what the builder has written.
    pub(super) fn from_canonical(raw: Bytes, members: Arc<[Member]>) -> Self {
        Self { raw, members, canonical: true }
    }

    /// What it holds beside itself when it is [`detached`](Self::detached), in bytes.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        let decoded: usize = self.members.iter().filter_map(|m| m.decoded.as_ref()).map(|d| d.len()).sum();
        self.raw.len() + 24 + 16 + self.members.len() * size_of::<Member>() + decoded
    }

    /// The bytes as they arrived.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Whether the bytes are their own canonical form.
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// The same object in a buffer of its own. A slice of a large message that is kept keeps all of the message.
    pub fn detached(&self) -> Self {
        Self { raw: Bytes::copy_from_slice(&self.raw), ..self.clone() }
    }

    /// Name and JSON text of each top-level member, by code points of the names.
    pub fn members(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.members.iter().map(|member| {
            let name = member.name(&self.raw);
            // Names were checked to be UTF-8 with the rest of the text.
            let name = std::str::from_utf8(name).unwrap_or_default();
            (name, member.value.of(&self.raw))
        })
    }

    /// The JSON text of a top-level member.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.span(key).map(|span| span.of(&self.raw))
    }

    /// A member that is an object, sharing this one's bytes. Absent or null: `None`.
    ///
    /// The error is [`JsonError::NotAnObject`]: everything else was checked with the whole.
    pub fn child(&self, key: &str) -> Option<Result<Self, JsonError>> {
        let span = self.span(key).filter(|span| span.of(&self.raw) != b"null")?;
        Some(self.object_at(span))
    }

    /// A member that is an array of objects, sharing this one's bytes. Absent or null: `None`.
    ///
    /// The error is [`JsonError::NotAnObject`], for an element as for the member itself.
    pub fn children(&self, key: &str) -> Option<Result<Vec<Self>, JsonError>> {
        let span = self.span(key).filter(|span| span.of(&self.raw) != b"null")?;
        if self.raw.get(span.start as usize) != Some(&b'[') {
            let offset = span.start as usize;
            return Some(Err(JsonError::NotAnObject { offset }));
        }
        let elements = walk::elements(span.of(&self.raw)).into_iter();
        let shift = span.start;
        Some(
            elements
                .map(|element| self.object_at(Span { start: shift + element.start, end: shift + element.end }))
                .collect(),
        )
    }

    fn object_at(&self, span: Span) -> Result<Self, JsonError> {
        let raw = self.raw.slice(span.range());
        if raw.first() != Some(&b'{') {
            let offset = span.start as usize;
            return Err(JsonError::NotAnObject { offset });
        }
        if self.canonical {
            // A part of a canonical text is canonical, so it is enough to find the members.
            let members = walk::members(&raw);
            return Ok(Self::from_canonical(raw, members.into()));
        }
        Self::parse(raw)
    }

    /// The canonical form of the whole object.
    pub fn canonical(&self) -> Bytes {
        match self.signing_bytes(&[]) {
            Cow::Borrowed(_) => self.raw.clone(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }

    /// The canonical form of the object without the top-level members named.
    pub fn signing_bytes(&self, without: &[&str]) -> Cow<'_, [u8]> {
        let kept = |member: &&Member| {
            let name = member.name(&self.raw);
            !without.iter().any(|key| key.as_bytes() == name)
        };
        if self.canonical && self.members.iter().all(|member| kept(&member)) {
            return Cow::Borrowed(&self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        out.push(b'{');
        for member in self.members.iter().filter(kept) {
            if out.len() > 1 {
                out.push(b',');
            }
            if self.canonical {
                // Name, colon and value as they stand.
                let start = member.key.start as usize - 1;
                out.extend_from_slice(&self.raw[start..member.value.end as usize]);
            } else {
                strings::write(&strings::decode(member.key.of(&self.raw)), &mut out);
                out.push(b':');
                canonical::write_checked(member.value.of(&self.raw), &mut out);
            }
        }
        out.push(b'}');
        Cow::Owned(out)
    }

    /// What stands before and behind a member in canonical text, with the commas that are left without it: together they
    /// are [`signing_bytes`](Self::signing_bytes) without that member. `None` if the text is not canonical.
    pub(in crate::wire) fn around(&self, key: &str) -> Option<(&[u8], &[u8])> {
        if !self.canonical {
            return None;
        }
        let Ok(index) = self.position(key) else { return Some((&self.raw, &[])) };
        let member = &self.members[index];
        // From the quote before the name to the end of the value; and the comma before it, or, of the first, the one behind.
        let (start, end) = (member.key.start as usize - 1, member.value.end as usize);
        let (start, end) = match (index > 0, self.members.len() > 1) {
            (true, _) => (start - 1, end),
            (false, true) => (start, end + 1),
            (false, false) => (start, end),
        };
        Some((&self.raw[..start], &self.raw[end..]))
    }

    /// The object with a top-level member replaced or added, the rest as it was: for what a signature doesn't cover.
    /// `raw_value` must be JSON in canonical form; then the result is canonical if this object is.
    pub fn with_member(&self, key: &str, raw_value: &[u8]) -> Self {
        debug_assert!(
            scan::value(raw_value).is_ok_and(|scan| scan.canonical),
            "the value of {key:?} must be canonical JSON"
        );
        let position = self.position(key);
        // The bytes that go, and those that come in their place.
        let (cut, insert) = match position {
            Ok(index) => (self.members[index].value.range(), raw_value.to_vec()),
            Err(index) => self.insertion(index, key, raw_value),
        };
        let mut raw = Vec::with_capacity(self.raw.len() + insert.len());
        raw.extend_from_slice(&self.raw[..cut.start]);
        raw.extend_from_slice(&insert);
        raw.extend_from_slice(&self.raw[cut.end..]);

        // What lies behind the cut moves along; a value that is cut itself gets its span below.
        let moved = |span: Span| match span.start as usize {
            start if start < cut.end => span,
            _ => span.moved(cut.end, cut.start + insert.len()),
        };
        let mut members: Vec<Member> = self
            .members
            .iter()
            .map(|member| Member {
                key: moved(member.key),
                decoded: member.decoded.clone(),
                value: moved(member.value),
            })
            .collect();
        match position {
            Ok(index) => {
                let start = cut.start;
                members[index].value = Span::new(start, start + insert.len());
            }
            Err(index) => {
                let quote = cut.start + usize::from(insert.first() == Some(&b','));
                let (name, colon) = walk::string(&raw, quote);
                let value = Span::new(colon + 1, colon + 1 + raw_value.len());
                members.insert(index, Member::new(name, value, &raw));
            }
        }
        Self { raw: raw.into(), members: members.into(), canonical: self.canonical }
    }

    /// Where and how a new member enters the text. It becomes the member at `index`: in canonical text that is also
    /// its place in the text; in other text it comes first, as good a place as any.
    fn insertion(&self, index: usize, key: &str, value: &[u8]) -> (std::ops::Range<usize>, Vec<u8>) {
        let before = index.checked_sub(1).filter(|_| self.canonical);
        let place = match before {
            Some(before) => self.members[before].value.end as usize,
            None => walk::skip_space(&self.raw, 0) + 1,
        };
        let mut insert = Vec::with_capacity(key.len() + value.len() + 4);
        if before.is_some() {
            insert.push(b',');
        }
        strings::write(key, &mut insert);
        insert.push(b':');
        insert.extend_from_slice(value);
        if before.is_none() && !self.members.is_empty() {
            insert.push(b',');
        }
        (place..place, insert)
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| member.name(&self.raw).cmp(key.as_bytes()))
    }

    fn span(&self, key: &str) -> Option<Span> {
        if self.members.len() > FEW {
            let index = self.position(key).ok()?;
            return Some(self.members[index].value);
        }
        // Most names have another length: then this is quicker than to halve.
        self.members.iter().find(|member| member.is(key, &self.raw)).map(|member| member.value)
    }
}

/// Two objects are equal if their bytes are.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads can be long and private: tell what it is, not what it says.
        let names: Vec<_> = self.members().take(16).map(|(name, _)| name).collect();
        f.debug_struct("Object")
            .field("bytes", &self.raw.len())
            .field("canonical", &self.canonical)
            .field("members", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Object {
        Object::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn nested_objects_share_the_bytes() {
        for text in [
            r#"{"a":[{"x":{"y":[1,"}"]}},{}],"o":{"k":"v","l":[{}]}}"#,
            r#"{ "o" : {"l":[{}], "k":"v"}, "a": [ {"x":{"y":[1,"}"]}} , {} ] }"#,
        ] {
            let object = parse(text);
            let inner = object.child("o").unwrap().unwrap();
            assert_eq!(inner.str("k").unwrap().unwrap(), "v");
            assert!(object.raw().as_ptr_range().contains(&inner.raw().as_ptr()));
            assert_eq!(inner.children("l").unwrap().unwrap().len(), 1);
            let elements = object.children("a").unwrap().unwrap();
            assert_eq!(elements.len(), 2);
            let x = elements[0].child("x").unwrap().unwrap();
            assert_eq!(x.get("y"), Some(&br#"[1,"}"]"#[..]));
            assert!(x.is_canonical() && elements[1].is_canonical());
            assert_eq!(inner.is_canonical(), object.is_canonical());
            assert!(object.detached().raw().as_ptr() != object.raw().as_ptr());
            assert_eq!(object.detached(), object);
        }
        let object = parse(r#"{"a":[{},7],"b":{},"c":[]}"#);
        let error = object.children("a").unwrap().unwrap_err();
        assert_eq!(error, JsonError::NotAnObject { offset: 9 });
        let error = object.children("b").unwrap().unwrap_err();
        assert_eq!(error, JsonError::NotAnObject { offset: 16 });
        assert!(object.child("c").unwrap().is_err());
        assert!(object.children("c").unwrap().unwrap().is_empty());
    }

    #[test]
    fn bytes_to_sign_leave_members_out() {
        let canonical = parse(r#"{"a":1,"b":{"c":2},"signature":"x","ttl":3}"#);
        assert!(canonical.is_canonical());
        assert!(matches!(canonical.signing_bytes(&[]), Cow::Borrowed(_)));
        assert!(matches!(canonical.signing_bytes(&["none"]), Cow::Borrowed(_)));
        let loose = parse(r#"{"ttl":3, "b":{"c":2},"signatur\u0065":"x","a":1}"#);
        assert!(!loose.is_canonical());
        assert_eq!(loose.canonical(), canonical.canonical());
        for (without, expected) in [
            (&["signature"][..], r#"{"a":1,"b":{"c":2},"ttl":3}"#),
            (&["ttl", "signature"], r#"{"a":1,"b":{"c":2}}"#),
            (&["a"], r#"{"b":{"c":2},"signature":"x","ttl":3}"#),
            (&["none"], r#"{"a":1,"b":{"c":2},"signature":"x","ttl":3}"#),
            (&["ttl"], r#"{"a":1,"b":{"c":2},"signature":"x"}"#),
            (&["a", "b", "signature", "ttl"], "{}"),
        ] {
            assert_eq!(text(&canonical.signing_bytes(without)), expected);
            if let [one] = without {
                let (before, after) = canonical.around(one).unwrap();
                assert_eq!(text(&[before, after].concat()), expected);
            }
            assert_eq!(text(&loose.signing_bytes(without)), expected);
        }
    }

    #[test]
    fn the_only_member_can_be_cut_out() {
        let object = parse(r#"{"signature":"x"}"#);
        assert_eq!(object.around("signature"), Some((&b"{"[..], &b"}"[..])));
        assert_eq!(parse("{ }").around("signature"), None);
        assert_eq!(parse("{}").around("signature"), Some((&b"{}"[..], &b""[..])));
    }

    #[test]
    fn replacing_and_adding_members_keeps_the_rest() {
        for (before, key, value, after) in [
            (r#"{}"#, "k", "1", r#"{"k":1}"#),
            (r#"{"b":1}"#, "a", "2", r#"{"a":2,"b":1}"#),
            (r#"{"b":1}"#, "c", "2", r#"{"b":1,"c":2}"#),
            (r#"{"a":[1],"c":{"d":2}}"#, "b", "null", r#"{"a":[1],"b":null,"c":{"d":2}}"#),
            (r#"{"a":1,"ttl":5,"z":9}"#, "ttl", "10", r#"{"a":1,"ttl":10,"z":9}"#),
            (r#"{"a":1}"#, "é", "2", r#"{"a":1,"\u00e9":2}"#),
            (r#" { "z":1, "a":2 } "#, "m", "3", r#" {"m":3, "z":1, "a":2 } "#),
            (r#" { "z":1, "a":2 } "#, "z", "[3]", r#" { "z":[3], "a":2 } "#),
        ] {
            let old = parse(before);
            let new = old.with_member(key, value.as_bytes());
            assert_eq!(text(new.raw()), after);
            let again = parse(after);
            assert_eq!(new.is_canonical(), again.is_canonical());
            assert!(new.members().eq(again.members()), "{before} {key}");
        }
    }

    #[test]
    fn debug_keeps_values_to_itself() {
        let shown = format!("{:?}", parse(r#"{"payload":"secret"}"#));
        assert!(shown.contains("payload") && !shown.contains("secret"));
    }
}
