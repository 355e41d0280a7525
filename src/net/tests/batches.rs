//! Messages that a peer signed together, and peers that know nothing of that.

use super::*;
use crate::wire::batch;

/// A connection with a peer that lists those features.
async fn listing(features: &[&str]) -> (Connection, Arc<Notes>, Raw) {
    let server = serve(config(1, |_| {})).await;
    let (me, mut raw) = (identity(2), Raw::connect(server.addr).await);
    raw.send(&hello(&me, &nonce('x')).strings("features", features).sign(&me, &[])).await;
    let ack = raw.read().await;
    raw.send(&auth(&me, &nonce('x'), &ack).sign(&me, &[])).await;
    assert_eq!(kind(&raw.read().await), "welcome");
    let (connection, notes) = server.connection().await;
    (connection, notes, raw)
}

fn together(ids: impl IntoIterator<Item = usize>) -> Vec<Object> {
    let me = identity(2);
    let cancel = |n: usize| Draft::Cancel { id: n.to_string() }.unsigned(&me.id());
    batch::sign(&me, ids.into_iter().map(cancel).collect())
}

#[tokio::test]
async fn a_peer_takes_batches_when_its_handshake_says_so() {
    let cases: [(&[&str], bool); 4] =
        [(&[], false), (&["tls2", "batches", "Batch"], false), (&["batch"], true), (&["sealed", "batch", "x_y"], true)];
    for (features, takes) in cases {
        let (connection, _notes, _raw) = listing(features).await;
        assert_eq!(connection.takes_batches(), takes, "{features:?}");
    }
}

#[tokio::test]
async fn who_lists_nothing_is_heard_as_ever() {
    let (_connection, notes, mut raw) = listing(&[]).await;
    raw.send(&task("plain", &identity(2), identity(1).id(), "x")).await;
    raw.send(&beat(1)).await;
    notes.wait(|n| (asks(n) == [1]).then_some(())).await;
    assert!(matches!(&notes.notes.lock().unwrap().messages[0], Message::Task(_)));
}

#[tokio::test]
async fn each_of_a_batch_is_believed_and_a_forged_one_refused_without_an_end() {
    let (_connection, notes, mut raw) = listing(&["batch"]).await;
    let signed = together(0..20);
    // The first is forged before any root is known, the last when it is.
    for n in [0, 19] {
        let other = signed[(n + 7) % 20].get("signature").unwrap().to_vec();
        let text = signed[n].str("signature").unwrap().unwrap();
        let flipped = format!("\"{}{}\"", &text[..200], text[200..].chars().rev().collect::<String>());
        let forged = [
            signed[n].with_member("id", b"\"other\""),
            signed[n].with_member("signature", &other),
            signed[n].with_member("signature", flipped.as_bytes()),
            signed[n].with_member("signature", b"\"m\""),
        ];
        for forged in &forged {
            raw.send(forged).await;
        }
        if n == 0 {
            for good in &signed {
                raw.send(good).await;
            }
        }
    }
    // Of a batch of somebody else's, in this peer's name.
    let stranger = identity(3);
    let theirs = [1, 2].map(|n| Draft::Cancel { id: n.to_string() }.unsigned(&identity(2).id()));
    raw.send(&batch::sign(&stranger, theirs.into())[0]).await;
    // Frames for others, as a tracker gets them.
    let relay = |frame: &Object| crate::wire::draft::relay(&identity(1).id(), &identity(2).id(), 0, frame);
    raw.send(&relay(&signed[3])).await;
    raw.send(&relay(&signed[3].with_member("id", b"\"x\""))).await;
    raw.send(&beat(2)).await;
    notes.wait(|n| (asks(n) == [2]).then_some(())).await;
    let notes = notes.notes.lock().unwrap();
    let kinds: Vec<&str> = notes.messages.iter().map(Message::kind).collect();
    assert_eq!(kinds, [&["cancel"; 20][..], &["relay", "heartbeat"]].concat());
    let is_bad = |r: &Refused| matches!(r, Refused::BadSignature { kind, .. } if kind == "cancel");
    assert_eq!(notes.refused.iter().filter(|r| is_bad(r)).count(), 9);
    assert!(
        matches!(&notes.refused[9], Refused::BadRelay { code, .. } if *code == crate::error::ErrorCode::BadSignature)
    );
    assert_eq!((notes.refused.len(), notes.closed.len()), (10, 0));
}
