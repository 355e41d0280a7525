//! The local network: nodes announce themselves with multicast DNS, and see who else does.
//!
//! The crate mdns-sd does the talking, on a thread of its own. What it has heard it keeps without a bound, until its
//! sender's time to live is over; so its caches are watched from here, and when they hold more than any local network
//! has to say it is started anew after a pause, without them.

mod links;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::Instant;

use links::Link;
pub(crate) use links::Settings;

use crate::identity::NodeId;
use crate::limits::{MAX_CANDIDATE_ADDRS, MAX_LAN_RECORDS, MAX_LAN_TIMERS};

/// What is announced.
const SERVICE: &str = "_elo._tcp.local.";

/// The member of the TXT record that names the node.
const ID: &str = "id";

/// The member of the TXT record that names the protocol's version.
const VERSION: &str = "v";

/// The version announced and understood.
const V1: &str = "1";

/// How often the daemon's caches are looked at. At the speed of this machine's memory they grow by some 150 MB a second.
const LOOK: Duration = Duration::from_millis(250);

/// How long the daemon may take to tell of them. It reads all that has come before it listens to anybody else, so one that
/// doesn't answer is flooded.
const ANSWER: Duration = Duration::from_secs(5);

/// How often interfaces are looked for that came or went, in seconds: whoever plugs a cable in is found soon after.
const INTERFACES_S: u32 = 2;
const INTERFACES: Duration = Duration::from_secs(INTERFACES_S as u64);

/// How long the daemon may use no interface though there are some.
const UNUSED: Duration = Duration::from_secs(5);

/// How old it may be when an announcement is about none of them: who announces nonsense must not cost much.
const AGAIN: Duration = Duration::from_millis(100);

/// The pause after a flood or a fault; it doubles each time up to [`PAUSE_MAX`], and is short again after a quiet
/// [`CALM`].
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(120);
const CALM: Duration = Duration::from_secs(600);

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the local network tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A node is said to be at these addresses.
    Seen(NodeId, Vec<SocketAddr>),
    /// It is said to be there no longer.
    Gone(NodeId),
    /// All that was told before is void; what is there will be told again.
    Restarted,
    /// How it is doing: whether it works, and details in words.
    Health(bool, String),
    /// There is no network to use at present, which is nobody's fault; in words.
    NoNetwork(String),
}

/// The daemon at work.
struct Running {
    daemon: ServiceDaemon,
    found: Receiver<ServiceEvent>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its thread ends by this only. It says goodbye first; nobody waits for it here.
        let _ = self.daemon.shutdown();
    }
}

/// This node on the local network.
pub(crate) struct Lan {
    settings: Settings,
    running: Option<Running>,
    /// When it is started, if it is not running.
    start_at: Instant,
    pause: Duration,
    /// When it was last started anew because of a flood or a fault.
    troubled: Option<Instant>,
    look_at: Instant,
    links: Vec<Link>,
    links_at: Option<Instant>,
    told: Option<(bool, String)>,
    /// How many interfaces the daemon says that it uses.
    used: Option<usize>,
    /// Since when it uses none though there are some.
    unused_since: Option<Instant>,
    waiting: VecDeque<Event>,
}

