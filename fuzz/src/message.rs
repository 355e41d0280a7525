//! Messages: understood alike whatever their spelling, and believed only when their author signed them.

use bytes::Bytes;
use elo::NodeId;
use elo::fuzzing::author_members;
use elo::limits::{MAX_MESSAGE, MAX_RECORD};
use elo::wire::{Message, Object, Roots, Speaker, check};

use super::keys::{id, key};
use super::reference::{self, Value};

pub(super) fn text(data: &[u8]) {
    let Ok(object) = Object::parse(Bytes::copy_from_slice(data)) else { return };
    if data.len() > MAX_MESSAGE {
        return;
    }
    let parsed = Message::parse(&object);
    let canonical = Object::parse(object.canonical()).expect("the canonical form is JSON");
    // A record's size counts as it was written, so only the canonical spelling of a small one says the same.
    let sized = object.raw().len().max(canonical.raw().len()) > MAX_RECORD;
    let again = Message::parse(&canonical);
    match (&parsed, &again) {
        (Ok(one), Ok(two)) => assert_eq!(shown(one), shown(two), "another spelling, another message"),
        (Err(one), Err(two)) => assert_eq!(one, two),
        (one, two) => assert!(sized, "one spelling is refused: {:?} {:?}", one.as_ref().err(), two.as_ref().err()),
    }
    let Ok(message) = parsed else { return };
    task_id_is_one(&message);
    for speaker in [Speaker::Proven, Speaker::Legacy(id(0))] {
        let one = check(message.clone(), speaker, &mut Roots::new());
        let two = again.clone().ok().map(|again| check(again, speaker, &mut Roots::new()));
        if let Some(two) = two {
            assert_eq!(one.as_ref().err(), two.as_ref().err());
        }
        if let Ok(checked) = one {
            // Nobody has signed what the fuzzer made up, but for the seeds.
            let _ = (checked.is_signed(), checked.forged_records(), checked.into_message());
        }
    }
    signed(&canonical, &message);
}

/// What a message says, without how it was spelled.
fn shown(message: &Message) -> String {
    let text = format!("{message:?}");
    // Raw JSON inside (payloads) is shown as it was spelled; it is compared in its canonical form by `check`.
    match message {
        Message::Task(_) | Message::Chunk(_) | Message::Result(_) | Message::Event(_) | Message::Relay(_) => {
            format!("{} {:?}", message.kind(), message.task_id())
        }
        Message::Announce(record, ttl) => format!("{} {} {} {ttl}", record.node_id, record.name, record.seq),
        Message::QueryResp(resp) => {
            let nodes: Vec<NodeId> = resp.nodes.iter().map(|r| r.node_id).collect();
            format!("{} {:?} {} {nodes:?} {:?}", resp.id, resp.origin, resp.hops, resp.error)
        }
        Message::Query(query) => {
            let (capability, node) = (&query.capability, &query.node);
            format!("{} {capability} {node} {} {:?} {}", query.id, query.ttl, query.origin, query.limit)
        }
        Message::Accepted(_) | Message::ChunkAck(_) | Message::Cancel(_) => {
            format!("{} {:?}", message.kind(), message.task_id())
        }
        _ => text,
    }
}

fn task_id_is_one(message: &Message) {
    if let Some(id) = message.task_id() {
        assert!(elo::wire::is_id(id), "{id:?}");
    }
    if let Message::Relay(relay) = message {
        assert!(relay.frame.task_id().is_some(), "what is relayed is about a task");
        assert!(!matches!(*relay.frame, Message::Relay(_)));
    }
}

/// The same message with a real author: it is believed when that one signed it, and never when anything is different.
fn signed(canonical: &Object, message: &Message) {
    let Some((member, uncovered)) = author_members(message) else { return };
    let author = 1 + canonical.raw().len() % 3;
    let named = canonical.with_member(member, format!("\"{}\"", id(author)).as_bytes());
    let signature = |signer: usize, object: &Object| {
        let mut without = vec!["signature"];
        without.extend_from_slice(uncovered);
        let bytes = object.signing_bytes(&without);
        // What is signed is what the other implementation says it is.
        let Some(Value::Object(mut members)) = reference::read(object.raw()) else { unreachable!("it is an object") };
        for name in &without {
            members.remove(*name);
        }
        assert_eq!(reference::print(&Value::Object(members)).as_bytes(), &*bytes);
        let text = base64(&key(signer).sign(&bytes));
        object.with_member("signature", format!("\"{text}\"").as_bytes())
    };
    let believed = |object: &Object| {
        let message = Message::parse(object).expect("it was understood before");
        check(message, Speaker::Proven, &mut Roots::new()).is_ok_and(|checked| checked.is_signed())
    };
    let good = signature(author, &named);
    assert!(believed(&good), "its author signed it");
    let mut changed = signature(author + 1, &named);
    assert!(!believed(&changed), "another signed it");
    // A member more, one that the signature doesn't cover, and one less.
    changed = good.with_member("zz", b"0");
    assert!(!believed(&changed), "a member was added");
    if uncovered.contains(&"ttl") {
        assert!(believed(&good.with_member("ttl", b"1")), "anybody may lower it on the way");
    }
    changed = good.with_member(member, format!("\"{}\"", id(author + 1)).as_bytes());
    assert!(!believed(&changed), "another author was named");
    if let Some(id) = message.task_id() {
        let other = if id == "x" { "\"y\"" } else { "\"x\"" };
        assert!(!believed(&good.with_member("id", other.as_bytes())), "another task");
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let group = part.iter().fold(0, |sum, b| sum << 8 | u32::from(*b)) << (8 * (3 - part.len()));
        for n in 0..=part.len() {
            out.push(char::from(DIGITS[(group >> (18 - 6 * n)) as usize & 63]));
        }
    }
    out
}
