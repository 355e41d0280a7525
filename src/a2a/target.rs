//! Whom a path or a message names.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use ::a2a::A2AError;
use serde_json::Value;

use super::{CAPABILITY, NODE, TIMEOUT, WAIT};
use crate::info::{CapabilityInfo, FoundNode};
use crate::limits::MAX_TTL_S;
use crate::node::Node;
use crate::wire::is_name;

/// How long an answer may take if the message doesn't say. A2A has no deadlines; clients wait for minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The shortest beginning of an id that names a node.
const MIN_PREFIX: usize = 4;

/// An agent as a path names it: `CAPABILITY`, `CAPABILITY@NODE`, `@NODE`; nothing: this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) capability: Option<String>,
    pub(super) node: Option<String>,
}

impl Target {
    /// Reads it. A capability that has an `@` in its name is written with one more at its end.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (capability, node) = text.rsplit_once('@').unwrap_or((text, ""));
        let part = |text: &str| -> Result<Option<String>, String> {
            match text {
                "" => Ok(None),
                text if is_name(text) => Ok(Some(text.to_owned())),
                _ => Err("names have 1 to 128 characters, and no control characters".to_owned()),
            }
        };
        let target = Self { capability: part(capability)?, node: part(node)? };
        match target {
            Self { capability: None, node: None } => {
                Err("an agent is named: CAPABILITY, CAPABILITY@NODE or @NODE".to_owned())
            }
            target => Ok(target),
        }
    }

    /// The path below the base URL.
    pub(super) fn path(&self) -> String {
        if *self == Self::default() { "/a2a".to_owned() } else { format!("/a2a/{}", escaped(&self.to_string())) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capability = self.capability.as_deref().unwrap_or_default();
        match &self.node {
            Some(node) => write!(f, "{capability}@{node}"),
            None if capability.contains('@') => write!(f, "{capability}@"),
            None => f.write_str(capability),
        }
    }
}

/// A path's segment: all but the characters that stand for themselves everywhere is escaped.
fn escaped(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// What is asked for, of whom, and for how long.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) capability: String,
    pub(super) node: Option<String>,
    pub(super) timeout: Duration,
    pub(super) wait: Duration,
}

type Metadata<'a> = Option<&'a HashMap<String, Value>>;

/// What a message to an agent asks for. The path comes first, then the metadata of the message, then that of the request; a
/// node with one capability needs none of it.
pub(super) async fn asked(
    node: &Node,
    target: &Target,
    message: Metadata<'_>,
    request: Metadata<'_>,
) -> Result<Asked, A2AError> {
    let given = |name: &str| message.and_then(|m| m.get(name)).or_else(|| request.and_then(|m| m.get(name)));
    let text = |name: &str| match given(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if is_name(text) => Ok(Some(text.clone())),
        Some(_) => Err(A2AError::invalid_params(format!("metadata {name:?} is a name: 1 to 128 characters"))),
    };
    let seconds = |name: &str, default: Duration| match given(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..=MAX_TTL_S as f64).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(A2AError::invalid_params(format!("metadata {name:?} is a number of seconds: 0 to {MAX_TTL_S}"))),
        },
    };
    let timeout = seconds(TIMEOUT, DEFAULT_TIMEOUT)?;
    let wait = seconds(WAIT, Duration::ZERO)?;
    let at = match &target.node {
        Some(node) => Some(node.clone()),
        None => text(NODE)?,
    };
    let capability = match &target.capability {
        Some(capability) => capability.clone(),
        None => match text(CAPABILITY)? {
            Some(capability) => capability,
            None => only_one(node, at.as_deref()).await?,
        },
    };
    Ok(Asked { capability, node: at, timeout, wait })
}

/// The capability of a node that has one.
async fn only_one(node: &Node, at: Option<&str>) -> Result<String, A2AError> {
    let capabilities = match at {
        None => node.status().capabilities,
        Some(at) => match find_node(node, at, None).await {
            Some(found) => found.capabilities,
            None => return Err(A2AError::invalid_params(format!("no node {at:?} is known here"))),
        },
    };
    match capabilities.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(A2AError::invalid_params(format!(
            "this node offers nothing itself: send to an agent's own URL (/a2a/CAPABILITY), or name what is asked for in \
             the message's metadata {CAPABILITY:?}"
        ))),
        several => {
            let names: Vec<&str> = several.iter().take(16).map(|cap| cap.name.as_str()).collect();
            Err(A2AError::invalid_params(format!(
                "this node offers several ({}): send to an agent's own URL (/a2a/CAPABILITY), or name what is asked for \
                 in the message's metadata {CAPABILITY:?}",
                names.join(", ")
            )))
        }
    }
}

/// A node by its id, the beginning of its id, or its name.
pub(super) async fn find_node(node: &Node, named: &str, wait: Option<Duration>) -> Option<FoundNode> {
    let found = node.find("", wait).await.ok()?;
    let is_it = |found: &FoundNode| {
        found.name == named || (named.len() >= MIN_PREFIX && found.node_id.to_string().starts_with(named))
    };
    let mut those: Vec<FoundNode> = found.into_iter().filter(is_it).collect();
    // Of several with that name nobody can say which is meant.
    if those.len() == 1 { those.pop() } else { None }
}

/// Whether this node itself offers what is named, and nothing else is named.
pub(super) fn is_own(node: &Node, target: &Target) -> Option<Vec<CapabilityInfo>> {
    let own = match &target.node {
        None => true,
        Some(at) => *at == node.name() || (at.len() >= MIN_PREFIX && node.id().to_string().starts_with(at.as_str())),
    };
    if !own {
        return None;
    }
    let mut capabilities = node.status().capabilities;
    if let Some(capability) = &target.capability {
        capabilities.retain(|cap| cap.name == *capability);
    }
    (!capabilities.is_empty() || target.capability.is_none()).then_some(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_capability_a_node_or_both() {
        let parsed = |text: &str| {
            let target = Target::parse(text).unwrap();
            (target.capability.unwrap_or_default(), target.node.unwrap_or_default())
        };
        for (text, capability, node) in [
            ("sum", "sum", ""),
            ("sum@box", "sum", "box"),
            ("@box", "", "box"),
            ("a@b@", "a@b", ""),
            ("a@b@c", "a@b", "c"),
            ("übung 1/2", "übung 1/2", ""),
        ] {
            assert_eq!(parsed(text), (capability.to_owned(), node.to_owned()), "{text}");
            let target = Target::parse(text).unwrap();
            assert_eq!(Target::parse(&target.to_string()).unwrap(), target, "{text}");
        }
        for wrong in ["", "@", "a\nb", &"x".repeat(129)] {
            assert!(Target::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Target::parse("a b/ü").unwrap().path(), "/a2a/a%20b%2F%C3%BC");
        assert_eq!(Target::default().path(), "/a2a");
    }
}
