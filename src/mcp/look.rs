//! Tools that look: who is there, and how this node is.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::server::{Session, raw};
use super::tools::{FindAgents, Nothing};
use crate::control::{FindArgs, NoArgs, op};

/// How long the mesh is asked, in milliseconds.
const ASK_MS: u64 = 2000;

/// The most nodes in one answer: what a model can read.
const MAX_NODES: usize = 100;

/// Of a node or peer, what a model can use.
const TOLD: &[&str] =
    &["name", "node_id", "found", "connected", "capabilities", "rtt_ms", "way", "via_name", "in_flight"];

pub(super) async fn find_agents(session: &Session, args: FindAgents) -> Result<Box<RawValue>, Refusal> {
    raw(&agents(session, args.capability.unwrap_or_default()).await?)
}

/// Who provides a capability; everybody, without one.
pub(super) async fn agents(session: &Session, capability: String) -> Result<Value, Refusal> {
    let nodes = session.link.list(op::FIND, &FindArgs { capability: capability.clone(), wait_ms: ASK_MS }).await?;
    let more = nodes.len().saturating_sub(MAX_NODES);
    let agents: Vec<Value> = nodes.into_iter().take(MAX_NODES).map(told).collect();
    let mut answer = Map::new();
    if agents.is_empty() {
        let note =
            format!("Nobody who is reached now offers {capability:?}. Leave capability out to see what is offered.");
        answer.insert("note".to_owned(), note.into());
    } else if more > 0 {
        answer.insert("note".to_owned(), format!("{more} more are left out: name a capability.").into());
    }
    answer.insert("agents".to_owned(), agents.into());
    Ok(Value::Object(answer))
}

fn told(node: Value) -> Value {
    let Value::Object(members) = node else { return node };
    Value::Object(
        members.into_iter().filter(|(name, value)| TOLD.contains(&name.as_str()) && !value.is_null()).collect(),
    )
}

pub(super) async fn peers(session: &Session, _args: Nothing) -> Result<Box<RawValue>, Refusal> {
    raw(&connected(session).await?)
}

/// Who is connected, and who is to be.
pub(super) async fn connected(session: &Session) -> Result<Value, Refusal> {
    let peers = session.link.list(op::PEERS, &NoArgs {}).await?;
    let more = peers.len().saturating_sub(MAX_NODES);
    let mut answer = json!({ "peers": peers.into_iter().take(MAX_NODES).collect::<Vec<_>>() });
    if more > 0 {
        answer["note"] = format!("{more} more are left out").into();
    }
    Ok(answer)
}

pub(super) async fn status(session: &Session, _args: Nothing) -> Result<Box<RawValue>, Refusal> {
    let status = session.link.answer(op::STATUS, &NoArgs {}).await?;
    let offers = session.link.answer(op::OFFERS, &NoArgs {}).await?;
    let mut status: Map<String, Value> = serde_json::from_str(status.get()).map_err(Refusal::unreadable)?;
    let offers: Map<String, Value> = serde_json::from_str(offers.get()).map_err(Refusal::unreadable)?;
    status.extend(offers);
    raw(&status)
}

/// The capability that a node offers, when it is one only.
pub(super) async fn only_capability(session: &Session, node: &str) -> Result<String, Refusal> {
    let nodes = session.link.list(op::FIND, &FindArgs { capability: String::new(), wait_ms: ASK_MS }).await?;
    let is_it = |found: &Value| {
        found["name"] == node || found["node_id"].as_str().is_some_and(|id| !node.is_empty() && id.starts_with(node))
    };
    let found: Vec<&Value> = nodes.iter().filter(|found| is_it(found)).collect();
    let [found] = found[..] else {
        let how_many = found.len();
        return Err(Refusal::new("NO_PEER", format!("{how_many} nodes that are reached now go by {node:?}, not one")));
    };
    let offered: Vec<&str> =
        found["capabilities"].as_array().into_iter().flatten().filter_map(|cap| cap["name"].as_str()).collect();
    match offered[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(Refusal::new("UNKNOWN_CAPABILITY", format!("{node:?} offers nothing"))),
        _ => Err(Refusal::bad_request(format!("{node:?} offers {}: say which in capability", offered.join(", ")))),
    }
}
