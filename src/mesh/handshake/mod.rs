//! The handshake: each side proves that it has the key its id stands for.
//!
//! ```text
//! dialer                                   listener
//!   hello       (fresh nonce, signed)  ──►
//!                                      ◄──  hello_ack  (that nonce, a nonce of its own, signed)
//!   TLS 1.3, when both list it: the listener shows its node key, the dialer no certificate
//!   auth        (both nonces, the TLS connection's binding, signed)  ──►
//!                                      ◄──  welcome | bye
//! ```
//!
//! [`Dialer`] and [`Listener`] are the two ends, without a socket: messages go in and come out, the time and the nonces
//! are passed in. A signature covers the whole message, its `type` included, so that what was signed as one message
//! never passes for another.
//!
//! What is tried, and what stops it:
//!
//! - *Replay to a listener.* A recorded `hello` is accepted again within the clock skew, but its `hello_ack` has a new
//!   nonce, and the recorded `auth` covers the old one. Nothing private is sent before `auth` is checked.
//! - *Replay to a dialer.* A recorded `hello_ack` repeats the `hello_nonce` of another `hello`.
//! - *Reflection.* Our own `hello` or `hello_ack`, sent back to us, carries our own id: refused as `SELF`. An `auth` of
//!   ours sent back to us is signed by the wrong side and names the wrong ids.
//! - *Passing for a third.* Mallory, dialled by Alice, puts Alice's nonce into a `hello` of its own to Bob, and gives
//!   Bob's `hello_ack` to Alice: it names Mallory as `peer`, so Alice refuses it. Mallory, dialled by Alice, shows Bob
//!   Alice's `hello`: Bob wants an `auth` that names Bob, and Alice signs one for Bob only if she believes to talk to
//!   Bob, that is if Mallory passes on every byte between the two.
//! - *A wire in the middle.* Whoever passes on every byte is there and stays there. With TLS it sees lengths and times:
//!   the dialer takes no key but the listener's node key for an answer, and everything from `auth` on is inside. Without
//!   TLS it reads along, can drop messages and write unsigned ones.
//! - *Talking the two out of TLS.* The features stand in `hello` and `hello_ack`, which are signed: without its `tls`
//!   neither passes. What was put into the stream before TLS began would be taken for the other side's words: bytes after
//!   `hello` or `hello_ack` end the handshake.
//! - *A listener's stolen key.* Who has it can pass for the listener, but not sit between the two unseen and bring the
//!   dialer's `auth` to the true listener: `binding` names the TLS connection it was made for, and there are two.
//! - *Another's succession.* The ids that a node says it had before are believed by the signatures of the keys they stand
//!   for, over the id that the handshake proves: nobody else can show them.
//! - *An old signature from a stolen clock.* `timestamp` bounds for how long a signature can be tried at all.

mod dialer;
mod legacy;
mod listener;
mod tls;
mod welcome;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use dialer::Dialer;
pub use legacy::{LegacyHello, legacy_hello, legacy_hello_ack, read_legacy_hello};
pub use listener::Listener;
pub use tls::{Binding, TLS, Tls};
pub use welcome::{Welcome, read_welcome, welcome};

use crate::error::CloseReason;
use crate::identity::{Identity, NodeId};
use crate::wire::fields::Fields;
use crate::wire::keylife::{read_chain, write_chain};
use crate::wire::{Builder, Malformed, Object, Rotation, Speaker, lists_batch, verify_chain, verify_object};

/// The longest text of the other side's that is repeated to people, in characters.
const MAX_TOLD: usize = 200;

/// What this node says of itself in a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// Its key.
    pub identity: &'a Identity,
    /// Its program version.
    pub version: &'a str,
    /// What it can do beyond this version of the protocol.
    pub features: &'a [String],
    /// A random text that names this run of it.
    pub instance: &'a str,
    /// How far clocks may differ, in seconds.
    pub clock_skew_s: u64,
    /// Whether connections are encrypted. `features` lists [`TLS`] unless they never are.
    pub tls: Tls,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its id; proven, unless `speaker` says otherwise.
    pub node: NodeId,
    /// Its program version.
    pub version: String,
    /// What it can do beyond this version of the protocol.
    pub features: Vec<String>,
    /// Which run of it this is.
    pub instance: Option<String>,
    /// The ids it had before, by the statements of the keys they stand for. Checked like the id.
    pub rotations: Arc<[Rotation]>,
    /// Whether it proved its id, or only claims it.
    pub speaker: Speaker,
    /// What a node of the Python package said of itself.
    pub hello: Option<LegacyHello>,
}

