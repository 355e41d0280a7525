//! Looking for nodes: what is known here, what the mesh answers, what the DHT names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::driver::{Shared, lock};
use super::{Node, builder};
use crate::error::{Attempt, Error};
use crate::identity::NodeId;
use crate::info::FoundNode;
use crate::mesh::Purpose;

/// The longest search.
const LONGEST: Duration = Duration::from_secs(30);

/// How many answers may wait to be taken.
const ANSWERS: usize = 256;

/// The most steps that are told of: a person reads them.
const MAX_STEPS: usize = 128;

/// News of a search.
#[derive(Debug)]
pub(crate) enum SearchNews {
    /// Somebody was found.
    Node(Box<FoundNode>),
    /// What came of asking the DHT.
    Dht(String),
}

/// What a search found, and how.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Search {
    /// Who was found, this node first, then by name.
    pub nodes: Vec<FoundNode>,
    /// Each step, in the order in which they ended, with the time since the search began.
    pub tried: Vec<Attempt>,
}

struct Steps {
    began: Instant,
    tried: Vec<Attempt>,
}

impl Steps {
    fn add(&mut self, step: &'static str, node: Option<NodeId>, result: String) {
        if self.tried.len() < MAX_STEPS {
            self.tried.push(Attempt { step, node, result, at: self.began.elapsed() });
        }
    }
}

impl Node {
    /// Who provides a capability (`""`: everybody): what is known here, this node included, and who answers a query of
    /// the mesh, or is named by the DHT where the node takes part in one, within `wait` (at most 30 s). `None`: only
    /// what is known here.
    ///
    /// # Errors
    ///
    /// The name is not valid, or the node is stopped.
    pub async fn find(&self, capability: &str, wait: Option<Duration>) -> Result<Vec<FoundNode>, Error> {
        Ok(self.search(capability, wait).await?.nodes)
    }

    /// The same as [`find`](Self::find), with each step and when it was done.
    ///
    /// # Errors
    ///
    /// The name is not valid, or the node is stopped.
    pub async fn search(&self, capability: &str, wait: Option<Duration>) -> Result<Search, Error> {
        let shared = self.running()?;
        if !capability.is_empty() {
            builder::check_name("a capability", capability)?;
        }
        let mut steps = Steps { began: Instant::now(), tried: Vec::new() };
        let mut found: BTreeMap<NodeId, FoundNode> = BTreeMap::new();
        let known = shared.read(|state, now| state.known(capability, now));
        steps.add("table", None, nodes(known.len(), "known here"));
        if let Some(wait) = wait {
            let (sender, mut news) = mpsc::channel(ANSWERS);
            let (query, peers, dht) = shared.with(|state, now, out| {
                let id = state.new_id();
                lock(&shared.finds).insert(id.clone(), sender);
                let until = now.mono + wait.min(LONGEST);
                let peers = state.view().peers;
                state.ask_mesh(id.clone(), Purpose::Find, capability, "", 64, until, now, out);
                let dht = state.find_in_dht(&id, capability, now, out);
                (id, peers, dht)
            });
            let _guard = FindGuard { shared: Arc::clone(shared), query };
            match peers {
                0 => steps.add("flood", None, "no peer is connected".to_owned()),
                1 => steps.add("flood", None, "1 peer is asked".to_owned()),
                n => steps.add("flood", None, format!("{n} peers are asked")),
            }
            steps.add("dht", None, if dht { "asked" } else { "not asked" }.to_owned());
            loop {
                let next = tokio::select! {
                    biased;
                    next = news.recv() => next,
                    () = shared.stop.cancelled() => None,
                };
                match next {
                    None => break,
                    Some(SearchNews::Dht(result)) => steps.add("dht", None, result),
                    Some(SearchNews::Node(node)) => {
                        let from = match node.hops {
                            Some(1) => "1 hop away".to_owned(),
                            Some(hops) => format!("{hops} hops away"),
                            None => "at an address it names".to_owned(),
                        };
                        let step = if node.found == "dht" { "dht" } else { "flood" };
                        steps.add(step, Some(node.node_id), format!("found, {from}"));
                        // The flood may find it as well, through whom the DHT named.
                        if found.get(&node.node_id).is_none_or(|known| known.found != "dht") {
                            found.insert(node.node_id, *node);
                        }
                    }
                }
            }
            steps.add("flood", None, "over".to_owned());
        }
        // What is known by itself tells more than that somebody else knew it.
        for node in shared.read(|state, now| state.known(capability, now)) {
            let entry = found.entry(node.node_id).or_insert_with(|| node.clone());
            if node.found != "table" && entry.found != "dht" {
                *entry = node;
            }
        }
        let mut nodes: Vec<_> = found.into_values().collect();
        nodes.sort_by(|a, b| (a.found != "self", &a.name, a.node_id).cmp(&(b.found != "self", &b.name, b.node_id)));
        Ok(Search { nodes, tried: steps.tried })
    }
}

fn nodes(count: usize, what: &str) -> String {
    format!("{count} {} {what}", if count == 1 { "node" } else { "nodes" })
}

/// Ends a query when nobody waits for its answers any more.
struct FindGuard {
    shared: Arc<Shared>,
    query: String,
}

impl Drop for FindGuard {
    fn drop(&mut self) {
        lock(&self.shared.finds).remove(&self.query);
        self.shared.with(|state, _, out| {
            state.stop_query(&self.query);
            state.stop_find(&self.query, out);
        });
    }
}
