//! A port on the gateway that leads to this node: asked for by PCP, NAT-PMP or UPnP, kept, and given back at the end.
//!
//! What the gateway answers is a claim: trackers dial the address before it is published. A gateway that lies, or says
//! nothing that can be read, costs a few packets now and then.

mod gateway;
mod lease;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::info::PortMapping;
use lease::Lease;

/// The lease that is asked for. It is renewed at half of it, so a gateway that restarted and forgot has it again after ten
/// minutes at the latest, as soon as trackers would notice.
const LEASE: Duration = Duration::from_secs(1200);

/// How often it is looked whether the gateway is still the same one: a file is read.
const LOOK: Duration = Duration::from_secs(30);

/// How long giving it back may take: the node is going down.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a gateway is looked for, and how patiently.
#[derive(Clone, Debug)]
pub(crate) struct PortMap {
    /// The port that this node listens on.
    pub(crate) port: u16,
    /// The gateway, if it is not to be found out.
    gateway: Option<IpAddr>,
    /// Where UPnP gateways listen for questions.
    ssdp: SocketAddr,
    /// Gateways that may be on loopback: those of tests.
    on_loopback: Vec<IpAddr>,
    /// How long the first answer by PCP or NAT-PMP may take; the second and the third get twice and four times that.
    ask: Duration,
    /// How long looking for a UPnP gateway may take.
    search: Duration,
    /// The least and the longest wait between two renewals.
    renew: [Duration; 2],
    /// The least and the longest wait after failing.
    retry: [Duration; 2],
}

impl PortMap {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            port,
            gateway: None,
            ssdp: SocketAddr::from(([239, 255, 255, 250], 1900)),
            on_loopback: Vec::new(),
            ask: Duration::from_millis(250),
            search: Duration::from_secs(3),
            renew: [Duration::from_secs(30), LEASE / 2],
            retry: [Duration::from_secs(30), Duration::from_secs(600)],
        }
    }

    fn gateway(&self) -> Option<IpAddr> {
        self.gateway.or_else(gateway::default_gateway)
    }

    /// Keeps the port mapped until `cancel`, and tells whenever that changes.
    pub(crate) async fn keep(self, cancel: CancellationToken, tell: impl Fn(PortMapping) + Send) {
        let mut wait = self.retry[0];
        loop {
            tell(PortMapping::Looking);
            let gateway = self.gateway();
            let made = tokio::select! {
                // What is half made is forgotten by the gateway when its time is up.
                () = cancel.cancelled() => return,
                made = Lease::make(&self, gateway) => made,
            };
            match made {
                Ok(lease) => {
                    wait = self.retry[0];
                    match self.hold(lease, gateway, &cancel, &tell).await {
                        Some(why) => tell(PortMapping::Failed { why }),
                        None => return,
                    }
                }
                Err(why) => {
                    if wait == self.retry[0] {
                        tracing::warn!(%why, "no port is mapped on the gateway; trying again now and then");
                    } else {
                        tracing::debug!(%why, "no port is mapped on the gateway; trying again in {wait:?}");
                    }
                    tell(PortMapping::Failed { why });
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        _ = self.another_gateway(gateway, wait) => {}
                    }
                    wait = (wait * 2).min(self.retry[1]);
                }
            }
        }
    }

    /// Renews a lease until it is lost, and says why; `None`: it was given back.
    async fn hold(
        &self,
        mut lease: Lease,
        gateway: Option<IpAddr>,
        cancel: &CancellationToken,
        tell: &impl Fn(PortMapping),
    ) -> Option<String> {
        let mut told = None;
        loop {
            let external = lease.external();
            if told != Some(external) {
                told = Some(external);
                tracing::info!(%external, by = lease.protocol(), "a port is mapped on the gateway");
                tell(PortMapping::Mapped { external, protocol: lease.protocol() });
            }
            let half = (lease.lasts() / 2).clamp(self.renew[0], self.renew[1]);
            let changed = tokio::select! {
                () = cancel.cancelled() => {
                    let _ = timeout(FAREWELL, lease.give_back()).await;
                    return None;
                }
                changed = self.another_gateway(gateway, half) => changed,
            };
            if changed {
                let _ = timeout(FAREWELL, lease.give_back()).await;
                return Some("the gateway is another one now".to_owned());
            }
            let renewed = tokio::select! {
                () = cancel.cancelled() => continue,
                renewed = lease.renew(self) => renewed,
            };
            if let Err(why) = renewed {
                tracing::warn!(%why, "the port on the gateway was not renewed");
                return Some(why);
            }
        }
    }

    /// Waits so long, or until the gateway is another one than that: gives which.
    async fn another_gateway(&self, than: Option<IpAddr>, wait: Duration) -> bool {
        let looking = async {
            loop {
                sleep(LOOK).await;
                if self.gateway() != than {
                    return;
                }
            }
        };
        timeout(wait, looking).await.is_ok()
    }
}
