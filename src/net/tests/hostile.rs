//! What a proven peer may send that it must not.

use super::*;

#[tokio::test]
async fn what_closes_the_connection() {
    use CloseReason::{BadMessage, TooLarge};
    let long = vec![b' '; crate::limits::MAX_MESSAGE];
    let deep = format!("{{\"type\":\"x\",\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let cases: Vec<(Vec<u8>, CloseReason, &str)> = vec![
        ([b"{", &long[..]].concat(), TooLarge, "1048576"),
        (deep.into_bytes(), BadMessage, "levels deep"),
        (vec![b'['; 100_000], BadMessage, "object"),
        (b"{\"type\":\"heartbeat\",\"ask\":1,\"ask\":2}".to_vec(), BadMessage, "twice"),
        (b"{\"type\":\"heartbeat\",\"x\":{\"a\":1,\"\\u0061\":2}}".to_vec(), BadMessage, "twice"),
        (b"{\"type\":\"\xc0\xaf\"}".to_vec(), BadMessage, "UTF-8"),
        (b"{\"type\":\"x\",\"n\":NaN}".to_vec(), BadMessage, "byte"),
        (b"null".to_vec(), BadMessage, "object"),
        (b"{\"type\":\"task\"".to_vec(), BadMessage, "before it is complete"),
        (b"{\"type\":\"hello\"}".to_vec(), BadMessage, "hello after the handshake"),
        (b"{\"type\":\"auth\"}".to_vec(), BadMessage, "auth after the handshake"),
    ];
    for (line, code, words) in cases {
        let (connection, notes, mut raw) = connected(|_| {}).await;
        raw.line(&line).await;
        let reason = raw.bye(code).await;
        assert!(reason.contains(words), "{reason:?} should say {words:?}");
        drop(raw);
        let (closed, message) = notes.closed().await;
        assert_eq!((closed, message), (Some(code), reason));
        assert_eq!(connection.send_object(&beat(1)), Err(SendError::Closed));
    }
}

#[tokio::test]
async fn the_longest_message_passes() {
    let (_connection, notes, mut raw) = connected(|_| {}).await;
    let short = task("t", &identity(2), identity(1).id(), "");
    let padding = "x".repeat(crate::limits::MAX_MESSAGE - short.raw().len());
    let longest = task("t", &identity(2), identity(1).id(), &padding);
    assert_eq!(longest.raw().len(), crate::limits::MAX_MESSAGE);
    raw.send(&longest).await;
    raw.send(&beat(5)).await;
    // Which may be passed by what is short.
    notes.wait(|n| (asks(n) == [5] && n.messages.len() == 2).then_some(())).await;
    assert!(notes.notes.lock().unwrap().messages.iter().any(|message| matches!(message, Message::Task(_))));
}

