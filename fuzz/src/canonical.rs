//! The canonical form, against another implementation of it.

use bytes::Bytes;
use elo::wire::{Object, canonicalize_json, canonicalize_value};

use super::reference::{self, Value};

pub(super) fn text(data: &[u8]) {
    let expected = reference::read(data);
    let canonical = canonicalize_json(data);
    match (&expected, &canonical) {
        (Some(value), Ok(canonical)) => assert_eq!(reference::print(value).as_bytes(), canonical),
        (None, Err(error)) => assert!(error.offset() <= data.len(), "{error}"),
        (expected, found) => panic!("one reads it, the other doesn't: {expected:?} {found:?}"),
    }
    let parsed = Object::parse(Bytes::copy_from_slice(data));
    assert_eq!(parsed.is_ok(), matches!(expected, Some(Value::Object(_))));
    let (Some(value), Ok(canonical)) = (expected, canonical) else { return };
    assert_eq!(canonicalize_json(&canonical).as_ref(), Ok(&canonical), "the canonical form is its own");
    by_serde(data, &canonical);
    if let (Value::Object(members), Ok(object)) = (&value, parsed) {
        object_agrees(&object, members, &canonical);
    }
}

/// A third one: what serde_json reads of both must be the same, and what we print of it must read back.
fn by_serde(data: &[u8], canonical: &[u8]) {
    let read = |text| serde_json::from_slice::<serde_json::Value>(text).ok();
    // Some of what we accept it refuses: integers beyond every float.
    let Some(value) = read(data) else { return };
    assert_eq!(Some(&value), read(canonical).as_ref());
    let Ok(printed) = canonicalize_value(&value) else { return };
    assert_eq!(canonicalize_json(&printed).as_ref(), Ok(&printed), "what we print is canonical");
    assert_eq!(read(&printed), Some(value), "a value changed on its way through us");
}

fn object_agrees(object: &Object, members: &std::collections::BTreeMap<String, Value>, canonical: &[u8]) {
    assert_eq!(object.canonical(), canonical);
    assert_eq!(object.is_canonical(), object.raw() == canonical);
    assert!(object.members().map(|(name, _)| name).eq(members.keys()));
    for (name, text) in object.members() {
        assert_eq!(reference::read(text).as_ref(), members.get(name), "{name}");
    }
    let again = Object::parse(Bytes::copy_from_slice(canonical)).unwrap();
    assert!(again.is_canonical());
    for (name, value) in members.iter().take(16) {
        without(object, members, name);
        with(object, members, name);
        match (value, object.str(name)) {
            (Value::String(text), Ok(Some(read))) => assert_eq!(*text, read),
            (Value::Null, Ok(None)) => {}
            (Value::String(_) | Value::Null, read) => panic!("{name}: {read:?}"),
            (_, read) => assert!(read.is_err(), "{name}"),
        }
        if let (Value::Number(text), Ok(Some(number))) = (value, object.u64(name)) {
            assert_eq!(*text, number.to_string());
        }
        if let (Value::Number(text), Ok(Some(number))) = (value, object.i64(name)) {
            assert_eq!(text.parse(), Ok(number));
        }
        if let Some(Ok(child)) = object.child(name) {
            assert_eq!(child.canonical(), reference::print(value).as_bytes());
            assert_eq!(again.child(name).unwrap().unwrap().raw(), &child.canonical());
        }
        if let (Value::Array(values), Some(Ok(children))) = (value, object.children(name)) {
            assert!(children.iter().map(Object::canonical).eq(values.iter().map(|v| Bytes::from(reference::print(v)))));
        }
        let _ = (object.strings(name), object.f64(name), object.bool(name));
    }
    with(object, members, "never named before");
}

/// What a signature covers.
fn without(object: &Object, members: &std::collections::BTreeMap<String, Value>, name: &str) {
    let mut less = members.clone();
    less.remove(name);
    let expected = reference::print(&Value::Object(less));
    assert_eq!(object.signing_bytes(&[name]), expected.as_bytes(), "without {name}");
}

fn with(object: &Object, members: &std::collections::BTreeMap<String, Value>, name: &str) {
    let mut more = members.clone();
    more.insert(name.to_owned(), Value::Array(vec![Value::Number("1".into())]));
    let changed = object.with_member(name, b"[1]");
    let again = Object::parse(changed.raw().clone()).expect("it is JSON still");
    assert_eq!(again.canonical(), reference::print(&Value::Object(more)).as_bytes(), "with {name}");
    assert_eq!(changed.canonical(), again.canonical());
    // The one member that was not canonical may be the one that went: then it is not noticed, and no harm.
    assert!(again.is_canonical() || !changed.is_canonical());
    assert!(changed.members().eq(again.members()));
}
