//! How each way of finding nodes is doing.

use serde::Serialize;

/// Whether a way of finding nodes is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiscoveryState {
    /// It is not in use.
    #[default]
    Off,
    /// It works, as far as can be told.
    On,
    /// It is wanted, and there is no network for it at present.
    Waiting,
    /// It is wanted and does not work.
    Failing,
}

/// How one way of finding nodes is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiscoveryHealth {
    /// Which: `lan`, `remembered`, …
    pub name: &'static str,
    /// Whether it is in use.
    pub state: DiscoveryState,
    /// Details in words: why it is off or failing, what it uses.
    pub detail: String,
    /// Addresses known from it now that may be dialled.
    pub candidates: usize,
    /// Dials made because of it since the start.
    pub dialled: u64,
    /// Those of the dials at whose end the expected node was.
    pub proven: u64,
}

/// How a node's part in the Kademlia DHT is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DhtHealth {
    /// `dht`.
    pub source: &'static str,
    /// `off`, `starting` (not joined yet), `client` (it asks others) or `server` (it keeps things for others too).
    pub state: &'static str,
    /// Why it is so, in words.
    pub detail: String,
    /// Its UDP port.
    pub port: Option<u16>,
    /// Nodes in its routing table.
    pub nodes: usize,
    /// How many things of this node others keep in it: its capabilities, and what it says of itself.
    pub announced: usize,
    /// How many of them its own server keeps.
    pub kept_here: usize,
    /// When others last took one of them, in seconds ago.
    pub last_announce_s: Option<u64>,
    /// Lookups under way.
    pub lookups: usize,
    /// Lookups that led to somebody.
    pub lookups_found: u64,
    /// Lookups that led to nobody.
    pub lookups_failed: u64,
}

impl DhtHealth {
    /// Of a node that takes part in none.
    pub(crate) fn off(detail: &str) -> Self {
        Self { source: "dht", state: "off", detail: detail.to_owned(), ..Self::default() }
    }
}

/// The DHT among the other ways of finding nodes: its figures stand in [`DhtHealth`] alone. It dials in its lookups, so it
/// has no candidates to be counted.
impl From<&DhtHealth> for DiscoveryHealth {
    fn from(dht: &DhtHealth) -> Self {
        let state = if dht.state == "off" { DiscoveryState::Off } else { DiscoveryState::On };
        Self { name: dht.source, state, detail: dht.detail.clone(), ..Self::default() }
    }
}
