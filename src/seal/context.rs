//! One direction between two nodes: a key, a base nonce, and messages with numbers.
//!
//! HPKE in base mode (RFC 9180) agrees on the secret, and exports a key and a base nonce from it. HPKE's own sealing
//! counts messages by itself and in order, which doesn't fit frames that are lost, repeated and overtaken: so the number
//! travels with each message, and its nonce is made by HPKE's own rule (§5.2; on numbers that are sent along §9.7.1).

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use hpke::aead::{AeadCtxR, AeadCtxS, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use rand::CryptoRng;

use crate::identity::NodeId;
use crate::wire::SealKey;

/// What the key schedule is bound to, before the two ids.
const LABEL: &[u8] = b"elo.v1 sealed";

pub(super) type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;
type Sender = AeadCtxS<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>;
type Receiver = AeadCtxR<ExportOnlyAead, HkdfSha256, X25519HkdfSha256>;

/// A new key pair.
pub(super) fn key_pair(rng: &mut impl CryptoRng) -> (Secret, SealKey) {
    loop {
        let (secret, public) = X25519HkdfSha256::gen_keypair_with_rng(rng);
        // A public key of ours is always one; that a generator is broken shows here and not at somebody else's.
        if let Ok(public) = SealKey::from_bytes(public.to_bytes().into()) {
            return (secret, public);
        }
    }
}

/// What both ends know of one direction.
pub(super) struct Context {
    aead: ChaCha20Poly1305,
    base_nonce: [u8; 12],
}

impl Context {
    /// For sending, to a key; with it the ephemeral key by which the other end comes to the same.
    pub(super) fn to(
        key: &SealKey,
        source: &NodeId,
        target: &NodeId,
        rng: &mut impl CryptoRng,
    ) -> Result<(SealKey, Self), HpkeError> {
        let public = Public::from_bytes(key.as_bytes())?;
        let info = info(source, target);
        let (enc, sender): (Encapsulated, Sender) = hpke::setup_sender_with_rng(&OpModeS::Base, &public, &info, rng)?;
        let enc = SealKey::from_bytes(enc.to_bytes().into()).map_err(|_| HpkeError::EncapError)?;
        Ok((enc, Self::exported(|what, out| sender.export(what, out))?))
    }

    /// For what was sent to a key of ours.
    pub(super) fn from(secret: &Secret, enc: &SealKey, source: &NodeId, target: &NodeId) -> Result<Self, HpkeError> {
        let enc = Encapsulated::from_bytes(enc.as_bytes())?;
        let info = info(source, target);
        let receiver: Receiver = hpke::setup_receiver(&OpModeR::Base, secret, &enc, &info)?;
        Self::exported(|what, out| receiver.export(what, out))
    }

    fn exported(export: impl Fn(&[u8], &mut [u8]) -> Result<(), HpkeError>) -> Result<Self, HpkeError> {
        let (mut key, mut base_nonce) = ([0; 32], [0; 12]);
        export(b"key", &mut key)?;
        export(b"nonce", &mut base_nonce)?;
        Ok(Self { aead: ChaCha20Poly1305::new(&key.into()), base_nonce })
    }

    /// Seals a message. The same number must never be used twice.
    pub(super) fn seal(&self, n: u64, associated: &[u8], message: &[u8]) -> Result<Vec<u8>, HpkeError> {
        let payload = Payload { msg: message, aad: associated };
        self.aead.encrypt(&self.nonce(n), payload).map_err(|_| HpkeError::SealError)
    }

    /// Opens one.
    pub(super) fn open(&self, n: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, HpkeError> {
        let payload = Payload { msg: sealed, aad: associated };
        self.aead.decrypt(&self.nonce(n), payload).map_err(|_| HpkeError::OpenError)
    }

    /// The base nonce, and the number as a big-endian integer of the same length: one XOR the other.
    fn nonce(&self, n: u64) -> Nonce {
        let mut nonce = self.base_nonce;
        for (byte, of_n) in nonce[4..].iter_mut().zip(n.to_be_bytes()) {
            *byte ^= of_n;
        }
        nonce.into()
    }

    /// The nonce of a number, and the key's first bytes under another name: what may never come twice.
    #[cfg(test)]
    pub(super) fn nonce_bytes(&self, n: u64) -> [u8; 12] {
        self.nonce(n).into()
    }
}

/// Whose direction it is: a context made for one pair of nodes is of no use for another.
fn info(source: &NodeId, target: &NodeId) -> Vec<u8> {
    [LABEL, source.as_bytes(), target.as_bytes()].concat()
}
