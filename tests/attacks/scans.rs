//! Nodes made to knock at doors of the attacker's choosing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::attacker::{Attacker, LAIR, announce, record, relay};
use crate::canon::Key;
use crate::stage::{Stage, eventually};
use crate::tasks::{Tracker, is_relay};

/// Somebody's service: it counts who comes, and keeps what it was told.
struct Canary {
    addr: String,
    port: u16,
    came: Arc<AtomicUsize>,
    told: Arc<std::sync::Mutex<Vec<u8>>>,
    _watch: AbortOnDropHandle<()>,
}

impl Canary {
    async fn at(ip: [u8; 4], port: u16) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::from(ip), port)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (came, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (count, keep) = (Arc::clone(&came), Arc::clone(&told));
        let watch = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut all = [0; 2048];
                let read = tokio::time::timeout(std::time::Duration::from_secs(2), stream.read(&mut all)).await;
                if let Ok(Ok(n)) = read {
                    keep.lock().unwrap().extend_from_slice(&all[..n]);
                }
            }
        });
        Self { addr: addr.to_string(), port: addr.port(), came, told, _watch: AbortOnDropHandle::new(watch) }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// A tracker is asked to dial: it dials the asker's own address, at the port it names, a few times, and no other.
#[tokio::test]
async fn a_tracker_that_dials_back_scans_nobody_but_the_asker() {
    let stage = Stage::tracker().await;
    let own = Canary::at(LAIR, 0).await;
    let other = Canary::at([127, 0, 0, 1], if LAIR[3] == 1 { 0 } else { own.port }).await;
    for n in 0..40 {
        let mut asker = Attacker::dial(&stage.addr()).await;
        asker.shake(&["dialback"]).await;
        asker
            .say(&json!({
                "type": "dial_back", "id": "1", "port": own.port, "nonce": "AAAAAAAAAAAAAAAAAAAAAA", "addr": other.addr,
                "ip": "127.0.0.1", "host": "localhost", "target": other.addr
            }))
            .await;
        // In forms that name another place.
        for port in [json!(other.addr), json!(-1), json!(65_536), json!(0), json!([own.port]), json!(22), json!(25)] {
            asker.say(&json!({"type": "dial_back", "id": "2", "port": port, "nonce": "AAAAAAAAAAAAAAAAAAAAAA"})).await;
        }
        asker.heard().await;
        if n % 10 == 0 {
            stage.answers().await;
        }
    }
    eventually("the asker's own port was dialled", || own.came() >= 1).await;
    if LAIR[3] != 1 {
        assert_eq!(other.came(), 0, "another address was dialled");
    }
    // 20 at once for an address, then one in two seconds.
    assert!(own.came() <= 60, "{}", own.came());
    let told = String::from_utf8(own.told.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = told.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.iter().all(|l| l["type"] == "dial_back_probe" && l.as_object().unwrap().len() == 2), "{told}");
    println!("40 askers: {} dials at their own port", own.came());
    drop((own, other));
    stage.unharmed().await;
}

/// A tracker says where a hole is to be punched: at services of this machine, asked or not.
#[tokio::test]
async fn a_tracker_that_lies_of_holes_to_punch_makes_nobody_knock() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let canaries = [Canary::at([127, 0, 0, 1], 0).await, Canary::at(LAIR, 0).await];
    let addrs: Vec<&str> = canaries.iter().map(|c| c.addr.as_str()).chain(["[::1]:9", "0.0.0.0:9"]).collect();
    let peer = Key::fresh();
    let mut says = record(&peer, &["work"], 300);
    says["trackers"] = json!([tracker.id()]);
    says["features"] = json!(["punch"]);
    let says = peer.sign(says);
    let (node, mut link) = tracker.caller_with(&[&says], &["punch"]).await;
    let start = |id: &str| json!({"type": "punch_start", "id": id, "peer": peer.id(), "addrs": addrs, "wait_ms": 0});
    // Unasked, for somebody it never heard of; then for one whose task has just come; then for one it calls itself.
    for n in 0..20 {
        link.say(&start(&format!("unasked{n}"))).await;
    }
    let mut task = crate::attacker::task(&peer, "t", &node.id().to_string());
    task["capability"] = json!("ping");
    link.say(&relay(&node.id().to_string(), &peer.id(), 1, &peer.sign(task))).await;
    for n in 0..20 {
        link.say(&start(&format!("after a task{n}"))).await;
    }
    let call = node.call("work", json!(1)).to(peer.id()).start().await.unwrap();
    link.until("the task", is_relay).await;
    for n in 0..20 {
        link.say(&start(&format!("after a call{n}"))).await;
    }
    for message in link.heard().await {
        if message["type"] == "punch" && message["id"].is_string() {
            link.say(&start(message["id"].as_str().unwrap())).await;
        }
    }
    link.heard().await;
    stage.answers().await;
    assert_eq!(canaries.iter().map(Canary::came).sum::<usize>(), 0, "a node knocked where a tracker said");
    drop(call);
    node.shutdown().await;
    drop((link, tracker, canaries));
    stage.unharmed().await;
}

/// Records name addresses. A call dials them, with a `hello` and nothing else, a few at most; nobody else does.
#[tokio::test]
async fn addresses_in_records_are_dialled_for_a_call_alone_and_few_of_them() {
    let stage = Stage::tracker().await;
    let canary = Canary::at([127, 0, 0, 1], 0).await;
    let mut attacker = Attacker::connect_as_tracker(&stage.addr(), &Key::fresh()).await;
    // A hundred nodes and trackers, all said to be at that service.
    for n in 0..100 {
        let key = Key::fresh();
        // Gone soon: what is left over is looked at in the end.
        let mut says = record(&key, &["bait"], 3);
        says["addrs"] = (0..8).map(|_| json!(canary.addr)).collect();
        says["tracker"] = if n % 2 == 0 { json!("public") } else { json!(null) };
        let says = key.sign(says);
        attacker.say(&announce(&says, 1)).await;
    }
    attacker.heard().await;
    stage.answers().await;
    let known = stage.victim.metrics().records;
    assert!(known > 50, "{known}");
    // Trackers are looked for: one at a time, of the eight that one peer may name.
    assert!(canary.came() <= 16, "{} dials for records alone", canary.came());
    let before = canary.came();
    let error = stage.victim.call("bait", json!(1)).timeout(std::time::Duration::from_secs(5)).await.unwrap_err();
    println!("{error}; {} dials before, {} after", before, canary.came());
    assert!(canary.came() - before <= 101, "each node is dialled once for a call");
    let told = String::from_utf8(canary.told.lock().unwrap().clone()).unwrap();
    for line in told.lines() {
        let said: Value = serde_json::from_str(line).unwrap_or_default();
        assert_eq!(said["type"], "hello", "{line}");
    }
    drop((attacker, canary));
    stage.unharmed().await;
}
