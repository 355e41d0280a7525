//! Taking somebody's place: by claiming an id, by one that begins alike, by a name, by replaying or passing on a handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elo::{Activity, ErrorCode, Node, Tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::attacker::{Attacker, LAIR, PATIENCE, announce, auth, hello, hello_ack, record};
use crate::canon::{Key, canonical, nonce};
use crate::mesh::{meets, node};
use crate::stage::{Stage, eventually};
use crate::wiretap::{From, Wiretap};

async fn lair() -> (TcpListener, String) {
    let listener = TcpListener::bind((std::net::Ipv4Addr::from(LAIR), 0)).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

/// A real node that wants to reach somebody where the attacker is.
async fn dialer(peer: String) -> Node {
    node("dialer").peer(peer).start().await.unwrap()
}

/// Waits until its dial fails; gives why.
async fn dial_fails(node: &Node) -> String {
    let mut activity = node.activity();
    let looking = async {
        loop {
            if let Some(Activity::DialFailed { message, .. }) = activity.recv().await {
                return message;
            }
        }
    };
    timeout(PATIENCE, looking).await.expect("the dial fails")
}

#[tokio::test]
async fn an_id_that_is_claimed_is_not_believed_on_either_side() {
    let stage = Stage::plain().await;
    let (mallory, provider) = (Key::fresh(), stage.provider.id().to_string());
    // As the dialer: the provider's id over the attacker's signature.
    let mut claimed = hello(&mallory, &[]);
    claimed["node_id"] = json!(provider);
    for hello in [mallory.sign(claimed.clone()), claimed] {
        let mut attacker = Attacker::dial_as(&stage.addr(), &mallory).await;
        attacker.say(&hello).await;
        assert_eq!(attacker.closed().await, "BAD_HANDSHAKE");
    }
    // In good order up to the proof, which names the provider.
    let mut attacker = Attacker::dial_as(&stage.addr(), &mallory).await;
    let said = hello(&mallory, &[]);
    attacker.say(&said).await;
    let ack = attacker.hear().await.unwrap();
    let mut proof = auth(&mallory, &stage.id(), &said["nonce"], &ack["nonce"]);
    proof["node_id"] = json!(provider);
    attacker.say(&mallory.sign(proof)).await;
    assert_eq!(attacker.closed().await, "BAD_HANDSHAKE");
    stage.answers().await;
    // As the one that is dialled, where somebody expects the provider.
    let (listener, addr) = lair().await;
    let dialer = dialer(format!("{provider}@{addr}")).await;
    for round in 0..2 {
        let (stream, _) = listener.accept().await.unwrap();
        let mut attacker = Attacker::over(stream, &mallory);
        let said = attacker.hear().await.unwrap();
        let mut ack = hello_ack(&mallory, &said, &nonce(), &[]);
        if round == 1 {
            ack["node_id"] = json!(provider);
            ack = mallory.sign(ack);
        }
        attacker.say(&ack).await;
        assert_eq!(attacker.closed().await, "BAD_HANDSHAKE", "round {round}");
    }
    assert_eq!((dialer.peers().len(), dialer.metrics().records), (0, 0));
    dialer.shutdown().await;
    stage.unharmed().await;
}

/// Two keys whose ids have the same first characters, found by trying; twelve would take 2^72 tries for a given id.
fn twins() -> (Key, Key, &'static str) {
    let seed = |n: u64| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&n.to_le_bytes());
        Key::from_seed(seed)
    };
    (seed(83_231), seed(212_756), "jBOAWu")
}

