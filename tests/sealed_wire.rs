//! The envelope of what is sealed, from the outside: hostile spellings, and contents that are not what it says.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use elo::seal::{Message as ToSeal, Sealer};
use elo::wire::{
    Builder, Checked, Message, NotOpened, Object, Opening, Record, Roots, SealKey, SealedKind, Speaker, check,
};
use elo::{Identity, NodeId};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

fn bob() -> Identity {
    Identity::from_seed([2; 32])
}

fn key(n: u8) -> String {
    let mut rng = StdRng::from_seed([n; 32]);
    Sealer::new(alice().id(), &mut rng).key().to_string()
}

/// A good envelope, unsigned, whose box opens nowhere.
fn envelope() -> Builder {
    Builder::new("sealed")
        .str("kind", "task")
        .str("id", "1")
        .str("source", &alice().id().to_string())
        .str("target", &bob().id().to_string())
        .str("instance", "run")
        .u64("ttl_s", 60)
        .str("key", &key(1))
        .str("enc", &key(2))
        .u64("n", 0)
        .str("box", &"A".repeat(64))
}

fn relay(target: &NodeId, source: &NodeId, frame: &Object) -> Object {
    let relay = Builder::new("relay").str("target", &target.to_string()).str("source", &source.to_string());
    relay.u64("hops", 1).object("frame", frame).build()
}

fn relayed(frame: &Object) -> Result<Message, String> {
    Message::parse(&relay(&bob().id(), &alice().id(), frame)).map_err(|m| m.why)
}

fn why(builder: Builder) -> String {
    relayed(&builder.sign(&alice(), &[])).err().unwrap_or_default()
}

#[test]
fn an_envelope_that_is_not_one_is_refused() {
    assert_eq!(why(envelope()), "");
    assert_eq!(why(envelope().str("kind", "cancel").null("ttl_s").null("instance")), "");
    for kind in ["", "Task", "relay", "sealed", "query", "hello"] {
        assert!(why(envelope().str("kind", kind)).starts_with("kind: "), "{kind}");
    }
    let bad_keys = [
        String::new(),
        "A".repeat(42),
        "A".repeat(44),
        format!("{}=", key(3)),
        format!("{}+", &key(3)[..42]),
        format!(" {}", key(3)),
        // Bits that are left over.
        format!("{}B", "A".repeat(42)),
        "é".repeat(43),
    ];
    for member in ["key", "enc"] {
        for bad in &bad_keys {
            assert!(why(envelope().str(member, bad)).starts_with(&format!("{member}: ")), "{member}: {bad}");
        }
        assert!(!why(envelope().u64(member, 7)).is_empty());
        assert!(!why(envelope().null(member)).is_empty());
    }
    for (member, value) in [("n", "-1"), ("n", "1.0"), ("n", "18446744073709551616"), ("n", "\"0\""), ("n", "null")] {
        assert!(!why(envelope().raw(member, value.as_bytes())).is_empty(), "{member} {value}");
    }
    for ttl in ["0", "86401", "null", "-1", "\"60\""] {
        assert!(!why(envelope().raw("ttl_s", ttl.as_bytes())).is_empty(), "{ttl}");
    }
    assert!(why(envelope().str("kind", "result")).contains("only of a task"));
    for wrong in ["a b", "a=", "+/", "\u{e9}", "\"", "\\"] {
        assert!(why(envelope().str("box", wrong)).starts_with("box: "), "{wrong}");
    }
    for wrong in ["null", "7", "[]", "{}"] {
        assert!(why(envelope().raw("box", wrong.as_bytes())).starts_with("box: "), "{wrong}");
    }
    for member in ["source", "target"] {
        assert!(!why(envelope().str(member, "short")).is_empty());
    }
    // Where the envelope says it goes, and where it goes.
    assert!(why(envelope().str("target", &alice().id().to_string())).starts_with("target: "));
    // Not outside of a relay.
    let bare = Message::parse(&envelope().sign(&alice(), &[])).unwrap();
    assert!(matches!(bare, Message::Unknown(kind) if kind == "sealed"));
    // Signed by who sealed it, and brought in no other name.
    let of = |frame: &Object| check(relayed(frame).unwrap(), Speaker::Proven, &mut Roots::new()).map(drop);
    assert!(of(&envelope().sign(&alice(), &[])).is_ok());
    assert!(of(&envelope().sign(&bob(), &[])).is_err());
    assert!(of(&envelope().build()).is_err());
    let other = envelope().str("source", &bob().id().to_string()).sign(&bob(), &[]);
    assert!(of(&other).is_err());
}

