//! One mapping, by whichever protocol the gateway speaks.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{LEASE, PortMap};

/// How long anything that was begun with a gateway may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the mapping is called in the gateway's list.
const NAME: &str = "elo";

/// A lease on a port of the gateway.
#[derive(Debug)]
pub(super) enum Lease {
    /// By PCP or NAT-PMP.
    Pmp { mapping: PortMapping, external: SocketAddr },
    /// By UPnP. `lasts`: zero for a mapping without an end, where the gateway knows no other.
    Upnp { gateway: Box<Gateway<Tokio>>, local: SocketAddr, external: SocketAddr, lasts: Duration },
}

impl Lease {
    /// Asks the gateway, in all ways that it may understand.
    pub(super) async fn make(of: &PortMap, gateway: Option<IpAddr>) -> Result<Self, String> {
        let Some(port) = NonZeroU16::new(of.port) else { return Err("there is no port to map".to_owned()) };
        let pmp = match gateway {
            Some(gateway) => within(make_pmp(of, gateway, port)).await,
            None => Err("PCP, NAT-PMP: the gateway is not known".to_owned()),
        };
        match pmp {
            Ok(lease) => Ok(lease),
            Err(pmp) => within(make_upnp(of, gateway)).await.map_err(|upnp| format!("{pmp}; UPnP: {upnp}")),
        }
    }

    /// The address outside that leads here, as the gateway says.
    pub(super) fn external(&self) -> SocketAddr {
        match self {
            Self::Pmp { external, .. } | Self::Upnp { external, .. } => *external,
        }
    }

    /// For how long.
    pub(super) fn lasts(&self) -> Duration {
        match self {
            Self::Pmp { mapping, .. } => Duration::from_secs(mapping.lifetime().into()),
            // It is looked after all the same: the gateway may forget it.
            Self::Upnp { lasts, .. } if lasts.is_zero() => LEASE,
            Self::Upnp { lasts, .. } => *lasts,
        }
    }

    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::Pmp { mapping, .. } => match mapping.mapping_type() {
                PortMappingType::NatPmp => "NAT-PMP",
                PortMappingType::Pcp { .. } => "PCP",
            },
            Self::Upnp { .. } => "UPnP",
        }
    }

    /// Asks for it again; the address may be another one then.
    pub(super) async fn renew(&mut self, of: &PortMap) -> Result<(), String> {
        within(async {
            match self {
                Self::Pmp { mapping, external } => {
                    // What it granted last may be little; it is asked for the whole again.
                    let again = pmp(of, mapping.gateway().into(), mapping.internal_port(), mapping.external_port());
                    let again = match mapping.mapping_type() {
                        PortMappingType::NatPmp => again.nat_pmp().await,
                        PortMappingType::Pcp { client, nonce, external_ip } => {
                            again.pcp(client, Some(nonce), Some(external_ip)).await
                        }
                    };
                    *mapping = again.map_err(in_words)?;
                    *external = external_of(of, mapping).await?;
                }
                Self::Upnp { gateway, local, external, lasts } => {
                    gateway
                        .add_port(PortMappingProtocol::TCP, external.port(), *local, lasts.as_secs() as u32, NAME)
                        .await
                        .map_err(in_words)?;
                    external.set_ip(usable(gateway.get_external_ip().await.map_err(in_words)?)?);
                }
            }
            Ok(())
        })
        .await
    }

    /// Gives it back.
    pub(super) async fn give_back(self) {
        let given = match self {
            Self::Pmp { mapping, .. } => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
            Self::Upnp { gateway, external, .. } => {
                gateway.remove_port(PortMappingProtocol::TCP, external.port()).await.map_err(|e| e.to_string())
            }
        };
        if let Err(why) = given {
            tracing::debug!(%why, "the port on the gateway was not given back; its lease ends by itself");
        }
    }
}

/// A question by PCP or NAT-PMP.
struct Pmp {
    gateway: IpAddr,
    port: NonZeroU16,
    options: PortMappingOptions,
}

fn pmp(of: &PortMap, gateway: IpAddr, port: NonZeroU16, external: NonZeroU16) -> Pmp {
    let options = PortMappingOptions {
        external_port: Some(external),
        lifetime_seconds: Some(LEASE.as_secs() as u32),
        timeout_config: Some(patience(of)),
    };
    Pmp { gateway, port, options }
}

/// How patiently a gateway is asked: three packets.
fn patience(of: &PortMap) -> TimeoutConfig {
    TimeoutConfig { initial_timeout: of.ask, max_retries: 2, max_retry_timeout: None }
}

