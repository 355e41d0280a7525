//! What a client can read without a tool: peers, agents, recent events.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};

use super::look;
use super::refusal::Refusal;
use super::server::Session;
use crate::control::{RecentEventsArgs, op};

const JSON: &str = "application/json";
const PEERS: &str = "elo://peers";
const AGENTS: &str = "elo://agents";
const RECENT: &str = "elo://events/recent";

/// Where one agent is.
const AGENT: &str = "elo://agents/";

/// The most events that are read at once.
const MAX_EVENTS: usize = 100;

/// All of them.
pub(super) fn all() -> Vec<Resource> {
    let resource = |uri: &str, name: &str, title: &str, description: &str| {
        Resource::new(uri, name).with_title(title).with_description(description).with_mime_type(JSON)
    };
    vec![
        resource(PEERS, "peers", "Connected peers", "The nodes that this one is connected to."),
        resource(
            AGENTS,
            "agents",
            "Known agents",
            "Everybody in the mesh who is known or answers, and what each offers.",
        ),
        resource(
            RECENT,
            "recent-events",
            "Recent events",
            "The latest events of the patterns that somebody listens to here, the newest first.",
        ),
    ]
}

/// Those that are many.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("elo://agents/{node}", "agent")
            .with_title("One agent")
            .with_description(
                "A node by its name, its id, or the beginning of its id: what it offers, and how it is reached.",
            )
            .with_mime_type(JSON),
    ]
}

/// Reads one.
pub(super) async fn read(session: &Session, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let content = match uri {
        PEERS => look::connected(session).await,
        AGENTS => look::agents(session, String::new()).await,
        RECENT => recent(session).await,
        _ => match uri.strip_prefix(AGENT).and_then(decoded) {
            Some(node) => {
                let found = agent(session, &node).await.map_err(refused)?;
                Ok(found.ok_or_else(|| no_such(uri, "nobody who is reached now goes by that name or id"))?)
            }
            None => {
                return Err(no_such(
                    uri,
                    "there are elo://peers, elo://agents, elo://agents/NODE and elo://events/recent",
                ));
            }
        },
    };
    let text = content.map_err(refused)?.to_string();
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(JSON)]))
}

fn no_such(uri: &str, message: &str) -> ErrorData {
    ErrorData::resource_not_found(format!("nothing is at {uri:?}: {message}"), None)
}

fn refused(refusal: Refusal) -> ErrorData {
    let result = refusal.into_result();
    let told = result.structured_content.unwrap_or_default();
    let text = |member: &str| told[member].as_str().unwrap_or_default().to_owned();
    let message = format!("{}: {} {}", text("code"), text("message"), text("next"));
    ErrorData::internal_error(message.trim_end().to_owned(), Some(told))
}

async fn recent(session: &Session) -> Result<Value, Refusal> {
    let events = session.link.list(op::RECENT_EVENTS, &RecentEventsArgs { most: MAX_EVENTS }).await?;
    Ok(json!({ "events": events }))
}

async fn agent(session: &Session, node: &str) -> Result<Option<Value>, Refusal> {
    let found = look::agents(session, String::new()).await?;
    let is_it = |found: &&Value| {
        found["name"] == node || found["node_id"].as_str().is_some_and(|id| !node.is_empty() && id.starts_with(node))
    };
    Ok(found["agents"].as_array().and_then(|agents| agents.iter().find(is_it)).cloned())
}

/// A part of a URI as it was before it was escaped.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read() {
        assert_eq!(decoded("my%20b%C3%B6x").as_deref(), Some("my böx"));
        for wrong in ["", "%", "%4", "%zz", "%ff", "%é0"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
