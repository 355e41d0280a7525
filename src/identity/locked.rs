//! A key under a passphrase: Argon2id makes a key of the passphrase, ChaCha20-Poly1305 closes the box with it.
//!
//! The parameters are RFC 9106's second recommended option (64 MiB, 3 passes, 4 lanes): a node starts on small machines
//! too. They stand in the file, so that later files may have others; what is read is bounded before any work is done.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use rand::Rng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use zeroize::{Zeroize, Zeroizing};

use super::{Identity, NodeId};
use crate::wire::{Builder, Object};

/// What the file says it is.
const KIND: &str = "elo_locked_key";

/// RFC 9106, section 4, the second recommended option.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// What a file may ask for: 1 GiB, 16 passes, 16 lanes, and no more than 4 GiB gone through in all. That takes some ten
/// seconds; somebody who can write the file must not be able to hang or kill who reads it.
const MAX_MEMORY_KIB: u64 = 1024 * 1024;
const MAX_PASSES: u64 = 16;
const MAX_LANES: u64 = 16;
const MAX_WORK_KIB: u64 = 4 * 1024 * 1024;

/// Why a box stays closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The passphrase is another one; or somebody changed the file.
    Wrong,
    /// The file is none that this program can read.
    Damaged(String),
}

/// A file's content.
struct Locked {
    object: Object,
    node: NodeId,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
    nonce: [u8; 12],
    content: [u8; 48],
}

