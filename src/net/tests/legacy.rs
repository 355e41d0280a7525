//! The Python package's framing and its unsigned handshake.

use super::*;
use crate::wire::{Capability, Speaker};

fn python_hello(kind: &str, id: &Identity) -> Object {
    Builder::new(kind)
        .str("node_id", &id.id().to_string())
        .raw("caps", br#"{"agents":[{"name":"echo"}],"models":[],"tools":[]}"#)
        .strings("interests", &["news"])
        .str("tracker", "public")
        .str("version", "0.5.0")
        .build()
}

#[tokio::test]
async fn inbound() {
    let cfg = config(1, |c| {
        c.legacy = true;
        c.limits.heartbeat_interval = Duration::from_millis(300);
    });
    let server = serve(cfg).await;
    let mut raw = Raw::connect(server.addr).await;
    let me = identity(2);
    raw.frame(&python_hello("hello", &me)).await;
    let ack = raw.read_frame().await;
    assert_eq!(kind(&ack), "hello_ack");
    assert_eq!(ack.children("known_peers").unwrap().unwrap()[0].str("addr").unwrap().unwrap(), "127.0.0.1:9");
    let (connection, notes) = server.connection().await;

    let message = task("t", &me, identity(1).id(), "x");
    let mut bytes = u32::try_from(message.raw().len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(message.raw());
    for byte in bytes {
        raw.bytes(&[byte]).await;
    }
    notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("t")).then_some(())).await;
    // Unsigned and wrongly signed tasks are refused.
    raw.frame(&message.with_member("signature", b"\"\"")).await;
    raw.frame(&message.with_member("payload", b"{}")).await;
    notes.wait(|n| (n.refused.len() == 2).then_some(())).await;
    let refused = notes.notes.lock().unwrap().refused.clone();
    assert!(refused.iter().all(|r| matches!(r, Refused::BadSignature { .. })), "{refused:?}");

    assert_eq!(kind(&raw.read_frame().await), "heartbeat");
    connection.close(CloseReason::Shutdown, "");
    loop {
        let message = raw.read_frame().await;
        if kind(&message) == "bye" {
            break;
        }
    }
    // The package's bye has no code.
    raw.frame(&Builder::new("bye").build()).await;
    drop(raw);
    assert_eq!(notes.closed().await.0, Some(CloseReason::Shutdown));
}

#[tokio::test]
async fn refused_without_the_setting() {
    let server = serve(config(1, |_| {})).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.frame(&python_hello("hello", &identity(2))).await;
    let bye = raw.read_frame().await;
    assert!(raw.is_bye(&bye, CloseReason::BadHandshake).await.contains("`legacy`"));
    drop(raw);
    assert_eq!(server.error().await.reason(), Some(CloseReason::BadHandshake));
}

#[tokio::test]
async fn frames_that_are_refused() {
    let me = identity(2);
    let too_long = 16_385u32.to_be_bytes().to_vec();
    let framed = |object: &Object| {
        let mut bytes = u32::try_from(object.raw().len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(object.raw());
        bytes
    };
    let good = python_hello("hello", &me);
    let own = python_hello("hello", &identity(1));
    for (bytes, code) in [
        (too_long, CloseReason::TooLarge),
        (framed(&own), CloseReason::SelfConnection),
        (framed(&good.with_member("node_id", b"\"x\"")), CloseReason::BadHandshake),
        (framed(&good.with_member("caps", b"[]")), CloseReason::BadHandshake),
        (framed(&good.with_member("interests", b"7")), CloseReason::BadHandshake),
        (framed(&task("t", &me, identity(1).id(), "x")), CloseReason::BadHandshake),
    ] {
        let server = serve(config(1, |c| c.legacy = true)).await;
        let mut raw = Raw::connect(server.addr).await;
        raw.bytes(&bytes).await;
        let bye = raw.read_frame().await;
        raw.is_bye(&bye, code).await;
        drop(raw);
        assert_eq!(server.error().await.reason(), Some(code));
    }
}

/// Hangs up on a line and answers a frame, as the package does.
async fn python_node(listener: TcpListener) -> Raw {
    loop {
        let mut raw = Raw::over(listener.accept().await.unwrap().0);
        raw.fill().await;
        if raw.buffer[0] == b'{' {
            continue;
        }
        let hello = raw.read_frame().await;
        assert_eq!(kind(&hello), "hello");
        let caps = hello.child("caps").unwrap().unwrap();
        assert_eq!(caps.children("agents").unwrap().unwrap()[0].str("name").unwrap().unwrap(), "ours");
        raw.frame(&python_hello("hello_ack", &identity(1))).await;
        return raw;
    }
}

#[tokio::test]
async fn dialling() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let node = tokio::spawn(python_node(listener));
    let legacy = |c: &mut NetConfig| {
        c.legacy = true;
        c.legacy_hello = Arc::new(|| {
            let mut hello = LegacyHello { version: "1.2.3".into(), ..LegacyHello::default() };
            hello.caps.insert(Capability::agent("ours"));
            hello
        });
    };
    // Without the setting the error says what to do.
    let error = soon(dial(&addr, None, &config(2, |_| {}))).await.unwrap_err();
    assert!(error.to_string().contains("`legacy`"), "{error}");
    // Who is pinned must prove it.
    let error = soon(dial(&addr, Some(identity(1).id()), &config(2, legacy))).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Ended { heard: false }), "{error}");

    let cfg = config(2, legacy);
    let dialled = soon(dial(&addr, None, &cfg)).await.unwrap();
    assert_eq!(dialled.proven.speaker, Speaker::Legacy(identity(1).id()));
    assert!(dialled.welcome.is_none());
    let hello = dialled.proven.hello.clone().unwrap();
    assert!(hello.caps.provides("echo"));
    assert_eq!((hello.tracker, hello.interests), (TrackerRole::None, vec!["news".to_owned()]));
    let notes = Arc::new(Notes::default());
    let connection = dialled.start(ConnId(1), None, notes.clone(), &cfg);
    let mut raw = soon(node).await.unwrap();
    // It has no numbers to order them by: nothing passes anything, however long.
    for (id, size) in [("1", 500_000), ("2", 1), ("3", 100_000), ("4", 1)] {
        let message = task(id, &identity(2), identity(1).id(), &"x".repeat(size));
        connection.send(Outgoing::Passable(message)).unwrap();
    }
    for id in ["1", "2", "3", "4"] {
        assert_eq!(raw.read_frame().await.str("id").unwrap().unwrap(), id);
    }
    raw.frame(&Builder::new("bye").build()).await;
    drop(raw);
    assert_eq!(notes.closed().await, (None, "the other side closed: bye".into()));
}
