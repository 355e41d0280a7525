//! Messages of every type with members exchanged for extreme and misplaced values, signed all the same: nothing may
//! break, whatever comes of each.

use std::time::Duration;

use elo::Tracker;
use elo::wire::{Builder, canonicalize_value};
use serde_json::{Value, json};

use crate::mesh::eventually;
use crate::raw::{Raw, announce, record, relay, sign, unix_ms, unix_s};
use crate::target::Target;

/// A small generator of our own: the same messages in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const EXTREMES: [&str; 26] = [
    "null",
    "true",
    "0",
    "1",
    "-1",
    "2",
    "31",
    "32",
    "255",
    "256",
    "299",
    "3600",
    "86400",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551614",
    "-0.0",
    "0.5",
    "-1.5",
    "1e+300",
    "\"\"",
    "\"*\"",
    "[]",
    "{}",
    "[[]]",
];

const MEMBERS: [&str; 30] = [
    "id",
    "target",
    "caller",
    "capability",
    "payload",
    "timestamp",
    "ttl_s",
    "window",
    "instance",
    "responder",
    "seq",
    "data",
    "next",
    "status",
    "error",
    "chunks",
    "origin",
    "node",
    "limit",
    "ttl",
    "hops",
    "nodes",
    "source",
    "code",
    "message",
    "ask",
    "answer",
    "event_type",
    "interests",
    "record",
];

/// A message in good order; what is still to come of it, the dice decide.
fn message(dice: &mut Dice, raw: &Raw, ids: &[String]) -> Builder {
    let id = dice.of(ids).clone();
    let me = raw.id().to_string();
    let mine = |kind: &str, who: &str| Builder::new(kind).str("id", &id).str(who, &me);
    match dice.below(14) {
        0 | 1 => {
            // Mostly one that was not there before: what is known already is not looked at again.
            let id = if dice.below(4) == 0 { id } else { format!("task {}", dice.0) };
            raw.task(&id).str("capability", dice.of::<&str>(&["work", "stream", "wait", "ping", "health", "relay"]))
        }
        2 => raw.result_of(&id),
        3 => {
            let code = dice.of(&["RATE_LIMITED", "OVERLOADED", "PEER_GONE", "HANDLER_ERROR", "QUOTA"]);
            let after = dice.of(&EXTREMES);
            let error = format!(r#"{{"code":"{code}","message":"x","ran":false,"retry_after_s":{after}}}"#);
            raw.result_of(&id).str("status", "error").raw("error", error.as_bytes())
        }
        4 => mine("chunk", "responder").u64("seq", 0).raw("data", b"1"),
        5 => mine("chunk_ack", "caller").u64("next", 1),
        6 => mine("cancel", "caller"),
        7 => mine("accepted", "responder"),
        8 => raw.query(&id, "rare"),
        9 => raw.event(&id),
        10 => mine("query_resp", "origin").raw("nodes", b"[]"),
        11 => mine("relay_error", "target").str("code", "OVERLOADED").str("message", "x"),
        12 => Builder::new("interest_update").strings("interests", &["x"]),
        _ => Builder::new("heartbeat").u64("ask", 1),
    }
}

fn scrambled(dice: &mut Dice, raw: &Raw, builder: Builder, ids: &[String]) -> Builder {
    let values = [
        json!(raw.id().to_string()),
        json!(raw.peer.to_string()),
        json!(dice.of(ids)),
        json!(unix_s()),
        json!(unix_ms()),
        json!({ "code": "PEER_GONE", "message": "x", "instance": "y", "retry_after_s": -1 }),
        json!({ "code": "OVERLOADED", "retry_after_s": 1e300 }),
    ];
    (0..dice.below(3)).fold(builder, |builder, _| {
        // Mostly one that it has.
        let built = builder.clone().build();
        let own: Vec<&str> = built.members().map(|(name, _)| name).filter(|name| *name != "type").collect();
        let member = if dice.below(4) == 0 { *dice.of(&MEMBERS) } else { *dice.of(&own) };
        if dice.below(3) == 0 {
            builder.raw(member, &canonicalize_value(dice.of(&values)).unwrap())
        } else {
            builder.raw(member, dice.of(&EXTREMES).as_bytes())
        }
    })
}

#[tokio::test]
async fn nothing_breaks_on_signed_messages_with_members_exchanged() {
    let mut limits = elo::Limits::default();
    (limits.floods_per_second, limits.flood_burst) = (1_000_000, 1_000_000);
    (limits.messages_per_second, limits.message_burst) = (1_000_000, 1_000_000);
    let target = Target::of(|builder| builder.tracker(Tracker::Public).limits(limits)).await;
    let mut raw = Raw::connect(&target.node).await;
    raw.provide("rare").await;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let mut calls = Vec::new();
    for n in 0..6000u64 {
        let builder = message(&mut dice, &raw, &ids);
        let builder = scrambled(&mut dice, &raw, builder, &ids);
        let uncovered: &[&str] = if dice.below(2) == 0 { &["ttl"] } else { &[] };
        let signed = builder.sign(&raw.identity, uncovered);
        match dice.below(8) {
            0 => {
                let to = *dice.of(&[raw.peer, raw.id(), target.honest.id()]);
                let wrapped = scrambled(&mut dice, &raw, relay(&to, &raw.id(), &signed), &ids);
                raw.send(&wrapped.object("frame", &signed).build()).await;
            }
            1 => {
                let own = record(&raw.identity, "rare").u64("seq", unix_ms() + n % 7);
                let own = scrambled(&mut dice, &raw, own, &ids);
                raw.send(&announce(&sign(own, &raw.identity))).await;
            }
            _ => raw.send(&signed).await,
        }
        if n % 100 != 0 {
            continue;
        }
        // Ids of tasks that the node has just sent us are the most interesting ones to answer wrongly.
        let heard: Vec<Value> = raw.heard().await;
        let tasks = heard.iter().filter(|m| m["type"] == "task").filter_map(|m| m["id"].as_str());
        for (place, id) in tasks.enumerate().take(15) {
            ids[place] = id.to_owned();
        }
        let call = target.node.call("rare", json!(n)).timeout(Duration::from_secs(2)).start().await.unwrap();
        calls.push(tokio::spawn(call.outcome()));
    }
    raw.heard().await;
    drop(raw);
    for call in calls {
        // However it ended, it ended.
        let _ = tokio::time::timeout(Duration::from_secs(20), call).await.expect("the call ends").unwrap();
    }
    // Handlers that wait do so until their deadline, up to a day: the node's own clock still works, and stops them.
    target.serves().await;
    let late = target.honest.call("wait", json!(1)).to(target.node.id().to_string());
    let error = late.timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error.code, elo::ErrorCode::Expired | elo::ErrorCode::Timeout), "{error}");
    eventually("the attacker is gone", || target.node.peers().len() == 1).await;
}
