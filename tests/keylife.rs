//! Keys that end, with nodes over real sockets: who follows whom, who is refused, who hears of it.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod mesh;

use std::path::Path;
use std::time::Duration;

use elo::wire::{Builder as Message, Object, Revocation};
use elo::{Activity, ActivityStream, Builder, Identity, Limits, Node, NodeId, Tracker};
use mesh::{addr_of, eventually, node, peered, port_of};
use serde_json::json;

/// Quick enough that a peer that is back is met again within a moment.
fn quick(builder: Builder) -> Builder {
    builder.limits(Limits::default().with(|l| {
        l.redial_min = Duration::from_millis(50);
        l.redial_max = Duration::from_millis(200);
        l.redial_soon = Duration::from_millis(200);
    }))
}

/// A node with that key, at that port if one is said, that says its own name when asked.
async fn serves(name: &'static str, identity: &Identity, port: Option<u16>) -> Node {
    serve(node(name).identity(identity.clone()), name, port).await
}

async fn serve(builder: Builder, name: &'static str, port: Option<u16>) -> Node {
    let builder = match port {
        Some(port) => builder.listen(([127, 0, 0, 1], port).into()),
        None => builder,
    };
    quick(builder).agent("who").handler("who", move |_, _| async move { Ok(json!(name)) }).start().await.unwrap()
}

/// What an owner is told about keys, from now on.
struct Told(ActivityStream, Vec<Activity>);

impl Told {
    fn of(node: &Node) -> Self {
        Self(node.activity(), Vec::new())
    }