#[tokio::test]
async fn an_id_that_begins_alike_or_a_name_that_is_the_same_takes_no_call() {
    let stage = Stage::plain().await;
    let (good, twin, prefix) = twins();
    let real = node("translator").identity(good.identity()).agent("translate").default_handler(crate::stage::echo);
    let real = real.peer(stage.addr()).start().await.unwrap();
    meets(&real, &[&stage.victim]).await;
    // The twin has the same name, provides the same, and is connected before anybody calls.
    let mut attacker = Attacker::connect_as(&stage.addr(), &twin).await;
    let mut says = record(&twin, &["translate"], 300);
    says["name"] = json!("translator");
    attacker.say(&announce(&twin.sign(says), 5)).await;
    attacker.heard().await;
    assert!(twin.id().starts_with(prefix) && good.id().starts_with(prefix) && twin.id() != good.id());
    for name in ["translator", prefix, &prefix[..4]] {
        let error = stage.victim.call("translate", json!(1)).to(name).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest, "{name}: {error}");
        assert!(error.message.contains("2 nodes"), "{error}");
    }
    for n in 0..20 {
        let outcome = stage.victim.call("translate", json!(n)).to(good.id()).await.unwrap();
        assert_eq!((outcome.responder.to_string(), outcome.payload.into_value()), (good.id(), json!(n)));
    }
    let heard = attacker.heard().await;
    assert!(heard.iter().all(|m| m["type"] != "task"), "{heard:?}");
    stage.answers().await;
    drop(attacker);
    real.shutdown().await;
    stage.unharmed().await;
}

#[tokio::test]
async fn a_recorded_handshake_opens_nothing() {
    let stage = Stage::plain().await;
    let tap = Wiretap::on(&stage.addr()).await;
    let honest = dialer(format!("{}@{}", stage.id(), tap.addr)).await;
    meets(&honest, &[&stage.victim]).await;
    let (said, answered): (Vec<_>, Vec<_>) = tap.heard().into_iter().partition(|(from, _)| *from == From::Dialer);
    assert!(said.len() >= 2 && answered.len() >= 2);
    let victim = honest.id();
    honest.shutdown().await;
    eventually("it has left", || stage.victim.peers().iter().all(|p| p.node_id != victim)).await;

    // All that the dialer said, at once and one after another.
    let mut attacker = Attacker::dial(&stage.addr()).await;
    attacker.bytes(&said.iter().flat_map(|(_, piece)| piece.clone()).collect::<Vec<u8>>()).await;
    assert_eq!(attacker.closed().await, "BAD_HANDSHAKE");
    let mut attacker = Attacker::dial(&stage.addr()).await;
    attacker.bytes(&said[0].1).await;
    assert_eq!(attacker.hear().await.unwrap()["type"], "hello_ack");
    attacker.bytes(&said[1].1).await;
    assert!(["BAD_HANDSHAKE", ""].contains(&attacker.closed().await.as_str()));
    assert!(stage.victim.peers().iter().all(|p| p.node_id != victim), "the recorded dialer is not there");

    // All that the listener said, to somebody who wants to reach it.
    let (listener, addr) = lair().await;
    let dialer = dialer(format!("{}@{addr}", stage.id())).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut attacker = Attacker::over(stream, &Key::fresh());
    attacker.hear().await.unwrap();
    attacker.bytes(&answered.iter().flat_map(|(_, piece)| piece.clone()).collect::<Vec<u8>>()).await;
    assert_eq!(attacker.closed().await, "BAD_HANDSHAKE");
    assert!(dialer.peers().is_empty());
    stage.answers().await;
    dialer.shutdown().await;
    drop(tap);
    stage.unharmed().await;
}

/// The attacker has somebody dial it, and would like to be that somebody at a third node.
#[tokio::test]
async fn a_handshake_passed_on_to_a_third_node_proves_nothing_there() {
    let stage = Stage::plain().await;
    let mallory = Key::fresh();
    let (listener, addr) = lair().await;
    // In plain text: with TLS the stream itself is lost to whoever is not the listener.
    let dialer = node("dialer").tls(Tls::Off).peer(addr).start().await.unwrap();
    // The dialer's own hello goes to the victim, the victim's nonce comes back under the attacker's name.
    let (stream, _) = listener.accept().await.unwrap();
    let mut here = Attacker::over(stream, &mallory);
    let said = here.hear().await.unwrap();
    let mut there = Attacker::dial_as(&stage.addr(), &mallory).await;
    there.say(&said).await;
    let ack = there.hear().await.unwrap();
    assert_eq!((&ack["type"], &ack["peer"]), (&json!("hello_ack"), &json!(dialer.id().to_string())));
    here.say(&hello_ack(&mallory, &said, ack["nonce"].as_str().unwrap(), &[])).await;
    let proof = here.until("auth", |m| m["type"] == "auth").await;
    assert_eq!(proof["peer"], mallory.id(), "the proof says for whom it is");
    there.say(&proof).await;
    assert_eq!(there.closed().await, "BAD_HANDSHAKE");
    assert!(stage.victim.peers().iter().all(|p| p.node_id != dialer.id()));
    dialer.shutdown().await;
    // Who expects the attacker, and is led to the victim, doesn't take it for the attacker.
    let tap = Wiretap::on(&stage.addr()).await;
    let misled = self::dialer(format!("{}@{}", mallory.id(), tap.addr)).await;
    let why = dial_fails(&misled).await;
    assert!(why.contains("expected node") && misled.peers().is_empty(), "{why}");
    misled.shutdown().await;
    drop((tap, here, there));
    stage.unharmed().await;
}

