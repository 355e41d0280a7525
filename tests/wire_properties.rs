//! What holds for every message: reading and writing agree, whatever the bytes and however they arrive.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use elo::wire::codec::encode;
use elo::wire::{Builder, Codec, Framing, Object, canonicalize_json, canonicalize_value, verify_object};
use elo::{Identity, NodeId};
use proptest::prelude::*;
use serde_json::Value;
use tokio_util::codec::Decoder;

/// Values with everything in them that is written in more than one way.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x7f\"\\\\/é€😀]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn read(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map("[a-zA-Z_é😀\"\n]{0,6}", value(), 0..8)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_is_a_fixed_point(value in object()) {
        let canonical = canonicalize_value(&value).unwrap();
        let parsed = Object::parse(canonical.clone().into()).unwrap();
        prop_assert!(parsed.is_canonical());
        prop_assert_eq!(&parsed.canonical()[..], &canonical[..]);
        prop_assert_eq!(read(&canonical), value);
    }

    #[test]
    fn other_spellings_have_the_same_canonical_form(value in object()) {
        // serde_json writes Unicode as itself, and here with white space.
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let compact = serde_json::to_vec(&value).unwrap();
        let canonical = canonicalize_json(&compact).unwrap();
        prop_assert_eq!(&canonicalize_json(&pretty).unwrap(), &canonical);
        let parsed = Object::parse(pretty.into()).unwrap();
        prop_assert_eq!(&parsed.canonical()[..], &canonical[..]);
        prop_assert!(Object::parse(canonical.into()).unwrap().is_canonical());
    }

    #[test]
    fn canonical_means_canonicalising_changes_nothing(text in "[{}\\[\\]\":,\\\\u0a1. /bn]{0,24}") {
        if let Ok(parsed) = Object::parse(Bytes::from(text.clone())) {
            let canonical = canonicalize_json(text.as_bytes()).unwrap();
            prop_assert_eq!(parsed.is_canonical(), canonical == text.as_bytes());
            prop_assert_eq!(&parsed.canonical()[..], &canonical[..]);
        }
    }

    #[test]
    fn we_accept_what_serde_json_does_and_it_what_we_do(text in "\\{\"a\":[{}\\[\\]\":,\\\\u0ae1. -]{0,16}\\}") {
        // Both follow RFC 8259; they differ in duplicates, which serde_json's `Value` takes, and in limits.
        let ours = Object::parse(Bytes::from(text.clone()));
        let theirs = serde_json::from_str::<Value>(&text);
        match (&ours, &theirs) {
            (Err(elo::wire::JsonError::Duplicate { .. }), Ok(_)) => {}
            _ => prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{} {:?} {:?}", text, ours, theirs),
        }
    }

    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(object) = Object::parse(bytes.clone().into()) {
            object.canonical();
        }
        let _ = canonicalize_json(&bytes);
    }

    #[test]
    fn members_are_what_serde_json_finds(value in object()) {
        let text = serde_json::to_vec_pretty(&value).unwrap();
        let parsed = Object::parse(text.into()).unwrap();
        let map = value.as_object().unwrap();
        prop_assert_eq!(parsed.members().count(), map.len());
        for (name, value) in map {
            let raw = parsed.get(name).unwrap();
            prop_assert_eq!(&read(raw), value);
            prop_assert_eq!(parsed.str(name).ok().flatten(), value.as_str().map(str::to_owned));
            prop_assert_eq!(parsed.u64(name).ok().flatten(), value.as_u64());
            prop_assert_eq!(parsed.i64(name).ok().flatten(), value.as_i64());
            prop_assert_eq!(parsed.bool(name).ok().flatten(), value.as_bool());
            let child = parsed.child(name).and_then(Result::ok);
            prop_assert_eq!(child.is_some(), value.is_object());
            if let Some(child) = child {
                prop_assert_eq!(&read(&child.canonical()), value);
            }
        }
    }

    #[test]
    fn a_member_can_be_set_in_any_object(value in object(), key in "[a-zé]{0,3}", new in value()) {
        let raw = canonicalize_value(&new).unwrap();
        for text in [canonicalize_value(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            let before = Object::parse(text.into()).unwrap();
            let after = before.with_member(&key, &raw);
            let again = Object::parse(after.raw().clone()).unwrap();
            prop_assert_eq!(after.is_canonical(), again.is_canonical());
            prop_assert!(after.members().eq(again.members()));
            let mut expected = value.clone();
            expected[key.as_str()] = new.clone();
            // As values: serde_json writes some floats in other digits than Python does.
            prop_assert_eq!(read(&after.canonical()), expected);
        }
    }

    #[test]
    fn signatures_survive_another_spelling(value in object(), seed in any::<[u8; 32]>()) {
        let identity = Identity::from_seed(seed);
        let payload = canonicalize_value(&value).unwrap();
        let signed = Builder::new("task").raw("payload", &payload).u64("ttl", 5).sign(&identity, &["ttl"]);
        let respelled: Value = serde_json::from_slice(signed.raw()).unwrap();
        let respelled = Object::parse(serde_json::to_vec_pretty(&respelled).unwrap().into()).unwrap();
        prop_assert_eq!(verify_object(&signed, &identity.id(), &["ttl"]), Ok(()));
        // serde_json spells some floats in other digits; those alone may not be changed on the way.
        if canonicalize_json(respelled.raw()).unwrap() == *signed.raw() {
            prop_assert_eq!(verify_object(&respelled, &identity.id(), &["ttl"]), Ok(()));
        }
    }

    #[test]
    fn node_ids_have_one_spelling(text in "[A-Za-z0-9_-]{43}") {
        if let Ok(id) = text.parse::<NodeId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn streams_split_anywhere_give_the_same_messages(
        values in prop::collection::vec(object(), 1..5),
        sizes in prop::collection::vec(1usize..40, 1..20),
        length in any::<bool>(),
    ) {
        let framing = if length { Framing::Length } else { Framing::Line };
        let (stream, messages) = stream(framing, &values);
        let mut codec = Codec::new(framing, 1 << 20);
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        let mut rest = &stream[..];
        for size in sizes.into_iter().cycle() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            buffer.extend_from_slice(now);
            while let Some(message) = codec.decode(&mut buffer).unwrap() {
                found.push(message);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert!(codec.decode_eof(&mut buffer).unwrap().is_none());
    }
}

fn stream(framing: Framing, values: &[Value]) -> (BytesMut, Vec<Vec<u8>>) {
    let mut stream = BytesMut::new();
    let messages: Vec<_> = values.iter().map(|value| canonicalize_value(value).unwrap()).collect();
    for message in &messages {
        encode(framing, message, &mut stream);
    }
    (stream, messages)
}

#[test]
fn streams_split_at_every_byte() {
    let values = [
        serde_json::json!({}),
        serde_json::json!({"a": [1, "é\n", {"b": null}]}),
        serde_json::json!({"text": "\\\"\r\n"}),
    ];
    for framing in [Framing::Line, Framing::Length] {
        let (stream, messages) = stream(framing, &values);
        for split in 0..=stream.len() {
            let mut codec = Codec::new(framing, 64);
            let mut buffer = BytesMut::from(&stream[..split]);
            let mut found = Vec::new();
            while let Some(message) = codec.decode(&mut buffer).unwrap() {
                found.push(message);
            }
            buffer.extend_from_slice(&stream[split..]);
            while let Some(message) = codec.decode_eof(&mut buffer).unwrap() {
                found.push(message);
            }
            assert_eq!(found, messages, "{framing:?} split at {split}");
        }
    }
}

#[test]
fn a_line_that_trickles_in_is_searched_once() {
    let mut codec = Codec::new(Framing::Line, 1 << 20);
    let mut buffer = BytesMut::new();
    let start = std::time::Instant::now();
    // Searched from its start each time this would be 5e11 steps.
    for _ in 0..1 << 20 {
        buffer.extend_from_slice(b"x");
        assert!(codec.decode(&mut buffer).unwrap().is_none());
    }
    buffer.extend_from_slice(b"\n");
    assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().len(), 1 << 20);
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}
