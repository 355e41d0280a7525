//! Events for named nodes alone.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Node, builder, payload};
use crate::error::Error;
use crate::identity::NodeId;
use crate::limits::MAX_EVENT;
use crate::wire::Draft;

/// The most nodes that one event is published to.
const MAX_NODES: usize = 256;

/// How long a way to a node is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of an event for named nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Published {
    /// The event's id.
    pub id: String,
    /// To whom it was sent. Nobody says whether it arrived.
    pub sent: Vec<NodeId>,
    /// To whom it could not be sent, and why.
    pub not_sent: Vec<NotSent>,
}

/// A node to which an event could not be sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NotSent {
    /// Which.
    pub node_id: NodeId,
    /// Why, for people.
    pub why: String,
}

impl Node {
    /// Publishes an event to these nodes alone, each of which hands it to its subscribers and to nobody else: over a
    /// connection, else through a tracker, and then always sealed. For those that are not reached at once a way is looked
    /// for, 10 s at most. At most 64 KiB of JSON, 256 nodes; not acknowledged.
    ///
    /// # Errors
    ///
    /// The type, the data or the list is not valid, or the node is stopped. That somebody is not reached is none.
    pub async fn publish_to(&self, nodes: &[NodeId], event_type: &str, data: Value) -> Result<Published, Error> {
        let shared = self.running()?;
        builder::check_name("an event's type", event_type)?;
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(Error::Invalid(format!("an event is published to 1 to {MAX_NODES} nodes by name")));
        }
        let data = payload::from_value(&data).map_err(|e| Error::Invalid(format!("the data can't be sent: {e}")))?;
        if data.len() > MAX_EVENT {
            return Err(Error::TooLarge { what: "the event's data", size: data.len(), limit: MAX_EVENT });
        }
        let (id, timestamp) = shared.with(|state, now, _| (state.new_id(), now.unix_s()));
        // It goes no further than to whom it is sent.
        let event_type = event_type.to_owned();
        let draft = Draft::Event { id: id.clone(), event_type, data, timestamp, ttl: 1 };
        let mut published = Published { id, sent: Vec::new(), not_sent: Vec::new() };
        let mut ways = JoinSet::new();
        for node in nodes.iter().copied() {
            if shared.with(|state, now, out| state.publish_to(&node, &draft, now, out)).is_ok() {
                published.sent.push(node);
            } else {
                // Whatever makes a call possible makes this possible: its record is asked for, it is connected to.
                let way = self.call("ping", Value::Null).to(node.to_string()).timeout(PATIENCE);
                ways.spawn(async move { (node, way.await) });
            }
        }
        while let Some(way) = ways.join_next().await {
            let Ok((node, ping)) = way else { continue };
            match shared.with(|state, now, out| state.publish_to(&node, &draft, now, out)) {
                Ok(()) => published.sent.push(node),
                Err(why) => {
                    let why = ping.err().map_or_else(|| why.to_owned(), |error| error.message);
                    published.not_sent.push(NotSent { node_id: node, why });
                }
            }
        }
        Ok(published)
    }
}
