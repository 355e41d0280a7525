//! The handshake in both roles, and what it refuses.

use super::*;
use crate::wire::RecordDraft;

#[tokio::test]
async fn both_roles() {
    let (server_cfg, client_cfg) = (config(1, |_| {}), config(2, |_| {}));
    let server = serve(server_cfg.clone()).await;
    let dialled = soon(dial(&server.addr.to_string(), Some(identity(1).id()), &client_cfg)).await.unwrap();
    assert_eq!(dialled.proven.node, identity(1).id());
    assert_eq!(dialled.proven.instance.as_deref(), Some("run-1"));
    assert_eq!((dialled.proven.version.as_str(), dialled.proven.features.len()), ("1.2.3", 1));
    assert!(!dialled.inbound);
    assert_eq!(dialled.addr, server.addr);
    let welcome = dialled.welcome.clone().unwrap();
    assert_eq!(welcome.observed, Some(dialled.local));
    assert_eq!(welcome.tracker, TrackerRole::Public);

    let (far, far_notes) = server.connection().await;
    let notes = Arc::new(Notes::default());
    let near = dialled.start(ConnId(1), None, notes.clone(), &client_cfg);
    near.send_object(&task("t", &identity(2), identity(1).id(), "there")).unwrap();
    far.send_object(&task("u", &identity(1), identity(2).id(), "back")).unwrap();
    far_notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("t")).then_some(())).await;
    notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("u")).then_some(())).await;
    assert_eq!((near.messages_out(), far.messages_in()), (1, 1));
    assert_eq!(near.bytes_out(), far.bytes_in());
    near.close(CloseReason::Shutdown, "that was it");
    assert_eq!(notes.closed().await, (Some(CloseReason::Shutdown), "that was it".into()));
    let (reason, message) = far_notes.closed().await;
    assert_eq!(reason, Some(CloseReason::Shutdown));
    assert_eq!(message, "the other side closed: SHUTDOWN: that was it");
}

/// Sends a first line and reads why it is refused.
async fn refused_hello(line: &[u8], code: CloseReason) -> String {
    let server = serve(config(1, |_| {})).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.line(line).await;
    let reason = raw.bye(code).await;
    drop(raw);
    assert_eq!(server.error().await.reason(), Some(code));
    reason
}

#[tokio::test]
async fn hellos_that_are_refused() {
    use CloseReason::{BadHandshake, BadMessage, SelfConnection};
    let me = identity(2);
    let good = || hello(&me, &nonce('x'));
    let cases: Vec<(Object, CloseReason, &str)> = vec![
        (good().build(), BadHandshake, "no signature"),
        (good().sign(&identity(3), &[]), BadHandshake, "does not fit"),
        (good().sign(&me, &[]).with_member("version", b"\"8\""), BadHandshake, "does not fit"),
        (good().i64("timestamp", NOW - 301).sign(&me, &[]), BadHandshake, "301 s behind"),
        (good().i64("timestamp", NOW + 301).sign(&me, &[]), BadHandshake, "301 s ahead of"),
        (good().i64("timestamp", i64::MIN).sign(&me, &[]), BadHandshake, "behind"),
        (good().str("timestamp", "now").sign(&me, &[]), BadHandshake, "timestamp"),
        (good().str("nonce", "short").sign(&me, &[]), BadHandshake, "32 bytes"),
        (good().str("nonce", &(nonce('x') + "=")).sign(&me, &[]), BadHandshake, "32 bytes"),
        (good().str("node_id", "!!").sign(&me, &[]), BadHandshake, "node_id"),
        (good().u64("features", 5).sign(&me, &[]), BadHandshake, "features"),
        (good().str("version", "a\nb").sign(&me, &[]), BadHandshake, "version"),
        (hello(&identity(1), &nonce('x')).sign(&identity(1), &[]), SelfConnection, "this node itself"),
        (task("t", &me, identity(1).id(), "early"), BadHandshake, "expected hello, got task"),
    ];
    for (object, code, words) in cases {
        let reason = refused_hello(object.raw(), code).await;
        assert!(reason.contains(words), "{reason:?} should say {words:?}");
    }
    for (line, code, words) in [
        (&b"{\"type\":\"hello\",\"type\":\"hello\"}"[..], BadMessage, "twice"),
        (b"{\"type\":\"hel\xff\"}", BadMessage, "UTF-8"),
        (b"{]", BadMessage, "byte"),
        (b"GET / HTTP/1.1", BadHandshake, "JSON object"),
    ] {
        let reason = refused_hello(line, code).await;
        assert!(reason.contains(words), "{reason:?} should say {words:?}");
    }
}

#[tokio::test]
async fn clocks_300_s_apart_are_fine() {
    for timestamp in [NOW - 300, NOW + 300] {
        let server = serve(config(1, |_| {})).await;
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&hello(&identity(2), &nonce('x')).i64("timestamp", timestamp).sign(&identity(2), &[])).await;
        assert_eq!(kind(&raw.read().await), "hello_ack");
    }
}

