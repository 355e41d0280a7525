//! Ways to learn addresses: the local network, the Kademlia DHT, peers of earlier runs.
//!
//! What is learned here is a *candidate*: somebody may be there. It is believed only when a handshake has proven who
//! answers.

#[cfg(feature = "port-map")]
pub(crate) mod portmap;
