//! Signatures over many messages: the tree and the text beside a second implementation, from docs/protocol.md alone, and whoever
//! is on the way changing what they like. Only what its author signed is believed, with the one text it was given.

use std::collections::HashSet;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use elo::limits::{BATCH_MAX, MAX_ROOTS};
use elo::wire::{Builder, Message, Object, Roots, Speaker, Unsigned, batch, check, verify_signed};
use elo::{NodeId, verify};
use sha2::{Digest, Sha256};

use super::keys::{id, key};
use super::message::base64;

type Hash = [u8; 32];

fn hash(parts: &[&[u8]]) -> Hash {
    Sha256::digest(parts.concat()).into()
}

fn leaf(object: &Object) -> Hash {
    hash(&[&[0], &object.signing_bytes(&["signature"])])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

/// RFC 6962, section 2.1, by recursion; notes every hash on its way.
fn tree(leaves: &[Hash], all: &mut Vec<Hash>) -> Hash {
    let root = match leaves {
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node(&tree(left, all), &tree(right, all))
        }
    };
    all.push(root);
    root
}

/// The root that a path leads to in RFC 6962's tree of that size, by recursion from the root down; `None`: the path has
/// another length than it must.
fn root(leaf: &Hash, index: usize, count: usize, path: &[&[u8]]) -> Option<Hash> {
    if count == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let left = count.next_power_of_two() / 2;
    let (last, below) = path.split_last()?;
    let last: Hash = (*last).try_into().ok()?;
    Some(match index < left {
        true => node(&root(leaf, index, left, below)?, &last),
        false => node(&last, &root(leaf, index - left, count - left, below)?),
    })
}

/// What the text is in bytes; `None`: it is not base64, or not its one spelling.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits: Option<Vec<u32>> = text.chars().map(|c| DIGITS.find(c).map(|n| n as u32)).collect();
    let mut bytes = Vec::new();
    for part in digits?.chunks(4) {
        let group = part.iter().fold(0, |sum, n| sum << 6 | n) << (6 * (4 - part.len()));
        bytes.extend_from_slice(&group.to_be_bytes()[1..part.len()]);
    }
    (base64(&bytes) == text).then_some(bytes)
}

/// Whether a message is its author's, as the document says.
fn believed(object: &Object, author: &NodeId) -> bool {
    let Ok(Some(text)) = object.str("signature") else { return false };
    if text.len() == 86 {
        let signature = unbase64(&text).and_then(|bytes| bytes.try_into().ok());
        return signature.is_some_and(|s| verify(author, &object.signing_bytes(&["signature"]), &s));
    }
    let Some(bytes) = text.strip_prefix('m').and_then(unbase64) else { return false };
    let Some((signature, rest)) = bytes.split_first_chunk::<64>() else { return false };
    let [i0, i1, n0, n1, path @ ..] = rest else { return false };
    let (index, count) = (u16::from_be_bytes([*i0, *i1]), u16::from_be_bytes([*n0, *n1]));
    if !(1..=256).contains(&count) || index >= count {
        return false;
    }
    let path: Vec<&[u8]> = path.chunks(32).collect();
    let Some(root) = root(&leaf(object), index.into(), count.into(), &path) else { return false };
    verify(author, &[b"elo-batch-v1\n", &count.to_be_bytes()[..], &root].concat(), signature)
}

/// One of the kinds that are signed so, by node `n`.
fn message(kind: u8, n: usize, text: &str) -> Unsigned {
    let (me, text) = (id(n).to_string(), text.to_owned());
    let b = match kind % 3 {
        0 => Builder::new("cancel").str("id", "x").str("caller", &me),
        1 => Builder::new("accepted").str("id", "x").str("caller", &me).str("responder", &me),
        _ => Builder::new("chunk_ack").str("id", "x").u64("next", 1).str("caller", &me),
    };
    b.str("text", &text).unsigned(&[])
}

fn bytes_of(object: &Object) -> Vec<u8> {
    let text = object.str("signature").unwrap().unwrap();
    unbase64(text.strip_prefix('m').unwrap_or(&text)).expect("what is written is spelled as it must be")
}

fn with_text(object: &Object, text: &str) -> Object {
    let quoted: String = text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
    object.with_member("signature", format!("\"{quoted}\"").as_bytes())
}

pub(super) fn play(data: &[u8]) {
    // An input that ends early has said all it has to say.
    let _ = played(&mut Unstructured::new(data));
}

