//! Sending, closing, silence, and peers that don't read.

use super::*;

#[tokio::test]
async fn messages_split_at_every_byte() {
    let (_connection, notes, mut raw) = connected(|_| {}).await;
    let message = task("slowly", &identity(2), identity(1).id(), r"\u00e4 \u00f6");
    for byte in [message.raw(), &b"\n"[..]].concat() {
        raw.bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("slowly")).then_some(())).await;
}

#[tokio::test]
async fn closing_delivers_everything_that_waits() {
    let (connection, notes, mut raw) = connected(|_| {}).await;
    for number in 0..3000 {
        connection.send_object(&beat(number)).unwrap();
    }
    connection.close(CloseReason::Shutdown, "good night");
    assert_eq!(connection.send_object(&beat(0)), Err(SendError::Closed));
    // The handle isn't needed for the rest.
    drop(connection);
    for number in 0..3000 {
        assert_eq!(raw.read().await.u64("ask").unwrap(), Some(number));
    }
    assert_eq!(raw.bye(CloseReason::Shutdown).await, "good night");
    drop(raw);
    assert_eq!(notes.closed().await, (Some(CloseReason::Shutdown), "good night".into()));
}

#[tokio::test]
async fn what_is_on_its_way_arrives_after_a_close() {
    let (connection, notes, mut raw) = connected(|_| {}).await;
    connection.close(CloseReason::Duplicate, "");
    raw.bye(CloseReason::Duplicate).await;
    raw.send(&task("late", &identity(2), identity(1).id(), "x")).await;
    drop(raw);
    let (reason, _) = notes.closed().await;
    assert_eq!(reason, Some(CloseReason::Duplicate));
    assert_eq!(notes.notes.lock().unwrap().messages.len(), 1);
    assert_eq!(notes.notes.lock().unwrap().closed.len(), 1);
}

#[tokio::test]
async fn a_peer_that_never_ends_its_half_is_left_behind() {
    let (connection, notes, raw) = connected(|_| {}).await;
    let began = std::time::Instant::now();
    connection.close(CloseReason::Shutdown, "");
    notes.closed().await;
    assert!(began.elapsed() >= Duration::from_secs(2));
    drop(raw);
}

#[tokio::test]
async fn a_bye_of_the_peer_ends_it_and_what_waits_is_still_sent() {
    let (connection, notes, mut raw) = connected(|_| {}).await;
    connection.send_object(&beat(1)).unwrap();
    raw.send(&crate::wire::draft::bye(CloseReason::Shutdown, "rebooting")).await;
    assert_eq!(raw.read().await.u64("ask").unwrap(), Some(1));
    assert_eq!(raw.fill().await, 0);
    drop(raw);
    let (reason, message) = notes.closed().await;
    assert_eq!(reason, Some(CloseReason::Shutdown));
    assert_eq!(message, "the other side closed: SHUTDOWN: rebooting");
    // The node saw it too.
    assert!(matches!(&notes.notes.lock().unwrap().messages[..], [Message::Bye(Some(CloseReason::Shutdown), _)]));
}

#[tokio::test]
async fn the_end_of_the_stream() {
    let (connection, notes, raw) = connected(|_| {}).await;
    raw.end().await;
    let (reason, message) = notes.closed().await;
    assert_eq!(reason, None);
    assert!(message.contains("closed the connection"), "{message}");
    assert!(connection.is_closed());
    // Nobody waits for room for ever.
    soon(connection.room()).await;

    let (_connection, notes, mut raw) = connected(|_| {}).await;
    raw.bytes(b"{\"type\":").await;
    drop(raw);
    notes.closed().await;
}

#[tokio::test]
async fn abort_and_drop() {
    let (connection, notes, mut raw) = connected(|_| {}).await;
    let other = connection.clone();
    drop(connection);
    other.send_object(&beat(1)).unwrap();
    raw.read().await;
    drop(other);
    assert_eq!(notes.closed().await, (None, "the connection was dropped".into()));
    raw.is_over().await;

    let (connection, notes, mut raw) = connected(|_| {}).await;
    connection.abort();
    assert_eq!(notes.closed().await, (None, "the connection was aborted".into()));
    raw.is_over().await;
    assert_eq!(notes.notes.lock().unwrap().closed.len(), 1);
}

