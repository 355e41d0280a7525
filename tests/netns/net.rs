//! A little internet of network namespaces: switches, hosts, and cables that can be pulled.
//!
//! Each namespace is named after the process and a counter, so several can be there at the same time, and what a
//! killed run left behind is known and removed. All devices live in namespaces; the machine's own network isn't
//! touched.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::spaces::{add, must, nft, remove, tried};
use super::wire::{Wire, Worse};

/// What every name begins with; the process id follows.
const PREFIX: &str = "elo";

/// The internet's addresses: those reserved for testing networks (RFC 2544), which nobody takes for a home's.
const INTERNET: [u8; 3] = [198, 18, 0];

/// One row's namespaces, all removed when it is dropped, with the processes in them.
pub struct Net {
    tag: String,
    spaces: Mutex<Vec<String>>,
    /// What makes routers' cables bad.
    wires: Mutex<Vec<Wire>>,
    /// Numbers for devices and networks.
    count: AtomicU32,
}

impl Net {
    pub fn new() -> Self {
        static NETS: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{PREFIX}{}n{}-", std::process::id(), NETS.fetch_add(1, Ordering::Relaxed));
        Self { tag, spaces: Mutex::default(), wires: Mutex::default(), count: AtomicU32::new(1) }
    }

    pub fn number(&self) -> u32 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// A new namespace, with loopback.
    pub fn space(&self, name: &str) -> String {
        let space = format!("{}{name}", self.tag);
        // Before it is there: also what fails half-way is removed.
        self.spaces.lock().unwrap().push(space.clone());
        add(&space);
        space
    }

    /// A switch. Hosts on it have addresses in `prefix`.0/24.
    fn switch(&self, space: String, prefix: [u8; 3]) -> Switch {
        sysctl(&space, "net/bridge/bridge-nf-call-iptables", "0");
        must(&["ip", "-n", &space, "link", "add", "br0", "type", "bridge"]);
        // The first address is the switch's own: the router's at home, and on the internet a place where everything
        // for nobody ends without a word, as at a provider.
        let own = format!("{}/24", address(prefix, 1));
        must(&["ip", "-n", &space, "addr", "add", &own, "dev", "br0"]);
        must(&["ip", "-n", &space, "link", "set", "br0", "up"]);
        Switch { space, prefix, last: AtomicU8::new(9), ipv4: true, ipv6: false }
    }

    /// The internet: everybody on it can be dialled.
    pub fn internet(&self) -> Switch {
        self.switch(self.space("net"), INTERNET)
    }

    /// A further part of the internet: the two are one through the cable between them.
    pub fn beyond(&self, switch: &Switch) -> (Switch, Cable) {
        let far = self.space("net2");
        sysctl(&far, "net/bridge/bridge-nf-call-iptables", "0");
        must(&["ip", "-n", &far, "link", "add", "br0", "type", "bridge"]);
        must(&["ip", "-n", &far, "link", "set", "br0", "up"]);
        let cable = self.cable(&switch.space, &far, "far");
        must(&["ip", "-n", &far, "link", "set", "far", "master", "br0", "up"]);
        (Switch { space: far, prefix: switch.prefix, last: AtomicU8::new(129), ipv4: true, ipv6: false }, cable)
    }

    /// A network with nothing but its hosts; they have IPv6 link-local addresses too.
    pub fn lan(&self) -> Switch {
        let prefix = self.home_prefix();
        Switch { ipv6: true, ..self.switch(self.space("lan"), prefix) }
    }

    /// A switch in a router's namespace.
    pub fn switch_of_router(&self, space: &str) -> Switch {
        let prefix = self.home_prefix();
        self.switch(space.to_owned(), prefix)
    }

    fn home_prefix(&self) -> [u8; 3] {
        [192, 168, u8::try_from(self.number()).unwrap()]
    }

    /// A cable from a switch to a device `end` in another namespace. It is up at the switch, not yet at the end.
    fn cable(&self, switch: &str, space: &str, end: &str) -> Cable {
        let port = format!("p{}", self.number());
        must(&["ip", "link", "add", &port, "netns", switch, "type", "veth", "peer", "name", end, "netns", space]);
        must(&["ip", "-n", switch, "link", "set", &port, "master", "br0", "up"]);
        Cable { space: switch.to_owned(), port }
    }

    /// A network without IPv4.
    pub fn ipv6_only(&self) -> Switch {
        Switch { ipv4: false, ..self.lan() }
    }

    /// A network that carries no multicast, as overlays (VPNs) and many wireless networks don't.
    pub fn overlay(&self) -> Switch {
        let overlay = self.internet();
        let rule = "chain every { type filter hook forward priority 0; ip daddr 224.0.0.0/4 drop; }";
        nft(&overlay.space, &format!("table bridge quiet {{\n{rule}\n}}"));
        overlay
    }

    /// A machine with nothing but loopback.
    pub fn alone(&self, name: &str) -> Host {
        Host { space: self.space(name), ip: Ipv4Addr::LOCALHOST, cable: None, wire: None }
    }

    /// The router of a home as a machine: to those behind it what a Docker host is to its containers.
    pub fn router_of(&self, home: &Switch) -> Host {
        Host { space: home.space.clone(), ip: address(home.prefix, 1), cable: None, wire: None }
    }

    /// A machine on a switch.
    pub fn host(&self, switch: &Switch, name: &str) -> Host {
        let space = self.space(name);
        let cable = self.cable(&switch.space, &space, "eth0");
        self.host_at(switch, space, Some(cable), None)
    }

