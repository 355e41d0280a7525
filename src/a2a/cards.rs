//! Agent cards: what is told of this node, and of the agents of its mesh.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ::a2a::{
    AgentCapabilities, AgentCard, AgentInterface, AgentSkill, HttpAuthSecurityScheme, SecurityScheme,
    TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};

use super::Gateway;
use super::target::{Target, find_node, is_own};
use crate::http::Problem;
use crate::info::{CapabilityInfo, FoundNode};
use crate::wire::CapabilityKind;

/// How long the mesh is asked for somebody who isn't known here.
const ASK: Duration = Duration::from_secs(2);

/// The most skills of a card.
const MAX_SKILLS: usize = 256;

/// The most nodes that a skill's description names.
const MAX_NAMED: usize = 8;

/// The name of the scheme by which one shows the token.
const SCHEME: &str = "token";

/// The media types of what agents take and answer.
const MODES: [&str; 2] = ["application/json", "text/plain"];

/// The card of this node, for everybody: what it offers itself.
pub(super) async fn of_this_node(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Json<AgentCard> {
    Json(own(&gateway, &headers))
}

/// The card of an agent: what this node offers itself for everybody, the rest of the mesh for who has the token.
pub(super) async fn of_an_agent(
    State(gateway): State<Arc<Gateway>>,
    Path(agent): Path<String>,
    headers: HeaderMap,
) -> Result<Json<AgentCard>, Problem> {
    let target = Target::parse(&agent).map_err(Problem::bad_request)?;
    if is_own(&gateway.service.node(), &target).is_none() {
        gateway.guard.check_token(&headers)?;
    }
    let nobody = || {
        let why = format!("nobody in the mesh offers {:?} (and answered within 2 s)", target.to_string());
        Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", why)
    };
    public(&gateway, &target, &headers).await.map(Json).ok_or_else(nobody)
}

fn own(gateway: &Gateway, headers: &HeaderMap) -> AgentCard {
    let node = gateway.service.node();
    let description = format!(
        "The elo node {} and what it offers. Name what is asked for in the message's metadata \"elo.capability\", or send \
         to the agent's own URL, /a2a/CAPABILITY; so is everything else in its mesh.",
        node.name()
    );
    let offered = node.status().capabilities.into_iter().map(|cap| (cap, Vec::new())).collect();
    card(gateway, headers, &Target::default(), node.name(), description, offered)
}

async fn public(gateway: &Gateway, target: &Target, headers: &HeaderMap) -> Option<AgentCard> {
    let node = gateway.service.node();
    let offered = match is_own(&node, target) {
        Some(capabilities) => capabilities.into_iter().map(|cap| (cap, vec![node.name()])).collect(),
        None => found(gateway, target).await?,
    };
    Some(of_target(gateway, headers, target, offered))
}

/// For who has the token: of the node itself with all that is known of its mesh, of an agent with who provides it.
pub(super) async fn extended(gateway: &Gateway, target: &Target, headers: &HeaderMap) -> Option<AgentCard> {
    if *target != Target::default() {
        let offered = found(gateway, target).await?;
        return Some(of_target(gateway, headers, target, offered));
    }
    let node = gateway.service.node();
    let known = node.find("", None).await.unwrap_or_default();
    let description = format!(
        "The elo node {} and what is known of its mesh. Name what is asked for in the message's metadata \
         \"elo.capability\", and the node, if it matters, in \"elo.node\".",
        node.name()
    );
    Some(card(gateway, headers, target, node.name(), description, by_capability(known, None)))
}

fn of_target(gateway: &Gateway, headers: &HeaderMap, target: &Target, offered: Offered) -> AgentCard {
    let name = match (&target.capability, &target.node) {
        (Some(capability), None) => capability.clone(),
        _ => target.to_string(),
    };
    let told = offered.first().and_then(|(cap, _)| description_of(cap)).filter(|_| target.capability.is_some());
    let description = told.unwrap_or_else(|| match &target.node {
        None => format!("{name:?}, provided by agents of an elo mesh: one of them is chosen for each task."),
        Some(node) => format!("What the node {node:?} of an elo mesh provides."),
    });
    card(gateway, headers, target, name, description, offered)
}

/// A capability, and the names of those that provide it.
type Offered = Vec<(CapabilityInfo, Vec<String>)>;

async fn found(gateway: &Gateway, target: &Target) -> Option<Offered> {
    let node = gateway.service.node();
    if let Some(named) = &target.node {
        let found = match find_node(&node, named, None).await {
            Some(found) => found,
            None => find_node(&node, named, Some(ASK)).await?,
        };
        let offered = by_capability(vec![found], target.capability.as_deref());
        return (!offered.is_empty()).then_some(offered);
    }
    let capability = target.capability.as_deref()?;
    for wait in [None, Some(ASK)] {
        let offered = by_capability(node.find(capability, wait).await.ok()?, Some(capability));
        if !offered.is_empty() {
            return Some(offered);
        }
    }
    None
}

fn by_capability(nodes: Vec<FoundNode>, only: Option<&str>) -> Offered {
    let mut offered: BTreeMap<String, (CapabilityInfo, Vec<String>)> = BTreeMap::new();
    for node in nodes {
        for cap in node.capabilities {
            if only.is_some_and(|only| cap.name != only) {
                continue;
            }
            if offered.len() < MAX_SKILLS || offered.contains_key(&cap.name) {
                offered.entry(cap.name.clone()).or_insert_with(|| (cap, Vec::new())).1.push(node.name.clone());
            }
        }
    }
    offered.into_values().collect()
}

fn description_of(cap: &CapabilityInfo) -> Option<String> {
    cap.details.get("description").and_then(|text| text.as_str()).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn skill((cap, nodes): (CapabilityInfo, Vec<String>)) -> AgentSkill {
    let kind = match cap.kind {
        CapabilityKind::Agent => "agent",
        CapabilityKind::Model => "model",
        CapabilityKind::Tool => "tool",
    };
    let named: Vec<&str> = nodes.iter().take(MAX_NAMED).map(String::as_str).collect();
    let more = if nodes.len() > MAX_NAMED { ", …" } else { "" };
    let by = if nodes.is_empty() { String::new() } else { format!("provided by {}{more}", named.join(", ")) };
    let description = match (description_of(&cap), by.as_str()) {
        (Some(told), "") => told,
        (Some(told), by) => format!("{told} ({by})"),
        (None, "") => format!("The {kind} {:?}.", cap.name),
        (None, by) => format!("The {kind} {:?}, {by}.", cap.name),
    };
    AgentSkill {
        id: cap.name.clone(),
        name: cap.name,
        description,
        tags: vec!["elo".to_owned(), kind.to_owned()],
        examples: None,
        input_modes: None,
        output_modes: None,
        security_requirements: None,
    }
}

fn card(
    gateway: &Gateway,
    headers: &HeaderMap,
    target: &Target,
    name: String,
    description: String,
    offered: Offered,
) -> AgentCard {
    let base = format!("{}{}", base_url(gateway, headers), target.path());
    let scheme = SecurityScheme::HttpAuth(HttpAuthSecurityScheme {
        scheme: "Bearer".to_owned(),
        description: Some("The token in http.token in the node's home.".to_owned()),
        bearer_format: None,
    });
    let modes: Vec<String> = MODES.iter().map(|mode| (*mode).to_owned()).collect();
    AgentCard {
        name,
        description,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_interfaces: vec![
            AgentInterface::new(base.as_str(), TRANSPORT_PROTOCOL_JSONRPC),
            AgentInterface::new(format!("{base}/v1"), TRANSPORT_PROTOCOL_HTTP_JSON),
        ],
        capabilities: AgentCapabilities {
            streaming: Some(true),
            push_notifications: Some(true),
            extensions: None,
            extended_agent_card: Some(true),
        },
        default_input_modes: modes.clone(),
        default_output_modes: modes,
        skills: offered.into_iter().take(MAX_SKILLS).map(skill).collect(),
        provider: None,
        documentation_url: None,
        icon_url: None,
        security_schemes: Some(HashMap::from([(SCHEME.to_owned(), scheme)])),
        security_requirements: Some(vec![HashMap::from([(SCHEME.to_owned(), Vec::new())])]),
        signatures: None,
    }
}

/// As whoever asks calls this node: by one of its names, which was looked at before.
fn base_url(gateway: &Gateway, headers: &HeaderMap) -> String {
    let scheme = if gateway.base_url.starts_with("https://") { "https" } else { "http" };
    match headers.get(HOST).and_then(|host| host.to_str().ok()) {
        Some(host) => format!("{scheme}://{host}"),
        None => gateway.base_url.clone(),
    }
}