impl std::fmt::Debug for Lan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lan").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Lan {
    /// Ready to start with the first [`next`](Self::next).
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            settings,
            running: None,
            start_at: now,
            pause: PAUSE_MIN,
            troubled: None,
            look_at: now,
            links: Vec::new(),
            links_at: None,
            told: None,
            used: None,
            unused_since: None,
            waiting: VecDeque::new(),
        }
    }

    /// The next thing that it tells. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            let Some(running) = &self.running else {
                tokio::time::sleep_until(self.start_at).await;
                self.start();
                continue;
            };
            tokio::select! {
                found = running.found.recv_async() => match found {
                    Ok(event) => self.heard(event),
                    Err(_) => self.trouble("it brought more at once than could be looked at, as a flood does"),
                },
                () = tokio::time::sleep_until(self.look_at) => {
                    let daemon = running.daemon.clone();
                    match cached(&daemon).await {
                        Ok((records, timers)) if records > MAX_LAN_RECORDS || timers > MAX_LAN_TIMERS => {
                            self.trouble(&format!("it brought more than {MAX_LAN_RECORDS} records, as a flood does"));
                        }
                        Ok(_) => self.look(),
                        Err(why) => self.trouble(&why),
                    }
                }
            }
        }
    }

    /// Says goodbye and ends the daemon's thread.
    pub(crate) async fn close(mut self) {
        let Some(running) = self.running.take() else { return };
        if let Ok(done) = running.daemon.shutdown() {
            let _ = tokio::time::timeout(GOODBYE, done.recv_async()).await;
        }
    }

    fn start(&mut self) {
        self.look_at = Instant::now() + LOOK;
        (self.used, self.unused_since) = (None, None);
        match self.try_start() {
            Ok(running) => {
                self.running = Some(running);
                self.look();
            }
            Err(e) => self.trouble(&format!("it can't be started: {e}")),
        }
    }

    fn try_start(&self) -> mdns_sd::Result<Running> {
        let daemon = ServiceDaemon::new()?;
        // In the hands of its owner before anything may fail.
        let unused = self.settings.clone();
        let unused = IfPredicate::new(move |intf| !unused.selects(&intf.name, intf.ip(), intf.is_loopback()));
        let begun = (|| {
            daemon.disable_interface(IfKind::Predicate(unused))?;
            daemon.set_ip_check_interval(INTERFACES_S)?;
            if let Some(listen) = self.settings.listen {
                daemon.register(self.announcement(listen)?)?;
            }
            daemon.browse(SERVICE)
        })();
        match begun {
            Ok(found) => Ok(Running { daemon, found }),
            Err(e) => {
                let _ = daemon.shutdown();
                Err(e)
            }
        }
    }

    fn announcement(&self, listen: SocketAddr) -> mdns_sd::Result<ServiceInfo> {
        let id = self.settings.me.to_string();
        let beginning: String = self.settings.me.as_bytes().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let host = format!("elo-{beginning}.local.");
        let members = [(ID, id.as_str()), (VERSION, V1)];
        let bound = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
        let own: Vec<IpAddr> = bound.into_iter().collect();
        let mut info = ServiceInfo::new(SERVICE, &id, &host, &own[..], listen.port(), &members[..])?;
        // Its names are made from a key that nobody else has: there is nobody to ask whether they are free.
        info.set_requires_probe(false);
        // The addresses of the interfaces used, as they come and go.
        Ok(if bound.is_none() { info.enable_addr_auto() } else { info })
    }

    /// Ends the daemon; it is started anew after a pause.
    fn trouble(&mut self, why: &str) {
        let now = Instant::now();
        self.running = None;
        self.pause = match self.troubled {
            Some(last) if now.duration_since(last) < CALM => (self.pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.troubled = Some(now);
        self.start_at = now + self.pause;
        self.waiting.push_back(Event::Restarted);
        self.health(false, format!("multicast DNS pauses for {} s: {why}", self.pause.as_secs()));
    }

    fn health(&mut self, works: bool, detail: String) {
        self.tell(works, detail, Event::Health);
    }

    /// Tells how it is, unless that was the last thing told.
    fn tell(&mut self, works: bool, detail: String, event: impl Fn(bool, String) -> Event) {
        let health = (works, detail);
        if self.told.as_ref() != Some(&health) {
            self.waiting.push_back(event(health.0, health.1.clone()));
            self.told = Some(health);
        }
    }

    /// Looks at the interfaces, and tells when it changes how things are.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        self.refresh_links(INTERFACES);
        let mut names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let names = names.join(", ");
        if names.is_empty() {
            let wanted = self.settings.interfaces.join(", ");
            if wanted.is_empty() {
                let detail = "no network interface is up but loopback (--lan-interface lo uses that)".to_owned();
                return self.tell(false, detail, |_, detail| Event::NoNetwork(detail));
            }
            let detail = format!("there is no interface {wanted} that is up and has an address this node listens on");
            return self.health(false, detail);
        }
        if self.used == Some(0) {
            // It may not have looked at the interfaces yet, or not be able to use them: it gets its sockets when it starts.
            let since = *self.unused_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= UNUSED {
                self.trouble(&format!("it can't be used on {names} (is its port, 5353, another program's alone?)"));
            }
            return;
        }
        self.unused_since = None;
        let bound = self.settings.listen.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
        let detail = match bound {
            _ if self.settings.listen.is_none() => format!("{names}; this node doesn't listen and is not announced"),
            Some(ip) if !self.links.iter().any(|link| link.ip == ip) => {
                return self
                    .health(false, format!("{names}, where the only address this node listens on, {ip}, is not"));
            }
            _ => names,
        };
        self.health(true, detail);
    }

    /// Looks which interfaces there are, if what is known is older than that.
    fn refresh_links(&mut self, age: Duration) {
        let now = Instant::now();
        if self.links_at.is_some_and(|at| now.duration_since(at) < age) {
            return;
        }
        self.links_at = Some(now);
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let used = all
            .into_iter()
            .filter(|i| i.is_oper_up() && !i.is_p2p() && self.settings.selects(&i.name, i.ip(), i.is_loopback()));
        self.links = used
            .map(|i| {
                let prefix = match &i.addr {
                    if_addrs::IfAddr::V4(v4) => v4.prefixlen,
                    if_addrs::IfAddr::V6(v6) => v6.prefixlen,
                };
                Link { ip: i.ip(), index: i.index.unwrap_or_default(), name: i.name, prefix }
            })
            .collect();
    }

    fn heard(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                self.refresh_links(INTERFACES);
                let seen = self.sighting(&service).or_else(|| {
                    // It may have come over an interface that is new; it is told once.
                    self.refresh_links(AGAIN);
                    self.sighting(&service)
                });
                if let Some((node, addrs)) = seen {
                    self.waiting.push_back(Event::Seen(node, addrs));
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                // The instance is named by the id; what is named otherwise was not taken, or is taken back never.
                if let Some(node) = name.get(..43).and_then(|id| id.parse().ok()) {
                    self.waiting.push_back(Event::Gone(node));
                }
            }
            // `_elo._tcp.local. on 2 interfaces [eth0 (2), lo (1)]`: the one way to learn that no socket was to be had.
            ServiceEvent::SearchStarted(text) => {
                let count = text.rsplit_once(" on ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                self.used = count.or(self.used);
                self.look();
            }
            _ => {}
        }
    }

    /// What an announcement says, as far as it can be: a node's id, the version spoken here, addresses on a link of ours.
    /// Others are not this network's to tell, and would make this node dial whoever is named.
    fn sighting(&self, service: &ResolvedService) -> Option<(NodeId, Vec<SocketAddr>)> {
        let node: NodeId = service.get_property_val_str(ID)?.parse().ok()?;
        let port = service.get_port();
        if node == self.settings.me || port == 0 || service.get_property_val_str(VERSION) != Some(V1) {
            return None;
        }
        let mut addrs: Vec<SocketAddr> =
            service.get_addresses().iter().filter_map(|ip| self.on_link(ip, port)).collect();
        addrs.sort_unstable();
        addrs.truncate(MAX_CANDIDATE_ADDRS);
        (!addrs.is_empty()).then_some((node, addrs))
    }

    fn on_link(&self, scoped: &ScopedIp, port: u16) -> Option<SocketAddr> {
        let ip = scoped.to_ip_addr();
        match scoped {
            ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
                let scope = v6.scope_id().index;
                let known = self.links.iter().any(|link| link.index == scope);
                known.then(|| SocketAddrV6::new(*v6.addr(), port, 0, scope).into())
            }
            _ => self.links.iter().any(|link| link.has(ip)).then(|| SocketAddr::new(ip, port)),
        }
    }
}

