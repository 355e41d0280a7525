//! The side that is connected to.

use super::read_nonce;
use super::tls::{Binding, check_binding, switches};
use super::{
    Local, Proven, Refusal, check_clock, check_signature, check_succession, expect, introduce, introduction, nonce_text,
};
use crate::identity::NodeId;
use crate::wire::Object;

/// A `hello` was answered.
#[derive(Debug)]
pub struct Listener {
    me: NodeId,
    hello_nonce: [u8; 32],
    ack_nonce: [u8; 32],
    /// Who the dialer says to be; proven by its `auth`.
    claimed: Proven,
    tls: bool,
}

impl Listener {
    /// Checks a `hello`, and gives the `hello_ack` to be sent. `nonce` must be fresh and random.
    ///
    /// # Errors
    ///
    /// When it is malformed, not signed by whom it names, out of time, or our own; see [`Refusal`].
    pub fn on_hello(
        local: &Local<'_>,
        hello: &Object,
        nonce: [u8; 32],
        now_unix: i64,
    ) -> Result<(Self, Object), Refusal> {
        let fields = expect(hello, "hello")?;
        let me = local.identity.id();
        let node = fields.node("node_id")?;
        // We dialled ourselves, or somebody shows us a `hello` of ours. Said before the signature is looked at, as it
        // changes nothing and lets the dialling side know at once.
        if node == me {
            return Err(Refusal::own_id());
        }
        let hello_nonce = read_nonce(&fields, "nonce")?;
        check_clock(&fields, local, now_unix)?;
        let claimed = introduction(&fields, node)?;
        // A recorded `hello` passes here: it makes us sign an answer that is of no use to who doesn't have the key.
        check_signature(hello, &node, "hello")?;
        let tls = switches(local, &claimed.features)?;
        let ack = introduce(local, "hello_ack", &nonce, now_unix)
            .str("hello_nonce", &nonce_text(&hello_nonce))
            // Binds the answer to this dialer: see "Passing for a third".
            .str("peer", &node.to_string())
            .sign(local.identity, &[]);
        Ok((Self { me, hello_nonce, ack_nonce: nonce, claimed, tls }, ack))
    }

    /// Whether the stream becomes TLS once `hello_ack` is sent.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Checks the dialer's proof. `binding` is that of the TLS connection it came over, if there is one.
    ///
    /// # Errors
    ///
    /// When it is not the proof of the node that said `hello`, for this node and this very connection.
    pub fn on_auth(self, auth: &Object, binding: Option<&Binding>) -> Result<Proven, Refusal> {
        let fields = expect(auth, "auth")?;
        let node = self.claimed.node;
        if fields.node("node_id")? != node {
            return Err(Refusal::bad("node_id: another than in the hello"));
        }
        // A proof that was made for another listener, and brought here.
        if fields.node("peer")? != self.me {
            return Err(Refusal::bad("peer: the proof is meant for another node"));
        }
        // A proof recorded on another connection to us: `ack_nonce` was made for this one.
        if read_nonce(&fields, "hello_nonce")? != self.hello_nonce {
            return Err(Refusal::bad("hello_nonce: not the nonce of this connection's hello"));
        }
        if read_nonce(&fields, "ack_nonce")? != self.ack_nonce {
            return Err(Refusal::bad("ack_nonce: not the nonce of this connection's hello_ack"));
        }
        check_binding(&fields, binding)?;
        check_signature(auth, &node, "auth")?;
        check_succession(self.claimed)
    }
}
