use std::collections::HashSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::wire::{Checked, Message as Wire, Roots, Speaker, check, draft};

fn rng(seed: u8) -> StdRng {
    StdRng::from_seed([seed; 32])
}

fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

fn bob() -> Identity {
    Identity::from_seed([2; 32])
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message<'a>(target: &'a NodeId, key: &'a SealKey, text: &'a [u8]) -> Message<'a> {
    Message { kind: SealedKind::Accepted, id: "1", target, key, instance: None, ttl_s: None, text }
}

/// The envelope as it comes out of a relay.
fn sealed(object: &Object, target: &NodeId, source: &NodeId) -> Sealed {
    let relay = draft::relay(target, source, 1, object);
    let checked: Checked = check(Wire::parse(&relay).unwrap(), Speaker::Proven, &mut Roots::new()).unwrap();
    checked.sealed_for(target).unwrap().clone()
}

struct Two {
    a: Sealer,
    b: Sealer,
    rng: StdRng,
}

fn two() -> Two {
    let mut rng = rng(7);
    Two { a: Sealer::new(alice().id(), &mut rng), b: Sealer::new(bob().id(), &mut rng), rng }
}

impl Two {
    fn seal(&mut self, key: &SealKey, text: &[u8], now: Duration) -> Sealed {
        let (target, source) = (bob().id(), alice().id());
        let object = self.a.seal(&alice(), &message(&target, key, text), now, &mut self.rng).unwrap();
        sealed(&object, &target, &source)
    }
}

#[test]
fn what_is_sealed_is_opened_by_its_target_and_nobody_else() {
    let mut two = two();
    let key = two.b.key();
    let first = two.seal(&key, b"the first", at(0));
    let second = two.seal(&key, b"the second", at(1));
    assert_eq!((first.enc, first.n, second.n), (second.enc, 0, 1), "one context for both");
    assert_eq!(first.key, two.a.key());
    assert!(!first.object.raw().windows(5).any(|w| w == b"first"));
    // In any order, and again.
    for (envelope, text) in [(&second, &b"the second"[..]), (&first, b"the first"), (&second, b"the second")] {
        assert_eq!(two.b.open(envelope, at(2)).unwrap(), text);
    }
    assert_eq!(two.a.open(&first, at(2)), Err(NotOpened::Key));
    let other = Sealer::new(bob().id(), &mut two.rng);
    assert_eq!(other.open(&first, at(2)), Err(NotOpened::Key), "another run has another key");
    assert_eq!((two.a.contexts(), two.b.contexts(), other.contexts()), ((1, 0), (0, 1), (0, 0)));
}

#[test]
fn what_was_changed_does_not_open() {
    let mut two = two();
    let key = two.b.key();
    let good = two.seal(&key, b"text", at(0));
    let other = two.seal(&key, b"another", at(0));
    let seal = |change: &dyn Fn(&mut Sealed)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let member = |name: &str, json: &str| good.object.with_member(name, json.as_bytes());
    let stranger = Identity::from_seed([9; 32]).id();
    let changed: Vec<(&str, Sealed)> = vec![
        ("the number", seal(&|s| s.n = 1)),
        ("the ephemeral key", seal(&|s| s.enc = s.key)),
        ("the source", seal(&|s| s.source = stranger)),
        ("the id", seal(&|s| s.object = member("id", "\"2\""))),
        ("the kind", seal(&|s| s.object = member("kind", "\"cancel\""))),
        ("the target", seal(&|s| s.object = member("target", &format!("\"{stranger}\"")))),
        ("the answer's key", seal(&|s| s.object = member("key", &format!("\"{}\"", good.enc)))),
        ("something unknown", seal(&|s| s.object = member("x", "1"))),
        (
            "the box",
            seal(&|s| s.object = member("box", std::str::from_utf8(other.object.get("box").unwrap()).unwrap())),
        ),
    ];
    // With a context that is known, and with one that is not.
    for warm in [false, true] {
        if warm {
            assert_eq!(two.b.open(&good, at(0)).unwrap(), &b"text"[..]);
        }
        for (what, bad) in &changed {
            assert_eq!(two.b.open(bad, at(0)), Err(NotOpened::Key), "{what}, warm: {warm}");
        }
    }
    let short = seal(&|s| s.object = member("box", "\"AAAA\""));
    assert_eq!(two.b.open(&short, at(0)), Err(NotOpened::Inner));
}

#[test]
fn a_key_that_was_replaced_opens_for_a_while_and_then_nothing_does() {
    let mut two = two();
    let first = two.b.key();
    let before = two.seal(&first, b"before", at(0));
    assert_eq!(two.b.open(&before, at(0)).unwrap(), &b"before"[..]);
    let second = two.b.replace_key(at(100), at(1000), &mut rng(8));
    assert!(second != first && two.b.key() == second);
    let old = two.seal(&first, b"old", at(1001));
    let new = two.seal(&second, b"new", at(1001));
    assert!(old.enc != before.enc, "the context was too old");
    assert_eq!(two.b.open(&old, at(1099)).unwrap(), &b"old"[..]);
    assert_eq!(two.b.open(&new, at(1099)).unwrap(), &b"new"[..]);
    assert_eq!(two.b.open(&before, at(1099)).unwrap(), &b"before"[..]);
    two.b.sweep(at(1100));
    // Not the contexts either: what somebody recorded is closed for good.
    assert_eq!(two.b.open(&old, at(1100)), Err(NotOpened::Key));
    assert_eq!(two.b.open(&before, at(1100)), Err(NotOpened::Key));
    assert_eq!(two.b.open(&new, at(1100)).unwrap(), &b"new"[..]);
    for _ in 0..20 {
        two.b.replace_key(at(100), at(1101), &mut two.rng);
    }
    assert_eq!(lock(&two.b.keys).earlier.len(), MAX_SEAL_KEYS);
}