#[tokio::test]
async fn silence_brings_heartbeats() {
    let (connection, _notes, mut raw) = connected(|c| c.limits.heartbeat_interval = Duration::from_millis(30)).await;
    for _ in 0..3 {
        let beat = raw.read().await;
        assert_eq!(kind(&beat), "heartbeat");
        assert_eq!(beat.str("node_id").unwrap(), Some(identity(1).id().to_string()));
        assert_eq!(beat.i64("ts").unwrap(), Some(NOW));
    }
    assert!(connection.messages_out() >= 3);
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let (_connection, notes, mut raw) = connected(|c| c.limits.idle_timeout = Duration::from_millis(200)).await;
    // Any byte is a sign of life.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.bytes(b" ").await;
    }
    assert!(notes.notes.lock().unwrap().closed.is_empty());
    raw.bye(CloseReason::Idle).await;
    drop(raw);
    assert_eq!(notes.closed().await.0, Some(CloseReason::Idle));
}

#[tokio::test]
async fn a_peer_that_does_not_read() {
    let (connection, notes, raw) = connected(|c| {
        c.limits.write_timeout = Duration::from_millis(300);
        c.limits.outbox_bytes = 256 * 1024;
    })
    .await;
    assert!(connection.has_room());
    let large = task("t", &identity(1), identity(2).id(), &"x".repeat(100_000));
    let mut full = false;
    let closed = soon(async {
        loop {
            match connection.send_object(&large) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    full = true;
                    assert!(!connection.has_room());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(full);
    assert_eq!(closed, SendError::Closed);
    let (reason, message) = notes.closed().await;
    assert_eq!(reason, Some(CloseReason::TooSlow), "{message}");
    drop(raw);
}

#[tokio::test]
async fn room_comes_back_when_the_peer_reads() {
    let (connection, notes, mut raw) = connected(|c| c.limits.outbox_messages = 10).await;
    let large = task("t", &identity(1), identity(2).id(), &"x".repeat(500_000));
    let mut sent = 0;
    // Until the kernel's buffers are full as well.
    while soon(async {
        match connection.send_object(&large) {
            Ok(()) => sent += 1,
            Err(error) => assert_eq!(error, SendError::Full),
        }
        tokio::time::timeout(Duration::from_millis(200), connection.room()).await.is_ok()
    })
    .await
    {}
    assert!(!connection.has_room());
    let reading = tokio::spawn(async move {
        for _ in 0..sent {
            assert_eq!(kind(&raw.read().await), "task");
        }
        raw
    });
    soon(connection.room()).await;
    assert!(connection.has_room());
    let _raw = soon(reading).await.unwrap();
    assert!(notes.notes.lock().unwrap().closed.is_empty());
}

#[tokio::test]
async fn too_large_and_too_many() {
    let (connection, _notes, _raw) = connected(|c| c.limits.outbox_messages = 3).await;
    let huge = task("t", &identity(1), identity(2).id(), &"x".repeat(crate::limits::MAX_MESSAGE));
    assert_eq!(connection.send_object(&huge), Err(SendError::TooLarge));
    // Without a chance for the writer.
    for _ in 0..3 {
        connection.send_object(&beat(1)).unwrap();
    }
    assert_eq!(connection.send_object(&beat(1)), Err(SendError::Full));
    assert!(!connection.has_room());
    soon(connection.room()).await;
    connection.send_object(&beat(1)).unwrap();
}

#[tokio::test]
async fn a_message_larger_than_the_outbox_passes_alone() {
    let (connection, _notes, mut raw) = connected(|c| c.limits.outbox_bytes = 10).await;
    connection.send_object(&beat(1)).unwrap();
    assert_eq!(connection.send_object(&beat(2)), Err(SendError::Full));
    assert_eq!(raw.read().await.u64("ask").unwrap(), Some(1));
}

/// Two peers that both have much to say before they listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_at_once() {
    let (near_cfg, far_cfg) = (config(2, |_| {}), config(1, |_| {}));
    let server = serve(far_cfg).await;
    let dialled = soon(dial(&server.addr.to_string(), None, &near_cfg)).await.unwrap();
    let near_notes = Arc::new(Notes::default());
    let near = dialled.start(ConnId(1), None, near_notes.clone(), &near_cfg);
    let (far, far_notes) = server.connection().await;
    let payload = "x".repeat(900_000);
    for (from, to, connection) in [(2, 1, &near), (1, 2, &far)] {
        for number in 0..8 {
            connection.send_object(&task(&number.to_string(), &identity(from), identity(to).id(), &payload)).unwrap();
        }
    }
    near_notes.wait(|n| (n.messages.len() == 8).then_some(())).await;
    far_notes.wait(|n| (n.messages.len() == 8).then_some(())).await;
}