/// Whether a file's text is that of a key under a passphrase.
pub(super) fn is_locked(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Whose key it is. Nothing proves that before it is unlocked.
pub(super) fn owner(text: &str) -> Result<NodeId, Fault> {
    Locked::read(text).map(|locked| locked.node)
}

/// The text of a file with that key under a passphrase.
pub(super) fn lock(identity: &Identity, passphrase: &str) -> String {
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    UnwrapErr(SysRng).fill_bytes(&mut salt);
    UnwrapErr(SysRng).fill_bytes(&mut nonce);
    lock_with(identity, passphrase, [MEMORY_KIB, PASSES, LANES], salt, nonce)
}

fn lock_with(
    identity: &Identity,
    passphrase: &str,
    [memory_kib, passes, lanes]: [u32; 3],
    salt: [u8; 16],
    nonce: [u8; 12],
) -> String {
    let header = || {
        Builder::new(KIND)
            .u64("version", 1)
            .str("node_id", &identity.id().to_string())
            .str("kdf", "argon2id")
            .u64("memory_kib", memory_kib.into())
            .u64("passes", passes.into())
            .u64("lanes", lanes.into())
            .str("salt", &URL_SAFE_NO_PAD.encode(salt))
            .str("cipher", "chacha20poly1305")
            .str("nonce", &URL_SAFE_NO_PAD.encode(nonce))
    };
    let seed = Zeroizing::new(identity.key.to_bytes());
    let aad = header().build();
    let key = derive(passphrase, &salt, memory_kib, passes, lanes).expect("parameters of our own are valid");
    let cipher = ChaCha20Poly1305::new(&Key::from(*key));
    let payload = Payload { msg: seed.as_slice(), aad: aad.raw() };
    let content = cipher.encrypt(&Nonce::from(nonce), payload).expect("32 bytes can always be encrypted");
    let object = header().str("box", &URL_SAFE_NO_PAD.encode(content)).build();
    String::from_utf8_lossy(object.raw()).into_owned() + "\n"
}

/// The key in a file's text.
pub(super) fn unlock(text: &str, passphrase: &str) -> Result<Identity, Fault> {
    let locked = Locked::read(text)?;
    let key = derive(passphrase, &locked.salt, locked.memory_kib, locked.passes, locked.lanes)
        .map_err(|e| Fault::Damaged(e.to_string()))?;
    let cipher = ChaCha20Poly1305::new(&Key::from(*key));
    let aad = locked.object.signing_bytes(&["box"]);
    let payload = Payload { msg: &locked.content, aad: &aad };
    let seed = cipher.decrypt(&Nonce::from(locked.nonce), payload).map_err(|_| Fault::Wrong)?;
    let seed = Zeroizing::new(seed);
    let seed: Zeroizing<[u8; 32]> =
        Zeroizing::new(seed.as_slice().try_into().map_err(|_| Fault::Damaged("its key is not 32 bytes".into()))?);
    let identity = Identity::from_seed(*seed);
    if identity.id() != locked.node {
        return Err(Fault::Damaged("its key belongs to another id".into()));
    }
    Ok(identity)
}

fn derive(
    passphrase: &str,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; 32]>, argon2::Error> {
    let params = Params::new(memory_kib, passes, lanes, Some(32))?;
    let mut memory = vec![Block::default(); params.block_count()];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    let done = argon.hash_password_into_with_memory(passphrase.as_bytes(), salt, key.as_mut_slice(), &mut memory);
    // The last block is one step away from the key.
    memory.iter_mut().for_each(Zeroize::zeroize);
    done.map(|()| key)
}

impl Locked {
    fn read(text: &str) -> Result<Self, Fault> {
        let damaged = |what: &str| Fault::Damaged(what.to_owned());
        let object = Object::parse(text.trim().to_owned().into()).map_err(|e| Fault::Damaged(e.to_string()))?;
        let text = |key: &str| object.str(key).ok().flatten().ok_or_else(|| damaged(&format!("{key}: missing")));
        let number = |key: &str| object.u64(key).ok().flatten().ok_or_else(|| damaged(&format!("{key}: missing")));
        if text("type")? != KIND {
            return Err(damaged("it is JSON, but no key"));
        }
        if number("version")? != 1 || text("kdf")? != "argon2id" || text("cipher")? != "chacha20poly1305" {
            return Err(damaged("it was locked in a way that this version of elo doesn't know"));
        }
        let (memory, passes, lanes) = (number("memory_kib")?, number("passes")?, number("lanes")?);
        let fits = (1..=MAX_LANES).contains(&lanes)
            && (1..=MAX_PASSES).contains(&passes)
            && (8 * lanes..=MAX_MEMORY_KIB).contains(&memory)
            && memory * passes <= MAX_WORK_KIB;
        if !fits {
            return Err(damaged("memory_kib, passes, lanes: more work than any key is worth, or none"));
        }
        let node = text("node_id")?.parse().map_err(|e| Fault::Damaged(format!("node_id: {e}")))?;
        let (mut salt, mut nonce, mut content) = ([0; 16], [0; 12], [0; 48]);
        for (key, into) in [("salt", &mut salt[..]), ("nonce", &mut nonce[..]), ("box", &mut content[..])] {
            let size = into.len();
            match URL_SAFE_NO_PAD.decode_slice(text(key)?.as_bytes(), into) {
                Ok(read) if read == size => {}
                _ => return Err(Fault::Damaged(format!("{key}: expected {size} bytes in URL-safe base64"))),
            }
        }
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (memory_kib, passes, lanes) = (small(memory), small(passes), small(lanes));
        Ok(Self { object, node, memory_kib, passes, lanes, salt, nonce, content })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Cheap to open: what is tested is the box.
    fn locked() -> (Identity, String) {
        let identity = Identity::from_seed([7; 32]);
        let text = lock_with(&identity, "correct horse", [64, 1, 2], [1; 16], [2; 12]);
        (identity, text)
    }

    #[test]
    fn what_is_locked_opens_with_its_passphrase_and_no_other() {
        let identity = Identity::from_seed([7; 32]);
        let text = lock(&identity, "correct horse");
        assert!(is_locked(&text) && !is_locked(&identity.to_pem()));
        assert_eq!(owner(&text), Ok(identity.id()));
        assert_eq!(unlock(&text, "correct horse").map(|i| i.id()), Ok(identity.id()));
        assert_eq!(unlock(&text, "correct horse ").map(|i| i.id()), Err(Fault::Wrong));
        assert_ne!(text, lock(&identity, "correct horse"), "the salt is new each time");
        let hidden = URL_SAFE_NO_PAD.encode([7; 32]);
        assert!(!text.contains(&hidden));
    }

    #[test]
    fn the_box_is_bound_to_what_stands_around_it() {
        let (_, text) = locked();
        let other = Identity::from_seed([8; 32]).id().to_string();
        let me = Identity::from_seed([7; 32]).id().to_string();
        for (from, to) in [
            (me.as_str(), other.as_str()),
            ("\"memory_kib\":64", "\"memory_kib\":65"),
            ("\"passes\":1", "\"passes\":2"),
            ("{\"box\"", "{\"a\":1,\"box\""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert_eq!(unlock(&changed, "correct horse").map(|i| i.id()), Err(Fault::Wrong), "{to}");
        }
        assert!(unlock(&text, "correct horse").is_ok());
    }

    #[test]
    fn what_a_file_asks_for_is_bounded_before_work_is_done() {
        let (_, text) = locked();
        let began = Instant::now();
        for (from, to) in [
            ("\"memory_kib\":64", "\"memory_kib\":4294967295"),
            ("\"memory_kib\":64", "\"memory_kib\":1048577"),
            ("\"memory_kib\":64", "\"memory_kib\":15"),
            ("\"memory_kib\":64", "\"memory_kib\":0"),
            ("\"passes\":1", "\"passes\":4294967295"),
            ("\"passes\":1", "\"passes\":0"),
            ("\"lanes\":2", "\"lanes\":17"),
            ("\"lanes\":2", "\"lanes\":0"),
            ("\"memory_kib\":64,\"node_id\"", "\"memory_kib\":1048576,\"passes\":16,\"node_id\""),
            ("\"version\":1", "\"version\":2"),
            ("argon2id", "argon2i"),
            ("chacha20poly1305", "none"),
            ("\"box\":\"", "\"box\":\"AA"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert!(matches!(unlock(&changed, "correct horse"), Err(Fault::Damaged(_))), "{to}");
        }
        // Any one of the first would take seconds at least.
        assert!(began.elapsed().as_secs() < 5);
        for damaged in ["{", "{}", "{\"type\":\"elo_locked_key\"}", &text[..text.len() / 2]] {
            assert!(matches!(unlock(damaged, "x"), Err(Fault::Damaged(_))), "{damaged}");
        }
    }

    /// `tests/check_vectors.py` opens the same file with Python's `cryptography`.
    #[test]
    fn the_golden_file_is_what_this_code_writes() {
        let (identity, text) = locked();
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/locked.json")).unwrap();
        assert_eq!(golden[0]["file"], text.trim());
        assert_eq!(golden[0]["passphrase"], "correct horse");
        assert_eq!(golden[0]["node_id"], identity.id().to_string());
    }
}
