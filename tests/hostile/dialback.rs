//! Dial-backs in the wrong hands: a tracker that is to knock at strangers' doors, and one that lies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::wire::{Builder, Object};
use elo::{Reachability, Tracker};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::mesh::{addr_of, eventually, port_of};
use crate::raw::Raw;
use crate::target::{Target, limited, target};

const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

async fn tracker() -> Target {
    let tracker = Target::of(|builder| builder.tracker(Tracker::Public)).await;
    eventually("the honest peer is verified", || {
        matches!(tracker.honest.status().reachability, Reachability::Dialable { .. })
    })
    .await;
    assert_eq!(tracker.node.metrics().dial_backs, 1);
    tracker
}

fn dial_back(id: &str, port: u16) -> Builder {
    Builder::new("dial_back").str("id", id).u64("port", port.into()).str("nonce", NONCE)
}

async fn result(raw: &mut Raw, id: &str) -> Value {
    raw.until("dial_back_result", |m| m["type"] == "dial_back_result" && m["id"] == id).await
}

/// Something else's port: counts who comes, and keeps what it was told.
struct Stranger {
    port: u16,
    came: Arc<AtomicUsize>,
    told: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
}

async fn stranger() -> Stranger {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let counter = Arc::clone(&came);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let tell = tell.clone();
            tokio::spawn(async move {
                // It greets, as many services do.
                let _ = stream.write_all(b"220 hello\r\n").await;
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = tell.send(all);
            });
        }
    });
    Stranger { port, came, told }
}

#[tokio::test]
async fn what_stands_at_the_port_gets_one_line_that_the_asker_did_not_write() {
    let tracker = tracker().await;
    let mut stranger = stranger().await;
    let mut raw = Raw::connect(&tracker.node).await;
    // Whatever else the question says, the address is that of its connection.
    let evil = "\r\nDELETE / HTTP/1.1";
    let ask =
        dial_back("1", stranger.port).str("addr", "192.0.2.1:80").str("ip", "192.0.2.1").str("line", evil).build();
    raw.send(&ask).await;
    let told = timeout(Duration::from_secs(15), stranger.told.recv()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), format!("{{\"nonce\":\"{NONCE}\",\"type\":\"dial_back_probe\"}}\n"));
    let result = result(&mut raw, "1").await;
    assert_eq!((&result["ok"], &result["addr"]), (&json!(true), &json!(format!("127.0.0.1:{}", stranger.port))));
    assert_eq!(stranger.came.load(Ordering::SeqCst), 1);
    drop(raw);
    tracker.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_questions_makes_no_more_dials_than_allowed_and_is_told_so() {
    const ASKS: usize = 1000;
    let tracker = tracker().await;
    let stranger = stranger().await;
    let mut raw = Raw::connect(&tracker.node).await;
    for n in 0..ASKS {
        raw.send(&dial_back(&n.to_string(), stranger.port).build()).await;
    }
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..ASKS {
        let result = raw.until("an answer", |m| m["type"] == "dial_back_result").await;
        let code = if result["ok"] == true { "ok" } else { result["error"]["code"].as_str().unwrap() };
        if code == "RATE_LIMITED" {
            assert!(result["error"]["retry_after_s"].as_u64().unwrap() >= 1, "{result}");
        }
        *codes.entry(code.to_owned()).or_default() += 1;
    }
    // The sending takes less than the ten seconds after which one more is let through; but machines are slow.
    let dialled = codes["ok"];
    assert!((3..=5).contains(&dialled), "{codes:?}");
    assert_eq!((dialled + codes["RATE_LIMITED"], stranger.came.load(Ordering::SeqCst)), (ASKS, dialled));
    println!("{ASKS} questions of one node: {codes:?}");

    // As somebody else, again and again.
    let mut by_others = 0;
    for n in 0..60 {
        let mut raw = Raw::connect(&tracker.node).await;
        raw.send(&dial_back(&n.to_string(), stranger.port).build()).await;
        by_others += usize::from(result(&mut raw, &n.to_string()).await["ok"] == true);
    }
    let came = stranger.came.load(Ordering::SeqCst);
    assert_eq!(came, dialled + by_others);
    println!("60 questions by 60 keys from the same address: {by_others} dials, {came} in all");
    // 20 for an address, one of which the honest peer had, and one more for every two seconds that this takes.
    assert!((19 - dialled..=40).contains(&by_others) && by_others < 60, "{by_others}");
    assert!(tracker.refused("dial_back_refused") >= (ASKS - dialled + 60 - by_others) as u64);
    drop(raw);
    tracker.unharmed().await;
}

