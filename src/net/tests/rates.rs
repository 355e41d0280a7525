//! Peers that send more than they may.

use super::*;
use std::time::Instant;

fn query(id: &str) -> Object {
    let draft = Draft::Query {
        id: id.into(),
        capability: "echo".into(),
        node: String::new(),
        ttl: 5,
        timestamp: NOW,
        limit: 8,
    };
    draft.sign(&identity(2))
}

fn event(id: &str) -> Object {
    let draft = Draft::Event {
        id: id.into(),
        event_type: "news".into(),
        data: Bytes::from_static(b"1"),
        timestamp: NOW,
        ttl: 5,
    };
    draft.sign(&identity(2))
}

#[tokio::test]
async fn tasks_and_queries_above_the_rate_are_answered() {
    let (_connection, notes, mut raw) = connected(|c| {
        c.limits.messages_per_second = 1;
        c.limits.message_burst = 4;
    })
    .await;
    for id in ["a", "b", "c", "d", "e"] {
        raw.send(&task(id, &identity(2), identity(1).id(), "x")).await;
    }
    // Its signature is not looked at.
    raw.send(&query("q").with_member("limit", b"1")).await;
    let (first, second) = notes
        .wait(|n| match &n.refused[..] {
            [first, second] => Some((first.clone(), second.clone())),
            _ => None,
        })
        .await;
    let Refused::RateLimited { message: Message::Task(task), retry_after } = first else { panic!("{first:?}") };
    assert_eq!(task.id, "e");
    assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1), "{retry_after:?}");
    assert!(matches!(second, Refused::RateLimited { message: Message::Query(_), .. }), "{second:?}");
    assert_eq!(notes.notes.lock().unwrap().messages.len(), 4);
}

#[tokio::test]
async fn everything_else_above_the_rate_is_slowed_down_and_not_lost() {
    let (_connection, notes, mut raw) = connected(|c| {
        c.limits.messages_per_second = 100;
        c.limits.message_burst = 5;
    })
    .await;
    let began = Instant::now();
    for number in 0..35 {
        raw.send(&beat(number)).await;
    }
    notes.wait(|n| (asks(n) == (0..35).collect::<Vec<_>>()).then_some(())).await;
    // 30 of them had to wait for their token.
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
}

#[tokio::test]
async fn signatures_have_a_rate_of_their_own_and_what_has_none_costs_none() {
    let (_connection, notes, mut raw) = connected(|c| {
        c.limits.signatures_per_second = 100;
        c.limits.signature_burst = 5;
    })
    .await;
    let began = Instant::now();
    for number in 0..1000 {
        raw.send(&beat(number)).await;
    }
    // One more than there are at once, and forged ones cost as much as others.
    for number in 0..35 {
        let task = task(&number.to_string(), &identity(2), identity(1).id(), "x");
        raw.send(&if number % 2 == 0 { task } else { task.with_member("ttl_s", b"7") }).await;
    }
    raw.send(&beat(1000)).await;
    notes.wait(|n| (asks(n).len() == 1001).then_some(())).await;
    let notes = notes.notes.lock().unwrap();
    let forged = notes.refused.iter().filter(|r| matches!(r, Refused::BadSignature { .. })).count();
    assert_eq!((notes.messages.len(), forged, notes.refused.len()), (1001 + 18, 17, 17), "{:?}", notes.refused);
    // 30 of the tasks had to wait for what those before them cost.
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
}

#[tokio::test]
async fn refusals_have_a_rate_as_well() {
    let (_connection, notes, mut raw) = connected(|c| {
        c.limits.messages_per_second = 50;
        c.limits.message_burst = 1;
    })
    .await;
    let began = Instant::now();
    for number in 0..30 {
        raw.send(&task(&number.to_string(), &identity(2), identity(1).id(), "x")).await;
    }
    notes.wait(|n| (n.refused.len() + n.messages.len() == 30).then_some(())).await;
    // At most 2 at once, and 50 + 50 a second from then on.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn floods_have_a_bucket_of_their_own() {
    let (_connection, notes, mut raw) = connected(|c| {
        c.limits.floods_per_second = 1;
        c.limits.flood_burst = 2;
    })
    .await;
    for id in ["a", "b", "c", "d"] {
        raw.send(&event(id)).await;
    }
    raw.send(&query("q")).await;
    raw.send(&task("t", &identity(2), identity(1).id(), "x")).await;
    notes.wait(|n| n.messages.iter().any(|m| m.task_id() == Some("t")).then_some(())).await;
    let notes = notes.notes.lock().unwrap();
    assert_eq!(notes.messages.len(), 3);
    let [Refused::Dropped { kind: first }, Refused::Dropped { kind: second }, Refused::RateLimited { message, .. }] =
        &notes.refused[..]
    else {
        panic!("{:?}", notes.refused)
    };
    assert_eq!((first.as_str(), second.as_str(), message.kind()), ("event", "event", "query"));
}
