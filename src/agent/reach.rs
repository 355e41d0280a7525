//! How the agent behind each capability is reached, as this node observed it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The name of the member of a capability's details that tells it to others.
pub(crate) const DETAIL: &str = "reach";

/// Most characters of a note that goes out with the record.
const MAX_NOTE: usize = 120;

/// What leads to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A handler in the node's own process.
    Process,
    /// A program that is run for each task.
    Exec,
    /// A URL that tasks are posted to.
    Webhook,
    /// An agent that comes for its tasks.
    Poll,
    /// An agent that speaks A2A.
    A2a,
    /// Nothing: whoever worked on it is away.
    Nobody,
}

impl By {
    /// As it stands on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Exec => "exec",
            Self::Webhook => "webhook",
            Self::Poll => "poll",
            Self::A2a => "a2a",
            Self::Nobody => "nobody",
        }
    }
}

/// How an agent is reached, and when that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// What leads to it.
    pub(crate) by: By,
    /// Whether that worked when it was last tried; `None`: it was not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<bool>,
    /// When that was, in UNIX seconds by the observing node's clock.
    pub(crate) at: u64,
    /// What is to be said of it: why it did not work.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

impl Reach {
    /// As seen now.
    pub(crate) fn now(by: By, ok: Option<bool>, note: &str) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { by, ok, at, note: note.chars().take(MAX_NOTE).collect() }
    }

    /// What others are told of it. Why it failed is its owner's business.
    pub(crate) fn told(&self) -> serde_json::Value {
        serde_json::json!({ "by": self.by, "ok": self.ok, "at": self.at })
    }

    /// Whether it says the same as another, whenever that was seen.
    pub(crate) fn says(&self, other: &Self) -> bool {
        (self.by, self.ok, &self.note) == (other.by, other.ok, &other.note)
    }
}

/// Asks an agent for a sign of life. The error says why there was none.
pub(crate) type Probe = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

#[derive(Default)]
struct Known {
    seen: BTreeMap<String, Reach>,
    probes: BTreeMap<String, Probe>,
}

/// How each is reached, by capability. No more are kept than a node has capabilities.
#[derive(Default)]
pub(crate) struct Reaches(Mutex<Known>);

impl fmt::Debug for Reaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reaches").field(&self.all()).finish()
    }
}

impl Reaches {
    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It was seen so, now.
    pub(crate) fn observed(&self, capability: &str, by: By, ok: Option<bool>, note: &str) {
        let reach = Reach::now(by, ok, note);
        self.with(|known| {
            if known.seen.len() < crate::limits::MAX_CAPS || known.seen.contains_key(capability) {
                known.seen.insert(capability.to_owned(), reach);
            }
        });
    }

    /// How an agent can be asked for a sign of life.
    pub(crate) fn probe_with(&self, capability: &str, probe: Probe) {
        self.with(|known| {
            if known.probes.len() < crate::limits::MAX_CAPS || known.probes.contains_key(capability) {
                known.probes.insert(capability.to_owned(), probe);
            }
        });
    }

    /// It is provided no longer.
    pub(crate) fn forget(&self, capability: &str) {
        self.with(|known| {
            known.seen.remove(capability);
            known.probes.remove(capability);
        });
    }

    /// How the agent behind a capability is reached.
    pub(crate) fn of(&self, capability: &str) -> Option<Reach> {
        self.with(|known| known.seen.get(capability).cloned())
    }

    /// What asks it for a sign of life.
    pub(crate) fn probe_of(&self, capability: &str) -> Option<Probe> {
        self.with(|known| known.probes.get(capability).cloned())
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(String, Reach)> {
        self.with(|known| known.seen.iter().map(|(name, reach)| (name.clone(), reach.clone())).collect())
    }
}