#[tokio::test]
async fn a_long_hello_is_too_large() {
    // Complete or not: no more is ever waited for.
    let long = vec![b' '; crate::limits::MAX_HANDSHAKE_MESSAGE];
    let line = [b"{", &long[..]].concat();
    refused_hello(&line, CloseReason::TooLarge).await;
    let server = serve(config(1, |_| {})).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.bytes(&line).await;
    raw.bye(CloseReason::TooLarge).await;
    drop(server);
}

#[tokio::test]
async fn auths_that_are_refused() {
    let me = identity(2);
    type Forge = fn(Builder) -> Object;
    let cases: Vec<(Forge, &str)> = vec![
        (|b| b.build(), "no signature"),
        (|b| b.sign(&identity(3), &[]), "does not fit"),
        (|b| b.str("node_id", &identity(3).id().to_string()).sign(&identity(3), &[]), "another than in the hello"),
        (|b| b.str("peer", &identity(3).id().to_string()).sign(&identity(2), &[]), "meant for another"),
        (|b| b.str("hello_nonce", &nonce('y')).sign(&identity(2), &[]), "hello_nonce"),
        (|b| b.str("ack_nonce", &nonce('y')).sign(&identity(2), &[]), "ack_nonce"),
        (|_| hello(&identity(2), &nonce('x')).sign(&identity(2), &[]), "expected auth"),
    ];
    for (forge, words) in cases {
        let server = serve(config(1, |_| {})).await;
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&hello(&me, &nonce('x')).sign(&me, &[])).await;
        let ack = raw.read().await;
        raw.send(&forge(auth(&me, &nonce('x'), &ack))).await;
        let reason = raw.bye(CloseReason::BadHandshake).await;
        assert!(reason.contains(words), "{reason:?} should say {words:?}");
        drop(raw);
        server.error().await;
    }
}

#[tokio::test]
async fn a_recorded_handshake_is_of_no_use() {
    let me = identity(2);
    let server = serve(config(1, |_| {})).await;
    let mut raw = Raw::connect(server.addr).await;
    let first = hello(&me, &nonce('x')).sign(&me, &[]);
    raw.send(&first).await;
    let ack = raw.read().await;
    let second = auth(&me, &nonce('x'), &ack).sign(&me, &[]);
    raw.send(&second).await;
    assert_eq!(kind(&raw.read().await), "welcome");

    let server = serve(config(1, |_| {})).await;
    let mut thief = Raw::connect(server.addr).await;
    // Both at once, as a recording is played.
    thief.bytes(&[&first.raw()[..], b"\n", second.raw(), b"\n"].concat()).await;
    assert_eq!(kind(&thief.read().await), "hello_ack");
    assert!(thief.bye(CloseReason::BadHandshake).await.contains("ack_nonce"));
}

