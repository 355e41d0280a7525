//! What a node says about its key: that another one took its place, or that it is void.
//!
//! Statements are signed by the keys they speak of and by nobody else, and stay true whoever brings them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::fields::Fields;
use super::json::{Builder, Object, SignatureError, verify_object};
use super::message::Malformed;
use crate::identity::{Identity, NodeId, verify};
use crate::limits::{MAX_REASON, MAX_ROTATIONS, MAX_STATEMENT, MAX_STATEMENTS};

/// The type of a rotation.
const ROTATION: &str = "rotation";

/// The type of a revocation.
const REVOCATION: &str = "revocation";

/// The members that the old key's signature does not cover: it was made first.
const NOT_BY_OLD: &[&str] = &["old_signature", "signature"];

/// "The node with the key `old` has the key `new` from now on." Signed by both.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The id that ends.
    pub old: NodeId,
    /// The id that takes its place.
    pub new: NodeId,
    /// When it was made, in UNIX seconds by the maker's clock. For people: nothing is decided by it.
    pub timestamp: i64,
    /// The statement.
    pub object: Object,
}

/// "The key of this node is void." Signed by that key.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The id that ends.
    pub node_id: NodeId,
    /// When it was made, in UNIX seconds by the maker's clock. For people: nothing is decided by it.
    pub timestamp: i64,
    /// Why, in words; may be empty.
    pub reason: String,
    /// The statement.
    pub object: Object,
}

/// Revocations on their way.
#[derive(Clone, Debug)]
pub struct Revoked {
    /// Their signatures are not checked yet: most of them are known already.
    pub statements: Vec<Revocation>,
    /// How many links they may still travel.
    pub ttl: u8,
}

impl Rotation {
    /// Signs one with both keys.
    pub fn make(old: &Identity, new: &Identity, unix_s: i64) -> Self {
        let rest = || {
            Builder::new(ROTATION)
                .str("old", &old.id().to_string())
                .str("new", &new.id().to_string())
                .i64("timestamp", unix_s)
        };
        let by_old = old.sign(rest().build().raw());
        let object = rest().str("old_signature", &URL_SAFE_NO_PAD.encode(by_old)).sign(new, &[]);
        Self { old: old.id(), new: new.id(), timestamp: unix_s, object }
    }

    /// Reads one. The signatures are not looked at: see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// When it is none, is too long, or names one id twice.
    pub fn parse(object: &Object) -> Result<Self, Malformed> {
        let f = statement(object, ROTATION)?;
        let (old, new) = (f.node("old")?, f.node("new")?);
        if old == new {
            return Err(f.malformed("new: the same id as old"));
        }
        Ok(Self { old, new, timestamp: f.i64("timestamp")?, object: object.clone() })
    }

    /// Checks both signatures.
    ///
    /// # Errors
    ///
    /// When one is missing, malformed, or not that key's over this statement.
    pub fn verify(&self) -> Result<(), SignatureError> {
        let text = self.object.str("old_signature").map_err(|_| SignatureError::Malformed)?;
        let text = text.ok_or(SignatureError::Missing)?;
        let mut by_old = [0; 64];
        match URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut by_old) {
            Ok(64) => {}
            _ => return Err(SignatureError::Malformed),
        }
        if !verify(&self.old, &self.object.signing_bytes(NOT_BY_OLD), &by_old) {
            return Err(SignatureError::Invalid);
        }
        verify_object(&self.object, &self.new, &[])
    }

    /// The same in bytes of its own, in canonical form: to be kept.
    pub fn kept(&self) -> Self {
        Self { object: kept(&self.object), ..self.clone() }
    }
}

impl Revocation {
    /// Signs one. A reason is cut at 128 characters, and loses control characters.
    pub fn make(identity: &Identity, unix_s: i64, reason: &str) -> Self {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
        let object = Builder::new(REVOCATION)
            .str("node_id", &identity.id().to_string())
            .i64("timestamp", unix_s)
            .str("reason", &reason)
            .sign(identity, &[]);
        Self { node_id: identity.id(), timestamp: unix_s, reason, object }
    }

    /// Reads one. The signature is not looked at: see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// When it is none, or is too long.
    pub fn parse(object: &Object) -> Result<Self, Malformed> {
        let f = statement(object, REVOCATION)?;
        let reason = f.opt_text("reason")?.unwrap_or_default();
        if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(f.malformed(format!("reason: at most {MAX_REASON} characters, no control characters")));
        }
        Ok(Self { node_id: f.node("node_id")?, timestamp: f.i64("timestamp")?, reason, object: object.clone() })
    }

    /// Checks its signature.
    ///
    /// # Errors
    ///
    /// When it is missing, malformed, or not that key's over this statement.
    pub fn verify(&self) -> Result<(), SignatureError> {
        verify_object(&self.object, &self.node_id, &[])
    }

    /// The same in bytes of its own, in canonical form: to be kept.
    pub fn kept(&self) -> Self {
        Self { object: kept(&self.object), ..self.clone() }
    }
}

