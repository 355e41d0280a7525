//! This build has no DHT: the feature `dht` is off.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::builder::Dht;
use super::driver::Shared;
use crate::error::Error;
use crate::identity::NodeId;
use crate::info::DhtHealth;
use crate::mesh::{Action, LookupId, Wanted};

/// There is none.
pub(crate) enum DhtPart {}

impl DhtPart {
    pub(crate) fn new(mode: Dht, _: Option<u16>, _: Option<SocketAddr>) -> Result<(Option<Self>, String), Error> {
        match mode {
            Dht::Off => Ok((None, "this build has no DHT".to_owned())),
            _ => Err(Error::Config("this build has no DHT: build it with the feature `dht`, or leave it off".into())),
        }
    }

    pub(crate) fn end(&self) {
        match *self {}
    }

    pub(crate) fn changed(&self) -> &watch::Sender<u64> {
        match *self {}
    }

    pub(crate) async fn ended(&self, _: Option<u16>) {
        match *self {}
    }

    pub(crate) fn bound_port(&self) -> Option<u16> {
        match *self {}
    }
}

impl Shared {
    pub(crate) async fn run_dht(self: Arc<Self>) {}

    pub(crate) fn ask_dht(&self, lookup: LookupId, what: Wanted) -> Vec<Action> {
        self.decide(|s, now, out| s.dht_over(lookup, &what, None, now, out))
    }

    pub(crate) fn stop_dht(&self, _: LookupId) {}

    pub(crate) fn dial_unknown(&self, _: LookupId, _: SocketAddr, _: Option<NodeId>) {}

    pub(crate) fn dht_health(&self) -> DhtHealth {
        DhtHealth::off(&self.dht_note)
    }
}
