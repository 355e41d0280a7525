use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::tree::Hash;
use super::*;
use crate::limits::MAX_ROOTS;
use crate::wire::json::Builder;
use crate::wire::{Draft, Message, Speaker, check};

fn alice() -> Identity {
    Identity::from_seed([1; 32])
}

fn bob() -> Identity {
    Identity::from_seed([2; 32])
}

fn cancel(id: &str) -> Draft {
    Draft::Cancel { id: id.to_owned() }
}

fn batch(count: usize) -> Vec<Object> {
    let drafts = (0..count).map(|n| cancel(&n.to_string()).unsigned(&alice().id()));
    sign(&alice(), drafts.collect())
}

fn signature(object: &Object) -> String {
    object.str("signature").unwrap().unwrap()
}

/// The bytes of a signature made in a batch.
fn proof(object: &Object) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(signature(object).strip_prefix('m').unwrap()).unwrap()
}

/// The same message with another signature.
fn with_proof(object: &Object, bytes: &[u8]) -> Object {
    with_text(object, &format!("m{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn with_text(object: &Object, text: &str) -> Object {
    object.with_member("signature", serde_json::to_string(text).unwrap().as_bytes())
}

fn place(object: &Object, index: u16, count: u16) -> Object {
    let mut bytes = proof(object);
    bytes[64..66].copy_from_slice(&index.to_be_bytes());
    bytes[66..68].copy_from_slice(&count.to_be_bytes());
    with_proof(object, &bytes)
}

fn verify(object: &Object) -> Result<(), SignatureError> {
    verify_signed(object, &alice().id(), &mut Roots::new())
}

/// RFC 6962, section 2.1, as it is written there: MTH.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [one] => *one,
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            let text = [&[1][..], &mth(&leaves[..k]), &mth(&leaves[k..])].concat();
            Sha256::digest(text).into()
        }
    }
}

/// RFC 6962, section 2.1.1: PATH.
fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    let k = leaves.len().next_power_of_two() / 2;
    if leaves.len() == 1 {
        Vec::new()
    } else if m < k {
        [path(m, &leaves[..k]), vec![mth(&leaves[k..])]].concat()
    } else {
        [path(m - k, &leaves[k..]), vec![mth(&leaves[..k])]].concat()
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| tree::leaf([n.to_be_bytes().as_slice()])).collect()
}

#[test]
fn the_tree_is_that_of_rfc_6962() {
    for count in (1..=70).chain([BATCH_MAX - 1, BATCH_MAX]) {
        let leaves = leaves(count);
        let tree = Tree::new(leaves.iter().copied());
        assert_eq!(*tree.root(), mth(&leaves), "{count}");
        for (index, leaf) in leaves.iter().enumerate() {
            let found: Vec<Hash> = tree.path(index).copied().collect();
            assert_eq!(found, path(index, &leaves), "{index} of {count}");
            assert_eq!(tree::sides(index, count).count(), found.len());
            assert_eq!(tree::climb(*leaf, index, count, &found), Some(mth(&leaves)), "{index} of {count}");
        }
    }
}

#[test]
fn no_two_places_of_a_tree_have_the_same_sides() {
    for count in 2..=BATCH_MAX {
        let sides: HashSet<Vec<bool>> = (0..count).map(|index| tree::sides(index, count).collect()).collect();
        assert_eq!(sides.len(), count);
        assert!(sides.iter().all(|sides| (1..=8).contains(&sides.len())));
    }
}