#[tokio::test]
async fn silence_and_trickle_time_out() {
    for trickle in [false, true] {
        let server = serve(config(1, |c| c.limits.handshake_timeout = Duration::from_millis(200))).await;
        let mut raw = Raw::connect(server.addr).await;
        let began = std::time::Instant::now();
        if trickle {
            // A byte now and then doesn't buy time.
            while began.elapsed() < Duration::from_millis(150) {
                raw.bytes(b" ").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(raw.bye(CloseReason::BadHandshake).await.contains("no handshake within 200ms"));
        assert!(began.elapsed() >= Duration::from_millis(200));
        drop(raw);
        assert!(matches!(server.error().await, HandshakeError::Timeout(_)));
    }
}

/// Answers one dial by hand; gives what the dialer says of it, and its last words.
async fn answer(
    forge: impl FnOnce(&Identity, &Object) -> Object,
    expected: Option<NodeId>,
) -> (HandshakeError, Option<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let cfg = config(2, |_| {});
    let dialling = tokio::spawn(async move { dial(&addr, expected, &cfg).await });
    let mut raw = Raw::over(listener.accept().await.unwrap().0);
    let hello = raw.read().await;
    raw.send(&forge(&identity(1), &hello)).await;
    let said = if raw.fill().await > 0 {
        let bye = raw.read().await;
        assert_eq!(kind(&bye), "bye");
        bye.str("code").unwrap()
    } else {
        None
    };
    drop(raw);
    (soon(dialling).await.unwrap().unwrap_err(), said)
}

fn hello_ack(id: &Identity, hello: &Object) -> Builder {
    Builder::new("hello_ack")
        .str("node_id", &id.id().to_string())
        .str("version", "9")
        .str("nonce", &nonce('z'))
        .str("hello_nonce", &hello.str("nonce").unwrap().unwrap())
        .i64("timestamp", NOW)
}

#[tokio::test]
async fn hello_acks_that_are_refused() {
    type Forge = fn(&Identity, &Object) -> Object;
    let cases: Vec<(Forge, Option<NodeId>, &str, &str)> = vec![
        (|id, h| hello_ack(id, h).str("hello_nonce", &nonce('q')).sign(id, &[]), None, "BAD_HANDSHAKE", "hello_nonce"),
        (|id, h| hello_ack(id, h).build(), None, "BAD_HANDSHAKE", "no signature"),
        (|id, h| hello_ack(id, h).sign(&identity(3), &[]), None, "BAD_HANDSHAKE", "does not fit"),
        (|id, h| hello_ack(id, h).i64("timestamp", NOW - 301).sign(id, &[]), None, "BAD_HANDSHAKE", "301 s behind"),
        (|id, h| hello_ack(id, h).sign(id, &[]), Some(identity(9).id()), "BAD_HANDSHAKE", "expected node"),
        // Fetched by a third from the right node, for the third.
        (
            |id, h| hello_ack(id, h).str("peer", &identity(3).id().to_string()).sign(id, &[]),
            None,
            "BAD_HANDSHAKE",
            "meant for",
        ),
        // Our own hello, sent back.
        (|_, h| h.clone(), None, "BAD_HANDSHAKE", "expected hello_ack, got hello"),
        (|_, h| hello_ack(&identity(2), h).sign(&identity(2), &[]), None, "SELF", "this node itself"),
    ];
    for (forge, expected, code, words) in cases {
        let (error, said) = answer(forge, expected).await;
        assert!(error.to_string().contains(words), "{error} should say {words:?}");
        assert_eq!(said.as_deref(), Some(code), "{error}");
    }
}

#[tokio::test]
async fn a_bye_instead_of_an_answer_is_passed_on() {
    let bye = |_: &Identity, _: &Object| crate::wire::draft::bye(CloseReason::NotAllowed, "not \u{1b}[1mon the list");
    let (error, said) = answer(bye, None).await;
    assert_eq!(error.to_string(), "the other side refused: NOT_ALLOWED: not [1mon the list");
    assert_eq!(error.reason(), Some(CloseReason::NotAllowed));
    assert_eq!(said, None, "who was refused has nothing to say");
}

#[tokio::test]
async fn dialling_oneself() {
    let cfg = config(1, |_| {});
    let server = serve(cfg.clone()).await;
    let error = soon(dial(&server.addr.to_string(), None, &cfg)).await.unwrap_err();
    assert_eq!(error.reason(), Some(CloseReason::SelfConnection));
    assert_eq!(server.error().await.reason(), Some(CloseReason::SelfConnection));
}

#[tokio::test]
async fn nobody_there() {
    let cfg = config(1, |_| {});
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = soon(dial(&free.to_string(), None, &cfg)).await.unwrap_err();
    assert!(matches!(&error, HandshakeError::Connect { .. }), "{error}");
    for addr in ["127.0.0.1", "", ":", "127.0.0.1:99999"] {
        let error = soon(dial(addr, None, &cfg)).await.unwrap_err();
        assert!(matches!(&error, HandshakeError::Resolve { .. }), "{addr:?}: {error}");
    }
}

#[tokio::test]
async fn a_welcome_names_others_but_no_forged_ones() {
    let record = |seed: u8| {
        let draft = RecordDraft {
            name: format!("n{seed}"),
            caps: crate::wire::Caps::default(),
            interests: vec![],
            addrs: vec![],
            trackers: vec![],
            tracker: TrackerRole::None,
            features: vec![],
            version: "1".into(),
            instance: "i".into(),
            dht: None,
            seal: None,
            seq: 1,
            ttl_s: 300,
        };
        draft.sign(&identity(seed)).unwrap().object
    };
    let records = [record(5), record(6).with_member("name", b"\"forged\""), record(7)];
    let cfg = config(1, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let dialling = tokio::spawn(async move { dial(&addr, None, &config(2, |_| {})).await });
    let established = handshake_inbound(listener.accept().await.unwrap().0, &cfg).await.unwrap();
    let first = welcome(&cfg.identity.id(), established.addr, TrackerRole::Private, records.iter());
    let _connection = established.start(ConnId(1), Some(first), Arc::new(Notes::default()), &cfg);
    let welcome = soon(dialling).await.unwrap().unwrap().welcome.unwrap();
    assert_eq!(welcome.tracker, TrackerRole::Private);
    let names: Vec<_> = welcome.peers.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["n5", "n7"]);
}

#[tokio::test]
async fn refusing_after_the_proof() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let dialling = tokio::spawn(async move { dial(&addr, None, &config(2, |_| {})).await });
    let established = handshake_inbound(listener.accept().await.unwrap().0, &config(1, |_| {})).await.unwrap();
    established.refuse(CloseReason::NotAllowed, "not on the list").await;
    let error = soon(dialling).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(CloseReason::NotAllowed));
    assert!(matches!(error, HandshakeError::Refused(refusal) if refusal.by_peer));
}