impl Proven {
    /// Whether it takes messages that were signed in a batch. Its features were signed, so nobody on the way can have
    /// added this one.
    pub fn takes_batches(&self) -> bool {
        self.speaker == Speaker::Proven && lists_batch(&self.features)
    }
}

/// The handshake failed: what `bye` says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code.
    pub reason: CloseReason,
    /// What is wrong, in words.
    pub message: String,
    /// Whether it is the other side that refused: it needs no `bye` then.
    pub by_peer: bool,
}

impl Refusal {
    /// This node refuses.
    pub fn new(reason: CloseReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), by_peer: false }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(CloseReason::BadHandshake, message)
    }

    fn own_id() -> Self {
        Self::new(CloseReason::SelfConnection, "that is this node itself: the id is its own")
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::bad(malformed.to_string())
    }
}

/// The message's members, if it is of that type.
fn expect<'a>(object: &'a Object, kind: &str) -> Result<Fields<'a>, Refusal> {
    let fields = Fields::new(object)?;
    if fields.kind() == kind {
        return Ok(fields);
    }
    if fields.kind() == "bye" {
        let code = fields.opt_text("code").ok().flatten();
        let text = fields.opt_long_text("reason").ok().flatten().unwrap_or_default();
        let code = code.as_deref().and_then(CloseReason::from_wire);
        let (reason, text) = (code.unwrap_or(CloseReason::BadHandshake), tellable(&text));
        let message = if text.is_empty() {
            format!("the other side refused: {reason}")
        } else {
            format!("the other side refused: {reason}: {text}")
        };
        return Err(Refusal { reason, message, by_peer: true });
    }
    Err(Refusal::bad(format!("expected {kind}, got {}", fields.kind())))
}

/// A text of the other side's, fit to be shown: short, and without control characters.
pub fn tellable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect()
}

fn nonce_text(nonce: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(nonce)
}

fn read_nonce(fields: &Fields<'_>, key: &str) -> Result<[u8; 32], Refusal> {
    let mut nonce = [0; 32];
    // One spelling per nonce: the decoder refuses padding and stray bits.
    match URL_SAFE_NO_PAD.decode_slice(fields.text(key)?.as_bytes(), &mut nonce) {
        Ok(32) => Ok(nonce),
        _ => Err(fields.malformed(format!("{key}: expected 32 bytes in URL-safe base64 without padding")).into()),
    }
}

fn check_clock(fields: &Fields<'_>, local: &Local<'_>, now_unix: i64) -> Result<(), Refusal> {
    let timestamp = fields.i64("timestamp")?;
    let (apart, allowed) = (timestamp.abs_diff(now_unix), local.clock_skew_s);
    if apart > allowed {
        let side = if timestamp > now_unix { "ahead of" } else { "behind" };
        return Err(Refusal::bad(format!(
            "timestamp: your clock is {apart} s {side} this node's, at most {allowed} s are allowed; set the clocks"
        )));
    }
    Ok(())
}

fn check_signature(object: &Object, signer: &NodeId, kind: &str) -> Result<(), Refusal> {
    verify_object(object, signer, &[]).map_err(|error| Refusal::bad(format!("{kind}: {error}")))
}

/// Checks what a node says of its earlier ids: after it has proven the one it has.
fn check_succession(proven: Proven) -> Result<Proven, Refusal> {
    match verify_chain(&proven.rotations) {
        Ok(()) => Ok(proven),
        Err(error) => Err(Refusal::bad(format!("rotations: {error}"))),
    }
}

/// What `hello` and `hello_ack` share: who the other side says to be.
fn introduction(fields: &Fields<'_>, node: NodeId) -> Result<Proven, Refusal> {
    Ok(Proven {
        node,
        version: fields.opt_short("version")?.unwrap_or_default(),
        features: fields.names("features")?,
        instance: fields.opt_short("instance")?,
        rotations: read_chain(fields, &node)?,
        speaker: Speaker::Proven,
        hello: None,
    })
}

/// The members that `hello` and `hello_ack` share.
fn introduce(local: &Local<'_>, kind: &str, nonce: &[u8; 32], now_unix: i64) -> Builder {
    let builder = write_chain(Builder::new(kind), local.identity.rotations());
    builder
        .str("node_id", &local.identity.id().to_string())
        .str("version", local.version)
        .str("nonce", &nonce_text(nonce))
        .i64("timestamp", now_unix)
        .strings("features", local.features)
        .str("instance", local.instance)
}