#[test]
fn one_alone_is_signed_plainly_and_more_together() {
    assert!(sign(&alice(), Vec::new()).is_empty());
    let alone = batch(1);
    assert_eq!(alone, [cancel("0").sign(&alice())]);
    for count in [2, 3, 64, BATCH_MAX] {
        let signed = batch(count);
        let mut roots = Roots::new();
        for (n, message) in signed.iter().enumerate() {
            assert_eq!(message.str("id").unwrap().unwrap(), n.to_string());
            assert_eq!(verify_signed(message, &alice().id(), &mut roots), Ok(()));
            assert_eq!(verify(message), Ok(()), "each by itself");
            assert_eq!(verify_object(message, &alice().id(), &[]), Err(SignatureError::Malformed));
        }
        assert_eq!((roots.checks(), roots.len()), (1, 1), "one signature was checked");
        // As it comes at the other end, and in another spelling.
        let parsed = Object::parse(signed[1].raw().clone()).unwrap();
        assert!(parsed.is_canonical() && parsed.members().eq(signed[1].members()));
        let loose =
            String::from_utf8(signed[1].raw().to_vec()).unwrap().replace("\":", "\" : ").replace("ca", "\\u0063a");
        let loose = Object::parse(Bytes::from(loose)).unwrap();
        assert!(!loose.is_canonical());
        assert_eq!(verify_signed(&loose, &alice().id(), &mut roots), Ok(()));
        assert_eq!(roots.checks(), 1);
    }
}

#[test]
fn a_long_one_is_a_batch_of_one() {
    let me = alice().id();
    let signed = sign_long(&alice(), cancel("0").unsigned(&me));
    let (bytes, leaf) = (proof(&signed), tree::leaf([&*signed.signing_bytes(&["signature"])]));
    assert_eq!((bytes.len(), &bytes[64..]), (68, &[0, 0, 0, 1][..]));
    assert!(crate::identity::verify(&me, &roots::signed_text(1, &leaf), bytes[..64].try_into().unwrap()));
    let mut roots = Roots::new();
    for _ in 0..3 {
        assert_eq!(verify_signed(&signed, &me, &mut roots), Ok(()));
    }
    assert_eq!((roots.checks(), roots.len()), (1, 1));
    assert_eq!(verify_signed(&signed, &bob().id(), &mut roots), Err(SignatureError::Invalid));
    // Neither is it the first of two with itself, nor is one of two a batch of its own.
    let doubled = [&bytes[..66], &[0, 2], &leaf[..]].concat();
    assert!(verify(&with_proof(&signed, &doubled)).is_err());
    for message in batch(2) {
        assert!(verify(&with_proof(&message, &[&proof(&message)[..64], &[0, 0, 0, 1]].concat())).is_err());
    }
    // What changes on its way is signed plainly.
    let data = bytes::Bytes::from_static(b"1");
    let event = Draft::Event { id: "e".into(), event_type: "x".into(), data, timestamp: 1, ttl: 1 };
    assert_eq!(sign_long(&alice(), event.unsigned(&me)), event.sign(&alice()));
}

#[test]
fn more_than_fit_are_signed_in_several_trees_and_what_changes_is_signed_alone() {
    let query = |n: usize| Draft::Query {
        id: n.to_string(),
        capability: "x".into(),
        node: String::new(),
        ttl: 5,
        timestamp: 1,
        limit: 1,
    };
    let me = alice().id();
    let drafts = |count: usize| {
        (0..count).map(|n| if n % 7 == 3 { query(n) } else { cancel(&n.to_string()) }).collect::<Vec<_>>()
    };
    for (count, trees) in [(2, 1), (8, 1), (BATCH_MAX, 1), (BATCH_MAX * 2, 2), (BATCH_MAX * 7 / 6 + 2, 2)] {
        let drafts = drafts(count);
        let signed = sign(&alice(), drafts.iter().map(|draft| draft.unsigned(&me)).collect());
        let mut roots = Roots::new();
        for (n, (draft, message)) in drafts.iter().zip(&signed).enumerate() {
            assert_eq!(message.str("id").unwrap().unwrap(), n.to_string(), "in the order they came");
            if let Draft::Query { .. } = draft {
                assert_eq!(*message, draft.sign(&alice()));
            } else {
                assert!(signature(message).len() > 86);
                assert_eq!(verify_signed(message, &me, &mut roots), Ok(()));
            }
        }
        assert_eq!(roots.checks(), trees, "{count}");
    }
    // One that is left with nobody to share with.
    let [one, other] = [cancel("1"), query(2)].map(|draft| (draft.unsigned(&me), draft.sign(&alice())));
    assert_eq!(sign(&alice(), vec![one.0, other.0]), [one.1, other.1]);
}

