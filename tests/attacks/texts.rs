//! Texts that mean one thing to who signed them and another to who reads them, and texts that are meant to choke a reader.

use serde_json::{Value, json};

use crate::attacker::Attacker;
use crate::canon::canonical;
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
    let as_task = |mut message: Value, id: &str, key: &crate::canon::Key| {
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
