//! Messages that are signed when they are written: in their order, and each with those it may be signed with.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::memory::Kind;
use crate::net::late::sign;
use crate::wire::{Roots, verify_signed};

/// A batch is known by the signature over its root; `None` of one that was signed alone.
fn batch_of(message: &Object) -> Option<Vec<u8>> {
    verify_signed(message, &identity(1).id(), &mut Roots::new()).unwrap();
    let text = message.str("signature").unwrap().unwrap();
    (text.len() != 86).then(|| URL_SAFE_NO_PAD.decode(text.strip_prefix('m').unwrap()).unwrap()[..64].to_vec())
}

fn cancel(id: &str) -> crate::wire::Unsigned {
    Draft::Cancel { id: id.into() }.unsigned(&identity(1).id())
}

type Inner = Arc<Mutex<Vec<(u8, Object)>>>;

/// For a node behind the peer; what is sealed is written down.
fn sealed(id: &str, target: u8, inner: &Inner, works: bool) -> Late {
    let (envelope, inner) = (cancel(&format!("envelope of {id}")), Arc::clone(inner));
    let node = identity(target).id();
    Late::Sealed(Box::new(Sealing {
        target: node,
        inner: cancel(id),
        seal: Box::new(move |message| {
            inner.lock().unwrap().push((target, message.clone()));
            works.then_some(envelope)
        }),
        wrap: Box::new(move |frame| crate::wire::draft::relay(&node, &identity(1).id(), 0, &frame)),
    }))
}

fn name(message: &Object) -> String {
    match message.child("frame") {
        Some(frame) => frame.unwrap().str("id").unwrap().unwrap(),
        None => message.str("id").unwrap().unwrap(),
    }
}

#[test]
fn each_is_signed_with_those_for_the_same_reader_only_and_comes_in_its_order() {
    let inner = Inner::default();
    let mut messages = Vec::new();
    for n in 0..5 {
        messages.push(Late::Plain(cancel(&format!("plain {n}"))));
        messages.push(sealed(&format!("a{n}"), 8, &inner, n != 2));
        messages.push(sealed(&format!("b{n}"), 9, &inner, true));
    }
    messages.push(sealed("alone", 10, &inner, true));
    let signed = sign(&identity(1), messages);
    let mut wanted = Vec::new();
    for n in 0..5 {
        wanted.push(format!("plain {n}"));
        wanted.extend((n != 2).then(|| format!("envelope of a{n}")));
        wanted.push(format!("envelope of b{n}"));
    }
    wanted.push("envelope of alone".into());
    assert_eq!(signed.iter().map(name).collect::<Vec<_>>(), wanted);

    let inner = inner.lock().unwrap();
    let of = |target: u8| -> BTreeSet<_> {
        inner.iter().filter(|(t, _)| *t == target).map(|(_, message)| batch_of(message)).collect()
    };
    assert_eq!(inner.len(), 11);
    assert_eq!(of(10), BTreeSet::from([None]), "one alone is signed plainly");
    let (plain, frames): (Vec<_>, Vec<_>) = signed.iter().partition(|message| message.child("frame").is_none());
    let plain: BTreeSet<_> = plain.into_iter().map(batch_of).collect();
    let frames: BTreeSet<_> = frames.into_iter().map(|m| batch_of(&m.child("frame").unwrap().unwrap())).collect();
    let batches = [of(8), of(9), plain, frames];
    assert!(batches.iter().all(|batch| batch.len() == 1 && !batch.contains(&None)), "each is one batch: {batches:?}");
    assert_eq!(batches.iter().flatten().collect::<BTreeSet<_>>().len(), 4, "and none is another's");
}

#[tokio::test]
async fn what_waits_to_be_signed_is_sent_before_bye_and_then_nothing_is_held() {
    let cfg = config(1, |_| {});
    let (connection, notes, mut raw) = connected_by(Arc::clone(&cfg)).await;
    let inner = Inner::default();
    for n in 0..300 {
        connection.send(Outgoing::Late(Late::Plain(cancel(&n.to_string())))).unwrap();
        if n % 100 == 50 {
            connection.send(Outgoing::Ready(Draft::Cancel { id: "ready".into() }.sign(&identity(1)))).unwrap();
            connection.send(Outgoing::Late(sealed(&n.to_string(), 9, &inner, n != 150))).unwrap();
        }
    }
    assert!(cfg.memory.used_for(Kind::Outboxes) > 300 * 100);
    connection.close(CloseReason::Shutdown, "over");
    let mut wanted = Vec::new();
    for n in 0..300 {
        wanted.push(n.to_string());
        if n % 100 == 50 {
            wanted.push("ready".into());
            wanted.extend((n != 150).then(|| format!("envelope of {n}")));
        }
    }
    let mut batched = 0;
    for id in wanted {
        let message = raw.read().await;
        assert_eq!(name(&message), id);
        batched += usize::from(message.child("frame").is_none() && batch_of(&message).is_some());
    }
    assert_eq!(batched, 300);
    assert_eq!(raw.bye(CloseReason::Shutdown).await, "over");
    raw.end().await;
    assert_eq!(notes.closed().await.0, Some(CloseReason::Shutdown));
    assert_eq!(cfg.memory.used_for(Kind::Outboxes), 0);
}

#[tokio::test]
async fn what_is_thrown_away_or_never_written_is_not_held_either() {
    for shed in [true, false] {
        let cfg = config(1, |_| {});
        let (connection, notes, raw) = connected_by(Arc::clone(&cfg)).await;
        let long = task("long", &identity(1), identity(2).id(), &"x".repeat(900_000));
        // More than the sockets take, so that the writer is in the middle of it.
        for n in 0..1000 {
            let message = match n % 5 {
                0 => Outgoing::Passable(long.clone()),
                _ => Outgoing::Late(Late::Plain(cancel(&n.to_string()))),
            };
            if connection.send(message).is_err() {
                break;
            }
        }
        tokio::task::yield_now().await;
        assert!(cfg.memory.used_for(Kind::Outboxes) > 1_000_000);
        if shed {
            connection.shed(CloseReason::TooSlow, "");
        } else {
            connection.abort();
        }
        notes.closed().await;
        drop((connection, raw));
        soon(async {
            while cfg.memory.used_for(Kind::Outboxes) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_long_result_is_passed_by_short_ones_and_nothing_else_is() {
    let (connection, _notes, mut raw) = connected(|_| {}).await;
    let named = |id: &str, size: usize| task(id, &identity(1), identity(2).id(), &"x".repeat(size));
    connection.send(Outgoing::Passable(named("long", 500_000))).unwrap();
    connection.send(Outgoing::Ready(named("event", 100_000))).unwrap();
    connection.send(Outgoing::Passable(named("short", 10))).unwrap();
    connection.send(Outgoing::Late(Late::Plain(cancel("late")))).unwrap();
    connection.send(Outgoing::Ready(named("query", 10))).unwrap();
    for id in ["event", "short", "late", "query", "long"] {
        assert_eq!(name(&raw.read().await), id);
    }
}