#[tokio::test]
async fn only_trackers_dial_and_never_a_port_that_belongs_to_another_service() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.send(&dial_back("1", 7878).build()).await;
    assert_eq!(result(&mut raw, "1").await["error"]["code"], "NO_TRACKER");
    let tracker = tracker().await;
    let mut raw = Raw::connect(&tracker.node).await;
    for port in [22, 25, 53, 465, 587, 993, 6000, 6667, 9100] {
        raw.send(&dial_back("2", port).build()).await;
        let result = result(&mut raw, "2").await;
        assert_eq!((&result["ok"], &result["error"]["code"]), (&json!(false), &json!("BAD_REQUEST")), "{port}");
    }
    assert_eq!((target.node.metrics().dial_backs, tracker.node.metrics().dial_backs), (0, 1));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_and_malformed_questions_are_counted() {
    let tracker = tracker().await;
    let mut raw = Raw::connect(&tracker.node).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    raw.send(&dial_back("1", free).build()).await;
    let result = result(&mut raw, "1").await;
    assert_eq!((&result["ok"], &result["error"]["code"]), (&json!(false), &json!("NO_PEER")), "{result}");
    assert_eq!(result["error"]["message"], "the connection was refused");
    let wrong = [
        r#"{"type":"dial_back"}"#,
        r#"{"type":"dial_back","id":"1","port":0,"nonce":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"type":"dial_back","id":"1","port":70000,"nonce":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"type":"dial_back","id":"1","port":80,"nonce":"short"}"#,
        r#"{"type":"dial_back","id":"","port":80,"nonce":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"type":"dial_back","id":"1","port":8080,"nonce":["AAAAAAAAAAAAAAAAAAAAAA"]}"#,
        r#"{"type":"dial_back_result","id":"1","ok":true}"#,
        r#"{"type":"dial_back_result","id":"1","ok":true,"addr":"localhost:80"}"#,
    ];
    for line in wrong {
        raw.bytes(format!("{line}\n").as_bytes()).await;
    }
    assert!(raw.heard().await.iter().all(|m| m["type"] != "dial_back_result"), "nobody can be told");
    assert_eq!((tracker.refused("malformed"), tracker.node.metrics().dial_backs), (wrong.len() as u64, 2));
    drop(raw);
    tracker.unharmed().await;
}