#[test]
fn the_place_is_signed() {
    // By the path alone the first of three might be the first of four, and the third of three the second of two.
    for (index, count, others) in [(0, 3, (0, 4)), (2, 3, (1, 2)), (4, 5, (2, 3))] {
        let signed = batch(count);
        let message = &signed[index];
        let bytes = proof(message);
        let (path, []) = bytes[68..].as_chunks::<32>() else { panic!() };
        let leaf = tree::leaf([&*message.signing_bytes(&["signature"])]);
        assert_eq!(tree::climb(leaf, index, count, path), tree::climb(leaf, others.0, others.1, path), "the same root");
        let moved = place(message, others.0 as u16, others.1 as u16);
        assert_eq!(verify(&moved), Err(SignatureError::Invalid));
        // Nor does it pass when the right one is known.
        let mut roots = Roots::new();
        verify_signed(message, &alice().id(), &mut roots).unwrap();
        assert_eq!(verify_signed(&moved, &alice().id(), &mut roots), Err(SignatureError::Invalid));
    }
}

#[test]
fn no_other_place_passes() {
    for count in [2, 3, 5, 6, 7, 8, 13] {
        for (index, message) in batch(count).iter().enumerate() {
            for other_count in 0..=18u16 {
                for other in 0..=18u16 {
                    let is_same = (usize::from(other), usize::from(other_count)) == (index, count);
                    assert_eq!(verify(&place(message, other, other_count)).is_ok(), is_same);
                }
            }
        }
    }
}

#[test]
fn the_text_has_one_form() {
    let signed = batch(5);
    for message in &signed {
        let (text, bytes) = (signature(message), proof(message));
        assert_eq!(verify(message), Ok(()));
        let (mut last, mut swapped) = (text.clone(), bytes.clone());
        last.pop();
        swapped[64..66].rotate_left(1);
        let mut bad = vec![
            ("nothing behind the mark", "m".to_owned()),
            ("no mark", text[1..].to_owned()),
            ("another mark", format!("M{}", &text[1..])),
            ("two marks", format!("m{text}")),
            ("padding", format!("{text}=")),
            ("more padding", format!("{text}==")),
            ("a blank", format!("{text} ")),
            ("a line's end", format!("{text}\n")),
            ("standard base64", format!("m+{}", &text[2..])),
            ("a byte more", format!("m{}", URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat()))),
            ("a byte less", format!("m{}", URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1]))),
            ("a hash more", format!("m{}", URL_SAFE_NO_PAD.encode([&bytes[..], &[0; 32]].concat()))),
            ("a hash less", format!("m{}", URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 32]))),
            ("no path", format!("m{}", URL_SAFE_NO_PAD.encode(&bytes[..68]))),
            ("the root's signature alone", URL_SAFE_NO_PAD.encode(&bytes[..64])),
            ("that with the mark", format!("m{}", URL_SAFE_NO_PAD.encode(&bytes[..64]))),
            ("very long", format!("m{}", "A".repeat(100_000))),
            ("a character less", last.clone()),
        ];
        // Bits that the last character doesn't need: 68 + 32n bytes leave two or four of them, or none.
        for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
            let other = format!("{last}{c}");
            if other != text {
                bad.push(("another last character", other));
            }
        }
        for (what, bad) in bad {
            assert!(verify(&with_text(message, &bad)).is_err(), "{what}");
        }
    }
    for (value, error) in [("null", SignatureError::Missing), ("7", SignatureError::Malformed)] {
        assert_eq!(verify(&signed[0].with_member("signature", value.as_bytes())), Err(error));
    }
}

#[test]
fn a_plain_signature_may_begin_with_the_mark() {
    let message = |n: usize| cancel(&n.to_string()).sign(&alice());
    let found = (0..10_000).map(message).find(|message| signature(message).starts_with('m')).unwrap();
    assert_eq!(verify(&found), Ok(()));
}