    /// A machine whose cable delays and loses, both ways.
    pub fn host_far_away(&self, switch: &Switch, name: &str, worse: Worse) -> Host {
        let space = self.space(name);
        let (cable, wire) = self.bad_cable(switch, &space, "eth0", worse);
        self.host_at(switch, space, Some(cable), Some(wire))
    }

    fn bad_cable(&self, switch: &Switch, space: &str, end: &str, worse: Worse) -> (Cable, Wire) {
        let port = format!("p{}", self.number());
        let wire = Wire::new(&switch.space, &port, space, end, worse);
        must(&["ip", "-n", &switch.space, "link", "set", &port, "master", "br0", "up"]);
        (Cable { space: switch.space.clone(), port }, wire)
    }

    fn host_at(&self, switch: &Switch, space: String, cable: Option<Cable>, wire: Option<Wire>) -> Host {
        let ip = switch.attach(&space, "eth0");
        if switch.ipv4 {
            must(&["ip", "-n", &space, "route", "add", "default", "via", &address(switch.prefix, 1).to_string()]);
        }
        Host { space, ip, cable, wire }
    }

    /// A router's way out: its device `wan` on a switch, over a bad cable or a good one.
    pub fn uplink(&self, switch: &Switch, space: &str, worse: Option<Worse>) {
        match worse {
            Some(worse) => self.wires.lock().unwrap().push(self.bad_cable(switch, space, "wan", worse).1),
            None => drop(self.cable(&switch.space, space, "wan")),
        }
        switch.attach(space, "wan");
        must(&["ip", "-n", space, "route", "add", "default", "via", &address(switch.prefix, 1).to_string()]);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let spaces = std::mem::take(&mut *self.spaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for space in spaces.iter().rev() {
            remove(space);
        }
    }
}

/// Removes what runs that were killed left behind: namespaces named after a process that is no such test any more.
pub fn sweep() {
    let names = tried(&["ip", "netns", "list"]).unwrap_or_default();
    for space in names.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some((pid, _)) = space.strip_prefix(PREFIX).and_then(|rest| rest.split_once('n')) else { continue };
        if !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) && !is_such_a_test(pid) {
            remove(space);
        }
    }
}

fn is_such_a_test(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(5).any(|part| part == b"netns"))
}

/// Sets a switch of a namespace's kernel, if it has it.
pub fn sysctl(space: &str, name: &str, value: &str) {
    let set = format!("f=/proc/sys/{name}; [ ! -e $f ] || echo {value} > $f");
    must(&["ip", "netns", "exec", space, "sh", "-c", &set]);
}

fn address(prefix: [u8; 3], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(prefix[0], prefix[1], prefix[2], last)
}

/// A switch with machines on it, or with routers.
pub struct Switch {
    pub space: String,
    prefix: [u8; 3],
    last: AtomicU8,
    ipv4: bool,
    ipv6: bool,
}

impl Switch {
    /// The address of the first machine on it.
    pub fn first(&self) -> Ipv4Addr {
        address(self.prefix, 10)
    }

    /// Gives a device an address on this switch, and brings it up.
    fn attach(&self, space: &str, device: &str) -> Ipv4Addr {
        let ip = address(self.prefix, self.last.fetch_add(1, Ordering::Relaxed) + 1);
        if self.ipv6 {
            // An address may be used at once: nobody else here can have it.
            sysctl(space, &format!("net/ipv6/conf/{device}/accept_dad"), "0");
        } else {
            sysctl(space, &format!("net/ipv6/conf/{device}/disable_ipv6"), "1");
        }
        let own = if self.ipv4 { format!("{ip}/24") } else { format!("{}/64", ipv6(ip)) };
        must(&["ip", "-n", space, "addr", "add", &own, "dev", device]);
        must(&["ip", "-n", space, "link", "set", device, "up"]);
        ip
    }
}

/// A cable, by its end at a switch.
pub struct Cable {
    space: String,
    port: String,
}

impl Cable {
    /// Pulls it: what is sent is lost without a word.
    pub fn cut(&self) {
        must(&["ip", "-n", &self.space, "link", "set", &self.port, "down"]);
    }

    /// Plugs it in again.
    pub fn heal(&self) {
        must(&["ip", "-n", &self.space, "link", "set", &self.port, "up"]);
    }
}

/// A machine.
pub struct Host {
    pub space: String,
    pub ip: Ipv4Addr,
    cable: Option<Cable>,
    /// What makes its cable bad, if it is.
    pub wire: Option<Wire>,
}

impl Host {
    /// The cable between it and its switch.
    pub fn cable(&self) -> &Cable {
        self.cable.as_ref().expect("this machine has a cable")
    }

    /// Where a node on it is dialled from elsewhere, on the usual port.
    pub fn addr(&self) -> String {
        format!("{}:7878", self.ip)
    }

    /// The same on a network without IPv4.
    pub fn addr6(&self) -> String {
        format!("[{}]:7878", ipv6(self.ip))
    }
}

/// The address of a machine on a network without IPv4: a unique local one that ends like the other.
fn ipv6(ip: Ipv4Addr) -> Ipv6Addr {
    let [_, _, _, last] = ip.octets();
    Ipv6Addr::new(0xfd00, 0xe10, 0, 0, 0, 0, 0, last.into())
}
