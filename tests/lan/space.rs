//! A network namespace with nothing in it but loopback, gone when the test is over.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::common::proc::memory_kib;
use super::common::{Home, Serve, eventually, run};
use super::spaces;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Space {
    name: String,
}

impl Space {
    /// `None`, and a word about it, where there can't be one.
    #[track_caller]
    pub fn new() -> Option<Self> {
        if !spaces::may_be_made(&[]) {
            return None;
        }
        let name = format!("elo-lan-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let space = Self { name };
        spaces::add(&space.name);
        space.ip(&["link", "set", "lo", "multicast", "on"]);
        Some(space)
    }

    /// Two with a cable between them.
    #[track_caller]
    pub fn two() -> Option<[Self; 2]> {
        let spaces = [Self::new()?, Self::new()?];
        spaces[0].ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &spaces[1].name]);
        for (n, space) in spaces.iter().enumerate() {
            space.ip(&["addr", "add", &format!("10.99.0.{}/24", n + 1), "dev", "eth0"]);
            space.ip(&["link", "set", "eth0", "up"]);
        }
        for space in &spaces {
            eventually("the cable is plugged in", || {
                let mut show = space.enter("ip");
                show.args(["link", "show", "dev", "eth0"]);
                run(show).ok().contains("state UP")
            });
        }
        Some(spaces)
    }

    /// Takes the cable out.
    pub fn unplug(&self) {
        self.ip(&["link", "set", "eth0", "down"]);
    }

    /// Puts it back.
    pub fn plug_in(&self) {
        self.ip(&["link", "set", "eth0", "up"]);
    }

    /// Takes the IPv4 address off the cable, and waits until the other one may be used.
    pub fn without_ipv4(&self) {
        self.ip(&["addr", "flush", "dev", "eth0", "scope", "global"]);
        eventually("the link-local address is there", || {
            let mut show = self.enter("ip");
            show.args(["-6", "addr", "show", "dev", "eth0", "scope", "link"]);
            let shown = run(show).ok();
            shown.contains("fe80::") && !shown.contains("tentative")
        });
    }

    fn ip(&self, args: &[&str]) {
        spaces::must(&[&["ip", "-n", &self.name], args].concat());
    }

    /// Any command, in here.
    fn enter(&self, program: impl AsRef<OsStr>) -> Command {
        spaces::enter(&self.name, program)
    }

    /// `elo` in a home and in here, with discovery on the local network as it is by default.
    pub fn command(&self, home: &Home, args: &[&str]) -> Command {
        let mut command = spaces::inside(&self.name, &home.command(args));
        if !args.contains(&"--no-lan") {
            command.env_remove("ELO_NO_LAN");
        }
        command
    }

    /// Whether any process has a socket on the port of multicast DNS.
    pub fn listens_on_mdns(&self) -> bool {
        ["/proc/net/udp", "/proc/net/udp6"].iter().any(|table| {
            let mut cat = self.enter("cat");
            cat.arg(table);
            run(cat).ok().lines().any(|line| line.split_whitespace().nth(1).is_some_and(|addr| addr.ends_with(":14E9")))
        })
    }

    /// Runs the sender of `flood.rs`, and waits for its end.
    pub fn flood(&self, args: &[&str]) {
        self.helper("flood::sender", &args.join(" "));
    }

    /// Runs a test of this file that is made to be run in here.
    pub fn inside(&self, test: &str) {
        self.helper(test, "");
    }

    fn helper(&self, test: &str, args: &str) {
        let mut command = self.enter(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("ELO_TEST_ARGS", args).stdin(Stdio::null());
        let ran = run(command);
        for line in ran.stdout.lines().filter_map(|line| line.split_once("> ")) {
            println!("{}", line.1);
        }
        assert!(ran.code == 0 && ran.stdout.contains("1 passed"), "{test} {args}: {ran:?}");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        spaces::remove(&self.name);
    }
}

/// Kilobytes of a node in memory now.
pub fn rss_kb(node: &Serve) -> u64 {
    memory_kib(node.child.0.id(), "VmRSS")
}

/// The most it has had so far.
pub fn most_rss_kb(node: &Serve) -> u64 {
    memory_kib(node.child.0.id(), "VmHWM")
}
