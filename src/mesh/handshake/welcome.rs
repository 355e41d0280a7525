//! The end of the handshake: the listener lets the dialer in.

use std::net::SocketAddr;

use super::{Refusal, expect};
use crate::identity::NodeId;
use crate::limits::{MAX_RECORD_BYTES_PER_MESSAGE, MAX_RECORDS_PER_MESSAGE};
use crate::wire::{Builder, Object, Record, TrackerRole, check_records};

/// What a listener tells a dialer it lets in.
#[derive(Clone, Debug, Default)]
pub struct Welcome {
    /// The dialer's address as the listener sees it.
    pub observed: Option<SocketAddr>,
    /// Whether the listener is a tracker.
    pub tracker: TrackerRole,
    /// Other nodes. Their signatures are checked; forged ones were left out.
    pub peers: Vec<Record>,
}

/// Reads a `welcome` that came on a connection to `from`.
///
/// # Errors
///
/// When it is something else: a `bye`, malformed, or of another node.
pub fn read_welcome(object: &Object, from: &NodeId) -> Result<Welcome, Refusal> {
    let fields = expect(object, "welcome")?;
    if fields.opt_node("node_id")?.is_some_and(|node| node != *from) {
        return Err(fields.malformed("node_id: another than in the hello_ack").into());
    }
    let observed = match fields.opt_text("observed")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| fields.malformed("observed: expected ip:port"))?),
    };
    let tracker = fields.tracker()?;
    let peers = fields.children("peers")?;
    if peers.len() > MAX_RECORDS_PER_MESSAGE {
        return Err(fields.malformed(format!("peers: at most {MAX_RECORDS_PER_MESSAGE} records")).into());
    }
    // Only names what another said of itself: a record that isn't signed by its subject is nothing.
    Ok(Welcome { observed, tracker, peers: check_records(&peers) })
}

/// Lets a dialer in. Of `peers` as many are named as a message may hold.
pub fn welcome<'a>(
    me: &NodeId,
    observed: SocketAddr,
    tracker: TrackerRole,
    peers: impl Iterator<Item = &'a Object>,
) -> Object {
    let mut bytes = 0;
    let peers = peers.take(MAX_RECORDS_PER_MESSAGE).take_while(|record| {
        bytes += record.raw().len();
        bytes <= MAX_RECORD_BYTES_PER_MESSAGE
    });
    Builder::new("welcome")
        .str("node_id", &me.to_string())
        .str("observed", &observed.to_string())
        .objects("peers", peers)
        .tracker(tracker)
        .build()
}
