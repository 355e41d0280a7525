//! A message that is complete but for its signature.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::object::Object;
use super::scan::{Member, Span};
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
    members: Vec<Member>,
    uncovered: &'static [&'static str],
}

impl Unsigned {
    /// `text` is canonical, has those members, and no `signature`.
    pub(super) fn new(text: Vec<u8>, members: Vec<Member>, uncovered: &'static [&'static str]) -> Self {
        Self { text, members, uncovered }
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
        signing_bytes(&self.text, &self.members, self.uncovered)
    }

    /// Signs it by itself.
    pub fn sign(self, identity: &Identity) -> Object {
        let signature = identity.sign(&self.signing_bytes());
        self.with_signature(&URL_SAFE_NO_PAD.encode(signature))
    }

    /// Puts a signature's text in: base64, so nothing in it has to be escaped.
    pub(in crate::wire) fn with_signature(self, signature: &str) -> Object {
        let Self { mut text, mut members, .. } = self;
        let at = members.partition_point(|member| member.name(&text) < &b"signature"[..]);
        let (place, first, last) = match at.checked_sub(1) {
            Some(before) => (members[before].value.end as usize, true, false),
            None => (1, false, !members.is_empty()),
        };
        let parts: [&[u8]; 4] = [
            if first { b",\"signature\":\"" } else { b"\"signature\":\"" },
            signature.as_bytes(),
            b"\"",
            if last { b"," } else { b"" },
        ];
        let (old, more) = (text.len(), parts.iter().map(|part| part.len()).sum::<usize>());
        // What comes behind it moves along: as a rule no more than the numbers and the type.
        text.reserve_exact(more);
        text.resize(old + more, 0);
        text.copy_within(place..old, place + more);
        let mut to = place;
        for part in parts {
            text[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        for member in &mut members[at..] {
            member.key = member.key.moved(place, place + more);
            member.value = member.value.moved(place, place + more);
        }
        let name = place + usize::from(first) + 1;
        let value = name + "signature\":".len();
        let key = Span::new(name, name + "signature".len());
        members.insert(at, Member { key, decoded: None, value: Span::new(value, value + signature.len() + 2) });
        Object::from_canonical(text.into(), members)
    }
}

/// A canonical text without the members named.
pub(super) fn signing_bytes<'a>(text: &'a [u8], members: &[Member], uncovered: &[&str]) -> Cow<'a, [u8]> {
    if uncovered.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    out.push(b'{');
    for member in members {
        let name = member.name(text);
        if uncovered.iter().any(|key| key.as_bytes() == name) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        // Name, colon and value as they stand.
        out.extend_from_slice(&text[member.key.start as usize - 1..member.value.end as usize]);
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
