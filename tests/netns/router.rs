//! Routers with NAT, as homes and mobile networks have them.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::common::Reaped;
use super::harness::python;
use super::net::{Net, Switch, sysctl};
use super::spaces::{enter, must, nft};
use super::wire::Worse;

/// How a router maps what its machines send, and what it lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// One outer port for each inner one, and anybody may send there: all that comes from outside goes to the first machine.
    FullCone,
    /// One outer port for each inner one; only who was sent to from there may answer. What most routers do.
    Cone,
    /// An outer port of its own for each destination, at random. Mobile networks and some firewalls.
    Symmetric,
}

impl Nat {
    fn rules(self, inside: Ipv4Addr) -> String {
        let masquerade = match self {
            Self::FullCone | Self::Cone => "masquerade",
            Self::Symmetric => "masquerade fully-random",
        };
        let inward = match self {
            Self::FullCone => format!("iifname \"wan\" dnat to {inside}"),
            Self::Cone | Self::Symmetric => String::new(),
        };
        // What nobody asked for is dropped without a word, and home addresses don't leave the house.
        format!(
            "table ip nat {{
                chain pre {{ type nat hook prerouting priority dstnat; {inward}; }}
                chain post {{ type nat hook postrouting priority srcnat; oifname \"wan\" {masquerade}; }}
            }}
            table ip guard {{
                chain here {{ type filter hook input priority 0; policy drop;
                    ct state established,related accept; iifname != \"wan\" accept; }}
                chain through {{ type filter hook forward priority 0; policy drop;
                    oifname \"wan\" ip daddr 192.168.0.0/16 drop;
                    ct state established,related accept; iifname != \"wan\" accept; ct status dnat accept; }}
            }}\n"
        )
    }
}

impl Net {
    /// A home behind a router: the switch that its machines are on.
    pub fn home(&self, internet: &Switch, nat: Nat) -> Switch {
        self.home_with(internet, nat, None)
    }

    /// The same at the end of a bad cable.
    pub fn home_far_away(&self, internet: &Switch, nat: Nat, worse: Worse) -> Switch {
        self.home_with(internet, nat, Some(worse))
    }

    fn home_with(&self, internet: &Switch, nat: Nat, worse: Option<Worse>) -> Switch {
        let space = self.space(&format!("router{}", self.number()));
        let lan = self.switch_of_router(&space);
        self.uplink(internet, &space, worse);
        nft(&space, &nat.rules(lan.first()));
        sysctl(&space, "net/ipv4/ip_forward", "1");
        lan
    }
}

/// The port mapping of a home's router, by NAT-PMP.
pub fn port_mapping(home: &Switch) -> Reaped {
    let mut command = enter(&home.space, python());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns/portmap.py");
    let outer = must(&["ip", "-n", &home.space, "-4", "-json", "addr", "show", "dev", "wan"]);
    let outer: Value = serde_json::from_str(&outer).unwrap();
    let outer = outer[0]["addr_info"][0]["local"].as_str().unwrap();
    command.arg(script).arg(outer).stdout(Stdio::piped());
    let mut process = Reaped(command.spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    process
}

/// Makes a home's router drop UDP, as some companies' networks do.
pub fn block_udp(home: &Switch) {
    let rule = "chain through { type filter hook forward priority -1; meta l4proto udp drop; }";
    nft(&home.space, &format!("table ip noudp {{\n{rule}\n}}"));
}