#[test]
fn a_context_has_so_many_numbers_and_so_much_time() {
    let mut two = two();
    let key = two.b.key();
    let first = two.seal(&key, b"1", at(0));
    lock(&two.a.sending).get_mut(&(bob().id(), key)).unwrap().next.store(SEAL_CONTEXT_MESSAGES - 1, Ordering::Relaxed);
    let last = two.seal(&key, b"2", at(0));
    let next = two.seal(&key, b"3", at(0));
    assert_eq!((last.enc == first.enc, last.n), (true, SEAL_CONTEXT_MESSAGES - 1));
    assert_eq!((next.enc == first.enc, next.n), (false, 0));
    let same = two.seal(&key, b"4", SEAL_CONTEXT_FOR - at(1));
    let later = two.seal(&key, b"5", SEAL_CONTEXT_FOR);
    assert_eq!((same.enc, same.n, later.n), (next.enc, 1, 0));
    for (envelope, text) in [(last, b"2"), (next, b"3"), (same, b"4"), (later, b"5")] {
        assert_eq!(two.b.open(&envelope, at(0)).unwrap(), &text[..]);
    }
    two.a.sweep(SEAL_CONTEXT_FOR * 2);
    assert_eq!(two.a.contexts(), (0, 0));
}

#[test]
fn contexts_are_bounded_in_all_and_for_one_source() {
    let mut two = two();
    let key = two.b.key();
    // One that agrees on a context for each message.
    let mut envelopes = Vec::new();
    for n in 0..20u64 {
        envelopes.push(two.seal(&key, &n.to_be_bytes(), SEAL_CONTEXT_FOR * (n as u32)));
    }
    for envelope in &envelopes {
        two.b.open(envelope, at(0)).unwrap();
    }
    assert_eq!(lock(&two.b.receiving).get_mut(&alice().id()).unwrap().len(), MAX_SEAL_CONTEXTS_OF_ONE);
    // What was pushed out is agreed on again.
    assert_eq!(two.b.open(&envelopes[0], at(0)).unwrap(), &0u64.to_be_bytes()[..]);
    // Many nodes.
    let mut rng = rng(3);
    for n in 0..MAX_SEAL_CONTEXTS as u32 + 50 {
        let mut seed = [5; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let (target, to) = (bob().id(), key);
        let stranger = Identity::from_seed(seed);
        let sealer = Sealer::new(stranger.id(), &mut rng);
        let object = sealer.seal(&stranger, &message(&target, &to, b"x"), at(0), &mut rng).unwrap();
        two.b.open(&sealed(&object, &target, &stranger.id()), at(0)).unwrap();
        let id = stranger.id();
        two.a.seal(&alice(), &message(&id, &to, b"x"), at(0), &mut rng).unwrap();
    }
    assert_eq!((two.a.contexts().0, two.b.contexts().1), (MAX_SEAL_CONTEXTS, MAX_SEAL_CONTEXTS));
}

#[test]
fn many_threads_never_get_the_same_number() {
    let two = two();
    let key = two.b.key();
    let target = bob().id();
    let used: Vec<(SealKey, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|seed| {
                let (a, target, key) = (&two.a, &target, &key);
                scope.spawn(move || {
                    let mut rng = rng(100 + seed);
                    let sealed = |_| {
                        let m = message(target, key, b"x");
                        let (sending, n) = a.next_number(&m, at(0), &mut rng).unwrap();
                        (sending.enc, n)
                    };
                    (0..500).map(sealed).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let distinct: HashSet<_> = used.iter().collect();
    assert_eq!((used.len(), distinct.len()), (4000, 4000));
}

proptest! {
    #[test]
    fn any_message_comes_out_as_it_went_in(text in proptest::collection::vec(any::<u8>(), 0..4096), seed: u8) {
        let mut rng = rng(seed);
        let (a, b) = (Sealer::new(alice().id(), &mut rng), Sealer::new(bob().id(), &mut rng));
        let (target, key) = (bob().id(), b.key());
        let object = a.seal(&alice(), &message(&target, &key, &text), at(0), &mut rng).unwrap();
        let envelope = sealed(&object, &target, &alice().id());
        prop_assert_eq!(b.open(&envelope, at(0)).unwrap(), text);
    }

    /// Whatever targets, keys and times follow each other: no key is used twice with one nonce.
    #[test]
    fn a_nonce_never_comes_twice_under_one_key(
        steps in proptest::collection::vec((0u8..4, 0u8..3, 0u64..400), 1..200),
    ) {
        let mut rng = rng(4);
        let a = Sealer::new(alice().id(), &mut rng);
        let targets: Vec<NodeId> = (10..14).map(|n| Identity::from_seed([n; 32]).id()).collect();
        let keys: Vec<SealKey> = (0..3).map(|_| context::key_pair(&mut rng).1).collect();
        let (mut now, mut used) = (at(0), HashSet::new());
        for (target, key, wait) in steps {
            now += at(wait);
            if wait % 7 == 0 {
                a.sweep(now);
            }
            let m = message(&targets[usize::from(target)], &keys[usize::from(key)], b"x");
            let (sending, n) = a.next_number(&m, now, &mut rng).unwrap();
            // The ephemeral key stands for the AEAD's key, which is made from it and nothing that repeats.
            prop_assert!(used.insert((sending.enc, sending.context.nonce_bytes(n))));
        }
    }
}