/// A statement's members, if it is of that type and not too long to be kept.
fn statement<'a>(object: &'a Object, kind: &str) -> Result<Fields<'a>, Malformed> {
    let f = Fields::new(object)?;
    if f.kind() != kind {
        return Err(f.malformed(format!("type: expected {kind:?}")));
    }
    if object.raw().len() > MAX_STATEMENT {
        return Err(f.malformed(format!("longer than {MAX_STATEMENT} bytes")));
    }
    Ok(f)
}

fn kept(object: &Object) -> Object {
    // What was parsed once has a canonical form that can be parsed.
    Object::parse(object.canonical()).map_or_else(|_| object.detached(), |canonical| canonical.detached())
}

/// The member `rotations`: the statements that lead from earlier ids to `node`, the oldest first, each from where the
/// one before it led to. Signatures are not looked at: see [`verify_chain`].
///
/// # Errors
///
/// When there are too many, one can't be read, or they are no chain that ends at `node`.
pub(crate) fn read_chain(f: &Fields<'_>, node: &NodeId) -> Result<Arc<[Rotation]>, Malformed> {
    let objects = f.children("rotations")?;
    if objects.len() > MAX_ROTATIONS {
        return Err(f.malformed(format!("rotations: at most {MAX_ROTATIONS}")));
    }
    let in_chain = |why: &Malformed| f.malformed(format!("rotations: {}", why.why));
    let chain: Vec<Rotation> =
        objects.iter().map(Rotation::parse).collect::<Result<_, _>>().map_err(|why| in_chain(&why))?;
    if !is_chain(&chain, node) {
        return Err(f.malformed("rotations: no chain of statements that ends at this node"));
    }
    Ok(chain.into())
}

/// Whether each statement goes on from where the one before it led to, the last one leads to `node`, and no id comes twice.
pub fn is_chain(chain: &[Rotation], node: &NodeId) -> bool {
    let linked = chain.windows(2).all(|pair| pair[0].new == pair[1].old);
    let ends = chain.last().is_none_or(|last| last.new == *node);
    let olds: std::collections::BTreeSet<&NodeId> = chain.iter().map(|step| &step.old).collect();
    linked && ends && olds.len() == chain.len() && !olds.contains(node)
}

/// Checks the signatures of all of them.
///
/// # Errors
///
/// That of the first one that doesn't verify.
pub fn verify_chain(chain: &[Rotation]) -> Result<(), SignatureError> {
    chain.iter().try_for_each(Rotation::verify)
}

/// Adds the member `rotations`, if there are any.
pub(crate) fn write_chain(builder: Builder, chain: &[Rotation]) -> Builder {
    if chain.is_empty() { builder } else { builder.objects("rotations", chain.iter().map(|step| &step.object)) }
}

impl Revoked {
    /// Reads a message that brings revocations; those that can't be read are left out.
    pub(super) fn read(f: &Fields<'_>, ttl: u8) -> Result<Self, Malformed> {
        let objects = f.children("statements")?;
        if objects.len() > MAX_STATEMENTS {
            return Err(f.malformed(format!("statements: at most {MAX_STATEMENTS}")));
        }
        Ok(Self { statements: objects.iter().filter_map(|o| Revocation::parse(o).ok()).collect(), ttl })
    }
}