fn played(u: &mut Unstructured<'_>) -> Result<()> {
    let mut roots = Roots::new();
    let mut signed: Vec<(usize, Object)> = Vec::new();
    let (mut hashes, mut genuine) = (vec![[0; 32]], HashSet::new());
    for _ in 0..u.int_in_range(1..=3)? {
        let (author, kind) = (usize::from(u.arbitrary::<u8>()? % 2), u.arbitrary::<u8>()?);
        let count = match u.arbitrary::<u8>()? {
            255 => BATCH_MAX + 1,
            254 => BATCH_MAX,
            n => 1 + usize::from(n % 40),
        };
        // Some are the same message twice.
        let texts: Vec<String> = (0..count).map(|n| (n % (1 + usize::from(kind) % 48)).to_string()).collect();
        let drafts = texts.iter().map(|text| message(kind, author, text)).collect();
        let batch = match (count, kind % 2) {
            (1, 1) => Vec::into_iter(drafts).map(|draft| batch::sign_long(key(author), draft)).collect(),
            _ => batch::sign(key(author), drafts),
        };
        assert_eq!(batch.len(), count);
        for (text, object) in texts.iter().zip(&batch) {
            assert_eq!(object.str("text"), Ok(Some(text.clone())), "in the order they came");
            assert!(believed(object, &id(author)), "the other implementation believes it");
            assert_eq!(verify_signed(object, &id(author), &mut roots), Ok(()));
            genuine.insert(object.raw().clone());
        }
        if (2..=BATCH_MAX).contains(&count) {
            let leaves: Vec<Hash> = batch.iter().map(leaf).collect();
            let top = tree(&leaves, &mut hashes);
            let signature: [u8; 64] = bytes_of(&batch[0])[..64].try_into().expect("64 bytes");
            let text = [b"elo-batch-v1\n", &(count as u16).to_be_bytes()[..], &top].concat();
            assert!(verify(&id(author), &text, &signature));
        }
        signed.extend(batch.into_iter().map(|object| (author, object)));
    }
    for _ in 0..8 {
        if u.is_empty() {
            break;
        }
        let (mut author, mut object) = signed[u.choose_index(signed.len())?].clone();
        let (mut bytes, mut mark) = (bytes_of(&object), true);
        for _ in 0..u.int_in_range(1..=4)? {
            change(u, &signed, &hashes, (&mut author, &mut object, &mut bytes, &mut mark))?;
        }
        let mut text = format!("{}{}", if mark { "m" } else { "" }, base64(&bytes));
        if u.ratio(1, 4)? {
            let at = u.choose_index(text.len() + 1)?;
            match u.int_in_range(0..=3)? {
                0 => text.truncate(at),
                1 => text.insert(at, char::from(u.int_in_range(0x21..=0x7e)?)),
                2 => text.push('='),
                _ => drop(text.pop().map(|_| text.push(char::from(u.int_in_range(0x21..=0x7e).unwrap_or(b'A'))))),
            }
        }
        tried(&with_text(&object, &text), author, &mut roots, &genuine);
    }
    // The rest as it is.
    let rest = u.len();
    let text: String = u.bytes(rest)?.iter().map(|b| char::from(b & 0x7f)).collect();
    let (author, object) = &signed[0];
    tried(&with_text(object, &text), *author, &mut roots, &genuine);
    Ok(())
}

/// The message, its author, the bytes of its signature, and whether the mark is before them.
type Changed<'a> = (&'a mut usize, &'a mut Object, &'a mut Vec<u8>, &'a mut bool);

fn change(u: &mut Unstructured<'_>, signed: &[(usize, Object)], hashes: &[Hash], what: Changed<'_>) -> Result<()> {
    let (author, object, bytes, mark) = what;
    let number = |u: &mut Unstructured<'_>| -> Result<[u8; 2]> {
        Ok(if u.ratio(1, 8)? { u.arbitrary::<u16>()? } else { u.int_in_range(0..=44)? }.to_be_bytes())
    };
    match u.int_in_range(0..=12)? {
        0 => *author ^= 1,
        1 => *object = signed[u.choose_index(signed.len())?].1.clone(),
        2 => *bytes = bytes_of(&signed[u.choose_index(signed.len())?].1),
        3 => *mark = !*mark,
        4 => bytes.truncate(u.choose_index(bytes.len() + 1)?),
        5 => bytes.extend_from_slice(u.choose(hashes)?),
        6 => bytes.extend_from_slice(u.arbitrary::<[u8; 3]>()?.as_slice()),
        7 if bytes.len() >= 66 => bytes[64..66].copy_from_slice(&number(u)?),
        8 if bytes.len() >= 68 => bytes[66..68].copy_from_slice(&number(u)?),
        9 if bytes.len() >= 100 => {
            let at = 68 + 32 * u.choose_index((bytes.len() - 68) / 32)?;
            bytes[at..at + 32].copy_from_slice(u.choose(hashes)?);
        }
        10 if bytes.len() >= 68 => {
            // A level more below.
            let other = *u.choose(hashes)?;
            bytes.splice(68..68, other);
        }
        11 if bytes.len() >= 100 => drop(bytes.drain(68..100)),
        _ if !bytes.is_empty() => {
            let at = u.choose_index(bytes.len())?;
            bytes[at] ^= 1 << u.int_in_range(0..=7)?;
        }
        _ => {}
    }
    Ok(())
}

/// A message as somebody brings it: both implementations say the same of it, whatever is known of roots, and what is believed is
/// what was signed, to the last character.
fn tried(object: &Object, author: usize, roots: &mut Roots, genuine: &HashSet<Bytes>) {
    let (known, expected) = (roots.len(), believed(object, &id(author)));
    assert_eq!(verify_signed(object, &id(author), roots).is_ok(), expected, "with roots that are known");
    assert_eq!(verify_signed(object, &id(author), &mut Roots::new()).is_ok(), expected, "with none");
    assert!(roots.len() <= MAX_ROOTS && (expected || roots.len() == known), "only good roots are remembered");
    if expected {
        assert!(genuine.contains(object.raw()), "believed, and never signed so: {:?}", object.raw());
    }
    let loose = Bytes::from([b" ", &object.raw()[..]].concat());
    let loose = Object::parse(loose).expect("a blank does no harm");
    assert_eq!(verify_signed(&loose, &id(author), roots).is_ok(), expected, "in another spelling");
    // The message names its author itself.
    if let Ok(message) = Message::parse(object) {
        let named = ["responder", "caller"].into_iter().find_map(|m| object.str(m).ok().flatten());
        let is_named = named.is_some_and(|named| named == id(author).to_string());
        assert_eq!(check(message.clone(), Speaker::Proven, roots).is_ok() && is_named, expected && is_named);
        let plain = object.str("signature").is_ok_and(|s| s.is_some_and(|s| s.len() == 86));
        assert!(plain || check(message, Speaker::Legacy(id(author)), roots).is_err(), "the package makes none");
    }
}
