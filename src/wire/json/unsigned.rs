//! A message that is complete but for its signature.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::builder::Entry;
use super::object::Object;
use super::scan::{Key, Member, Span};
use crate::identity::Identity;

/// What the name, the quotes, the colon and the comma of the member take.
const AROUND: usize = r#","signature":"""#.len();

/// The length of a plain signature's text.
const PLAIN: usize = 86;

/// What a plain signature makes a message longer by.
pub(super) const ROOM: usize = AROUND + PLAIN;

/// A message in canonical form, without its `signature`. It is written once; the signature is put into the same text.
#[derive(Clone, Debug)]
pub struct Unsigned {
    text: Vec<u8>,
    /// By code points of their names, which is how they stand in the text.
    entries: Vec<Entry>,
    uncovered: &'static [&'static str],
}

impl Unsigned {
    /// `text` is canonical, has those members, and no `signature`.
    pub(super) fn new(text: Vec<u8>, entries: Vec<Entry>, uncovered: &'static [&'static str]) -> Self {
        Self { text, entries, uncovered }
    }

    /// How long it is once it is signed plainly, in bytes.
    pub fn signed_len(&self) -> usize {
        self.text.len() + ROOM
    }

    /// Whether a signature covers all of it. What changes on its way (the `ttl` of queries and events) is signed plainly.
    pub fn is_all_covered(&self) -> bool {
        self.uncovered.is_empty()
    }

    /// What a signature is over.
    pub fn signing_bytes(&self) -> Cow<'_, [u8]> {
        signing_bytes(&self.text, &self.entries, self.uncovered)
    }

    /// Signs it by itself.
    pub fn sign(self, identity: &Identity) -> Object {
        let signature = self.plain_signature(identity);
        self.with_signature(&signature)
    }

    /// The text of a signature over it alone.
    pub(in crate::wire) fn plain_signature(&self, identity: &Identity) -> [u8; PLAIN] {
        let mut text = [0; PLAIN];
        let written = URL_SAFE_NO_PAD.encode_slice(identity.sign(&self.signing_bytes()), &mut text);
        debug_assert_eq!(written, Ok(PLAIN));
        text
    }

    /// The signed message in pieces, for who only writes it. A signature is base64, so nothing in it has to be escaped.
    pub(in crate::wire) fn parts<'a>(&'a self, signature: &'a [u8]) -> [&'a [u8]; 5] {
        let (at, place) = self.place();
        let (before, after) = self.text.split_at(place);
        let (lead, tail) = self.around(at);
        [before, lead, signature, tail, after]
    }

    /// What is written around the signature's text if that is member `at`.
    fn around(&self, at: usize) -> (&'static [u8], &'static [u8]) {
        let lead: &[u8] = if at > 0 { b",\"signature\":\"" } else { b"\"signature\":\"" };
        let tail: &[u8] = if at == 0 && !self.entries.is_empty() { b"\"," } else { b"\"" };
        (lead, tail)
    }

    /// Which member the signature is to be, and where in the text it goes: behind the member before, if there is one.
    fn place(&self) -> (usize, usize) {
        let is_before = |entry: &Entry| entry.key.compare_to(b"signature", &self.text).is_lt();
        let at = self.entries.partition_point(is_before);
        (at, at.checked_sub(1).map_or(1, |before| self.entries[before].value.end as usize))
    }

    /// Puts a signature's text in.
    pub(in crate::wire) fn with_signature(self, signature: &[u8]) -> Object {
        let (at, place) = self.place();
        let (lead, tail) = self.around(at);
        let (old, more) = (self.text.len(), lead.len() + signature.len() + tail.len());
        let name = place + usize::from(at > 0) + 1;
        let value = name + "signature\":".len();
        let Self { mut text, mut entries, .. } = self;
        // What comes behind it moves along: as a rule no more than the numbers and the type.
        text.reserve_exact(more);
        text.resize(old + more, 0);
        text.copy_within(place..old, place + more);
        let mut to = place;
        for part in [lead, signature, tail] {
            text[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        for entry in &mut entries[at..] {
            entry.key.span = entry.key.span.moved(place, place + more);
            entry.value = entry.value.moved(place, place + more);
        }
        let key = Key { span: Span::new(name, name + "signature".len()), escaped: false };
        entries.insert(at, Entry { key, value: Span::new(value, value + signature.len() + 2) });
        object(text, &entries)
    }
}

/// The object of a canonical text with these members.
pub(super) fn object(mut text: Vec<u8>, entries: &[Entry]) -> Object {
    // Objects are kept, some of them for long.
    text.shrink_to_fit();
    let members = entries.iter().map(|entry| Member::new(entry.key, entry.value, &text)).collect();
    Object::from_canonical(text.into(), members)
}

/// A canonical text without the members named.
pub(super) fn signing_bytes<'a>(text: &'a [u8], entries: &[Entry], uncovered: &[&str]) -> Cow<'a, [u8]> {
    if uncovered.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    out.push(b'{');
    for entry in entries {
        if uncovered.iter().any(|key| entry.is(key, text)) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        // Name, colon and value as they stand.
        out.extend_from_slice(&text[entry.range()]);
    }
    out.push(b'}');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{Builder, verify_object};

    #[test]
    fn the_signature_takes_its_place_in_the_text() {
        let identity = Identity::from_seed([1; 32]);
        let samples = [
            Builder::untyped(),
            Builder::untyped().u64("a", 1),
            Builder::untyped().u64("z", 1),
            Builder::untyped().u64("a", 1).u64("z", 2),
            Builder::untyped().u64("signaturd", 1).u64("signatur", 2).u64("signaturee", 3).u64("signaturf", 4),
            Builder::new("task").str("é", "ü").str("\n", "x").raw("payload", br#"{"signature":"no"}"#),
            Builder::new("x").str("signature", "old").u64("ttl", 1),
        ];
        for builder in samples {
            let unsigned = builder.clone().unsigned(&[]);
            assert!(unsigned.is_all_covered());
            let bytes = unsigned.signing_bytes().into_owned();
            let length = unsigned.signed_len();
            let signed = unsigned.sign(&identity);
            // Written by the way that knows nothing of this one.
            let text = URL_SAFE_NO_PAD.encode(identity.sign(&bytes));
            let other = builder.str("signature", &text).build();
            assert_eq!(signed, other);
            assert!(length.abs_diff(signed.raw().len()) <= 1, "{length} {}", signed.raw().len());
            let parsed = Object::parse(signed.raw().clone()).unwrap();
            assert!(parsed.is_canonical() && parsed.members().eq(signed.members()));
            assert_eq!(*parsed.signing_bytes(&["signature"]), bytes);
            assert_eq!(verify_object(&parsed, &identity.id(), &[]), Ok(()));
        }
    }

    #[test]
    fn what_is_not_covered_is_left_out() {
        let identity = Identity::from_seed([1; 32]);
        let unsigned = Builder::new("query").u64("ttl", 5).str("id", "x").unsigned(&["ttl"]);
        assert!(!unsigned.is_all_covered());
        assert_eq!(&*unsigned.signing_bytes(), br#"{"id":"x","type":"query"}"#);
        let signed = unsigned.sign(&identity);
        assert_eq!(verify_object(&signed.with_member("ttl", b"4"), &identity.id(), &["ttl"]), Ok(()));
    }
}
