//! Texts that mean one thing to who signed them and another to who reads them, and texts that are meant to choke a reader.

use serde_json::{Value, json};

use crate::attacker::{Attacker, relay};
use crate::canon::{Key, Proof, above, canonical, leaf};
use crate::stage::Stage;

/// A task whose payload is one text where it is signed and another where it is sent.
fn task(attacker: &Attacker, id: &str, signed: &str, sent: &str) -> String {
    let mut message = attacker.task(id);
    message["payload"] = json!("PAYLOAD");
    let text = canonical(&message);
    let signature = attacker.key.sign_text(&text.replace("\"PAYLOAD\"", signed));
    message["signature"] = json!(signature);
    canonical(&message).replace("\"PAYLOAD\"", sent)
}

/// What was signed, what is sent, and what it would do: both read alike by some readers, and told apart by others.
const TRICKS: &[(&str, &str)] = &[
    // Numbers.
    ("1", "1.0"),
    ("1", "1e0"),
    ("1", "10e-1"),
    ("1", "true"),
    ("0", "-0"),
    ("0", "-0.0"),
    ("0", "0.0"),
    ("0", "0e99"),
    ("1.5", "1.50"),
    ("1e+16", "1E16"),
    ("0.1", "0.1000000000000000055511151231257827"),
    ("9007199254740992", "9007199254740993"),
    ("9007199254740993", "9007199254740992"),
    ("18446744073709551616", "1.8446744073709552e+19"),
    ("18446744073709551615", "-1"),
    ("10000000000000000000001", "1e+22"),
    ("1e-400", "0"),
    ("1", "\"1\""),
    // Unicode: composed and not, alike to the eye, invisible, wide, in another case.
    (r#""\u00e9""#, r#""e\u0301""#),
    (r#""\u212b""#, r#""\u00c5""#),
    (r#""a""#, r#""\u0430""#),
    (r#""a""#, r#""a\u200b""#),
    (r#""a""#, r#""\uff41""#),
    (r#""a""#, r#""A""#),
    (r#""a""#, r#""a\u0000""#),
    (r#""a""#, r#""a ""#),
    (r#""ss""#, r#""\u00df""#),
    (r#""\\u0041""#, r#""\u0041""#),
    // Structure.
    ("{}", "[]"),
    ("null", "{}"),
    (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
    (r#"{"a":1,"b":null}"#, r#"{"a":1}"#),
    (r#"{"a":1}"#, r#"{"A":1}"#),
    (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
    (r#"{"a":{"signature":"x"}}"#, r#"{"a":{}}"#),
    (r#"{"signature":"x"}"#, r#"{"signature":"y"}"#),
    (r#"{"ttl":1}"#, r#"{"ttl":2}"#),
];

/// Sent as they are, they mean what was signed, and nothing else.
const ALIKE: &[(&str, &str)] = &[
    (r#""A\u00e9\ud83d\ude00/""#, "\"\\u0041\u{e9}\u{1F600}\\/\""),
    (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true ,\tnull ] ,\r \"\\u0061\" : 1 }"),
    // Members are sorted by code points: what is above U+FFFF comes last, though its escape begins with \ud83d.
    (r#"{"\u00e9":1,"\uffff":3,"\ud83d\ude00":2}"#, "{\"\u{ffff}\":3,\"\u{1F600}\":2,\"\u{e9}\":1}"),
    ("18446744073709551615", "18446744073709551615"),
];

#[tokio::test]
async fn a_signature_holds_for_one_meaning_only() {
    let stage = Stage::plain().await;
    let mut attacker = Attacker::connect(&stage.addr()).await;
    for (n, (signed, sent)) in TRICKS.iter().enumerate() {
        let (id, text) = (format!("trick{n}"), task(&attacker, &format!("trick{n}"), signed, sent));
        attacker.line(&text).await;
        assert_eq!(attacker.error(&id).await, "BAD_SIGNATURE", "signed {signed}, sent {sent}");
    }
    assert_eq!(stage.runs(), 0);
    for (n, (signed, sent)) in ALIKE.iter().enumerate() {
        let text = task(&attacker, &format!("alike{n}"), signed, sent);
        attacker.line(&text).await;
        let answer = loop {
            let text = attacker.hear_text().await.unwrap();
            if text.contains(&format!("\"alike{n}\"")) {
                break text;
            }
        };
        assert!(answer.contains(&format!("\"payload\":{signed},")), "{signed}, sent as {sent}, came back in {answer}");
    }
    assert_eq!(stage.runs(), ALIKE.len());
    stage.answers().await;
    drop(attacker);
    stage.unharmed().await;
}

/// Nothing that two readers read differently is read at all: the connection ends.
#[tokio::test]
async fn what_readers_disagree_on_ends_the_connection() {
    let stage = Stage::plain().await;
    let long = "9".repeat(4301);
    let (deep, deeper) = (format!("{}{}", "[".repeat(64), "]".repeat(64)), "[".repeat(500_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
    let payloads: Vec<(&str, &[u8])> = vec![
        ("a member twice", br#"{"a":1,"a":2}"#),
        ("a member twice, once escaped", br#"{"a":1,"\u0061":2}"#),
        ("a member twice, deep inside", br#"[[{"b":{"a":1,"a":1}}]]"#),
        ("half a surrogate pair", br#""\ud83d""#),
        ("the other half", br#""\ude00""#),
        ("halves in the wrong order", br#""\ude00\ud83d""#),
        ("a surrogate as UTF-8", b"\"\xed\xa0\xbd\""),
        ("an overlong slash", b"\"\xc0\xaf\""),
        ("beyond Unicode", b"\"\xf4\x90\x80\x80\""),
        ("Latin 1", b"\"\xe9\""),
        ("a raw NUL", b"\"a\0b\""),
        ("a raw tab", b"\"a\tb\""),
        ("NaN", b"NaN"),
        ("an infinity", b"1e999"),
        ("a leading zero", b"01"),
        ("a plus", b"+1"),
        ("hexadecimal", b"0x10"),
        ("a bare point", b"1."),
        ("a comment", b"1/*x*/"),
        ("a trailing comma", b"[1,]"),
        ("single quotes", b"'a'"),
        ("an escape of another language", br#""\x41""#),
        ("4301 digits", long.as_bytes()),
        ("65 levels of arrays", deep.as_bytes()),
        ("65 levels of objects", objects.as_bytes()),
        ("half a million levels", deeper.as_bytes()),
    ];
    for (what, payload) in &payloads {
        let mut attacker = Attacker::connect(&stage.addr()).await;
        let text = task(&attacker, "x", "1", "PAYLOAD");
        let (before, after) = text.split_once("PAYLOAD").unwrap();
        attacker.bytes(&[before.as_bytes(), payload, after.as_bytes(), b"\n"].concat()).await;
        assert_eq!(attacker.closed().await, "BAD_MESSAGE", "{what}");
    }
    // Members of the message itself: the second one is another task's.
    let rows = [
        (r#""type":"task""#, r#""type":"task","type":"bye""#),
        (r#""type":"task""#, r#""type":"task","t\u0079pe":"bye""#),
        (r#""ttl_s":60"#, r#""ttl_s":60,"ttl_s":86400"#),
        (r#""signature""#, r#""signature":"x","signature""#),
        (r#""signature""#, r#""\u0073ignature":"x","signature""#),
    ];
    for (find, replace) in rows {
        let mut attacker = Attacker::connect(&stage.addr()).await;
        let text = task(&attacker, "x", "1", "1");
        assert!(text.contains(find));
        attacker.line(&text.replace(find, replace)).await;
        assert_eq!(attacker.closed().await, "BAD_MESSAGE", "{replace}");
    }
    // Two messages on one line are none.
    let mut attacker = Attacker::connect(&stage.addr()).await;
    let text = task(&attacker, "x", "1", "1");
    attacker.line(&format!("{text}{text}")).await;
    assert_eq!(attacker.closed().await, "BAD_MESSAGE");
    assert_eq!(stage.runs(), 0);
    stage.answers().await;
    drop(attacker);
    stage.unharmed().await;
}

/// Members that are not what they seem: a name that no member has, and a signature for another type.
#[tokio::test]
async fn a_signature_for_one_message_is_none_for_another() {
    let stage = Stage::plain().await;
    let mut attacker = Attacker::connect(&stage.addr()).await;
    // What one signs as an event or a query without its ttl is no task, whatever members it has.
    let as_task = |mut message: Value, id: &str, key: &Key| {
        message["id"] = json!(id);
        for kind in ["event", "query", "result", "cancel", "record", "hello"] {
            message["type"] = json!(kind);
            message = key.sign(message);
        }
        message["type"] = json!("task");
        message
    };
    let message = as_task(attacker.task("x"), "other type", &attacker.key);
    attacker.say(&message).await;
    assert_eq!(attacker.error("other type").await, "BAD_SIGNATURE");
    // In a task `ttl` is a member like any other.
    let mut message = attacker.task("ttl");
    message["ttl"] = json!(1);
    let mut message = attacker.key.sign(message);
    message["ttl"] = json!(2);
    attacker.say(&message).await;
    assert_eq!(attacker.error("ttl").await, "BAD_SIGNATURE");
    // In an event nothing but `ttl` may change: not its capitals, not its place in another object.
    let mut event = attacker.key.sign(attacker.event("e"));
    event["TTL"] = json!(9);
    attacker.say(&event).await;
    attacker.heard().await;
    assert_eq!((stage.runs(), stage.refused("bad_signature")), (0, 3));
    drop(attacker);
    stage.unharmed().await;
}

/// With such a signature the task is answered, or refused.
async fn outcome(attacker: &mut Attacker, message: &Value, signature: &str) -> String {
    let mut message = message.clone();
    message["signature"] = json!(signature);
    attacker.say(&message).await;
    let result = attacker.result(message["id"].as_str().unwrap()).await;
    result["error"]["code"].as_str().unwrap_or("done").to_owned()
}

/// Five tasks that are signed together are run; with anything in their proofs changed none is.
#[tokio::test]
async fn a_signature_over_many_messages_proves_each_of_them_and_no_other() {
    let stage = Stage::plain().await;
    let mut attacker = Attacker::connect(&stage.addr()).await;
    let peer = attacker.peer.clone();
    let said = attacker.until("its record", |m| m["type"] == "announce" && m["record"]["node_id"] == peer).await;
    assert!(said["record"]["features"].as_array().unwrap().contains(&json!("batch")), "{said}");
    let tasks: Vec<Value> = (0..5).map(|n| attacker.task(&format!("task{n}"))).collect();
    let proofs = attacker.key.sign_together(&tasks);
    let (first, last) = (&proofs[0], &proofs[4]);
    // Of the first task, and of the last one, which has moved up twice: forged before any was believed.
    let with = |proof: &Proof, change: &dyn Fn(&mut Proof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        proof.text()
    };
    let other = Key::fresh();
    let mut forged: Vec<(usize, &str, String)> = vec![
        (0, "another's proof", proofs[1].text()),
        (4, "another's proof", proofs[3].text()),
        (0, "a place that has the same sides", with(first, &|p| p.count = 6)),
        (4, "a place that has the same sides", with(last, &|p| (p.index, p.count) = (1, 2))),
        (4, "the same one higher up", with(last, &|p| (p.index, p.count) = (2, 3))),
        (0, "an index too high", with(first, &|p| p.index = 5)),
        (0, "the highest index", with(first, &|p| p.index = u16::MAX)),
        (0, "no message at all", with(first, &|p| p.count = 0)),
        (0, "the most that a count can say", with(first, &|p| p.count = u16::MAX)),
        (0, "a path that ends early", with(first, &|p| p.path.truncate(2))),
        (0, "no path", with(first, &|p| p.path.clear())),
        (0, "a path that goes on", with(first, &|p| p.path.push(vec![0; 32]))),
        (0, "a path without end", with(first, &|p| p.path = vec![vec![0; 32]; 20_000])),
        (0, "a path in another order", with(first, &|p| p.path.reverse())),
        (0, "half a hash", with(first, &|p| p.path[2].truncate(16))),
        (0, "a bit", with(first, &|p| p.path[1][31] ^= 128)),
        (0, "a bit of the signature", with(first, &|p| p.signature[63] ^= 1)),
        (0, "half a signature", with(first, &|p| p.signature.truncate(32))),
        (0, "signed by another", with(first, &|p| p.signature = other.sign_together(&tasks)[0].signature.clone())),
        (0, "the root's signature alone", crate::canon::encode(&first.signature)),
        (0, "nothing", "m".into()),
        (0, "no mark", first.text()[1..].into()),
        (0, "padded", format!("{}==", first.text())),
        (0, "in another alphabet", format!("m+{}", &first.text()[2..])),
        // A tree that doubles lone nodes has the last task three times more.
        (
            4,
            "doubled",
            with(last, &|p| (p.index, p.count, p.path) = (5, 6, [vec![leaf(&tasks[4])], last.path.clone()].concat())),
        ),
        // A level of the tree taken for the leaves, and the leaves for a level above others.
        (0, "a level less", with(first, &|p| (p.count, p.path) = (3, p.path[1..].to_vec()))),
        (
            0,
            "a level more",
            with(first, &|p| (p.count, p.path) = (10, [vec![leaf(&tasks[0])], p.path.clone()].concat())),
        ),
    ];
    // What the attacker signs itself is no proof either, when it is another construction than the one agreed on.
    let (a, b) = (leaf(&tasks[0]), leaf(&tasks[1]));
    let signed_so = |count: u16, root: &[u8], path: Vec<Vec<u8>>| {
        Proof { signature: attacker.key.sign_root(count, root), index: 0, count, path }.text()
    };
    forged.push((0, "a batch of one, of another message", signed_so(1, &b, vec![])));
    forged.push((0, "a batch of one, of a node", signed_so(1, &above(&a, &b), vec![])));
    forged.push((0, "a batch of one, with a path", signed_so(1, &above(&a, &b), vec![b.clone()])));
    forged.push((0, "a batch of none", signed_so(0, &a, vec![])));
    forged.push((0, "more than may be", signed_so(300, &above(&a, &b), vec![b.clone(); 9])));
    forged.push((0, "a leaf as the root", signed_so(2, &a, vec![b.clone()])));
    for (n, what, signature) in &forged {
        assert_eq!(outcome(&mut attacker, &tasks[*n], signature).await, "BAD_SIGNATURE", "{what}");
    }
    assert_eq!((stage.runs(), stage.refused("bad_signature")), (0, forged.len() as u64));
    for (task, proof) in tasks.iter().zip(&proofs) {
        assert_eq!(outcome(&mut attacker, task, &proof.text()).await, "done");
    }
    assert_eq!(stage.runs(), 5);
    // The same now that the root is known; under new ids, as the old ones are answered.
    for (n, what, signature) in &forged {
        let mut task = tasks[*n].clone();
        task["id"] = json!(format!("again {n} {what}"));
        assert_eq!(outcome(&mut attacker, &task, &proofs[*n].text()).await, "BAD_SIGNATURE", "another task");
        assert_eq!(outcome(&mut attacker, &task, signature).await, "BAD_SIGNATURE", "{what}");
    }
    // In another's name, over its own connection: the attacker's proofs prove nothing of others.
    let mut third = Attacker::connect(&stage.addr()).await;
    let task = third.task("third");
    assert_eq!(outcome(&mut third, &task, &proofs[0].text()).await, "BAD_SIGNATURE");
    third
        .say(&relay(&stage.id(), &third.id(), 1, &{
            let mut frame = tasks[1].clone();
            frame["signature"] = json!(proofs[1].text());
            frame
        }))
        .await;
    third.until("a refusal", |m| m["type"] == "relay_error" && m["code"] == "BAD_SIGNATURE").await;
    // Events are not signed so: their `ttl` changes on the way.
    let before = stage.refused("bad_signature");
    let events = [third.event("e1"), third.event("e2")];
    let bare = events.clone().map(|mut event| {
        event.as_object_mut().unwrap().remove("ttl");
        event
    });
    for proofs in [third.key.sign_together(&events), third.key.sign_together(&bare)] {
        for (event, proof) in events.iter().zip(proofs) {
            let mut event = event.clone();
            event["signature"] = json!(proof.text());
            third.say(&event).await;
        }
    }
    third.heard().await;
    assert_eq!(stage.refused("bad_signature"), before + 4);
    assert_eq!(stage.runs(), 5);
    stage.answers().await;
    drop((attacker, third));
    stage.unharmed().await;
}
