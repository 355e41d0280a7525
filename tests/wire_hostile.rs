//! Input made to break a parser: each is refused for its reason, at its place, and quickly.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use elo::limits::{MAX_INTEGER_DIGITS, MAX_JSON_DEPTH};
use elo::wire::{JsonError, Object, canonicalize_json};

fn refused(text: impl AsRef<[u8]>) -> JsonError {
    let text = text.as_ref();
    let error = Object::parse(Bytes::copy_from_slice(text))
        .expect_err(&format!("accepted {:?}", String::from_utf8_lossy(text)));
    assert!(error.to_string().len() < 100, "an error echoes its input: {error}");
    error
}

fn accepted(text: impl AsRef<[u8]>) -> Object {
    Object::parse(Bytes::copy_from_slice(text.as_ref())).unwrap()
}

#[test]
fn members_that_appear_twice() {
    for (text, offset) in [
        (r#"{"a":1,"a":1}"#, 7),
        (r#"{"b":1,"a":1,"b":1}"#, 13),
        (r#"{"a":1,"\u0061":2}"#, 7),
        (r#"{"\u0061":1,"a":2}"#, 12),
        (r#"{"é":1,"\u00e9":2}"#, 8),
        (r#"{"😀":1,"\ud83d\ude00":2}"#, 10),
        (r#"{"\uD83D\uDE00":1,"\ud83d\ude00":2}"#, 18),
        (r#"{"/":1,"\/":2}"#, 7),
        (r#"{"":1,"":2}"#, 6),
        (r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#, 24),
        (r#"{"z":{"k":1},"k":2,"a":{"k":1,"k":1}}"#, 30),
    ] {
        assert_eq!(refused(text), JsonError::Duplicate { offset }, "{text}");
    }
    // The same name in different objects, and names that differ, are fine.
    accepted(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}],"c":1,"C":1,"e\u0301":1,"é":1}"#);
}

#[test]
fn not_an_object_or_more_than_one() {
    for (text, offset) in [("[]", 0), (" 1", 1), ("\"a\"", 0), ("null", 0), ("\u{feff}{}", 0), ("}", 0)] {
        assert_eq!(refused(text), JsonError::NotAnObject { offset }, "{text}");
    }
    for (text, offset) in [("{}{}", 2), ("{} x", 3), ("{}\0", 2), ("{},", 2), ("{}}", 2)] {
        assert_eq!(refused(text), JsonError::Trailing { offset }, "{text}");
    }
    accepted(" \t\r\n{} \t\r\n");
}

#[test]
fn grammar() {
    for (text, offset, found) in [
        (r#"{a:1}"#, 1, b'a'),
        (r#"{'a':1}"#, 1, b'\''),
        (r#"{"a" 1}"#, 5, b'1'),
        (r#"{"a":}"#, 5, b'}'),
        (r#"{"a":1,}"#, 7, b'}'),
        (r#"{,"a":1}"#, 1, b','),
        (r#"{"a":1 "b":2}"#, 7, b'"'),
        (r#"{"a":[1,]}"#, 8, b']'),
        (r#"{"a":[,1]}"#, 6, b','),
        (r#"{"a":[1}"#, 7, b'}'),
        (r#"{"a":{]}"#, 6, b']'),
        (r#"{"a":1]"#, 6, b']'),
        (r#"{"a":tru}"#, 8, b'}'),
        (r#"{"a":True}"#, 5, b'T'),
        (r#"{"a":nulll}"#, 9, b'l'),
        (r#"{"a":NaN}"#, 5, b'N'),
        (r#"{"a":Infinity}"#, 5, b'I'),
        (r#"{"a":+1}"#, 5, b'+'),
        (r#"{"a":.5}"#, 5, b'.'),
        (r#"{"a":0x10}"#, 6, b'x'),
        (r#"{"a":1//c"#, 6, b'/'),
        ("{\"a\":\u{a0}1}", 5, 0xc2),
        ("{\x0b}", 1, 0x0b),
        (r#"{1:1}"#, 1, b'1'),
        (r#"{null:1}"#, 1, b'n'),
    ] {
        match refused(text) {
            JsonError::Unexpected { offset: o, found: f, .. } => {
                assert_eq!((o, f), (offset, found), "{text}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let whole = r#"{"a\n\u00e9\ud83d\ude00":[1.5e+3,-0,true,false,null,{"":"x"}],"b":"é"}"#;
    accepted(whole);
    for cut in 0..whole.len() {
        match refused(&whole.as_bytes()[..cut]) {
            JsonError::Truncated { offset } => assert_eq!(offset, cut),
            // Cut in the middle of the two bytes of é.
            JsonError::InvalidUtf8 { .. } => assert!(!whole.is_char_boundary(cut)),
            // Cut after the first half of a pair.
            JsonError::LoneSurrogate { .. } => {
                assert!(whole[..cut].ends_with("\\ud83d") || whole[..cut].ends_with("\\ud83d\\"))
            }
            other => panic!("{}: {other}", &whole[..cut]),
        }
    }
}

#[test]
fn numbers() {
    for (number, offset) in
        [("01", 5), ("-01", 6), ("00", 5), ("1.", 7), ("1.e1", 7), ("1e", 7), ("1e+", 8), ("-", 6), ("--1", 6)]
    {
        let error = refused(format!("{{\"a\":{number}}}"));
        assert_eq!(error, JsonError::BadNumber { offset }, "{number}");
    }
    for number in ["1e999", "-1e999", "1e309", "0.1e400", "9e99999999999999999999"] {
        let error = refused(format!("{{\"a\":{number}}}"));
        assert_eq!(error, JsonError::NotFinite { offset: 5 }, "{number}");
    }
    let digits = "7".repeat(MAX_INTEGER_DIGITS);
    assert!(accepted(format!("{{\"a\":-{digits}}}")).is_canonical());
    let error = refused(format!("{{\"a\":{digits}7}}"));
    assert_eq!(error, JsonError::IntegerTooLong { offset: 5 });
    accepted(r#"{"a":[0,-0,0.0,1E5,1e-999,1.7976931348623157e308]}"#);
}

#[test]
fn strings() {
    for (text, offset) in [
        (r#"{"a":"\ud800"}"#, 6),
        (r#"{"a":"x\udc00"}"#, 7),
        (r#"{"a":"\ude00\ud83d"}"#, 6),
        (r#"{"a":"\ud83dx"}"#, 6),
        (r#"{"a":"\ud83d\n"}"#, 6),
        (r#"{"a":"\ud83d\u0041"}"#, 6),
        (r#"{"a":"\ud83d\ud83d\ude00"}"#, 6),
        (r#"{"\udfff":1}"#, 2),
    ] {
        assert_eq!(refused(text), JsonError::LoneSurrogate { offset }, "{text}");
    }
    for (text, offset) in [
        (r#"{"a":"\x41"}"#, 6),
        (r#"{"a":"\'"}"#, 6),
        (r#"{"a":"\U0041"}"#, 6),
        (r#"{"a":"\u004g"}"#, 6),
        (r#"{"a":"\u+041"}"#, 6),
        (r#"{"a":"\u 041"}"#, 6),
        (r#"{"a":"\u{41}"}"#, 6),
        (r#"{"a":"\ud83d\u00zz"}"#, 12),
        ("{\"a\":\"\\\n\"}", 6),
    ] {
        assert_eq!(refused(text), JsonError::BadEscape { offset }, "{text}");
    }
    for found in 0..0x20 {
        let mut text = b"{\"a\":\"xyzxyzxyz_\"}".to_vec();
        text[15] = found;
        assert_eq!(refused(&text), JsonError::ControlCharacter { offset: 15, found });
    }
    for bytes in
        [&b"\xff"[..], b"\x80", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
    {
        let text = [b"{\"a\":\"", bytes, b"\"}"].concat();
        assert_eq!(refused(text), JsonError::InvalidUtf8 { offset: 6 }, "{bytes:x?}");
    }
    accepted("{\"\\u0000\\u007f\u{7f}\u{ffff}\u{10ffff}\":0}");
}

#[test]
fn depth() {
    let nested = |depth: usize| {
        let mut text = "{\"a\":".repeat(depth - 1);
        text.push_str("{}");
        text.push_str(&"}".repeat(depth - 1));
        text
    };
    accepted(nested(MAX_JSON_DEPTH));
    let offset = 5 * MAX_JSON_DEPTH;
    assert_eq!(refused(nested(MAX_JSON_DEPTH + 1)), JsonError::TooDeep { offset });
    // Never closed, as deep as a message can be.
    let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
    assert_eq!(refused(deep), JsonError::TooDeep { offset: 4 + MAX_JSON_DEPTH });
}

/// What these take when the work grows with the square of the input is minutes; the limit is generous for a slow,
/// busy machine and an unoptimised build.
#[test]
fn large_input_takes_time_in_proportion() {
    let text = |member: &dyn Fn(usize) -> String| {
        let members: Vec<_> = (0..60_000).rev().map(member).collect();
        format!("{{{}}}", members.join(","))
    };
    let prefix = "x".repeat(40);
    let inputs = [
        text(&|n| format!("\"k{n:06}\":0")),
        text(&|n| format!("\"\\u006b{n:06}\":0")),
        text(&|n| format!("\"{n}\":{{\"b\":1,\"a\":2}}")),
        // Names that differ only at their ends.
        text(&|n| format!("\"{}{n:06}\":0", &prefix[n % 7..])),
        format!("{{\"a\":[{}0]}}", "{\"b\":0,\"a\":0},".repeat(60_000)),
        format!("{{\"a\":\"{}\"}}", "\\u0041\u{e9}".repeat(100_000)),
        format!("{{\"a\":{}1{}}}", "[{\"b\":0,\"a\":".repeat(31), "}]".repeat(31)),
    ];
    for input in inputs {
        let start = Instant::now();
        let once = canonicalize_json(input.as_bytes()).unwrap();
        assert_eq!(canonicalize_json(&once).unwrap(), once);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?} for {:.40}", input);
    }
}
