//! Connections that the node makes for its calls: dialled, or punched through both NATs.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::driver::{Place, Shared};
use crate::identity::NodeId;
use crate::mesh::How;
use crate::net::Punch;

/// How many dials for calls may be under way at once: a call's wish must not become a scan.
const DIALS: usize = 64;

/// How many dials for calls there are, and may be.
#[derive(Debug)]
pub(super) struct Dials {
    under_way: Semaphore,
    /// Places for the connections that come of them: those who dial this node can't take these away, nor these theirs.
    places: Arc<Semaphore>,
}

impl Dials {
    /// With so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { under_way: Semaphore::new(DIALS), places: Arc::new(Semaphore::new(places)) }
    }
}

impl Shared {
    pub(super) fn dial_for_calls(&self, node: NodeId, addrs: Vec<SocketAddr>, how: How) {
        let Some(shared) = self.strong() else { return };
        self.spawn(async move {
            let stop = shared.stop.clone();
            let dial = async {
                let Ok(_permit) = shared.dials.under_way.acquire().await else { return };
                let mut why = String::from("no address");
                for addr in addrs {
                    let Ok(place) = Arc::clone(&shared.dials.places).try_acquire_owned() else {
                        why = format!("this node has made all the connections it may ({})", shared.places);
                        break;
                    };
                    match crate::net::dial(&addr.to_string(), Some(node), &shared.net).await {
                        Ok(established) => match shared.established(established, Some(Place::Made(place)), how) {
                            Ok(_) => return,
                            Err((reason, message)) => why = format!("{reason}: {message}"),
                        },
                        Err(error) => why = format!("{addr}: {error}"),
                    }
                    if shared.read(|s, _| s.is_connected(&node)) {
                        break;
                    }
                }
                shared.with(|s, now, out| s.dial_failed(&node, &why, now, out));
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = dial => {}
            }
        });
    }

    /// A place among the dials under way, and one among the connections made for calls.
    #[cfg_attr(not(feature = "dht"), allow(dead_code, reason = "only what discovery names is dialled so"))]
    pub(crate) async fn place_for_dial(&self) -> Option<(SemaphorePermit<'_>, Place)> {
        let permit = self.dials.under_way.acquire().await.ok()?;
        Some((permit, Place::Made(Arc::clone(&self.dials.places).try_acquire_owned().ok()?)))
    }

    /// Connects to a node through both NATs, while it connects to us.
    pub(super) fn punch(&self, node: NodeId, punch: Punch) {
        let Some(shared) = self.strong() else { return };
        self.spawn(async move {
            let attempt = async {
                let place = Arc::clone(&shared.dials.places).try_acquire_owned();
                let why = match place {
                    Err(_) => format!("this node has made all the connections it may ({})", shared.places),
                    Ok(place) => match crate::net::punch(punch, node, &shared.net).await {
                        Ok(established) => {
                            match shared.established(established, Some(Place::Made(place)), How::PUNCHED) {
                                Ok(_) => return,
                                Err((reason, message)) => format!("{reason}: {message}"),
                            }
                        }
                        Err(why) => why,
                    },
                };
                shared.with(|s, now, _| s.punch_failed(&node, &why, now));
            };
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = attempt => {}
            }
        });
    }
}