#[test]
fn nodes_are_no_messages_and_messages_are_no_nodes() {
    let signed = batch(4);
    let (bytes, leaf) = (proof(&signed[0]), |n: usize| tree::leaf([&*signed[n].signing_bytes(&["signature"])]));
    // The node above the first two, given as a leaf of a tree of two: its text would have to be the two hashes, which are
    // no JSON, and its hash begins with another byte.
    let node = tree::node(&leaf(0), &leaf(1));
    assert_ne!(tree::leaf([&leaf(0)[..], &leaf(1)[..]]), node);
    assert_eq!(node, <Hash>::from(Sha256::digest([&[1][..], &leaf(0), &leaf(1)].concat())));
    // The message, with its own hash taken for a node: one level less, and one more.
    let short = [&bytes[..64], &[0, 0, 0, 2], &bytes[100..132]].concat();
    assert_eq!(verify(&with_proof(&signed[0], &short)), Err(SignatureError::Invalid));
    let long = [&bytes[..64], &[0, 0, 0, 8], &leaf(0), &bytes[68..]].concat();
    assert_eq!(verify(&with_proof(&signed[0], &long)), Err(SignatureError::Invalid));
}

#[test]
fn a_lone_node_is_not_doubled() {
    // What CVE-2012-2459 was: three messages, and the same with the last of them twice.
    let three = leaves(3);
    let four = [three[0], three[1], three[2], three[2]];
    assert_ne!(mth(&three), mth(&four));
    let signed = batch(3);
    let (bytes, last) = (proof(&signed[2]), tree::leaf([&*signed[2].signing_bytes(&["signature"])]));
    for index in [2u8, 3] {
        let doubled = [&bytes[..64], &[0, index, 0, 4], &last, &bytes[68..]].concat();
        assert_eq!(verify(&with_proof(&signed[2], &doubled)), Err(SignatureError::Invalid));
    }
}

#[test]
fn a_root_is_remembered_with_all_that_was_signed() {
    let signed = batch(3);
    let mut roots = Roots::new();
    let id = alice().id();
    verify_signed(&signed[0], &id, &mut roots).unwrap();
    // The same root with another signature: checked, and refused.
    let mut bytes = proof(&signed[1]);
    bytes[3] ^= 1;
    let forged = with_proof(&signed[1], &bytes);
    assert_eq!(verify_signed(&forged, &id, &mut roots), Err(SignatureError::Invalid));
    assert_eq!((roots.checks(), roots.len()), (2, 1));
    // Another signer for the same root and signature.
    assert_eq!(verify_signed(&signed[1], &bob().id(), &mut roots), Err(SignatureError::Invalid));
    // What is refused doesn't become known by being brought again.
    assert_eq!(verify_signed(&forged, &id, &mut roots), Err(SignatureError::Invalid));
    assert_eq!((roots.checks(), roots.len()), (4, 1));
    assert_eq!(verify_signed(&signed[1], &id, &mut roots), Ok(()));
    assert_eq!(roots.checks(), 4);
    roots.clear();
    assert_eq!(verify_signed(&signed[2], &id, &mut roots), Ok(()));
    assert_eq!((roots.checks(), roots.len()), (5, 1));
}

#[test]
fn roots_are_few_and_those_used_last_stay() {
    let id = alice().id();
    let batches: Vec<Vec<Object>> = (0..MAX_ROOTS + 8)
        .map(|n| sign(&alice(), (0..2).map(|m| cancel(&format!("{n}/{m}")).unsigned(&id)).collect()))
        .collect();
    let mut roots = Roots::new();
    assert!(roots.is_empty() && roots.capacity() == 0, "nothing before the first");
    for batch in &batches {
        verify_signed(&batch[0], &id, &mut roots).unwrap();
        verify_signed(&batches[0][0], &id, &mut roots).unwrap();
    }
    assert_eq!(roots.checks(), batches.len() as u64, "the first was in use all the time");
    assert_eq!(roots.len(), MAX_ROOTS);
    assert!(roots.capacity() <= MAX_ROOTS, "{}", roots.capacity());
    verify_signed(&batches[1][1], &id, &mut roots).unwrap();
    assert_eq!(roots.checks(), batches.len() as u64 + 1, "the second was forgotten");
}

