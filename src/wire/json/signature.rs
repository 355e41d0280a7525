//! Checking who wrote a message.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::object::Object;
use crate::identity::{NodeId, verify};

/// Why a message is not taken to be from whom it names. The sender, or whoever passed it on, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no `signature`.
    #[error("the message has no signature")]
    Missing,
    /// The `signature` isn't 64 bytes in URL-safe base64 without padding, nor one made in a batch where that may be.
    #[error("the signature must be 64 bytes in URL-safe base64 without padding (86 characters), or one of a batch")]
    Malformed,
    /// The signature isn't the named signer's over this content.
    #[error("the signature does not fit the message and its signer")]
    Invalid,
}

/// Reads the text of a plain signature.
///
/// # Errors
///
/// [`SignatureError::Malformed`].
pub(in crate::wire) fn plain_signature(text: &str) -> Result<[u8; 64], SignatureError> {
    let mut signature = [0; 64];
    match URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut signature) {
        Ok(64) => Ok(signature),
        _ => Err(SignatureError::Malformed),
    }
}

/// Checks that `signer` signed everything in the object but `signature` and the members named in `uncovered`, by itself:
/// a signature made in a batch is none of these. See [`verify_signed`](crate::wire::batch::verify_signed).
///
/// # Errors
///
/// See [`SignatureError`].
pub fn verify_object(object: &Object, signer: &NodeId, uncovered: &[&str]) -> Result<(), SignatureError> {
    let text = object.text("signature").map_err(|_| SignatureError::Malformed)?.ok_or(SignatureError::Missing)?;
    let signature = plain_signature(&text)?;
    let mut without = Vec::with_capacity(uncovered.len() + 1);
    without.push("signature");
    without.extend_from_slice(uncovered);
    if verify(signer, &object.signing_bytes(&without), &signature) { Ok(()) } else { Err(SignatureError::Invalid) }
}