    /// Waits until it is told.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Activity) -> bool) -> Activity {
        if let Some(before) = self.1.iter().find(|a| wanted(a)) {
            return before.clone();
        }
        let waiting = async {
            loop {
                let activity = self.0.recv().await.expect("the node runs");
                self.1.push(activity.clone());
                if wanted(&activity) {
                    return activity;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    async fn replaced(&mut self, old: NodeId, new: NodeId) {
        let wanted = Activity::IdReplaced { old, new };
        self.until("that an id was replaced", |a| *a == wanted).await;
    }

    fn replaced_so_far(&self) -> usize {
        self.1.iter().filter(|a| matches!(a, Activity::IdReplaced { .. })).count()
    }
}

fn pinned(id: NodeId, port: u16) -> String {
    format!("{id}@127.0.0.1:{port}")
}

async fn who(caller: &Node, to: NodeId) -> String {
    let outcome = caller.call("who", json!(null)).to(to.to_string()).await.unwrap();
    outcome.payload.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pinned_peer_is_followed_to_its_new_key_and_the_old_key_is_of_no_use() {
    let old = Identity::generate();
    let server = serves("before", &old, None).await;
    let port = port_of(&server);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keylife.json");
    let start = || quick(node("caller").peer(pinned(old.id(), port)).remember_keys(&file)).start();
    let caller = start().await.unwrap();
    let mut told = Told::of(&caller);
    eventually("the pinned peer is there", || caller.peers().len() == 1).await;
    assert_eq!(who(&caller, old.id()).await, "before");
    server.shutdown().await;

    let new = old.successor();
    let server = serves("after", &new, Some(port)).await;
    told.replaced(old.id(), new.id()).await;
    eventually("the pinned peer is there again", || caller.peers().iter().any(|p| p.node_id == new.id())).await;
    // The old id names the node still, for who calls it.
    assert_eq!(who(&caller, old.id()).await, "after");
    assert_eq!(caller.current_id(&old.id()), new.id());
    server.shutdown().await;

    // Who has the old key may listen at the very address.
    let thief = serves("thief", &old, Some(port)).await;
    let mut thief_hears = Told::of(&thief);
    told.until(
        "that the peer is somebody else",
        |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("expected node")),
    )
    .await;
    // And may come by itself.
    let visitor = quick(node("visitor").identity(old.clone()).peer(addr_of(&caller))).start().await.unwrap();
    let mut visitor_hears = Told::of(&visitor);
    visitor_hears
        .until(
            "that it is refused",
            |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("was replaced")),
        )
        .await;
    // Or sign a successor of its own.
    let fork = old.successor();
    let forked = quick(node("fork").identity(fork.clone()).peer(addr_of(&caller))).start().await.unwrap();
    let mut forked_hears = Told::of(&forked);
    forked_hears
        .until(
            "that it is refused",
            |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("no second successor")),
        )
        .await;
    let wanted = Activity::SuccessorRefused { old: old.id(), kept: new.id(), refused: fork.id() };
    told.until("that somebody tried", |a| *a == wanted).await;
    assert_eq!(told.replaced_so_far(), 1, "said once");
    assert!(caller.peers().is_empty(), "nobody of them got in");
    thief_hears.1.clear();
    for gone in [thief, visitor, forked] {
        gone.shutdown().await;
    }

    // A run that begins anew knows it from its file, and says nothing again.
    caller.shutdown().await;
    let caller = start().await.unwrap();
    let mut told = Told::of(&caller);
    assert_eq!(caller.current_id(&old.id()), new.id());
    let server = serves("after", &new, Some(port)).await;
    eventually("the pinned peer is there again", || caller.peers().iter().any(|p| p.node_id == new.id())).await;
    assert_eq!(who(&caller, old.id()).await, "after");
    caller.shutdown().await;
    while let Some(activity) = told.0.recv().await {
        assert!(!matches!(activity, Activity::IdReplaced { .. }), "said again: {activity:?}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn three_rotations_are_followed_by_who_slept_through_them() {
    let first = Identity::generate();
    let last = first.successor().successor().successor();
    assert_eq!(last.former_ids().len(), 3);
    let server = serves("last", &last, None).await;
    let caller = quick(node("caller").peer(pinned(first.id(), port_of(&server)))).start().await.unwrap();
    eventually("the chain is followed", || caller.peers().iter().any(|p| p.node_id == last.id())).await;
    for id in [first.id()].iter().chain(&last.former_ids()) {
        assert_eq!(who(&caller, *id).await, "last");
    }
    // A stranger that shows no chain is no successor, nor one that shows another's.
    let stranger = serves("stranger", &Identity::generate().successor(), None).await;
    let other = quick(node("other").peer(pinned(first.id(), port_of(&stranger)))).start().await.unwrap();
    let mut told = Told::of(&other);
    told.until(
        "that it is another",
        |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("expected node")),
    )
    .await;
    for node in [server, caller, stranger, other] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn an_allowed_id_gets_in_with_its_new_key_and_not_with_its_old_one() {
    let old = Identity::generate();
    let tracker = node("tracker").tracker(Tracker::Private { allow: vec![old.id()] });
    let tracker = quick(tracker).start().await.unwrap();
    let mut told = Told::of(&tracker);
    let member = quick(node("member").identity(old.clone()).peer(addr_of(&tracker))).start().await.unwrap();
    eventually("it is in", || tracker.peers().len() == 1).await;
    // The new key comes while the old one is still connected: the old one is out at once.
    let new = old.successor();
    let renewed = quick(node("renewed").identity(new.clone()).peer(addr_of(&tracker))).start().await.unwrap();
    told.replaced(old.id(), new.id()).await;
    eventually("the new one is in, the old one out", || {
        let ids: Vec<NodeId> = tracker.peers().iter().map(|p| p.node_id).collect();
        ids == [new.id()]
    })
    .await;
    let stranger = Identity::generate().successor();
    let stranger = quick(node("stranger").identity(stranger).peer(addr_of(&tracker))).start().await.unwrap();
    let mut hears = Told::of(&stranger);
    hears
        .until(
            "that it is refused",
            |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("private")),
        )
        .await;
    for node in [tracker, member, renewed, stranger] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn who_is_called_by_its_old_id_is_found_across_the_mesh() {
    let old = Identity::generate();
    let middle = peered("middle", &[]).await;
    let server = serve(node("after").identity(old.successor()).peer(addr_of(&middle)), "after", None).await;
    let caller = peered("caller", &[&middle]).await;
    eventually("they are all there", || middle.peers().len() == 2 && middle.peers().iter().all(|p| !p.name.is_empty()))
        .await;
    // The caller has never heard of the node, by whatever id.
    assert_eq!(who(&caller, old.id()).await, "after");
    for node in [middle, server, caller] {
        node.shutdown().await;
    }
}

/// A node that says what it likes: its chain is whatever `statements` are.
async fn says(to: &Node, me: &Identity, statements: &[Object]) -> String {
    use base64::Engine as _;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let stream = tokio::net::TcpStream::connect(addr_of(to)).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let nonce = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([5; 32]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hello = Message::new("hello")
        .str("node_id", &me.id().to_string())
        .str("version", "1")
        .str("nonce", &nonce)
        .u64("timestamp", now)
        .strings::<&str>("features", &[])
        .objects("rotations", statements)
        .sign(me, &[]);
    let mut line = hello.raw().to_vec();
    line.push(b'\n');
    write.write_all(&line).await.unwrap();
    let ack = lines.next_line().await.unwrap().unwrap_or_default();
    let ack: serde_json::Value = serde_json::from_str(&ack).unwrap();
    if ack["type"] == "bye" {
        return ack.to_string();
    }
    let auth = Message::new("auth")
        .str("node_id", &me.id().to_string())
        .str("peer", ack["node_id"].as_str().unwrap())
        .str("hello_nonce", &nonce)
        .str("ack_nonce", ack["nonce"].as_str().unwrap())
        .sign(me, &[]);
    let mut line = auth.raw().to_vec();
    line.push(b'\n');
    write.write_all(&line).await.unwrap();
    lines.next_line().await.unwrap().unwrap_or_default()
}

#[tokio::test]
async fn forged_successions_get_nobody_in() {
    let old = Identity::generate();
    let me = Identity::generate();
    let tracker = node("tracker").tracker(Tracker::Private { allow: vec![old.id()] });
    let tracker = tracker.start().await.unwrap();
    let good = elo::wire::Rotation::make(&old, &me, 7).object;
    let other = elo::wire::Rotation::make(&Identity::generate(), &me, 7).object;
    let elsewhere = elo::wire::Rotation::make(&old, &Identity::generate(), 7).object;
    let quoted = |id: NodeId| format!("\"{id}\"").into_bytes();
    let member = |object: &Object, key: &str| object.get(key).unwrap().to_vec();
    let own_word = Message::new("rotation")
        .str("old", &old.id().to_string())
        .str("new", &me.id().to_string())
        .u64("timestamp", 7)
        .str("old_signature", &"A".repeat(86))
        .sign(&me, &[]);
    let cases = [
        ("no signature of the old key", vec![good.with_member("old_signature", b"null")]),
        ("no signature of the new key", vec![good.with_member("signature", b"null")]),
        ("made up", vec![own_word]),
        ("another old key's", vec![good.with_member("old_signature", &member(&other, "old_signature"))]),
        ("the ids swapped", vec![good.with_member("old", &quoted(me.id())).with_member("new", &quoted(old.id()))]),
        ("of another time", vec![good.with_member("timestamp", b"8")]),
        ("somebody else's succession", vec![elsewhere.clone()]),
        ("of another node", vec![other.with_member("old", &quoted(old.id()))]),
        ("twice", vec![good.clone(), good.clone()]),
    ];
    for (what, statements) in cases {
        let answer = says(&tracker, &me, &statements).await;
        assert!(answer.contains("BAD_HANDSHAKE"), "{what}: {answer}");
        assert!(tracker.peers().is_empty(), "{what} got in");
    }
    // A true one of somebody else does not help who shows it for another's.
    let mallory = Identity::generate();
    let answer = says(&tracker, &mallory, std::slice::from_ref(&good)).await;
    assert!(answer.contains("BAD_HANDSHAKE"), "{answer}");
    let answer = says(&tracker, &me, &[]).await;
    assert!(answer.contains("NOT_ALLOWED"), "{answer}");
    let answer = says(&tracker, &me, std::slice::from_ref(&good)).await;
    assert!(answer.contains("\"welcome\""), "{answer}");
    tracker.shutdown().await;
}

#[tokio::test]
async fn a_revocation_closes_what_is_open_and_reaches_those_two_links_away_and_those_who_come_later() {
    let bad = Identity::generate();
    let home = tempfile::tempdir().unwrap();
    let start = async |name: &str, to: &[&Node]| {
        let mut builder = node(name).remember_keys(home.path().join(name));
        for peer in to {
            builder = builder.peer(addr_of(peer));
        }
        quick(builder).start().await.unwrap()
    };
    let near = start("near", &[]).await;
    let middle = start("middle", &[&near]).await;
    let far = start("far", &[&middle]).await;
    // The one to be revoked is connected at both ends.
    let stolen = quick(node("stolen").identity(bad.clone()).peer(addr_of(&near)).peer(addr_of(&far)));
    let stolen = stolen.start().await.unwrap();
    let has = |node: &Node| node.peers().iter().any(|p| p.node_id == bad.id());
    eventually("it is connected", || has(&near) && has(&far) && middle.peers().len() == 2).await;
    let mut far_hears = Told::of(&far);

    let statement = bad.revocation("stolen");
    assert!(near.revoke(&statement.replace("stolen", "lost")).is_err(), "another text is not signed");
    assert_eq!(near.revoke(&statement).unwrap(), 1, "the middle one was told");
    let said = far_hears.until("the revocation", |a| matches!(a, Activity::IdRevoked { .. })).await;
    assert_eq!(said, Activity::IdRevoked { node_id: bad.id(), reason: "stolen".into() });
    eventually("it is out everywhere", || !has(&near) && !has(&far)).await;
    let mut hears = Told::of(&stolen);
    hears
        .until(
            "that it is refused",
            |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("revoked")),
        )
        .await;

    // All that heard of it are away when somebody comes who wasn't there: one of them is back, and remembers.
    for node in [near, middle] {
        node.shutdown().await;
    }
    eventually("it is written down", || is_in(&home.path().join("far"), &bad.id())).await;
    far.shutdown().await;
    let far = start("far", &[]).await;
    let late = start("late", &[&far]).await;
    eventually("it is told", || is_in(&home.path().join("late"), &bad.id())).await;
    let visitor = quick(node("visitor").identity(bad.clone()).peer(addr_of(&late))).start().await.unwrap();
    let mut hears = Told::of(&visitor);
    hears
        .until(
            "that it is refused",
            |a| matches!(a, Activity::DialFailed { message, .. } if message.contains("revoked")),
        )
        .await;
    // Nor does it help to call its new key the successor.
    let answer = says(&late, &bad, &[]).await;
    assert!(answer.contains("NOT_ALLOWED") && answer.contains("revoked"), "{answer}");
    for node in [stolen, far, late, visitor] {
        node.shutdown().await;
    }
}

fn is_in(file: &Path, id: &NodeId) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(&id.to_string()))
}

#[tokio::test]
async fn tasks_of_a_revoked_id_are_refused_on_every_way() {
    let bad = Identity::generate();
    let tracker = quick(node("tracker").tracker(Tracker::Public)).start().await.unwrap();
    let server = serve(node("server").peer(addr_of(&tracker)), "server", None).await;
    let caller = quick(node("caller").identity(bad.clone()).no_listen().peer(addr_of(&tracker))).start().await.unwrap();
    eventually("they are registered", || tracker.peers().iter().filter(|p| !p.name.is_empty()).count() == 2).await;
    let call = || async {
        caller
            .call("who", json!(null))
            .to(server.id().to_string())
            .via(tracker.id().to_string())
            .timeout(Duration::from_secs(20))
            .await
    };
    assert!(call().await.is_ok());
    assert_eq!(server.revoke(&bad.revocation("")).unwrap(), 1);
    // The tracker knows as well by now, or in a moment: either refuses it.
    eventually("the tracker closes it", || tracker.peers().iter().all(|p| p.node_id != bad.id())).await;
    let error = call().await.unwrap_err();
    assert!(matches!(error.code.as_str(), "NO_PEER" | "NOT_ALLOWED" | "NO_TRACKER"), "{error:?}");
    for node in [tracker, server, caller] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn what_runs_for_a_revoked_id_or_at_it_ends_at_once() {
    let (bad, server_key) = (Identity::generate(), Identity::generate());
    let tracker = quick(node("tracker").tracker(Tracker::Public)).start().await.unwrap();
    let endless = |builder: Builder| {
        builder.agent("endless").handler("endless", |_, context| async move {
            context.cancelled().await;
            Ok(json!("stopped"))
        })
    };
    let server = endless(node("server").identity(server_key.clone()).peer(addr_of(&tracker)));
    let server = quick(server).start().await.unwrap();
    let behind = |name, key: &Identity| quick(node(name).identity(key.clone()).no_listen().peer(addr_of(&tracker)));
    let caller = behind("caller", &bad).start().await.unwrap();
    let other = behind("other", &Identity::generate()).peer(addr_of(&server)).start().await.unwrap();
    eventually("they are registered", || tracker.peers().iter().filter(|p| !p.name.is_empty()).count() == 3).await;
    // Over the tracker and over a connection of their own: only the revoked one's are stopped.
    let (to, via) = (server.id().to_string(), tracker.id().to_string());
    let relayed = caller.call("endless", json!(1)).to(&to).via(&via).start().await.unwrap();
    let direct = caller.call("endless", json!(2)).to(&to).start().await.unwrap();
    let mut others = other.call("endless", json!(3)).to(&to).start().await.unwrap();
    eventually("all three run", || server.metrics().tasks_running == 3).await;
    assert!(others.accepted().await);
    server.revoke(&bad.revocation("stolen")).unwrap();
    eventually("two were stopped", || server.metrics().tasks_running == 1).await;
    for call in [relayed, direct] {
        let error = call.outcome().await.unwrap_err();
        assert!(matches!(error.code, elo::ErrorCode::NotAllowed | elo::ErrorCode::PeerGone), "{error}");
    }
    // The server's own id: who waits for its answer waits no more.
    other.revoke(&server_key.revocation("also stolen")).unwrap();
    let error = others.outcome().await.unwrap_err();
    assert_eq!(error.code, elo::ErrorCode::NotAllowed, "{error}");
    assert!(error.message.contains("revoked") && error.message.contains("not known"), "{error}");
    for node in [tracker, server, caller, other] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn ten_thousand_made_up_revocations_stay_within_their_bounds() {
    let known = Identity::generate();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keylife.json");
    let victim = quick(node("victim").remember_keys(&file)).start().await.unwrap();
    let met = quick(node("met").identity(known.clone()).peer(addr_of(&victim))).start().await.unwrap();
    eventually("it is met", || victim.peers().iter().any(|p| !p.name.is_empty())).await;
    let attacker = Identity::generate();
    let mut stream = Raw::connect(&victim, &attacker).await;
    victim.revoke(&known.revocation("true")).unwrap();
    eventually("it is written", || is_in(&file, &known.id())).await;
    for _ in 0..625 {
        let statements: Vec<Object> =
            (0..16).map(|_| Revocation::make(&Identity::generate(), 7, &"x".repeat(128)).object).collect();
        stream.send(&Message::new("revoked").objects("statements", &statements).u64("ttl", 5).build()).await;
    }
    // It is through them when it answers what comes after.
    stream
        .send(&Message::new("heartbeat").str("node_id", &attacker.id().to_string()).u64("ask", 77).u64("ts", 7).build())
        .await;
    stream.until("\"answer\":77").await;
    eventually("the file is written", || {
        std::fs::read_to_string(&file).is_ok_and(|t| t.matches("\"other\"").count() > 200)
    })
    .await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.matches("\"share\"").count() <= elo::limits::MAX_OTHER_STATEMENTS + 8, "{}", text.len());
    assert!(text.len() < 512 * 1024, "{}", text.len());
    assert!(text.contains(&known.id().to_string()), "the one that matters was pushed out");
    for node in [victim, met] {
        node.shutdown().await;
    }
}

/// A connection that says what it likes after an honest handshake.
struct Raw {
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::net::tcp::OwnedReadHalf>>,
    write: tokio::net::tcp::OwnedWriteHalf,
}

impl Raw {
    async fn connect(to: &Node, me: &Identity) -> Self {
        use base64::Engine as _;
        use tokio::io::AsyncBufReadExt;
        let (read, write) = tokio::net::TcpStream::connect(addr_of(to)).await.unwrap().into_split();
        let mut raw = Self { lines: tokio::io::BufReader::new(read).lines(), write };
        let nonce = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([6; 32]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let hello = Message::new("hello")
            .str("node_id", &me.id().to_string())
            .str("version", "1")
            .str("nonce", &nonce)
            .u64("timestamp", now)
            .strings::<&str>("features", &[]);
        raw.send(&hello.sign(me, &[])).await;
        let ack: serde_json::Value = serde_json::from_str(&raw.until("hello_ack").await).unwrap();
        let auth = Message::new("auth")
            .str("node_id", &me.id().to_string())
            .str("peer", ack["node_id"].as_str().unwrap())
            .str("hello_nonce", &nonce)
            .str("ack_nonce", ack["nonce"].as_str().unwrap());
        raw.send(&auth.sign(me, &[])).await;
        raw.until("welcome").await;
        raw
    }

    async fn send(&mut self, message: &Object) {
        use tokio::io::AsyncWriteExt;
        let mut line = message.raw().to_vec();
        line.push(b'\n');
        self.write.write_all(&line).await.unwrap();
    }

    async fn until(&mut self, text: &str) -> String {
        let reading = async {
            loop {
                let line = self.lines.next_line().await.unwrap().unwrap();
                if line.contains(text) {
                    return line;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reading)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {text}"))
    }
}
