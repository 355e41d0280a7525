//! What an outside agent tells of itself, as far as it is used here.

use ::a2a::{AgentCard, AgentSkill, TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC};
use reqwest::Url;

use crate::limits::BUILT_IN;
use crate::wire::is_name;

/// The most skills that are taken.
const MAX_SKILLS: usize = 32;

/// Most characters of a description: all of them share a record of 8 KiB.
const MAX_DESCRIPTION: usize = 120;

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// JSON-RPC.
    Rpc,
    /// HTTP+JSON.
    Rest,
}

/// Something that an agent can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skill {
    /// The name of the capability.
    pub(super) name: String,
    pub(super) description: String,
}

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) binding: Binding,
    pub(super) streaming: bool,
    pub(super) skills: Vec<Skill>,
    /// What is left out, and why.
    pub(super) left_out: Vec<String>,
}

impl About {
    /// Reads a card that was found at a URL. The error says what is missing.
    pub(super) fn read(card: &AgentCard, found_at: &Url) -> Result<Self, String> {
        let (url, binding) = interface(card, found_at)?;
        let mut left_out = Vec::new();
        let mut skills: Vec<Skill> = Vec::new();
        for skill in &card.skills {
            match name_of(skill) {
                None => left_out
                    .push(format!("{:?}: neither its id nor its name can be a capability's name", short(&skill.id))),
                Some(name) if skills.iter().any(|known| known.name == name) => {
                    left_out.push(format!("{name:?}: there are two of that name"));
                }
                Some(name) if skills.len() < MAX_SKILLS => {
                    let told = if skill.description.is_empty() { &card.description } else { &skill.description };
                    skills.push(Skill { name, description: described(told) });
                }
                Some(name) => left_out.push(format!("{name:?}: an agent may have {MAX_SKILLS} skills")),
            }
            if left_out.len() > MAX_SKILLS {
                break;
            }
        }
        if skills.is_empty() && card.skills.is_empty() {
            // One that names no skills is one skill.
            let name =
                usable(&card.name).ok_or("its card names no skills, and its own name can't be a capability's")?;
            skills.push(Skill { name, description: described(&card.description) });
        }
        if skills.is_empty() {
            return Err(format!("none of its skills can be a capability: {}", left_out.join("; ")));
        }
        let streaming = card.capabilities.streaming.unwrap_or(false);
        Ok(Self { name: short(&card.name), url, binding, streaming, skills, left_out })
    }
}

/// The first interface that is spoken here. It has to be on the host that the agent was looked for at: a card can't send
/// tasks, or the token, elsewhere.
fn interface(card: &AgentCard, found_at: &Url) -> Result<(Url, Binding), String> {
    let mut why = "its card names no interface".to_owned();
    for interface in &card.supported_interfaces {
        let binding = match interface.protocol_binding.to_ascii_uppercase().as_str() {
            TRANSPORT_PROTOCOL_JSONRPC => Binding::Rpc,
            TRANSPORT_PROTOCOL_HTTP_JSON => Binding::Rest,
            other => {
                why = format!("it speaks {}: JSONRPC and HTTP+JSON are spoken here", short(other));
                continue;
            }
        };
        if interface.protocol_version.split('.').next() != Some("1") {
            why = format!("it speaks version {}: 1.0 is spoken here", short(&interface.protocol_version));
            continue;
        }
        let Ok(url) = Url::parse(&interface.url) else {
            why = format!("the URL of its interface can't be read: {:?}", short(&interface.url));
            continue;
        };
        let same = url.host_str() == found_at.host_str() && url.scheme() == found_at.scheme();
        if !same || !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            why = format!(
                "its interface is at {:?}, which is not on {}://{}: say --a2a-agent with that host, if it is meant",
                short(&interface.url),
                found_at.scheme(),
                found_at.host_str().unwrap_or_default()
            );
            continue;
        }
        return Ok((url, binding));
    }
    Err(why)
}