impl Pmp {
    async fn pcp(
        &self,
        client: IpAddr,
        nonce: Option<crab_nat::pcp::Nonce>,
        external: Option<IpAddr>,
    ) -> Result<PortMapping, MappingFailure> {
        let ask = crab_nat::pcp::BaseMapRequest::new(self.gateway.into(), client, InternetProtocol::Tcp, self.port);
        Ok(crab_nat::pcp::port_mapping(ask, nonce, external, self.options).await?)
    }

    async fn nat_pmp(&self) -> Result<PortMapping, MappingFailure> {
        Ok(crab_nat::natpmp::port_mapping(self.gateway.into(), InternetProtocol::Tcp, self.port, self.options).await?)
    }
}

async fn make_pmp(of: &PortMap, gateway: IpAddr, port: NonZeroU16) -> Result<Lease, String> {
    let client = local_ip(SocketAddr::new(gateway, crab_nat::GATEWAY_PORT)).await?;
    // The same port outside, if it is free.
    let ask = pmp(of, gateway, port, port);
    let mapping = match ask.pcp(client, None, None).await {
        Ok(mapping) => mapping,
        // Some speak only the older one, and don't say so.
        Err(pcp) => match ask.nat_pmp().await {
            Ok(mapping) => mapping,
            Err(nat_pmp) => return Err(format!("{}; {}", in_words(pcp), in_words(nat_pmp))),
        },
    };
    let external = external_of(of, &mapping).await?;
    Ok(Lease::Pmp { mapping, external })
}

async fn external_of(of: &PortMap, mapping: &PortMapping) -> Result<SocketAddr, String> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            let ip = crab_nat::natpmp::external_address(mapping.gateway(), Some(patience(of))).await;
            ip.map_err(|e| in_words(MappingFailure::from(e)))?.into()
        }
    };
    Ok(SocketAddr::new(usable(ip)?, mapping.external_port().get()))
}

async fn make_upnp(of: &PortMap, gateway: Option<IpAddr>) -> Result<Lease, String> {
    let mut search = SearchOptions::default();
    search.broadcast_address = of.ssdp;
    search.allowed_gateway_ips.clone_from(&of.on_loopback);
    search.timeout = Some(of.search);
    search.single_search_timeout = Some(of.search / 2);
    let found = search_gateway(search).await.map_err(in_words)?;
    // Anybody on the network may answer; the one that leads out is known here.
    if let Some(gateway) = gateway.filter(|gateway| *gateway != found.addr.ip()) {
        return Err(format!("{} answered, which is not the gateway {gateway}", found.addr));
    }
    let local = SocketAddr::new(local_ip(found.addr).await?, of.port);
    let ip = usable(found.get_external_ip().await.map_err(in_words)?)?;
    let tcp = PortMappingProtocol::TCP;
    let lease = LEASE.as_secs() as u32;
    let (port, lasts) = match found.add_port(tcp, of.port, local, lease, NAME).await {
        Ok(()) => (of.port, LEASE),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            found.add_port(tcp, of.port, local, 0, NAME).await.map_err(in_words)?;
            (of.port, Duration::ZERO)
        }
        Err(AddPortError::PortInUse) => {
            let port = found.add_any_port(tcp, local, lease, NAME).await.map_err(in_words)?;
            (port, LEASE)
        }
        Err(error) => return Err(in_words(error)),
    };
    if port == 0 {
        return Err("the gateway gave port 0".to_owned());
    }
    Ok(Lease::Upnp { gateway: Box::new(found), local, external: SocketAddr::new(ip, port), lasts })
}

/// This end's address on the way there: nothing is sent.
async fn local_ip(to: SocketAddr) -> Result<IpAddr, String> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let connected = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        socket.local_addr()
    };
    connected.await.map(|addr| addr.ip()).map_err(in_words)
}

/// An address that somebody outside could dial.
fn usable(ip: IpAddr) -> Result<IpAddr, String> {
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
        return Err(format!("the gateway says that its address outside is {ip}: it may have no connection"));
    }
    Ok(ip)
}

async fn within<T>(asking: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

/// What went wrong, as far as a line goes: the gateway may have chosen the words.
fn in_words(error: impl Display) -> String {
    let words = error.to_string().replace("UDP socket error: ", "");
    // What the system says ends with its number, which tells a person nothing.
    let said = words.split_once(" (os error ").and_then(|(said, rest)| Some((said, rest.split_once(')')?.1)));
    let words = said.map_or_else(|| words.clone(), |(said, rest)| format!("{said}{rest}"));
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}