#[test]
fn only_what_is_about_tasks_is_taken_from_a_batch() {
    let id = alice().id();
    let record =
        Builder::new("record").str("node_id", &id.to_string()).raw("caps", b"{}").u64("seq", 1).u64("ttl_s", 1);
    let event = Builder::new("event").str("id", "1").str("event_type", "x").raw("data", b"1").i64("timestamp", 1);
    let event = event.str("origin", &id.to_string()).u64("ttl", 1);
    let query = Builder::new("query").str("id", "1").str("capability", "x").str("node", "").i64("timestamp", 1);
    let query = query.str("origin", &id.to_string()).u64("ttl", 1).u64("limit", 1);
    // Signed by somebody who doesn't keep to it: all of each, with the `ttl`.
    let all = [record.clone(), event, query, record];
    let signed = sign(&alice(), all.into_iter().map(|b| b.unsigned(&[])).collect());
    for message in &signed {
        assert_eq!(verify(message), Ok(()), "it is Alice's");
    }
    let refused = |object: &Object| {
        let message = Message::parse(object).unwrap();
        assert_eq!(check(message, Speaker::Proven, &mut Roots::new()).unwrap_err(), SignatureError::Malformed);
    };
    refused(&signed[1]);
    refused(&signed[2]);
    refused(&Builder::new("announce").object("record", &signed[0]).u64("ttl", 1).build());
    let resp = Builder::new("query_resp").str("id", "1").str("origin", &id.to_string()).u64("hops", 1);
    let resp = Message::parse(&resp.objects("nodes", [&signed[0]]).build()).unwrap();
    assert_eq!(check(resp, Speaker::Proven, &mut Roots::new()).unwrap().forged_records(), 1);
    assert!(crate::wire::check_records(&signed[..1]).is_empty());

    let taken = batch(2);
    let relay = crate::wire::draft::relay(&bob().id(), &id, 0, &taken[0]);
    let forged = crate::wire::draft::relay(&bob().id(), &id, 0, &taken[0].with_member("id", b"\"x\""));
    let foreign = crate::wire::draft::relay(&id, &bob().id(), 0, &taken[0]);
    let parse = |object: &Object| Message::parse(object).unwrap();
    let mut roots = Roots::new();
    assert!(check(parse(&taken[1]), Speaker::Proven, &mut roots).unwrap().is_signed());
    assert!(check(parse(&relay), Speaker::Proven, &mut roots).unwrap().is_signed());
    assert_eq!(roots.checks(), 1);
    assert!(check(parse(&forged), Speaker::Proven, &mut roots).is_err());
    assert!(check(parse(&foreign), Speaker::Proven, &mut roots).is_err());
    assert!(check(parse(&taken[0]), Speaker::Legacy(id), &mut roots).is_err(), "the package makes no batches");
}

