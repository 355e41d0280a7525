//! The side that connects.

use super::tls::{Binding, bind, switches};
use super::{
    Local, Proven, Refusal, check_clock, check_signature, check_succession, expect, introduce, introduction, nonce_text,
};
use super::{read_nonce, tellable};
use crate::identity::NodeId;
use crate::wire::{Builder, Object};

/// A `hello` was sent.
#[derive(Debug)]
pub struct Dialer {
    nonce: [u8; 32],
    expected: Option<NodeId>,
}

impl Dialer {
    /// Begins a handshake. `nonce` must be fresh and random. With `expected` no other node is accepted.
    pub fn new(local: &Local<'_>, nonce: [u8; 32], now_unix: i64, expected: Option<NodeId>) -> (Self, Object) {
        let hello = introduce(local, "hello", &nonce, now_unix).sign(local.identity, &[]);
        (Self { nonce, expected }, hello)
    }

    /// Checks the answer. What is left is `auth`, for which the stream may have to become TLS first.
    ///
    /// # Errors
    ///
    /// When it is not the proof of the expected node for this very connection; see [`Refusal`].
    pub fn on_hello_ack(self, local: &Local<'_>, ack: &Object, now_unix: i64) -> Result<Answered, Refusal> {
        let fields = expect(ack, "hello_ack")?;
        let me = local.identity.id();
        let node = fields.node("node_id")?;
        // Our own `hello_ack`, from another connection to us, sent back: or we dialled ourselves.
        if node == me {
            return Err(Refusal::own_id());
        }
        let proven = introduction(&fields, node)?;
        // Whoever shows that it had the expected id before may be meant; whether it is, is known to who dialled.
        if let Some(expected) = self.expected
            && expected != node
            && proven.rotations.iter().all(|step| step.old != expected)
        {
            return Err(Refusal::bad(format!("expected node {expected} at this address, {node} answered")));
        }
        // An answer to another `hello`: recorded before, or fetched from its author by a third.
        if read_nonce(&fields, "hello_nonce")? != self.nonce {
            return Err(Refusal::bad("hello_nonce: not the nonce of this connection's hello"));
        }
        // The answer to a third that borrowed our nonce. Other implementations may leave this member out; nobody can
        // take it out of an answer that has it, as it is signed.
        if let Some(peer) = fields.opt_text("peer")?
            && peer != me.to_string()
        {
            return Err(Refusal::bad(format!("peer: the hello_ack was meant for {}", tellable(&peer))));
        }
        let ack_nonce = read_nonce(&fields, "nonce")?;
        check_clock(&fields, local, now_unix)?;
        check_signature(ack, &node, "hello_ack")?;
        let proven = check_succession(proven)?;
        let tls = switches(local, &proven.features)?;
        Ok(Answered { proven, hello_nonce: self.nonce, ack_nonce, tls })
    }
}

/// The listener has proven who it is.
#[derive(Debug)]
pub struct Answered {
    /// Who.
    pub proven: Proven,
    /// Whether the stream becomes TLS now.
    pub tls: bool,
    hello_nonce: [u8; 32],
    ack_nonce: [u8; 32],
}

impl Answered {
    /// The `auth` to be sent; with the binding of the TLS connection it goes over, when there is one.
    pub fn auth(&self, local: &Local<'_>, binding: Option<&Binding>) -> Object {
        let auth = Builder::new("auth")
            .str("node_id", &local.identity.id().to_string())
            .str("peer", &self.proven.node.to_string())
            .str("hello_nonce", &nonce_text(&self.hello_nonce))
            .str("ack_nonce", &nonce_text(&self.ack_nonce));
        bind(auth, binding).sign(local.identity, &[])
    }
}
