//! Members of the wrong type or out of bounds, one by one: counted, answered where somebody waits, and the connection
//! lives.

use elo::wire::{Builder, Object};

use crate::raw::{Raw, announce, record, relay, sign, unix_s};
use crate::target::{Target, target};

/// Values in canonical form that are no text, no small number, no list and no object.
const VALUES: [&str; 8] = ["-1", "1.5", "\"\"", "\"\\u0000\"", "[]", "{}", "true", "18446744073709551616"];

/// Sends one message for each member and each value that is wrong for it. All of them must be counted as malformed, and
/// the connection must live.
async fn all_malformed(target: &Target, raw: &mut Raw, make: impl Fn(&str) -> Builder, rows: &[(&str, &[&str])]) {
    for (member, right) in rows {
        for value in VALUES.iter().filter(|v| !right.contains(v)) {
            let before = target.refused("malformed");
            raw.sends(make("wrong").raw(member, value.as_bytes())).await;
            let answers = raw.heard().await;
            assert_eq!(target.refused("malformed"), before + 1, "{member}: {value} was taken: {answers:?}");
        }
    }
}

#[tokio::test]
async fn wrong_types_in_a_task_are_answered_bad_request_with_its_id() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let rows: [(&str, &[&str]); 8] = [
        ("target", &["\"\"", "\"\\u0000\""]),
        ("caller", &[]),
        ("capability", &[]),
        ("protocol", &[]),
        ("timestamp", &["-1"]),
        ("ttl_s", &[]),
        ("window", &[]),
        ("instance", &["\"\"", "\"\\u0000\""]),
    ];
    let mut wrong = 0;
    for (member, right) in rows {
        for value in VALUES.iter().filter(|v| !right.contains(v)) {
            wrong += 1;
            let id = format!("{member} {wrong}");
            raw.sends(raw.task(&id).raw(member, value.as_bytes())).await;
            let answer = raw.result(&id).await;
            assert_eq!(answer["error"]["code"], "BAD_REQUEST", "{member}: {value}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(member), "{answer}");
        }
    }
    for member in ["caller", "capability", "payload", "timestamp", "ttl_s"] {
        wrong += 1;
        let id = format!("no {member}");
        let text = String::from_utf8(sign(raw.task(&id), &raw.identity).raw().to_vec()).unwrap();
        let text = text.replacen(&format!("\"{member}\""), "\"other\"", 1);
        raw.bytes(format!("{text}\n").as_bytes()).await;
        assert_eq!(raw.error(&id).await, "BAD_REQUEST", "without {member}");
    }
    assert_eq!(target.refused("malformed"), wrong);
    // The Python package names targets in other ways too; from a node that proved its id they are nobody's name.
    for (n, name) in ["\0", "target", &raw.peer.to_string()[..12]].into_iter().enumerate() {
        let id = format!("name {n}");
        raw.sends(raw.task(&id).str("target", name)).await;
        assert_eq!(raw.error(&id).await, "BAD_REQUEST", "{name:?}");
    }
    assert_eq!(target.refused("bad_task"), 3);
    // Without a usable id nobody can be told; it is counted all the same.
    for id in ["\"\"", "7", "null", "[]", &format!("\"{}\"", "x".repeat(65)), "\"\\u00e9\"", "\"a\\nb\"", "\"\\u007f\""]
    {
        raw.sends(raw.task("x").raw("id", id.as_bytes())).await;
        let answers = raw.heard().await;
        assert!(answers.iter().all(|m| m["type"] != "result"), "{id}: {answers:?}");
        wrong += 1;
    }
    assert_eq!(target.refused("malformed"), wrong);
    assert_eq!(target.runs(), 0);
    let longest = "x".repeat(64);
    raw.sends(raw.task(&longest)).await;
    assert_eq!(raw.result(&longest).await["status"], "success");
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn names_with_control_characters_or_too_long_are_refused() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    for (n, name) in ["a\nb", "\u{1b}[2J", "a\u{9b}b", "\0", "", &"x".repeat(129)].into_iter().enumerate() {
        let id = n.to_string();
        raw.sends(raw.task(&id).str("capability", name)).await;
        assert_eq!(raw.error(&id).await, "BAD_REQUEST", "{name:?}");
        let before = target.refused("malformed");
        raw.sends(raw.event(&id).str("event_type", name)).await;
        if !name.is_empty() {
            raw.send(&announce(&sign(record(&raw.identity, "x").str("name", name), &raw.identity))).await;
        } else {
            raw.send(&announce(&sign(record(&raw.identity, "x").u64("name", 1), &raw.identity))).await;
        }
        raw.send(&announce(&sign(record(&raw.identity, "x").strings("interests", &[name]), &raw.identity))).await;
        let caps = serde_json::json!({ "agents": [{ "name": name }] });
        let caps = elo::wire::canonicalize_value(&caps).unwrap();
        raw.send(&announce(&sign(record(&raw.identity, "x").raw("caps", &caps), &raw.identity))).await;
        raw.heard().await;
        assert_eq!(target.refused("malformed"), before + 4, "{name:?}");
    }
    assert_eq!((target.runs(), target.node.metrics().records), (0, 1));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn wrong_types_in_other_messages_are_counted_and_the_connection_lives() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let (me, node) = (raw.identity.clone(), raw.peer);
    let mine = me.id().to_string();

    let query: [(&str, &[&str]); 7] = [
        ("id", &[]),
        ("capability", &["\"\"", "\"\\u0000\""]),
        ("node", &["\"\"", "\"\\u0000\""]),
        ("origin", &["\"\""]),
        ("timestamp", &["-1"]),
        ("limit", &[]),
        ("ttl", &[]),
    ];
    let make = |id: &str| Builder::new("query").str("id", id).str("origin", &mine).i64("timestamp", unix_s());
    all_malformed(&target, &mut raw, make, &query).await;

    let event: [(&str, &[&str]); 5] =
        [("id", &[]), ("event_type", &[]), ("origin", &["\"\""]), ("timestamp", &["-1"]), ("ttl", &[])];
    let make = |id: &str| {
        let builder = Builder::new("event").str("id", id).str("event_type", "news").str("origin", &mine);
        builder.i64("timestamp", unix_s())
    };
    all_malformed(&target, &mut raw, make, &event).await;

    let result: [(&str, &[&str]); 5] =
        [("id", &[]), ("status", &[]), ("responder", &["\"\""]), ("chunks", &[]), ("type", &["\"\""])];
    let make = |id: &str| Builder::new("result").str("id", id).str("status", "success").str("responder", &mine);
    all_malformed(&target, &mut raw, make, &result).await;
    let make = |id: &str| {
        let builder = Builder::new("result").str("id", id).str("status", "error").str("responder", &mine);
        builder.raw("error", b"{}")
    };
    all_malformed(&target, &mut raw, make, &[("error", &["{}"])]).await;

    let chunk: [(&str, &[&str]); 3] = [("id", &[]), ("seq", &[]), ("responder", &[])];
    let make = |id: &str| Builder::new("chunk").str("id", id).u64("seq", 0).raw("data", b"1").str("responder", &mine);
    all_malformed(&target, &mut raw, make, &chunk).await;
    let make = |id: &str| Builder::new("chunk_ack").str("id", id).u64("next", 0).str("caller", &mine);
    all_malformed(&target, &mut raw, make, &[("id", &[]), ("next", &[]), ("caller", &[])]).await;
    let make = |id: &str| Builder::new("cancel").str("id", id).str("caller", &mine);
    all_malformed(&target, &mut raw, make, &[("id", &[]), ("caller", &[])]).await;
    let make = |id: &str| Builder::new("accepted").str("id", id).str("responder", &mine);
    all_malformed(&target, &mut raw, make, &[("id", &[]), ("responder", &[])]).await;

    let frame = sign(raw.task("framed"), &me);
    let make = |_: &str| relay(&node, &me.id(), &frame);
    all_malformed(&target, &mut raw, make, &[("target", &[]), ("source", &[]), ("hops", &[]), ("frame", &[])]).await;
    let make = |id: &str| {
        let builder = Builder::new("relay_error").str("id", id).str("target", &mine);
        builder.str("code", "NO_PEER").str("message", "x")
    };
    let rows: [(&str, &[&str]); 5] = [
        ("id", &[]),
        ("target", &[]),
        ("source", &["\"\""]),
        ("code", &["\"\"", "\"\\u0000\""]),
        ("message", &["\"\"", "\"\\u0000\""]),
    ];
    all_malformed(&target, &mut raw, make, &rows).await;
    let make = |_: &str| Builder::new("heartbeat");
    all_malformed(&target, &mut raw, make, &[("ask", &[]), ("answer", &[])]).await;
    let make = |id: &str| Builder::new("query_resp").str("id", id).str("origin", &mine);
    let rows: [(&str, &[&str]); 4] = [("id", &[]), ("origin", &["\"\""]), ("hops", &[]), ("nodes", &["[]"])];
    all_malformed(&target, &mut raw, make, &rows).await;
    let make =
        |_: &str| announce(&sign(record(&me, "x"), &me)).members().fold(Builder::untyped(), |b, (k, v)| b.raw(k, v));
    all_malformed(&target, &mut raw, make, &[("record", &[]), ("ttl", &[])]).await;
    assert_eq!(target.node.metrics().records, 1, "no record came of it");
    assert_eq!(target.runs(), 0);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn wrong_types_in_a_record_make_it_no_record() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let me = raw.identity.clone();
    let rows: [(&str, &[&str]); 12] = [
        ("type", &[]),
        ("node_id", &[]),
        ("name", &["\"\""]),
        ("caps", &["{}"]),
        ("interests", &["[]"]),
        ("addrs", &["[]"]),
        ("trackers", &["[]"]),
        ("tracker", &[]),
        ("features", &["[]"]),
        ("version", &["\"\"", "\"\\u0000\""]),
        ("seq", &[]),
        ("ttl_s", &[]),
    ];
    let framed = |record: &Object| announce(record).members().fold(Builder::untyped(), |b, (k, v)| b.raw(k, v));
    for (member, right) in rows {
        for value in VALUES.iter().filter(|v| !right.contains(v)) {
            let before = target.refused("malformed");
            let wrong = sign(record(&me, "x").raw(member, value.as_bytes()), &me);
            raw.send(&framed(&wrong).build()).await;
            raw.heard().await;
            assert_eq!(target.refused("malformed"), before + 1, "{member}: {value}");
        }
    }
    assert_eq!(target.node.metrics().records, 1);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn ids_and_signatures_have_one_spelling() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let id = raw.id().to_string();
    let spellings = [
        format!("{id}="),
        id[..42].to_owned(),
        format!("{id}A"),
        format!("+{}", &id[1..]),
        format!("/{}", &id[1..]),
        format!(" {id}"),
        format!("{}B", &id[..42]),
        "é".repeat(43),
    ];
    for (n, spelling) in spellings.iter().enumerate() {
        let task = format!("id {n}");
        raw.sends(raw.task(&task).str("caller", spelling)).await;
        assert_eq!(raw.error(&task).await, "BAD_REQUEST", "{spelling:?}");
        let task = format!("target {n}");
        raw.sends(raw.task(&task).str("target", spelling)).await;
        assert_eq!(raw.error(&task).await, "BAD_REQUEST", "{spelling:?}");
    }
    let signed = sign(raw.task("signature"), &raw.identity);
    let text = signed.str("signature").unwrap().unwrap();
    let spellings = [
        format!("{text}=="),
        text[..85].to_owned(),
        format!("{text}A"),
        format!("+{}", &text[1..]),
        format!("{}B", &text[..85]),
        String::new(),
    ];
    for spelling in &spellings {
        raw.send(&signed.with_member("signature", format!("\"{spelling}\"").as_bytes())).await;
        assert_eq!(raw.error("signature").await, "BAD_SIGNATURE", "{spelling:?}");
    }
    for other in ["7", "null", "[]", "{}"] {
        raw.send(&signed.with_member("signature", other.as_bytes())).await;
        assert_eq!(raw.error("signature").await, "BAD_SIGNATURE", "{other}");
    }
    assert_eq!(target.runs(), 0);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn wrong_types_in_what_is_about_punching_are_counted() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let me = raw.id().to_string();
    let punch = |id: &str| Builder::new("punch").str("id", id);
    all_malformed(&target, &mut raw, punch, &[("target", &["\"\""]), ("addrs", &["[]"])]).await;
    let start = |id: &str| Builder::new("punch_start").str("id", id).str("peer", &me);
    all_malformed(&target, &mut raw, start, &[("peer", &[]), ("addrs", &["[]"]), ("wait_ms", &[])]).await;
    let error = |id: &str| Builder::new("punch_error").str("id", id).str("target", &me).str("code", "NO_PEER");
    all_malformed(&target, &mut raw, error, &[("target", &[]), ("code", &[])]).await;
    let addr = "10.0.0.1:1000";
    for (make, most) in [(&punch as &dyn Fn(&str) -> Builder, 4), (&start, 5)] {
        let wrong =
            [vec![addr; most + 1], vec!["10.0.0.1"], vec!["host:1"], vec!["10.0.0.1:65536"], vec!["10.0.0.1:-1"]];
        for addrs in wrong {
            let before = target.refused("malformed");
            raw.sends(make("1").strings("addrs", &addrs)).await;
            raw.heard().await;
            assert_eq!(target.refused("malformed"), before + 1, "{addrs:?}");
        }
        let before = target.refused("malformed");
        raw.sends(make("1").strings("addrs", &vec![addr; most])).await;
        raw.heard().await;
        assert_eq!(target.refused("malformed"), before);
    }
    drop(raw);
    target.unharmed().await;
}