/// Brings a line to a listener, as a tracker would; gives what came back.
async fn bring(addr: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(line.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut said = String::new();
    timeout(Duration::from_secs(15), stream.read_to_string(&mut said)).await.expect("it closes").unwrap_or(0);
    said
}

fn probe(nonce: &str) -> String {
    format!("{{\"nonce\":\"{nonce}\",\"type\":\"dial_back_probe\"}}\n")
}

#[tokio::test]
async fn thousands_of_lines_that_nobody_asked_for_are_counted_and_closed_without_a_word() {
    const PROBES: usize = 3000;
    // An address may connect so often only: that is another bound than the one looked at here.
    let target = limited(|l| (l.handshakes_per_second_per_ip, l.handshake_burst_per_ip) = (10_000, 10_000)).await;
    let addr = addr_of(&target.node);
    let flood = (0..8).map(|_| {
        let addr = addr.clone();
        tokio::spawn(async move {
            for _ in 0..PROBES / 8 {
                assert_eq!(bring(&addr, &probe(NONCE)).await, "");
            }
        })
    });
    let flood: Vec<_> = flood.collect();
    for _ in 0..20 {
        target.serves().await;
    }
    for task in flood {
        task.await.unwrap();
    }
    assert_eq!(target.refused("unknown_probe"), PROBES as u64);
    // One that can't be read is no handshake either, and after a handshake it is a message like any other.
    assert!(bring(&addr, &probe("short")).await.contains("BAD_HANDSHAKE"));
    assert!(bring(&addr, "{\"type\":\"dial_back_probe\"}\n").await.contains("BAD_HANDSHAKE"));
    let mut raw = Raw::connect(&target.node).await;
    raw.bytes(probe(NONCE).as_bytes()).await;
    raw.heard().await;
    assert_eq!((target.refused("unknown_probe"), target.refused("unknown_type")), (PROBES as u64, 1));
    drop(raw);
    target.unharmed().await;
}

fn says(id: &Value, addr: &str) -> Object {
    Builder::new("dial_back_result").str("id", id.as_str().unwrap()).str("addr", addr).bool("ok", true).build()
}

#[tokio::test]
async fn who_came_and_calls_itself_a_tracker_is_not_asked_and_takes_no_address_back() {
    let target = target().await;
    let addr = addr_of(&target.node);
    let mut stranger = Raw::connect_as_tracker(&target.node).await;
    let heard = stranger.heard().await;
    assert!(heard.iter().all(|m| m["type"] != "dial_back"), "{heard:?}");
    assert_eq!(target.node.status().addrs, [addr]);
}

#[tokio::test]
async fn a_tracker_that_lies_makes_nobody_dialable() {
    let chosen = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let ports = [0, 1].map(|i: usize| chosen[i].local_addr().unwrap().to_string());
    let target = Target::of(|builder| ports.iter().fold(builder, |b, port| b.peer(port.as_str()))).await;
    let (addr, port) = (addr_of(&target.node), port_of(&target.node));
    assert_eq!(target.node.status().addrs, std::slice::from_ref(&addr), "without a tracker it names what it has");
    let mut liar = Raw::dialled_as_tracker(&chosen[0], &target.node).await;
    let ask = liar.until("the question", |m| m["type"] == "dial_back").await;
    assert_eq!(ask["port"], port);
    assert!(target.node.status().addrs.is_empty(), "nothing is verified yet");
    // It came through, it says, and brought nothing; or what was asked of nobody; or the nonce under another id.
    liar.send(&says(&json!("another"), &addr)).await;
    liar.send(&says(&ask["id"], &addr)).await;
    assert_eq!(bring(&addr, &probe(NONCE)).await, "");
    liar.heard().await;
    assert!(target.node.status().addrs.is_empty(), "nothing came in over the listener");
    assert_eq!((target.refused("unknown_dial_back_result"), target.refused("unknown_probe")), (1, 1));
    // With the nonce it is no lie any more.
    assert_eq!(bring(&addr, &probe(ask["nonce"].as_str().unwrap())).await, "");
    eventually("it is believed", || target.node.status().addrs == [addr.clone()]).await;
    // The nonce counts once.
    assert_eq!(bring(&addr, &probe(ask["nonce"].as_str().unwrap())).await, "");
    eventually("a replay is counted", || target.refused("unknown_probe") == 2).await;
    // Another liar brings the nonce and names another's port.
    let mut second = Raw::dialled_as_tracker(&chosen[1], &target.node).await;
    let ask = second.until("the question", |m| m["type"] == "dial_back").await;
    assert_eq!(bring(&addr, &probe(ask["nonce"].as_str().unwrap())).await, "");
    second.send(&says(&ask["id"], "127.0.0.1:25")).await;
    second.heard().await;
    assert_eq!(target.node.status().addrs, [addr]);
}
