//! The golden vectors in `tests/vectors/`: what other implementations check themselves against, and that ours never
//! changes by accident. `tests/check_vectors.py` checks them independently.
//!
//! To write them anew after a change of the protocol: `ELO_WRITE_VECTORS=1 cargo test --test vectors`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use elo::seal::{Message as ToSeal, Sealer};
use elo::wire::{
    Builder, JsonError, Message, Object, Revocation, Roots, Rotation, SealedKind, SignatureError, Speaker, batch,
    canonicalize_json, check, verify_object, verify_signed,
};
use elo::{Identity, NodeId};
use rand::rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The keys the vectors are signed with. Known to everyone: for tests only.
fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

fn bob() -> Identity {
    Identity::from_seed([2; 32])
}

/// 32 bytes as TLS might export them.
const BINDING: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8";

/// The stored vectors, or what they should be if they are to be written.
fn vectors(name: &str, now: Value) -> Vec<Value> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/vectors", name].iter().collect();
    if std::env::var_os("ELO_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(stored, now, "{name} is not what this code would write");
    stored.as_array().unwrap().clone()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

#[test]
fn canonical_form() {
    let inputs = [
        ("empty object", "{ }"),
        ("white space", " {\t\"b\" : [ 1 , 2 ] ,\r\n\"a\" : { } }\n"),
        ("members sort by code point", r#"{"b":1,"a":2,"B":3,"_":4,"":5,"aa":6,"10":7,"9":8}"#),
        ("astral names sort after all others", "{\"\u{1f600}\":1,\"\u{ffff}\":2,\"\u{e9}\":3,\"z\":4}"),
        ("escaped names sort by what they mean", r#"{"\u00e9":1,"\u007a":2,"a":3}"#),
        ("nested objects sort too", r#"{"z":[{"y":{"b":1,"a":[{"d":1,"c":2}]}}],"a":0}"#),
        ("short escapes", r#"{"a":"\u0008\u0009\u000a\u000c\u000d\u0022\u005c\/"}"#),
        ("other control characters", r#"{"a":"\u0000\u001F\u007F"}"#),
        ("escapes of printable characters are dropped", r#"{"a":"\u0041\u007e\u0020"}"#),
        ("Unicode is escaped", "{\"a\":\"Grüße, 世界\u{2028}\u{fffd}\"}"),
        ("surrogate pairs", "{\"a\":\"\u{1f600}\u{10ffff}\\uD83D\\uDE00\"}"),
        ("Unicode is not normalised", "{\"e\u{301}\":1,\"\u{e9}\":2}"),
        ("integers of any length", r#"{"a":[0,-0,18446744073709551616,-123456789012345678901234567890]}"#),
        ("numbers keep their digits", r#"{"a":[1.0,1.50,1E5,1e+05,0.1e-7,-0.0,100000000000000000000.0]}"#),
        ("floats as Python writes them", r#"{"a":[1e-07,1e+16,0.0001,1.7976931348623157e+308,5e-324]}"#),
        ("literals", r#"{"a":[true,false,null,"",[],{}]}"#),
    ];
    let now = inputs.map(|(name, input)| {
        let canonical = canonicalize_json(input.as_bytes()).unwrap();
        json!({"name": name, "input": input, "canonical": String::from_utf8(canonical).unwrap()})
    });
    for vector in vectors("canonical.json", Value::from(now.to_vec())) {
        let object = Object::parse(text(&vector, "input").to_owned().into()).unwrap();
        let canonical = text(&vector, "canonical");
        assert_eq!(object.canonical(), canonical, "{}", vector["name"]);
        let again = Object::parse(canonical.to_owned().into()).unwrap();
        assert!(again.is_canonical());
    }
}

fn hello() -> Builder {
    Builder::new("hello")
        .str("node_id", &alice().id().to_string())
        .str("version", "1")
        .str("nonce", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
        .u64("timestamp", 1_700_000_000)
        .strings("features", &["tls"])
}

fn auth() -> Builder {
    Builder::new("auth")
        .str("node_id", &alice().id().to_string())
        .str("peer", &bob().id().to_string())
        .str("hello_nonce", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
        .str("ack_nonce", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8")
}

fn record() -> Builder {
    Builder::new("record")
        .str("node_id", &alice().id().to_string())
        .str("name", "Zoë 🐧")
        .raw("caps", br#"{"agents":[{"name":"translate"}],"models":[],"tools":[]}"#)
        .strings("interests", &["summarize"])
        .strings("addrs", &["192.0.2.7:7878", "[2001:db8::7]:7878"])
        .strings("trackers", &[bob().id().to_string()])
        .null("tracker")
        .strings::<&str>("features", &[])
        .str("version", "1")
        .u64("seq", 1_700_000_000_123)
        .u64("ttl_s", 300)
}

fn task() -> Builder {
    Builder::new("task")
        .str("id", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
        .str("target", &bob().id().to_string())
        .str("caller", &alice().id().to_string())
        .str("capability", "translate")
        .raw("payload", br#"{"n":12345678901234567890,"ratio":0.1,"text":"Gr\u00fc\u00dfe \ud83d\ude00\n"}"#)
        .str("protocol", "elo.v1")
        .u64("timestamp", 1_700_000_000)
        .u64("ttl_s", 30)
}

fn result() -> Builder {
    Builder::new("result")
        .str("id", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
        .str("status", "success")
        .raw("payload", br#"{"text":"Greetings","took_s":1.5e-05}"#)
        .str("protocol", "elo.v1")
        .str("responder", &bob().id().to_string())
}

fn query() -> Builder {
    Builder::new("query")
        .str("id", "q-1")
        .str("capability", "translate")
        .str("node", "")
        .u64("ttl", 5)
        .str("origin", &alice().id().to_string())
        .u64("timestamp", 1_700_000_000)
        .u64("limit", 8)
}

/// The task as another implementation might spell it: other order, white space, Unicode as itself.
fn respelled(signed: &Object) -> Object {
    let signature = signed.str("signature").unwrap().unwrap();
    let text = format!(
        "{{ \"type\": \"task\", \"signature\": \"{signature}\", \"ttl_s\": 30, \"timestamp\": 1700000000,\
         \"protocol\": \"elo\\u002ev1\", \"capability\": \"translate\", \"target\": \"{}\", \"caller\": \"{}\",\
         \"id\": \"6f9619ff-8b86-4d01-b42d-00cf4fc964ff\",\
         \"payload\": {{\"text\": \"Grüße 😀\\n\", \"ratio\": 0.1, \"n\": 12345678901234567890}} }}",
        bob().id(),
        alice().id(),
    );
    Object::parse(text.into()).unwrap()
}

fn as_text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn signed_messages() {
    let (alice, bob) = (alice(), bob());
    let signed_task = task().sign(&alice, &[]);
    let signed_query = query().sign(&alice, &["ttl"]);
    let cases: [(&str, Object, &Identity, &[&str]); 10] = [
        ("hello", hello().sign(&alice, &[]), &alice, &[]),
        ("auth", auth().sign(&alice, &[]), &alice, &[]),
        ("auth over TLS", auth().str("binding", BINDING).sign(&alice, &[]), &alice, &[]),
        ("record", record().sign(&alice, &[]), &alice, &[]),
        ("task", signed_task.clone(), &alice, &[]),
        ("task, spelled in another way", respelled(&signed_task), &alice, &[]),
        ("task with an unknown member", task().str("x_trace", "abc").sign(&alice, &[]), &alice, &[]),
        ("result", result().sign(&bob, &[]), &bob, &[]),
        ("query", signed_query.clone(), &alice, &["ttl"]),
        ("query on its second hop", signed_query.with_member("ttl", b"4"), &alice, &["ttl"]),
    ];
    let now = cases.map(|(name, message, signer, uncovered)| {
        let mut without = vec!["signature"];
        without.extend_from_slice(uncovered);
        json!({
            "name": name,
            "seed_hex": if signer.id() == alice.id() { "01".repeat(32) } else { "02".repeat(32) },
            "signer": signer.id().to_string(),
            "uncovered": uncovered,
            "message": as_text(message.raw()),
            "signing_bytes": as_text(&message.signing_bytes(&without)),
            "signature": message.str("signature").unwrap(),
        })
    });
    for vector in vectors("signed.json", Value::from(now.to_vec())) {
        let name = &vector["name"];
        let message = Object::parse(text(&vector, "message").to_owned().into()).unwrap();
        let signer: NodeId = text(&vector, "signer").parse().unwrap();
        let uncovered: Vec<&str> =
            vector["uncovered"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert_eq!(verify_object(&message, &signer, &uncovered), Ok(()), "{name}");
        let without = [&["signature"][..], &uncovered].concat();
        assert_eq!(as_text(&message.signing_bytes(&without)), text(&vector, "signing_bytes"));
    }
}

/// What became of a message that must be refused.
fn refusal(message: &str, signer: &NodeId) -> &'static str {
    let object = match Object::parse(Bytes::copy_from_slice(message.as_bytes())) {
        Ok(object) => object,
        Err(JsonError::Duplicate { .. }) => return "duplicate member",
        Err(_) => return "not acceptable JSON",
    };
    match verify_object(&object, signer, &[]) {
        Ok(()) => "accepted",
        Err(SignatureError::Missing) => "signature missing",
        Err(SignatureError::Malformed) => "signature malformed",
        Err(SignatureError::Invalid) => "signature invalid",
    }
}

#[test]
fn refused_messages() {
    let (alice, bob) = (alice(), bob());
    let task = as_text(task().sign(&alice, &[]).raw());
    let edit = |from: &str, to: &str| {
        assert!(task.contains(from), "{from}");
        task.replacen(from, to, 1)
    };
    let signature = Object::parse(task.clone().into()).unwrap().str("signature").unwrap().unwrap();
    let cases = [
        ("one bit of the payload flipped", edit("0.1", "0.3"), alice.id(), "signature invalid"),
        ("a number in other digits", edit("0.1", "0.10"), alice.id(), "signature invalid"),
        ("a member added", edit("{", "{\"added\":1,"), alice.id(), "signature invalid"),
        ("a member removed", edit("\"ttl_s\":30,", ""), alice.id(), "signature invalid"),
        ("another node's key", task.clone(), bob.id(), "signature invalid"),
        ("a name that is no curve point", task.clone(), NodeId::from_bytes([0xff; 32]), "signature invalid"),
        ("a member twice", edit("{", "{\"capability\":\"x\","), alice.id(), "duplicate member"),
        ("a member twice, once escaped", edit("{", r#"{"\u0063apability":"x","#), alice.id(), "duplicate member"),
        ("a member twice inside", edit(r#""ratio""#, r#""n":1,"ratio""#), alice.id(), "duplicate member"),
        ("no signature", edit("\"signature\"", "\"signatura\""), alice.id(), "signature missing"),
        ("a padded signature", edit(&signature, &format!("{signature}==")), alice.id(), "signature malformed"),
        ("a number that is not finite", edit("0.1", "1e999"), alice.id(), "not acceptable JSON"),
        ("NaN", edit("0.1", "NaN"), alice.id(), "not acceptable JSON"),
        ("half a surrogate pair", edit(r"\ude00", ""), alice.id(), "not acceptable JSON"),
        ("bytes after the end", format!("{task}{{}}"), alice.id(), "not acceptable JSON"),
        ("an array", format!("[{task}]"), alice.id(), "not acceptable JSON"),
    ];
    let now = cases.map(|(name, message, signer, because)| {
        json!({"name": name, "signer": signer.to_string(), "message": message, "because": because})
    });
    for vector in vectors("refused.json", Value::from(now.to_vec())) {
        let signer = text(&vector, "signer").parse().unwrap();
        let because = refusal(text(&vector, "message"), &signer);
        assert_eq!(because, text(&vector, "because"), "{}", vector["name"]);
    }
}

#[test]
fn key_life() {
    let carol = Identity::from_seed([3; 32]);
    let rotation = Rotation::make(&alice(), &bob(), 1_700_000_000).object;
    let other = Rotation::make(&alice(), &carol, 1_700_000_000).object;
    let revocation = Revocation::make(&alice(), 1_700_000_000, "laptop stolen, Zoë").object;
    let quoted = |id: NodeId| format!("\"{id}\"").into_bytes();
    let of = |object: &Object, key: &str| object.get(key).unwrap().to_vec();
    let old = ["old_signature", "signature"];
    let swapped = rotation.with_member("old", &quoted(bob().id())).with_member("new", &quoted(alice().id()));
    let crossed = rotation.with_member("old_signature", &of(&rotation, "signature"));
    let crossed = crossed.with_member("signature", &of(&rotation, "old_signature"));
    let statements = [
        ("a rotation", &rotation, true),
        ("a revocation", &revocation, true),
        ("a rotation without the old key's signature", &rotation.with_member("old_signature", b"null"), false),
        ("a rotation without the new key's signature", &rotation.with_member("signature", b"null"), false),
        ("a rotation by another old key", &rotation.with_member("old", &quoted(carol.id())), false),
        ("a rotation to another new key", &rotation.with_member("new", &quoted(carol.id())), false),
        (
            "a rotation with another one's signature",
            &rotation.with_member("signature", &of(&other, "signature")),
            false,
        ),
        ("a rotation with its ids swapped", &swapped, false),
        ("a rotation with its signatures swapped", &crossed, false),
        ("a rotation at another time", &rotation.with_member("timestamp", b"1700000001"), false),
        ("a revocation of another id", &revocation.with_member("node_id", &quoted(bob().id())), false),
        ("a revocation with another reason", &revocation.with_member("reason", b"\"\""), false),
    ];
    let now = statements.map(|(name, statement, valid)| {
        let text = String::from_utf8(statement.raw().to_vec()).unwrap();
        let bytes = |without: &[&str]| String::from_utf8(statement.signing_bytes(without).to_vec()).unwrap();
        let by_old = statement.get("old").map(|_| bytes(&old));
        json!({
            "name": name, "statement": text, "valid": valid,
            "signing_bytes": bytes(&["signature"]), "old_signing_bytes": by_old,
        })
    });
    for vector in vectors("keylife.json", Value::from(now.to_vec())) {
        let object = Object::parse(text(&vector, "statement").to_owned().into()).unwrap();
        let checked = match Rotation::parse(&object) {
            Ok(rotation) => rotation.verify(),
            Err(_) => Revocation::parse(&object).unwrap().verify(),
        };
        assert_eq!(checked.is_ok(), vector["valid"], "{}", vector["name"]);
    }
}

/// Random bytes that are none: 32 times the same one, then 32 times the next.
struct Counting(u8, usize);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for byte in bytes {
            *byte = self.0 + (self.1 / 32) as u8;
            self.1 += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn sealed_messages() {
    let (alice, bob) = (alice(), bob());
    let now = std::time::Duration::ZERO;
    // A key pair is made of 32 bytes (RFC 9180's DeriveKeyPair): Alice's of 0xa0, Bob's of 0xb0.
    let (a, b) = (Sealer::new(alice.id(), &mut Counting(0xa0, 0)), Sealer::new(bob.id(), &mut Counting(0xb0, 0)));
    let mut dice = Counting(0xc0, 0);
    let task = task().str("instance", "3f2a").sign(&alice, &[]);
    let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let cancel = Builder::new("cancel").str("id", id).str("caller", &alice.id().to_string()).sign(&alice, &[]);
    let result = result().sign(&bob, &[]);
    let cases = [
        ("a task", SealedKind::Task, &task, true),
        ("a cancel, in the same context", SealedKind::Cancel, &cancel, true),
        ("a result, to the key that came with the task", SealedKind::Result, &result, false),
    ];
    let written = cases.map(|(name, kind, inner, is_from_alice)| {
        let (from, by, to, target) =
            if is_from_alice { (&alice, &a, &b, bob.id()) } else { (&bob, &b, &a, alice.id()) };
        let (instance, ttl_s) = if kind == SealedKind::Task { (Some("3f2a"), Some(30)) } else { (None, None) };
        let key = to.key();
        let message = ToSeal { kind, id, target: &target, key: &key, instance, ttl_s, text: inner.raw() };
        let frame = by.seal(from, &message, now, &mut dice).unwrap();
        json!({
            "name": name,
            "target_ikm_hex": hex(&[if is_from_alice { 0xb0 } else { 0xa0 }; 32]),
            "target_key": key.to_string(),
            "frame": as_text(frame.raw()),
            "associated_data": as_text(&frame.signing_bytes(&["box", "signature"])),
            "inner": as_text(inner.raw()),
        })
    });
    for vector in vectors("sealed.json", Value::from(written.to_vec())) {
        let frame = Object::parse(text(&vector, "frame").to_owned().into()).unwrap();
        let target = frame.str("target").unwrap().unwrap();
        let relay = Builder::new("relay").str("target", &target).str("source", &frame.str("source").unwrap().unwrap());
        let relay = Message::parse(&relay.u64("hops", 1).object("frame", &frame).build()).unwrap();
        let checked = check(relay, Speaker::Proven, &mut Roots::new()).unwrap();
        let to = if target == bob.id().to_string() { &b } else { &a };
        let sealed = checked.sealed_for(&target.parse().unwrap()).unwrap();
        assert_eq!(as_text(&sealed.associated_data()), text(&vector, "associated_data"));
        assert_eq!(as_text(&to.open(sealed, now).unwrap()), text(&vector, "inner"), "{}", vector["name"]);
    }
}

/// The messages of a batch, before they are signed: the first is a task, the others are cancels of it and others.
fn to_batch(count: usize) -> Vec<Builder> {
    let me = alice().id().to_string();
    let cancel = |n: usize| Builder::new("cancel").str("id", &format!("{n}")).str("caller", &me);
    std::iter::once(task()).chain((1..count).map(cancel)).collect()
}

/// A message with another signature, which says that of it.
fn forged(message: &Object, change: impl FnOnce(&mut Vec<u8>)) -> Object {
    let text = message.str("signature").unwrap().unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix('m').unwrap()).unwrap();
    change(&mut bytes);
    message.with_member("signature", format!("\"m{}\"", URL_SAFE_NO_PAD.encode(bytes)).as_bytes())
}

#[test]
fn batches() {
    let (alice, bob) = (alice(), bob());
    let hash =
        |first: u8, rest: &[&[u8]]| -> Vec<u8> { Sha256::digest([&[first][..], &rest.concat()].concat()).to_vec() };
    let counts = [("one message, whose leaf is the root", 1usize), ("two messages", 2)];
    let more = [("three: the last moves up", 3), ("five: the last moves up twice", 5)];
    let written: Vec<Value> = counts
        .into_iter()
        .chain(more)
        .map(|(name, count)| {
            let unsigned = to_batch(count);
            let texts: Vec<Object> = unsigned.iter().map(|b| b.clone().build()).collect();
            let leaves: Vec<Vec<u8>> = texts.iter().map(|t| hash(0, &[t.raw()])).collect();
            // Level by level, without `wire`'s tree.
            let mut level = leaves.clone();
            while level.len() > 1 {
                let above = |pair: &[Vec<u8>]| match pair {
                    [left, right] => hash(1, &[left, right]),
                    lone => lone[0].clone(),
                };
                level = level.chunks(2).map(above).collect();
            }
            let root = &level[0];
            let signed = [b"elo-batch-v1\n", &(count as u16).to_be_bytes()[..], root].concat();
            let signature = alice.sign(&signed);
            let unsigned: Vec<_> = unsigned.into_iter().map(|b| b.unsigned(&[])).collect();
            let messages = match count {
                1 => unsigned.into_iter().map(|message| batch::sign_long(&alice, message)).collect(),
                _ => batch::sign(&alice, unsigned),
            };
            let (first, last) = (&messages[0], &messages[count - 1]);
            let place =
                |index: u8, count: u8| move |bytes: &mut Vec<u8>| bytes[64..68].copy_from_slice(&[0, index, 0, count]);
            let lone = format!("\"{}A\"", last.str("signature").unwrap().unwrap());
            let mut forgeries = vec![
                ("a payload that was changed", first.with_member("payload", b"{}")),
                ("another caller", first.with_member("caller", format!("\"{}\"", bob.id()).as_bytes())),
                ("another index", forged(first, place(1, count as u8))),
                ("an index that is not below the count", forged(first, place(count as u8, count as u8))),
                ("a count one higher", forged(first, place(0, count as u8 + 1))),
                (
                    "a count of one, without a path",
                    forged(first, |b| {
                        place(0, 1)(b);
                        b.truncate(68)
                    }),
                ),
                ("a count of 257", forged(first, |b| b[66..68].copy_from_slice(&[1, 1]))),
                ("a bit of the last hash, or of the count", forged(last, |b| *b.last_mut().unwrap() ^= 1)),
                ("a bit of the root's signature", forged(last, |b| b[0] ^= 1)),
                ("a hash too many", forged(last, |b| b.extend([0; 32]))),
                ("a hash too few", forged(last, |b| b.truncate(b.len() - 32))),
                ("a byte too many", forged(last, |b| b.push(0))),
                ("a character too many", last.with_member("signature", lone.as_bytes())),
                ("the proof of another message", first.with_member("signature", last.get("signature").unwrap())),
                (
                    "the last message taken twice, as a tree that doubles lone nodes has it",
                    forged(last, |b| {
                        place(count as u8 - 1, count as u8 + 1)(b);
                        let own = b[68..].to_vec();
                        b.truncate(68);
                        b.extend(&leaves[count - 1]);
                        b.extend(own);
                    }),
                ),
                (
                    "a leaf taken for a node",
                    forged(first, |b| {
                        place(0, 2)(b);
                        b.truncate(68);
                        b.extend(&leaves[0])
                    }),
                ),
            ];
            if count == 3 {
                // The same hashes on the same sides: only the signed count tells.
                forgeries.push(("the first of four", forged(first, place(0, 4))));
                forgeries.push(("the second of two", forged(last, place(1, 2))));
            }
            if count == 1 {
                // What is another message's place or path in the others is its own here.
                let own = ["a count of one, without a path", "the proof of another message"];
                forgeries.retain(|(name, _)| !own.contains(name));
            }
            let forgeries: Vec<Value> =
                forgeries.iter().map(|(name, m)| json!({"name": name, "message": as_text(m.raw())})).collect();
            json!({
                "name": name,
                "seed_hex": "01".repeat(32),
                "signer": alice.id().to_string(),
                "leaves": leaves.iter().map(|l| hex(l)).collect::<Vec<_>>(),
                "root": hex(root),
                "signed": hex(&signed),
                "signature": URL_SAFE_NO_PAD.encode(signature),
                "messages": messages.iter().map(|m| as_text(m.raw())).collect::<Vec<_>>(),
                "forged": forgeries,
            })
        })
        .collect();
    for vector in vectors("batch.json", Value::from(written)) {
        let signer: NodeId = text(&vector, "signer").parse().unwrap();
        let read = |text: &Value| Object::parse(text.as_str().unwrap().to_owned().into()).unwrap();
        let mut roots = Roots::new();
        for message in vector["messages"].as_array().unwrap() {
            assert_eq!(verify_signed(&read(message), &signer, &mut roots), Ok(()), "{}", vector["name"]);
            assert!(check(Message::parse(&read(message)).unwrap(), Speaker::Proven, &mut roots).unwrap().is_signed());
        }
        assert_eq!(roots.checks(), 1, "{}", vector["name"]);
        for forged in vector["forged"].as_array().unwrap() {
            for roots in [&mut roots, &mut Roots::new()] {
                let checked = check(Message::parse(&read(&forged["message"])).unwrap(), Speaker::Proven, roots);
                assert!(checked.is_err(), "{}: {}", vector["name"], forged["name"]);
            }
        }
    }
}
