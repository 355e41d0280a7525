//! When a connection is encrypted, and how the proof is bound to the encryption.

use super::{Local, Refusal, nonce_text, read_nonce};
use crate::wire::Builder;
use crate::wire::fields::Fields;

/// The feature of nodes that encrypt their connections.
pub const TLS: &str = "tls";

/// What names one TLS connection: both ends compute it from that connection's secrets, and two connections never have
/// the same (RFC 9266, `tls-exporter`).
pub type Binding = [u8; 32];

/// Whether a node's connections are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// With every peer that can. Peers that can't (clients written by hand, nodes of the Python package) are connected in
    /// plain text; [`PeerInfo::encrypted`](crate::PeerInfo::encrypted) tells which those are.
    #[default]
    Preferred,
    /// With every peer: those that can't are refused, whoever dialled.
    Required,
    /// With none.
    Off,
}

/// Whether the stream becomes TLS after `hello_ack`: when both sides list the feature. Both lists are signed, so nobody
/// on the way can make the answer another.
pub(super) fn switches(local: &Local<'_>, theirs: &[String]) -> Result<bool, Refusal> {
    let (ours, theirs) = (local.features.iter().any(|f| f == TLS), theirs.iter().any(|f| f == TLS));
    if local.tls == Tls::Required && !(ours && theirs) {
        return Err(Refusal::bad(
            "this node takes encrypted connections only, and the other side does not offer any (feature `tls`): switch TLS \
             on there, or let this node connect without it (`tls = \"preferred\"`)",
        ));
    }
    Ok(ours && theirs)
}

/// Puts the binding into an `auth`.
pub(super) fn bind(auth: Builder, binding: Option<&Binding>) -> Builder {
    match binding {
        Some(binding) => auth.str("binding", &nonce_text(binding)),
        None => auth,
    }
}

/// Checks that an `auth` was made for this very connection.
pub(super) fn check_binding(auth: &Fields<'_>, binding: Option<&Binding>) -> Result<(), Refusal> {
    match (auth.opt_text("binding")?, binding) {
        (None, None) => Ok(()),
        (Some(_), Some(binding)) if read_nonce(auth, "binding")? == *binding => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::bad("binding: the proof was made for another encrypted connection")),
        (None, Some(_)) => Err(Refusal::bad("binding: missing, and required on an encrypted connection")),
        (Some(_), None) => Err(Refusal::bad("binding: this connection is not encrypted")),
    }
}