fn name_of(skill: &AgentSkill) -> Option<String> {
    usable(&skill.id).or_else(|| usable(&skill.name))
}

fn usable(text: &str) -> Option<String> {
    let text = text.trim();
    (is_name(text) && !BUILT_IN.contains(&text) && !text.ends_with('*')).then(|| text.to_owned())
}

/// The beginning of a text, fit to be shown.
pub(super) fn short(text: &str) -> String {
    cut(text, 80)
}

fn described(text: &str) -> String {
    cut(text, MAX_DESCRIPTION)
}

pub(super) fn cut(text: &str, most: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ");
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(change: impl FnOnce(&mut Value)) -> Result<About, String> {
        let mut card = json!({
            "name": "Adder", "description": "adds", "version": "1",
            "supportedInterfaces": [
                {"url": "127.0.0.1:1", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
                {"url": "http://127.0.0.1:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            ],
            "capabilities": {"streaming": true},
            "skills": [{"id": "add", "name": "Add", "description": "adds\n two", "tags": []}],
        });
        change(&mut card);
        About::read(&serde_json::from_value(card).unwrap(), &Url::parse("http://127.0.0.1:8/x").unwrap())
    }

    #[test]
    fn skills_become_capabilities() {
        let about = read(|_| {}).unwrap();
        assert_eq!(about.url.as_str(), "http://127.0.0.1:9/rpc");
        assert_eq!((about.binding, about.streaming), (Binding::Rpc, true));
        assert_eq!(about.skills, [Skill { name: "add".to_owned(), description: "adds two".to_owned() }]);

        let about = read(|card| card["skills"] = json!([])).unwrap();
        assert_eq!(about.skills[0].name, "Adder");

        let skill = |id: &str, name: &str| json!({"id": id, "name": name, "description": "", "tags": []});
        let about = read(|card| {
            card["skills"] =
                json!([skill("a", ""), skill("a", ""), skill("\u{7}", "named"), skill("ping", ""), skill("x*", ""),]);
        });
        let about = about.unwrap();
        let names: Vec<&str> = about.skills.iter().map(|skill| skill.name.as_str()).collect();
        assert_eq!(names, ["a", "named"]);
        assert_eq!(about.left_out.len(), 3, "{:?}", about.left_out);
        let about = read(|card| {
            card["skills"] = (0..1000).map(|n| skill(&format!("s{n}"), "")).collect();
        });
        assert_eq!(about.unwrap().skills.len(), MAX_SKILLS);
    }

    #[test]
    fn a_card_leads_nowhere_else() {
        for (binding, version, url, why) in [
            ("GRPC", "1.0", "http://127.0.0.1:9/", "GRPC"),
            ("JSONRPC", "0.3.0", "http://127.0.0.1:9/", "0.3.0"),
            ("JSONRPC", "1.0", "http://10.0.0.1/", "is not on"),
            ("JSONRPC", "1.0", "https://127.0.0.1:9/", "is not on"),
            ("JSONRPC", "1.0", "http://u:p@127.0.0.1:9/", "is not on"),
            ("JSONRPC", "1.0", "file:///etc/passwd", "is not on"),
            ("JSONRPC", "1.0", "nonsense", "can't be read"),
        ] {
            let refused = read(|card| {
                card["supportedInterfaces"] =
                    json!([{"url": url, "protocolBinding": binding, "protocolVersion": version}]);
            });
            let refused = refused.unwrap_err();
            assert!(refused.contains(why), "{url}: {refused}");
        }
        assert!(read(|card| card["supportedInterfaces"] = json!([])).is_err());
        let rest = read(|card| {
            card["supportedInterfaces"] =
                json!([{"url": "http://127.0.0.1:9/v1", "protocolBinding": "http+json", "protocolVersion": "1.1"}]);
        });
        assert_eq!(rest.unwrap().binding, Binding::Rest);
    }
}
