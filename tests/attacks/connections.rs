//! Connections that are too many, too slow, too long, or come from who is not wanted.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::attacker::{Attacker, LAIR, auth, connect_from, hello};
use crate::canon::Key;
use crate::common::Home;
#[cfg(target_os = "linux")]
use crate::common::proc::{descriptors, memory_kib};
use crate::mesh::{addr_of, meets, node};
use crate::stage::{Stage, Steady, eventually};

/// An address for each of many attackers.
fn lair(n: usize) -> [u8; 4] {
    match LAIR {
        [127, 0, 0, 1] => LAIR,
        _ => [127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, (2 + n % 250) as u8],
    }
}

/// One machine opens whatever it can, says nothing, and opens another for each that is closed. Somebody else comes in all
/// the same, and is served.
#[tokio::test]
async fn a_flood_of_connections_from_one_address_locks_nobody_out() {
    let stage = Stage::limited(|l| l.max_connections = 300).await;
    let addr = stage.addr();
    let (full, filled) = tokio::sync::oneshot::channel();
    let flood = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut open, mut full, mut opened) = (VecDeque::new(), Some(full), 0);
        loop {
            let Ok(stream) = connect_from(LAIR, &addr).await else { continue };
            if opened % 3 == 0 {
                drop(stream.try_write(b"{\"type\":\"hello\","));
            }
            open.push_back(stream);
            opened += 1;
            if opened >= 600
                && let Some(full) = full.take()
            {
                full.send(()).unwrap();
            }
            // Those that the node closed, or half closed, are given up for new ones.
            let is_open = |s: &TcpStream| s.try_read(&mut [0; 512]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            open.retain(is_open);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
    filled.await.unwrap();
    stage.answers().await;
    let newcomer = node("newcomer").peer(stage.addr()).start().await.unwrap();
    eventually("the newcomer comes in", || newcomer.peers().len() == 1).await;
    newcomer.call("work", json!(1)).to(stage.id()).await.unwrap();
    stage.answers().await;
    newcomer.shutdown().await;
    drop(flood);
    stage.unharmed().await;
}

/// A byte now and then, before the handshake and in the middle of a message after it.
#[tokio::test]
async fn who_never_finishes_a_message_is_closed() {
    let stage = Stage::limited(|l| {
        l.handshake_timeout = Duration::from_millis(1500);
        l.idle_timeout = Duration::from_secs(3);
        l.heartbeat_interval = Duration::from_millis(500);
    })
    .await;
    let text = hello(&Key::fresh(), &[]).to_string();
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(connect_from(LAIR, &stage.addr()).await.unwrap());
    }
    let mut begun = 0;
    eventually("those in the handshake are closed", || {
        if let Some(byte) = text.as_bytes().get(begun) {
            begun += 1;
            slow.iter().for_each(|s| drop(s.try_write(&[*byte])));
        }
        begun > 3 && stage.victim.metrics().connections == 2
    })
    .await;
    stage.answers().await;
    // Proven, and then a task that never ends: a byte now and then keeps it from being idle.
    let mut slow = Attacker::connect(&stage.addr()).await;
    let begin = r#"{"type":"task","id":"never","payload":""#;
    slow.bytes(begin.as_bytes()).await;
    let gone = async {
        while stage.victim.metrics().peers > 2 {
            slow.bytes(b"x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(20), gone).await.is_ok();
    assert!(closed, "a message that never ends holds its connection for ever");
    stage.answers().await;
    drop(slow);
    stage.unharmed().await;
}

#[tokio::test]
async fn a_line_without_end_costs_its_sender_the_connection_and_nobody_memory() {
    let stage = Stage::plain().await;
    let chunk = vec![b'x'; 64 * 1024];
    // Before the handshake.
    let mut strangers = Vec::new();
    for _ in 0..8 {
        let mut stranger = Attacker::dial(&stage.addr()).await;
        stranger.bytes(b"{\"type\":\"hello\",\"x\":\"").await;
        stranger.bytes(&chunk).await;
        strangers.push(stranger);
    }
    for stranger in &mut strangers {
        let code = stranger.closed().await;
        assert!(["TOO_LARGE", ""].contains(&code.as_str()), "{code}");
    }
    // After it: half a mebibyte is taken, more than one is not.
    let mut proven = Attacker::connect(&stage.addr()).await;
    proven.bytes(b"{\"type\":\"task\",\"payload\":\"").await;
    for n in 0..32 {
        proven.bytes(&chunk).await;
        if n == 8 {
            stage.answers().await;
        }
    }
    let code = proven.closed().await;
    assert!(["TOO_LARGE", ""].contains(&code.as_str()), "{code}");
    eventually("it is counted", || stage.victim.metrics().closed.get("TOO_LARGE").is_some_and(|n| *n >= 1)).await;
    drop((strangers, proven));
    stage.unharmed().await;
}

/// Ways to be turned away: a stranger at a private tracker, a bad signature, no JSON, another protocol, half a hello.
#[cfg(target_os = "linux")]
async fn be_rejected(addr: &str, n: usize, keys: &[Key]) {
    let stream = connect_from(lair(n), addr).await.unwrap();
    let mut attacker = Attacker::over(stream, &keys[n % keys.len()]);
    let key = attacker.key.clone();
    match n % 8 {
        0 => {
            let said = hello(&key, &[]);
            attacker.say(&said).await;
            let Some(ack) = attacker.hear().await.filter(|m| m["type"] == "hello_ack") else { return };
            attacker.peer = ack["node_id"].as_str().unwrap().to_owned();
            let proof = auth(&key, &attacker.peer, &said["nonce"], &ack["nonce"]);
            attacker.say(&proof).await;
        }
        1 => {
            let mut said = hello(&key, &[]);
            said["version"] = json!("1");
            attacker.say(&said).await;
        }
        2 => attacker.bytes(b"{{{{{{{{\n").await,
        3 => attacker.bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await,
        4 => return attacker.bytes(b"{\"type\":\"hello\",\"node_id\":").await,
        5 => attacker.bytes(b"\x00\x00\x00\x10{\"type\":\"hello\"}").await,
        6 => return,
        _ => attacker.bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await,
    }
    let code = attacker.closed().await;
    assert_ne!(code, "SHUTDOWN");
}

/// Ten thousand that are turned away leave nothing in a real process.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rejected_peers_cost_no_memory() {
    const ROUNDS: [usize; 2] = [2_000, 8_000];
    let home = Home::new();
    let keys: Vec<Key> = (0..64).map(|_| Key::fresh()).collect();
    let provider_key = Key::fresh();
    let caller_key = Key::fresh();
    let (one, two) = (provider_key.id(), caller_key.id());
    let process = home.serve(&["--tracker", "--private", "--allow", &one, "--allow", &two]);
    let provider = node("provider").identity(provider_key.identity()).agent("steady");
    let provider = provider.handler("steady", crate::stage::echo).peer(process.addr()).start().await.unwrap();
    let caller = node("caller").identity(caller_key.identity()).peer(process.addr()).peer(addr_of(&provider));
    let caller = caller.start().await.unwrap();
    meets(&caller, &[&provider]).await;
    eventually("both are at the tracker", || caller.peers().len() == 2 && provider.peers().len() == 2).await;
    // Straight, and through the process that is attacked.
    let ways = vec![(provider.id().to_string(), None), (provider.id().to_string(), Some(process.id()))];
    let steady = Steady::begin(&caller, ways);
    steady.goes_on().await;
    let before_fds = descriptors(process.child.0.id());
    let mut resident = Vec::new();
    for (from, count) in [(0, ROUNDS[0]), (ROUNDS[0], ROUNDS[1])] {
        let mut at_once = tokio::task::JoinSet::new();
        for n in from..from + count {
            while at_once.len() >= 24 {
                at_once.join_next().await.unwrap().unwrap();
            }
            let (addr, keys) = (process.addr(), keys.clone());
            at_once.spawn(async move { be_rejected(&addr, n, &keys).await });
            if n % 2_000 == 0 {
                steady.goes_on().await;
            }
        }
        while let Some(done) = at_once.join_next().await {
            done.unwrap();
        }
        eventually("the connections are gone", || descriptors(process.child.0.id()) <= before_fds).await;
        resident.push(memory_kib(process.child.0.id(), "VmRSS"));
    }
    println!("resident after {ROUNDS:?} rejected peers: {resident:?} KiB");
    // What an allocator keeps is kept once: the later eight thousand may not cost more than a little of it.
    assert!(resident[1] < resident[0] + 8 * 1024, "it grew: {resident:?} KiB");
    let answered = steady.over().await;
    assert_eq!(caller.metrics().calls_failed, 0);
    println!("{answered} steady calls");
    let status = tokio::task::spawn_blocking(move || home.run(["status", "--json"]).json()).await.unwrap();
    let metrics = &status["node"]["metrics"];
    assert_eq!((&metrics["connections"], &metrics["peers"]), (&json!(2), &json!(2)), "{metrics}");
    caller.shutdown().await;
    provider.shutdown().await;
}