/// What is done to a message and its signature on the way.
#[derive(Clone, Debug)]
enum Fault {
    /// A bit of the signature's bytes.
    Bit(usize),
    /// A hash of the path is another message's.
    Leaf(usize, usize),
    /// Two hashes of the path change places.
    Swap(usize, usize),
    Index(u16),
    Count(u16),
    /// So many bytes less.
    Cut(usize),
    /// Bytes more.
    More(Vec<u8>),
    /// The proof of another message of the batch.
    Other(usize),
    /// That of one of another batch by the same signer.
    Foreign,
    /// The other batch's signature over its root.
    Root,
    /// A member of the message is another.
    Member,
    /// The message names another author.
    Signer,
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        3 => any::<usize>().prop_map(Fault::Bit),
        2 => any::<(usize, usize)>().prop_map(|(a, b)| Fault::Leaf(a, b)),
        2 => any::<(usize, usize)>().prop_map(|(a, b)| Fault::Swap(a, b)),
        2 => (0u16..40).prop_map(Fault::Index),
        2 => (0u16..40).prop_map(Fault::Count),
        1 => any::<u16>().prop_map(Fault::Count),
        1 => (1usize..70).prop_map(Fault::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..70).prop_map(Fault::More),
        2 => any::<usize>().prop_map(Fault::Other),
        1 => Just(Fault::Foreign),
        1 => Just(Fault::Root),
        1 => Just(Fault::Member),
        1 => Just(Fault::Signer),
    ];
    prop::collection::vec(fault, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_changed_is_refused(
        payloads in prop::collection::vec("[a-z\u{e9}\"\\\\]{0,40}", 2..40),
        at: usize,
        faults in faults(),
        known in any::<bool>(),
    ) {
        let id = alice().id();
        let build = |text: &String| {
            let payload = serde_json::to_vec(text).unwrap();
            let payload = crate::wire::canonicalize_json(&payload).unwrap();
            Builder::new("chunk").str("id", "1").str("caller", &id.to_string()).u64("seq", 0).raw("data", &payload)
                .str("responder", &id.to_string()).unsigned(&[])
        };
        let signed = sign(&alice(), payloads.iter().map(build).collect());
        let foreign = sign(&alice(), vec![cancel("a").unsigned(&id), cancel("b").unsigned(&id)]);
        let at = at % signed.len();
        let (mut message, mut bytes, mut author) = (signed[at].clone(), proof(&signed[at]), id);
        for fault in &faults {
            let hashes = bytes.len().saturating_sub(68) / 32;
            match fault {
                Fault::Bit(n) if !bytes.is_empty() => {
                    let n = n % (bytes.len() * 8);
                    bytes[n / 8] ^= 1 << (n % 8);
                }
                Fault::Leaf(a, b) if hashes > 0 => {
                    let leaf = tree::leaf([&*signed[b % signed.len()].signing_bytes(&["signature"])]);
                    let place = 68 + a % hashes * 32;
                    bytes[place..place + 32].copy_from_slice(&leaf);
                }
                Fault::Swap(a, b) if hashes > 0 => {
                    let (a, b) = (a % hashes, b % hashes);
                    for n in 68..100 {
                        bytes.swap(a * 32 + n, b * 32 + n);
                    }
                }
                Fault::Index(n) if bytes.len() >= 68 => bytes[64..66].copy_from_slice(&n.to_be_bytes()),
                Fault::Count(n) if bytes.len() >= 68 => bytes[66..68].copy_from_slice(&n.to_be_bytes()),
                Fault::Cut(n) => bytes.truncate(bytes.len().saturating_sub(*n)),
                Fault::More(more) => bytes.extend(more),
                Fault::Other(n) => bytes = proof(&signed[n % signed.len()]),
                Fault::Foreign => bytes = proof(&foreign[0]),
                Fault::Root if bytes.len() >= 64 => bytes[..64].copy_from_slice(&proof(&foreign[0])[..64]),
                Fault::Member => message = message.with_member("id", b"\"2\""),
                Fault::Signer => author = bob().id(),
                _ => {}
            }
        }
        let same_message = message.signing_bytes(&["signature"]) == signed[at].signing_bytes(&["signature"]) && author == id;
        // A message that is in the batch twice has two places there.
        let its_own = |other: &Object| {
            proof(other) == bytes && message.signing_bytes(&["signature"]) == other.signing_bytes(&["signature"])
        };
        let good = same_message && signed.iter().any(its_own);
        let mut roots = Roots::new();
        if known {
            for message in signed.iter().chain(&foreign) {
                verify_signed(message, &id, &mut roots).unwrap();
            }
        }
        let (known, object) = (roots.len(), with_proof(&message, &bytes));
        prop_assert_eq!(verify_signed(&object, &author, &mut roots).is_ok(), good, "{:?}", faults);
        if !good {
            prop_assert_eq!(roots.len(), known, "nothing wrong is remembered");
        }
    }

    #[test]
    fn any_text_is_refused(text in "m?[A-Za-z0-9_-]{0,500}", bytes in prop::collection::vec(any::<u8>(), 60..400)) {
        let message = cancel("1").sign(&alice());
        prop_assert!(verify(&with_text(&message, &text)).is_err());
        prop_assert!(verify(&with_proof(&message, &bytes)).is_err());
    }
}