/// Features are what a connection may be talked down with.
#[tokio::test]
async fn a_hello_with_features_taken_out_is_refused_on_both_sides() {
    let stage = Stage::plain().await;
    for side in [From::Dialer, From::Listener] {
        let changed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&changed);
        let tap = Wiretap::changing(&stage.addr(), move |from, piece| {
            let Ok(mut message) = serde_json::from_slice::<Value>(&piece) else { return piece };
            if from != side || !["hello", "hello_ack"].contains(&message["type"].as_str().unwrap_or_default()) {
                return piece;
            }
            assert_ne!(message["features"], json!([]), "there is something to take out");
            counter.fetch_add(1, Ordering::SeqCst);
            message["features"] = json!([]);
            format!("{}\n", canonical(&message)).into_bytes()
        })
        .await;
        let dialer = dialer(format!("{}@{}", stage.id(), tap.addr)).await;
        let why = dial_fails(&dialer).await;
        assert!(why.contains("signature"), "{side:?}: {why}");
        assert!(dialer.peers().is_empty() && changed.load(Ordering::SeqCst) >= 1, "{side:?}");
        dialer.shutdown().await;
        drop(tap);
    }
    stage.unharmed().await;
}

/// The framing of the Python package: its hello proves nothing.
fn legacy_hello(node_id: &str) -> Vec<u8> {
    let hello = json!({"type": "hello", "node_id": node_id, "caps": {"agents": [{"name": "steady"}]}, "interests": [], "version": "0.5.0"});
    let hello = hello.to_string();
    [&u32::try_from(hello.len()).unwrap().to_be_bytes()[..], hello.as_bytes()].concat()
}

#[tokio::test]
async fn an_unproven_peer_takes_no_proven_ones_place() {
    let stage = Stage::of(|b| b.legacy(true)).await;
    let provider = stage.provider.id().to_string();
    // The provider's id; another with the same first 12 characters, which is what the package goes by; the victim's own.
    let mut alike = provider[..12].to_owned() + &Key::fresh().id()[12..];
    while alike.parse::<elo::NodeId>().is_err() {
        alike = provider[..12].to_owned() + &Key::fresh().id()[12..];
    }
    for id in [&provider, &alike, &stage.id()] {
        let mut attacker = Attacker::dial(&stage.addr()).await;
        attacker.bytes(&legacy_hello(id)).await;
        attacker.closed().await;
        stage.answers().await;
        let peers = stage.victim.peers();
        assert!(peers.iter().all(|p| p.proven) && peers.len() == 2, "{id}: {peers:?}");
    }
    // Who claims an id before its owner comes makes way when it comes.
    let owner = Key::fresh();
    let mut attacker = Attacker::dial(&stage.addr()).await;
    attacker.bytes(&legacy_hello(&owner.id())).await;
    eventually("the claim stands", || stage.victim.metrics().unproven_peers == 1).await;
    let node = node("owner").identity(owner.identity()).peer(stage.addr()).start().await.unwrap();
    meets(&node, &[&stage.victim]).await;
    attacker.closed().await;
    let peers = stage.victim.peers();
    assert!(peers.iter().all(|p| p.proven) && peers.len() == 3, "{peers:?}");
    node.shutdown().await;
    stage.unharmed().await;
}
