//! The Kademlia DHT: `mainline`'s node, kept on a leash.
//!
//! Its actor is a thread with a UDP socket of its own. The thread ends when the last handle to it is dropped, within the
//! 50 ms that a read of the socket takes at most. Its methods panic when the thread has died, so every use runs in a task
//! of its own, whose panic is an error here.

mod engine;
mod filter;
mod join;
mod own;

use std::net::SocketAddr;

use sha1_smol::Sha1;

pub(crate) use engine::{Engine, Gone, Kept, Named};
pub(crate) use join::{Join, own_ip_towards, public_bootstrap, resolve};

use crate::mesh::Scope;

/// The key under which providers of a capability announce themselves.
pub(crate) fn capability_key(name: &str) -> [u8; 20] {
    let mut sha = Sha1::new();
    sha.update(b"elo:capability:");
    sha.update(name.as_bytes());
    sha.digest().bytes()
}

/// Which addresses may be dialled, going by who could have put them into this DHT. Loopback only when every node known
/// in it is on this host: from elsewhere it would mean whatever listens here.
pub(crate) fn scope(public: bool, bound_to_loopback: bool, contacts: &[SocketAddr]) -> Scope {
    let all_here = !contacts.is_empty() && contacts.iter().all(|c| c.ip().is_loopback());
    match public {
        true => Scope::Public,
        false if bound_to_loopback || all_here => Scope::Host,
        false => Scope::Network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_has_the_key_the_protocol_gives_it() {
        let hex = |name: &str| capability_key(name).iter().map(|b| format!("{b:02x}")).collect::<String>();
        // From `printf elo:capability:translate | sha1sum`.
        assert_eq!(hex("translate"), "7f7c457a4877beac2f7a619f417fad704b49d57e");
        assert_ne!(hex("translate"), hex("translate "));
    }

    #[test]
    fn loopback_is_believed_from_this_host_only() {
        let at = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(scope(false, true, &[]), Scope::Host);
        assert_eq!(scope(false, false, &at(&["127.0.0.1:1", "127.0.0.2:1"])), Scope::Host);
        assert_eq!(scope(false, false, &at(&["127.0.0.1:1", "10.0.0.1:1"])), Scope::Network);
        assert_eq!(scope(false, false, &[]), Scope::Network);
        assert_eq!(scope(true, true, &at(&["127.0.0.1:1"])), Scope::Public);
    }
}