/// Brings revocations: at most [`MAX_STATEMENTS`] of them.
pub(crate) fn revoked<'a>(statements: impl IntoIterator<Item = &'a Object>, ttl: u8) -> Object {
    Builder::new("revoked").objects("statements", statements).u64("ttl", ttl.into()).build()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn id(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn reparsed(object: &Object) -> Object {
        Object::parse(Bytes::copy_from_slice(object.raw())).unwrap()
    }

    /// The statement with a member replaced.
    fn with(object: &Object, key: &str, value: &str) -> Object {
        object.with_member(key, value.as_bytes())
    }

    fn member(object: &Object, key: &str) -> String {
        String::from_utf8(object.get(key).unwrap().to_vec()).unwrap()
    }

    fn check_rotation(object: &Object) -> Result<(), String> {
        let rotation = Rotation::parse(object).map_err(|e| e.why)?;
        rotation.verify().map_err(|e| e.to_string())
    }

    #[test]
    fn a_rotation_needs_both_signatures_of_the_keys_it_names() {
        let made = Rotation::make(&id(1), &id(2), 7);
        let good = reparsed(&made.object);
        assert_eq!(check_rotation(&good), Ok(()));
        let other = Rotation::make(&id(3), &id(2), 7).object;
        let elsewhere = Rotation::make(&id(1), &id(3), 7).object;
        let quoted = |id: &Identity| format!("\"{}\"", id.id());
        let swapped = with(&with(&good, "old", &quoted(&id(2))), "new", &quoted(&id(1)));
        let crossed = with(&good, "old_signature", &member(&good, "signature"));
        let crossed = with(&crossed, "signature", &member(&good, "old_signature"));
        let cases = [
            ("no old signature", with(&good, "old_signature", "null")),
            ("no signature", with(&good, "signature", "null")),
            ("another's as the old one", with(&good, "old_signature", &member(&other, "old_signature"))),
            ("another's as the new one", with(&good, "signature", &member(&elsewhere, "signature"))),
            ("an old id that didn't sign", with(&good, "old", &quoted(&id(3)))),
            ("a new id that didn't sign", with(&good, "new", &quoted(&id(3)))),
            ("the ids swapped", swapped),
            ("the signatures swapped", crossed),
            ("the old key for both", with(&good, "signature", &member(&good, "old_signature"))),
            ("another time", with(&good, "timestamp", "8")),
            ("more said than signed", with(&good, "more", "1")),
            ("a text that is no signature", with(&good, "old_signature", "\"AA\"")),
            ("the same id twice", with(&good, "new", &quoted(&id(1)))),
            ("another type", with(&good, "type", "\"revocation\"")),
        ];
        for (what, object) in cases {
            assert!(check_rotation(&reparsed(&object)).is_err(), "{what} was taken: {object:?}");
        }
        // The old key alone, for both roles, with a new id that it made up.
        let rest = Builder::new(ROTATION)
            .str("old", &id(1).id().to_string())
            .str("new", &id(2).id().to_string())
            .i64("timestamp", 7);
        let by_old = id(1).sign(rest.clone().build().raw());
        let forged = rest.str("old_signature", &URL_SAFE_NO_PAD.encode(by_old)).sign(&id(1), &[]);
        assert!(check_rotation(&forged).is_err());
    }

    #[test]
    fn a_revocation_is_signed_by_the_id_it_ends() {
        let made = Revocation::make(&id(1), 7, "lost\u{1b}[2J laptop");
        let good = reparsed(&made.object);
        let read = Revocation::parse(&good).unwrap();
        assert_eq!((read.node_id, read.timestamp, read.reason.as_str()), (id(1).id(), 7, "lost[2J laptop"));
        assert!(read.verify().is_ok() && read.kept().verify().is_ok());
        let other = format!("\"{}\"", id(2).id());
        for (key, value) in [("node_id", other.as_str()), ("timestamp", "8"), ("reason", "\"\""), ("signature", "null")]
        {
            let forged = Revocation::parse(&reparsed(&with(&good, key, value))).unwrap();
            assert!(forged.verify().is_err(), "{key} = {value}");
        }
        let long = format!("\"{}\"", "x".repeat(MAX_REASON + 1));
        assert!(Revocation::parse(&reparsed(&with(&good, "reason", &long))).is_err());
        assert!(Revocation::parse(&reparsed(&with(&good, "reason", "\"\\u001b\""))).is_err());
        let padded = format!("\"{}\"", "x".repeat(MAX_STATEMENT));
        assert!(Revocation::parse(&reparsed(&with(&good, "more", &padded))).is_err());
        let longest = Revocation::make(&id(1), i64::MIN, &"\u{10ffff}".repeat(300));
        assert!(Revocation::parse(&reparsed(&longest.object)).is_ok(), "{} bytes", longest.object.raw().len());
    }

    #[test]
    fn a_chain_goes_from_one_id_to_the_next_and_ends_at_its_node() {
        let step = |a: u8, b: u8| Rotation::make(&id(a), &id(b), 7);
        let read = |steps: &[Rotation], node: u8| {
            let object = write_chain(Builder::new("x"), steps).build();
            let object = reparsed(&object);
            let f = Fields::new(&object).unwrap();
            read_chain(&f, &id(node).id()).map(|chain| chain.len())
        };
        assert_eq!(read(&[], 1), Ok(0));
        assert_eq!(read(&[step(1, 2), step(2, 3), step(3, 4)], 4), Ok(3));
        for (steps, node) in [
            (vec![step(1, 2)], 1),
            (vec![step(1, 2)], 3),
            (vec![step(1, 2), step(3, 4)], 4),
            (vec![step(2, 3), step(1, 2)], 3),
            (vec![step(1, 2), step(2, 1)], 1),
            (vec![step(1, 2), step(2, 1), step(1, 3)], 3),
        ] {
            assert!(read(&steps, node).is_err(), "{steps:?}");
        }
        let long: Vec<Rotation> = (1..=MAX_ROTATIONS as u8 + 1).map(|n| step(n, n + 1)).collect();
        assert!(read(&long, MAX_ROTATIONS as u8 + 2).is_err());
        assert!(read(&long[1..], MAX_ROTATIONS as u8 + 2).is_ok());
        let mut forged = vec![step(1, 2), step(2, 3)];
        assert!(verify_chain(&forged).is_ok());
        forged[0].object = with(&forged[0].object, "timestamp", "8");
        assert!(verify_chain(&forged).is_err());
    }
}