/// How many records the daemon has cached, and how many times it has noted for them.
async fn cached(daemon: &ServiceDaemon) -> Result<(usize, usize), String> {
    let answer = daemon.get_metrics().map_err(|e| format!("it has ended: {e}"))?;
    let metrics = tokio::time::timeout(ANSWER, answer.recv_async())
        .await
        .map_err(|_| "it is too busy to answer, as in a flood".to_owned())?
        .map_err(|e| format!("it has ended: {e}"))?;
    let of = |names: &[&str]| {
        let sum: i64 = names.iter().filter_map(|name| metrics.get(*name)).sum();
        usize::try_from(sum).unwrap_or_default()
    };
    let records = ["cached-ptr", "cached-srv", "cached-addr", "cached-txt", "cached-nsec", "cached-subtype"];
    Ok((of(&records), of(&["timer"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings(listen: Option<&str>, interfaces: &[&str]) -> Settings {
        Settings {
            me: NodeId::from_bytes([1; 32]),
            listen: listen.map(|addr| addr.parse().unwrap()),
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn service(host: &str, ip: &str, port: u16, members: &[(&str, &str)]) -> ResolvedService {
        ServiceInfo::new(SERVICE, "x", host, ip, port, members).unwrap().as_resolved_service()
    }

    #[test]
    fn what_an_announcement_must_say() {
        let mut lan = Lan::new(settings(Some("0.0.0.0:1"), &[]));
        lan.links = vec![Link { name: "eth0".into(), index: 2, ip: "10.0.0.5".parse().unwrap(), prefix: 24 }];
        let (me, other) = (NodeId::from_bytes([1; 32]).to_string(), NodeId::from_bytes([2; 32]));
        let id = other.to_string();
        let good = service("h.local.", "10.0.0.7,8.8.8.8", 7, &[("id", &id), ("v", "1"), ("new", "x")]);
        assert_eq!(lan.sighting(&good), Some((other, vec!["10.0.0.7:7".parse().unwrap()])), "8.8.8.8 is elsewhere");
        for (ip, port, members) in [
            ("10.0.0.7", 7, vec![("v", "1")]),
            ("10.0.0.7", 7, vec![("id", "short"), ("v", "1")]),
            ("10.0.0.7", 7, vec![("id", &id)]),
            ("10.0.0.7", 7, vec![("id", &id), ("v", "2")]),
            ("10.0.0.7", 7, vec![("id", &me), ("v", "1")]),
            ("10.0.0.7", 0, vec![("id", &id), ("v", "1")]),
            ("8.8.8.8", 7, vec![("id", &id), ("v", "1")]),
        ] {
            assert_eq!(lan.sighting(&service("h.local.", ip, port, &members)), None, "{ip} {port} {members:?}");
        }
    }
}
