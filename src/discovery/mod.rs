//! Ways to learn addresses: the local network, the Kademlia DHT, peers of earlier runs; and a port on the router.
//!
//! What is learned here is a *candidate*: somebody may be there. It is believed only when a handshake has proven who
//! answers.

pub(crate) mod candidates;
#[cfg(feature = "dht")]
pub(crate) mod dht;
#[cfg(feature = "lan")]
pub(crate) mod lan;
#[cfg(feature = "port-map")]
pub(crate) mod portmap;
pub(crate) mod remembered;
