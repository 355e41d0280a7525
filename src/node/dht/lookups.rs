//! Carrying out what lookups want: asking the DHT, and dialling whom it names.

use std::net::SocketAddr;

use tokio::time::timeout;

use crate::discovery::dht::{Named, scope};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::LOOKUP_DIAL;
use crate::mesh::{Action, How, LookupId, Wanted};
use crate::node::builder::Dht;
use crate::node::driver::{Shared, lock};

impl Shared {
    /// Asks the DHT for a lookup.
    pub(crate) fn ask_dht(&self, lookup: LookupId, what: Wanted) -> Vec<Action> {
        let (Some(part), Some(shared)) = (&self.dht, self.strong()) else {
            return self.decide(|s, now, out| s.dht_over(lookup, &what, None, now, out));
        };
        let token = lock(&part.lookups).entry(lookup).or_insert_with(|| self.stop.child_token()).clone();
        self.spawn(async move {
            let work = async {
                let Some(part) = &shared.dht else { return };
                // It may be about to be joined: the node, or whoever it learns of the DHT from, has just come up.
                let joined = timeout(shared.net.limits.query_wait, part.joined()).await;
                let Ok(engine) = joined else {
                    let note = format!("it is not joined: {}", lock(&part.seen).detail);
                    return shared.with(|s, now, out| s.dht_over(lookup, &what, Some(note), now, out));
                };
                let bound_here = part.bind.is_loopback();
                let scope = scope(part.mode == Dht::Public, bound_here, &lock(&part.seen).contacts);
                let mut asking = engine.ask(what.clone());
                drop(engine);
                while let Some(named) = asking.next().await {
                    shared.with(|s, now, out| match named {
                        Named::Addrs(addrs) => s.dht_addrs(lookup, &addrs, scope, now, out),
                        Named::Node(node, compact) => s.dht_record(lookup, node, compact, scope, now, out),
                    });
                }
                let note = asking.ended().await.err().map(|gone| gone.to_string());
                shared.with(|s, now, out| s.dht_over(lookup, &what, note, now, out));
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = work => {}
            }
            shared.tidy_lookup(lookup);
        });
        Vec::new()
    }

    /// A lookup that was stopped on another thread before its task began leaves nothing behind.
    fn tidy_lookup(&self, lookup: LookupId) {
        if !self.read(|state, _| state.looks_up(lookup)) {
            self.stop_dht(lookup);
        }
    }

    /// Ends what is under way for a lookup.
    pub(crate) fn stop_dht(&self, lookup: LookupId) {
        if let Some(part) = &self.dht
            && let Some(token) = lock(&part.lookups).remove(&lookup)
        {
            token.cancel();
        }
    }

    /// Connects to whoever is at an address that the DHT named.
    pub(crate) fn dial_unknown(&self, lookup: LookupId, addr: SocketAddr, node: Option<NodeId>) {
        let (Some(part), Some(shared)) = (&self.dht, self.strong()) else { return };
        let token = lock(&part.lookups).entry(lookup).or_insert_with(|| self.stop.child_token()).clone();
        self.spawn(async move {
            let dial = async {
                let worked = timeout(LOOKUP_DIAL, shared.connect_candidate(addr, node)).await.unwrap_or(false);
                shared.with(|s, now, out| s.candidate_over(lookup, addr, worked, now, out));
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = dial => {}
            }
            shared.tidy_lookup(lookup);
        });
    }

    async fn connect_candidate(&self, addr: SocketAddr, node: Option<NodeId>) -> bool {
        let Some((_permit, place)) = self.place_for_dial().await else { return false };
        match crate::net::dial_candidate(addr, node, &self.net).await {
            Ok(established) => match self.established(established, Some(place), How::for_calls(Source::Dht)) {
                Ok(_) | Err((CloseReason::Duplicate, _)) => true,
                Err(_) => false,
            },
            Err(error) => {
                tracing::debug!(%addr, %error, "what the DHT named is not there");
                false
            }
        }
    }
}