/// While a long message is looked at, what comes behind it goes on; all that came is told of before the end.
#[tokio::test]
async fn long_messages_of_a_task_are_looked_at_apart_and_lost_by_no_end() {
    for ends in 0..3 {
        let (_connection, notes, mut raw) = connected(|_| {}).await;
        let long = |id: &str| task(id, &identity(2), identity(1).id(), &"x".repeat(900_000));
        let forged = long("forged").with_member("payload", b"\"y\"");
        let (mut sent, mut event) = (
            Vec::new(),
            Draft::Event {
                id: "e".into(),
                event_type: "x".into(),
                data: Bytes::from(format!("\"{}\"", "x".repeat(100_000))),
                timestamp: NOW,
                ttl: 1,
            }
            .sign(&identity(2)),
        );
        if ends == 1 {
            // It seems to be a task, and isn't one.
            event = event.with_member("typf", br#"{"type":"task"}"#);
        }
        for n in 0..5 {
            let id = format!("long {n}");
            raw.send(&long(&id)).await;
            sent.push(id);
        }
        raw.send(&forged).await;
        raw.send(&event).await;
        raw.send(&long("last")).await;
        sent.push("last".into());
        match ends {
            0 => drop(raw),
            1 => raw.send(&crate::wire::draft::bye(CloseReason::Shutdown, "over")).await,
            _ => raw.stream.write_all(b"{\n").await.unwrap(),
        }
        notes.closed().await;
        let notes = notes.notes.lock().unwrap();
        let tasks = notes.messages.iter().filter_map(|m| match m {
            Message::Task(task) => Some(task.id.clone()),
            _ => None,
        });
        assert_eq!(tasks.collect::<Vec<_>>(), sent, "in their order");
        assert_eq!(notes.refused.len(), if ends == 1 { 2 } else { 1 }, "{:?}", notes.refused);
        let events = notes.messages.iter().filter(|m| matches!(m, Message::Event(_))).count();
        assert_eq!(events, usize::from(ends != 1));
    }
}

#[tokio::test]
async fn what_is_refused_while_the_connection_lives_on() {
    let (connection, notes, mut raw) = connected(|_| {}).await;
    let me = identity(2);
    let good = task("good", &me, identity(1).id(), "x");
    let wrong: Vec<(Object, Option<&str>, &str)> = vec![
        (good.with_member("caller", b"\"not base64\""), Some("good"), "caller"),
        (good.with_member("caller", b"17"), Some("good"), "caller"),
        (good.with_member("ttl_s", b"\"long\""), Some("good"), "ttl_s"),
        (good.with_member("ttl_s", b"99999999"), Some("good"), "ttl_s"),
        (good.with_member("id", format!("\"{}\"", "i".repeat(65)).as_bytes()), None, "id"),
        (good.with_member("id", b"{}"), None, "id"),
        (good.with_member("capability", b"\"\""), Some("good"), "capability"),
        (good.with_member("type", b"5"), Some("good"), "type"),
        (Builder::new("announce").build(), None, "record"),
        (Builder::untyped().build(), None, "type"),
    ];
    let count = wrong.len();
    for (object, _, _) in &wrong {
        raw.send(object).await;
    }
    raw.send(&good).await;
    notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("good")).then_some(())).await;
    let refused = std::mem::take(&mut notes.notes.lock().unwrap().refused);
    assert_eq!(refused.len(), count);
    for (refused, (_, id, words)) in refused.iter().zip(&wrong) {
        let Refused::Malformed(malformed) = refused else { panic!("{refused:?}") };
        assert_eq!(malformed.id.as_deref(), *id);
        assert!(malformed.why.contains(words), "{malformed}");
    }
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn wrong_signatures_and_unknown_types() {
    let (_connection, notes, mut raw) = connected(|_| {}).await;
    let me = identity(2);
    raw.send(&task("forged", &me, identity(1).id(), "x").with_member("payload", b"\"y\"")).await;
    raw.send(&Builder::new("novelty").str("id", "n").build()).await;
    raw.send(&beat(1)).await;
    notes.wait(|n| (asks(n) == [1]).then_some(())).await;
    let refused = std::mem::take(&mut notes.notes.lock().unwrap().refused);
    let [Refused::BadSignature { kind, id, caller }, Refused::Unknown { kind: novelty }] = &refused[..] else {
        panic!("{refused:?}")
    };
    assert_eq!((kind.as_str(), id.as_deref(), *caller), ("task", Some("forged"), Some(me.id())));
    assert_eq!(novelty, "novelty");
}

#[tokio::test]
async fn a_panic_in_the_node_ends_the_connection() {
    struct Fragile(Arc<Notes>);
    impl Hooks for Fragile {
        fn opened(&self, message: Checked, _: &mut Roots) -> Checked {
            message
        }
        fn heard(&self, _: ConnId, _: Vec<Heard>) {
            panic!("on purpose");
        }
        fn closed(&self, conn: ConnId, reason: Option<CloseReason>, message: String) {
            Hooks::closed(&*self.0, conn, reason, message);
        }
    }
    let cfg = config(1, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let client_cfg = config(2, |_| {});
    let dialling = {
        let cfg = client_cfg.clone();
        tokio::spawn(async move { dial(&addr, None, &cfg).await })
    };
    let established = handshake_inbound(listener.accept().await.unwrap().0, &cfg).await.unwrap();
    let first = welcome(&cfg.identity.id(), established.addr, TrackerRole::None, std::iter::empty());
    let notes = Arc::new(Notes::default());
    let fragile = established.start(ConnId(1), Some(first), Arc::new(Fragile(notes.clone())), &cfg);
    let near_notes = Arc::new(Notes::default());
    let near = soon(dialling).await.unwrap().unwrap().start(ConnId(2), None, near_notes.clone(), &client_cfg);
    near.send_object(&beat(1)).unwrap();
    notes.closed().await;
    near_notes.closed().await;
    assert!(fragile.is_closed());
}