#[test]
fn keys_of_small_order_and_second_spellings_are_refused() {
    let p = |low: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        bytes
    };
    let hex =
        |text: &str| -> [u8; 32] { std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()) };
    let mut one = [0; 32];
    one[0] = 1;
    let weak = [
        [0; 32],
        one,
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        p(0xec), // p - 1
        p(0xed), // p, which is 0
        p(0xee), // p + 1, which is 1
        [0xff; 32],
    ];
    let mut rng = StdRng::from_seed([3; 32]);
    let sealer = Sealer::new(alice().id(), &mut rng);
    for bytes in weak {
        assert!(SealKey::from_bytes(bytes).is_err(), "{bytes:x?}");
        let mut high = bytes;
        high[31] |= 0x80;
        assert!(SealKey::from_bytes(high).is_err(), "{high:x?}");
    }
    let good = *sealer.key().as_bytes();
    assert_eq!(SealKey::from_bytes(good), Ok(sealer.key()));
    assert_eq!(sealer.key().to_string().parse(), Ok(sealer.key()));
    let mut high = good;
    high[31] |= 0x80;
    assert!(SealKey::from_bytes(high).is_err(), "X25519 takes both for the same");
    // In a record as well.
    let record = |seal: &str| {
        let text = format!(
            r#"{{"type":"record","node_id":"{}","caps":{{}},"seq":1,"ttl_s":1,"features":["sealed"]{seal}}}"#,
            alice().id()
        );
        Record::parse(&Object::parse(text.into_bytes().into()).unwrap())
    };
    let read = record(&format!(r#","seal":"{}""#, sealer.key())).unwrap();
    assert!(read.takes_sealed() && read.seal == Some(sealer.key()));
    assert_eq!(record("").unwrap().seal, None);
    for bad in [r#""""#, r#""AAAA""#, "7", &format!("\"{}\"", "A".repeat(43))] {
        assert!(record(&format!(",\"seal\":{bad}")).is_err(), "{bad}");
    }
}

struct Pair {
    a: Sealer,
    b: Sealer,
    rng: StdRng,
}

fn pair() -> Pair {
    let mut rng = StdRng::from_seed([9; 32]);
    Pair { a: Sealer::new(alice().id(), &mut rng), b: Sealer::new(bob().id(), &mut rng), rng }
}

impl Pair {
    /// What Bob makes of an envelope by Alice with that in it.
    fn takes(&mut self, kind: SealedKind, id: &str, text: &[u8]) -> (Opening, Message) {
        let (target, key) = (bob().id(), self.b.key());
        let ttl_s = (kind == SealedKind::Task).then_some(60);
        let message = ToSeal { kind, id, target: &target, key: &key, instance: None, ttl_s, text };
        let frame = self.a.seal(&alice(), &message, NOW, &mut self.rng).unwrap();
        let checked = check(relayed(&frame).unwrap(), Speaker::Proven, &mut Roots::new()).unwrap();
        let text = self.b.open(checked.sealed_for(&target).unwrap(), NOW);
        match checked.opened(text, &mut Roots::new()).into_message() {
            Message::Relay(relay) => (relay.opening, *relay.frame),
            _ => unreachable!(),
        }
    }
}

fn task(caller: &Identity, target: &NodeId) -> Object {
    Builder::new("task")
        .str("id", "1")
        .str("target", &target.to_string())
        .str("caller", &caller.id().to_string())
        .str("capability", "x")
        .raw("payload", b"1")
        .i64("timestamp", 1)
        .u64("ttl_s", 60)
        .sign(caller, &[])
}

#[test]
fn what_is_inside_must_be_what_the_envelope_says() {
    let mut pair = pair();
    let key = pair.a.key();
    let good = task(&alice(), &bob().id());
    let (opening, inner) = pair.takes(SealedKind::Task, "1", good.raw());
    assert!(opening == Opening::Opened(key) && matches!(inner, Message::Task(_)));
    let cancel =
        |by: &Identity| Builder::new("cancel").str("id", "1").str("caller", &by.id().to_string()).sign(by, &[]);
    assert_eq!(pair.takes(SealedKind::Cancel, "1", cancel(&alice()).raw()).0, Opening::Opened(key));
    let open = task(&alice(), &bob().id()).with_member("target", b"null");
    let nested = relay(&bob().id(), &alice().id(), &good);
    let mut bad: Vec<(&str, SealedKind, &str, Vec<u8>)> = vec![
        ("another kind", SealedKind::Cancel, "1", good.raw().to_vec()),
        ("another id", SealedKind::Task, "2", good.raw().to_vec()),
        // A task that somebody sealed for Alice, which she would have run by Bob.
        ("another caller", SealedKind::Task, "1", task(&bob(), &bob().id()).raw().to_vec()),
        ("another target", SealedKind::Task, "1", task(&alice(), &alice().id()).raw().to_vec()),
        ("no target", SealedKind::Task, "1", open.raw().to_vec()),
        ("no signature", SealedKind::Task, "1", good.with_member("signature", b"null").raw().to_vec()),
        ("a changed payload", SealedKind::Task, "1", good.with_member("payload", b"2").raw().to_vec()),
        ("another's cancel", SealedKind::Cancel, "1", cancel(&bob()).raw().to_vec()),
        ("a relay", SealedKind::Task, "1", nested.raw().to_vec()),
        ("an envelope", SealedKind::Task, "1", envelope().sign(&alice(), &[]).raw().to_vec()),
    ];
    for text in [&b""[..], b"{", b"null", b"[]", b"{}", b"\xff\xfe", b"{\"type\":\"task\"}"] {
        bad.push(("no message", SealedKind::Task, "1", text.to_vec()));
    }
    for (what, kind, id, text) in bad {
        let (opening, frame) = pair.takes(kind, id, &text);
        assert_eq!(opening, Opening::Failed(NotOpened::Inner), "{what}");
        assert!(matches!(frame, Message::Sealed(_)), "{what}: nothing of it is handed on");
    }
}

proptest! {
    #[test]
    fn no_text_for_a_box_or_a_key_makes_trouble(member in "key|enc|box|n|kind|id|ttl_s|instance", text: String) {
        let frame = envelope().str(&member, &text).sign(&alice(), &[]);
        if let Ok(message) = relayed(&frame) {
            let checked: Checked = check(message, Speaker::Proven, &mut Roots::new()).unwrap();
            let pair = pair();
            let bob = bob().id();
            let sealed = checked.sealed_for(&bob).unwrap();
            prop_assert!(pair.b.open(sealed, NOW).is_err());
            let text = pair.b.open(sealed, NOW);
            prop_assert!(checked.opened(text, &mut Roots::new()).sealed_for(&bob).is_none());
        }
    }
}
