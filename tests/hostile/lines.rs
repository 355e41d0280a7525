//! What is not a message at all: lines too long, JSON too deep, members twice, text that isn't UTF-8.

use elo::wire::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{Raw, sign};
use crate::target::target;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_line_over_1_mib_closes_the_connection_and_one_of_1_mib_does_not() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    // As long as a message may be; the answer is a short one.
    let task = raw.task("fits").str("capability", "stream");
    let around = sign(task.clone().str("payload", ""), &raw.identity).raw().len();
    raw.sends(task.clone().str("payload", &"x".repeat(MIB - around))).await;
    assert_eq!(raw.result("fits").await["payload"], "done");
    raw.sends(task.str("payload", &"x".repeat(MIB - around + 1))).await;
    assert_eq!(raw.bye().await, "TOO_LARGE");
    target.closes("TOO_LARGE", 1).await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_line_that_never_ends_is_not_waited_for_past_1_mib() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    for _ in 0..40 {
        raw.bytes(&vec![b' '; MIB / 32]).await;
    }
    assert_eq!(raw.bye().await, "TOO_LARGE");
    target.unharmed().await;
}

#[tokio::test]
async fn what_is_not_json_as_we_take_it_closes_the_connection() {
    let target = target().await;
    let deep = |n: usize| format!(r#"{{"type":"x","a":{}{}}}"#, "[".repeat(n), "]".repeat(n)).into_bytes();
    let mut raw = Raw::connect(&target.node).await;
    raw.bytes(&[deep(63), b"\n".to_vec()].concat()).await;
    raw.heard().await;
    assert_eq!(target.refused("unknown_type"), 1, "64 levels are taken");
    drop(raw);
    let lines: Vec<(&str, Vec<u8>)> = vec![
        ("too deep", deep(64)),
        ("much too deep", deep(100_000)),
        ("not closed", br#"{"type":"x""#.to_vec()),
        ("a list", b"[1]".to_vec()),
        ("text after it", br#"{"type":"x"} {}"#.to_vec()),
        ("bad UTF-8", b"{\"type\":\"\xff\xfe\"}".to_vec()),
        ("an overlong encoding", b"{\"type\":\"\xc0\xaf\"}".to_vec()),
        ("a surrogate in UTF-8", b"{\"type\":\"\xed\xa0\x80\"}".to_vec()),
        ("half a surrogate pair", br#"{"type":"\ud800"}"#.to_vec()),
        ("a control character", b"{\"type\":\"a\x01b\"}".to_vec()),
        ("a NUL", b"\0\0\0\x02{}".to_vec()),
        ("NaN", br#"{"type":"x","a":NaN}"#.to_vec()),
        ("a float without end", br#"{"type":"x","a":1e999}"#.to_vec()),
        ("an endless integer", format!(r#"{{"type":"x","a":{}}}"#, "9".repeat(5000)).into_bytes()),
    ];
    for (n, (what, line)) in lines.iter().enumerate() {
        let mut raw = Raw::connect(&target.node).await;
        raw.bytes(&[line.as_slice(), b"\n"].concat()).await;
        assert_eq!(raw.bye().await, "BAD_MESSAGE", "{what}");
        drop(raw);
        target.closes("BAD_MESSAGE", n as u64 + 1).await;
    }
    target.unharmed().await;
}

#[tokio::test]
async fn a_task_with_a_member_twice_closes_the_connection_however_it_is_spelled() {
    let target = target().await;
    for twice in [r#""capability":"work","#, r#""c\u0061pability":"echo","#, r#""payload":{"k":1,"\u006b":2},"#] {
        let mut raw = Raw::connect(&target.node).await;
        let task = sign(raw.task("twice"), &raw.identity);
        let text = std::str::from_utf8(task.raw()).unwrap();
        raw.bytes(format!("{{{twice}{}\n", &text[1..]).as_bytes()).await;
        assert_eq!(raw.bye().await, "BAD_MESSAGE", "{twice}");
    }
    assert_eq!(target.runs(), 0);
    target.unharmed().await;
}

#[tokio::test]
async fn empty_lines_and_white_space_are_passed_over() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.bytes(b"\n\r\n   \n\t\n").await;
    raw.sends(raw.task("after")).await;
    assert_eq!(raw.result("after").await["payload"]["a"], 1);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn what_does_not_speak_our_language_is_told_so() {
    let target = target().await;
    for words in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00", "SSH-2.0-x\r\n"] {
        let mut raw = Raw::dial(&target.node).await;
        raw.bytes(words.as_bytes()).await;
        assert_eq!(raw.bye().await, "BAD_HANDSHAKE", "{words:?}");
    }
    // The Python package is told in its own framing.
    let mut python = tokio::net::TcpStream::connect(crate::mesh::addr_of(&target.node)).await.unwrap();
    python.write_all(b"\0\0\0\x02{}").await.unwrap();
    let mut answer = Vec::new();
    python.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[..4], (answer.len() as u32 - 4).to_be_bytes());
    let bye: serde_json::Value = serde_json::from_slice(&answer[4..]).unwrap();
    assert_eq!(bye["code"], "BAD_HANDSHAKE");
    drop(python);
    target.closes("BAD_HANDSHAKE", 4).await;
    target.unharmed().await;
}

#[tokio::test]
async fn types_and_members_from_later_versions_are_passed_over_and_counted() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    for kind in ["batch", "hello2", "TASK", "task "] {
        raw.send(&Builder::new(kind).str("id", "x").build()).await;
    }
    let answers = raw.heard().await;
    assert!(answers.iter().all(|m| m["type"] != "result"), "{answers:?}");
    assert_eq!(target.refused("unknown_type"), 4);
    // Unknown members are part of what is signed.
    raw.sends(raw.task("extra").raw("trace", br#"{"span":[1,2.50]}"#)).await;
    assert_eq!(raw.result("extra").await["status"], "success");
    let signed = sign(raw.task("added"), &raw.identity);
    raw.send(&signed.with_member("trace", b"1")).await;
    assert_eq!(raw.error("added").await, "BAD_SIGNATURE");
    assert_eq!(target.runs(), 1);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_bye_with_any_code_ends_the_connection() {
    let target = target().await;
    for code in ["SHUTDOWN", "NO_SUCH_CODE", ""] {
        let mut raw = Raw::connect(&target.node).await;
        raw.send(&Builder::new("bye").str("code", code).str("reason", "\u{1b}[31m/home/x").build()).await;
        while let Some(message) = raw.line().await {
            assert_ne!(message["type"], "bye", "a bye is not answered with a bye");
        }
    }
    let mut raw = Raw::connect(&target.node).await;
    raw.send(&Builder::new("bye").build()).await;
    while raw.line().await.is_some() {}
    target.closes("SHUTDOWN", 1).await;
    target.closes("LOST", 3).await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_connection_that_is_reset_or_half_closed_leaves_nothing() {
    let target = target().await;
    for _ in 0..20 {
        let mut raw = Raw::connect(&target.node).await;
        raw.bytes(br#"{"type":"task","#).await;
        drop(raw);
    }
    let mut stream = tokio::net::TcpStream::connect(crate::mesh::addr_of(&target.node)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    target.unharmed().await;
}
