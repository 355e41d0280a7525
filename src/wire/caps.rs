//! What a node provides: agents, models and tools, each with a name and details.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits::{MAX_CAPS, MAX_NAME};

/// The kind of a capability. A capability is found by its name, whatever its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapabilityKind {
    /// Somebody that works on tasks.
    Agent,
    /// A model that can be asked.
    Model,
    /// A tool that can be used.
    Tool,
}

/// One thing a node provides.
#[derive(Clone, Debug, PartialEq)]
pub struct Capability {
    /// Its kind.
    pub kind: CapabilityKind,
    /// The name it is found by: 1 to 128 characters without control characters.
    pub name: String,
    /// Whatever else is said of it: a description, a version, a context size.
    pub details: Map<String, Value>,
}

impl Capability {
    /// A capability of this kind and name, without details.
    pub fn new(kind: CapabilityKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), details: Map::new() }
    }

    /// An agent.
    pub fn agent(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Agent, name)
    }

    /// A model.
    pub fn model(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Model, name)
    }

    /// A tool.
    pub fn tool(name: impl Into<String>) -> Self {
        Self::new(CapabilityKind::Tool, name)
    }

    /// Says one thing more of it. The member `name` is its name and can't be a detail.
    pub fn detail(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let key = key.into();
        if key != "name" {
            self.details.insert(key, value.into());
        }
        self
    }
}

/// Everything a node provides, in the order of the wire: agents, models, tools, each by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caps {
    /// Sorted, each once. A table keeps thousands of these with one or two entries: a tree's node would be ten times larger.
    entries: Vec<((CapabilityKind, String), Map<String, Value>)>,
}

impl Caps {
    /// What it holds beside itself, in bytes: for those without details.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        let names: usize = self.entries.iter().map(|((_, name), _)| name.capacity()).sum();
        self.entries.capacity() * size_of::<((CapabilityKind, String), Map<String, Value>)>() + names
    }

    fn place(&self, kind: CapabilityKind, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|((k, n), _)| (*k, n.as_str()).cmp(&(kind, name)))
    }

    /// Adds or replaces one; `false` when there is no room for another or its name is not valid.
    pub fn insert(&mut self, cap: Capability) -> bool {
        let place = self.place(cap.kind, &cap.name);
        let room = self.entries.len() < MAX_CAPS || place.is_ok();
        if !room || !is_name(&cap.name) {
            return false;
        }
        match place {
            Ok(at) => self.entries[at].1 = cap.details,
            Err(at) => self.entries.insert(at, ((cap.kind, cap.name), cap.details)),
        }
        true
    }

    /// Removes every capability of that name; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|((_, n), _)| n != name);
        self.entries.len() != before
    }

    /// Whether one of that name is here, of any kind.
    pub fn provides(&self, name: &str) -> bool {
        use CapabilityKind::{Agent, Model, Tool};
        [Agent, Model, Tool].into_iter().any(|kind| self.place(kind, name).is_ok())
    }

    /// Their names and kinds alone.
    pub fn without_details(&self) -> Self {
        Self { entries: self.entries.iter().map(|(key, _)| (key.clone(), Map::new())).collect() }
    }

    /// Whether a pattern covers the name of one of them; see [`matches_pattern`].
    pub fn matches(&self, pattern: &str) -> bool {
        use CapabilityKind::{Agent, Model, Tool};
        let Some(prefix) = pattern.strip_suffix('*') else { return self.provides(pattern) };
        // The first name from the prefix on begins with it, or none does.
        let first = |kind| self.entries.get(self.place(kind, prefix).unwrap_or_else(|at| at));
        [Agent, Model, Tool]
            .into_iter()
            .any(|kind| first(kind).is_some_and(|((k, name), _)| *k == kind && name.starts_with(prefix)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.entries.iter().map(|((kind, name), details)| Capability {
            kind: *kind,
            name: name.clone(),
            details: details.clone(),
        })
    }

    /// Their names, each once per kind.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.entries.iter().map(|((_, name), _)| name.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The wire form: `{"agents":[{"name":..}],"models":[..],"tools":[..]}`.
    pub fn to_value(&self) -> Value {
        let list = |kind: CapabilityKind| -> Value {
            let of_kind = self.entries.iter().filter(|((k, _), _)| *k == kind);
            of_kind
                .map(|((_, name), details)| {
                    let mut entry = details.clone();
                    entry.insert("name".to_owned(), Value::from(name.as_str()));
                    Value::Object(entry)
                })
                .collect()
        };
        serde_json::json!({
            "agents": list(CapabilityKind::Agent),
            "models": list(CapabilityKind::Model),
            "tools": list(CapabilityKind::Tool),
        })
    }

    /// Reads the wire form. Unknown groups are passed over; anything else of the wrong type is an error in words.
    pub fn from_value(value: &Value) -> Result<Self, &'static str> {
        let groups = value.as_object().ok_or("caps is not an object")?;
        let mut caps = Self::default();
        for (group, kind) in
            [("agents", CapabilityKind::Agent), ("models", CapabilityKind::Model), ("tools", CapabilityKind::Tool)]
        {
            let Some(list) = groups.get(group) else { continue };
            for entry in list.as_array().ok_or("a group of caps is not a list")? {
                let mut details = entry.as_object().ok_or("a capability is not an object")?.clone();
                let Some(Value::String(name)) = details.remove("name") else {
                    return Err("a capability has no name");
                };
                if !is_name(&name) {
                    return Err("a capability's name is empty, too long or has control characters");
                }
                if !caps.insert(Capability { kind, name, details }) {
                    return Err("too many capabilities");
                }
            }
        }
        caps.entries.shrink_to_fit();
        Ok(caps)
    }
}

/// Whether a text may be a capability, an interest, an event type or a node's name.
pub fn is_name(text: &str) -> bool {
    if text.is_ascii() {
        // A character is a byte then.
        return (1..=MAX_NAME).contains(&text.len()) && !text.bytes().any(|byte| byte.is_ascii_control());
    }
    !text.is_empty() && text.chars().count() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// Whether a pattern covers a name: the same text, or a pattern that ends in `*` and begins as the name does.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}
