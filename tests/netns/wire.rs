//! Cables with delay and loss: `tc netem` where the kernel has it, else a small program between two TAP devices.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use super::common::Reaped;
use super::harness::python;
use super::spaces::{enter, must, tried};

/// How bad a cable is, each way.
#[derive(Clone, Copy, Debug)]
pub struct Worse {
    pub delay_ms: u32,
    pub jitter_ms: u32,
    pub loss_percent: u32,
    /// Whether frames overtake each other as their delays differ.
    pub reorders: bool,
    /// What the emulated cable draws its chances by.
    pub seed: u64,
}

/// What has become of the frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    pub lost: u64,
    /// Overtaken by later ones; 0 where the kernel doesn't count them.
    pub overtaken: u64,
}

/// What makes a cable bad.
pub enum Wire {
    /// The kernel; the two devices.
    Netem([(String, String); 2]),
    /// A process that carries each frame.
    Emulated { stdin: ChildStdin, stdout: BufReader<ChildStdout>, _process: Reaped },
}

impl Wire {
    /// Lays a cable between a device of one namespace and a device of another.
    pub fn new(near: &str, near_device: &str, far: &str, far_device: &str, worse: Worse) -> Self {
        let veth =
            ["ip", "link", "add", near_device, "netns", near, "type", "veth", "peer", "name", far_device, "netns", far];
        must(&veth);
        let ends = [(near, near_device), (far, far_device)];
        let Worse { delay_ms, jitter_ms, loss_percent, reorders, seed } = worse;
        let (delay, jitter, loss) = (format!("{delay_ms}ms"), format!("{jitter_ms}ms"), format!("{loss_percent}%"));
        let netem = ends.iter().all(|(space, device)| {
            let qdisc = ["tc", "-n", space, "qdisc", "add", "dev", device, "root", "netem"];
            // Netem sends each frame when its own delay is over, unless a rate makes a queue of them.
            let order = if reorders { &[][..] } else { &["rate", "10gbit"] };
            tried(&[&qdisc[..], &["limit", "10000", "delay", &delay, &jitter, "loss", &loss], order].concat()).is_ok()
        });
        if netem {
            return Self::Netem(ends.map(|(space, device)| (space.to_owned(), device.to_owned())));
        }
        must(&["ip", "-n", near, "link", "del", near_device]);
        let mut command = enter(near, python());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns/wire.py");
        // Both are made here; the other end is moved then.
        let other = format!("{near_device}f");
        command.arg(script).args([near_device, &other]);
        command.args([delay_ms, jitter_ms, loss_percent].map(|n| n.to_string()));
        command.args([if reorders { "free" } else { "kept" }, &seed.to_string()]);
        let mut process = Reaped(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let stdin = process.0.stdin.take().unwrap();
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the emulated cable did not get ready; has this kernel TAP devices?");
        must(&["ip", "-n", near, "link", "set", &other, "netns", far, "name", far_device]);
        Self::Emulated { stdin, stdout, _process: process }
    }

    /// What it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Netem(_) => "tc netem",
            Self::Emulated { .. } => "emulated cable",
        }
    }

    /// How many frames it has lost so far.
    pub fn lost(&mut self) -> u64 {
        self.carried().lost
    }

    /// What has become of the frames so far.
    pub fn carried(&mut self) -> Carried {
        match self {
            Self::Netem(ends) => {
                Carried { lost: ends.iter().map(|(space, device)| dropped(space, device)).sum(), overtaken: 0 }
            }
            Self::Emulated { stdin, stdout, .. } => {
                stdin.write_all(b"?\n").unwrap();
                let mut line = String::new();
                stdout.read_line(&mut line).unwrap();
                let counts: serde_json::Value = serde_json::from_str(&line).unwrap();
                let count = |name: &str| counts[name].as_u64().unwrap();
                Carried { lost: count("lost"), overtaken: count("overtaken") }
            }
        }
    }
}

/// What `tc` says a device's queue dropped.
fn dropped(space: &str, device: &str) -> u64 {
    let shown = must(&["tc", "-n", space, "-s", "qdisc", "show", "dev", device]);
    let after = shown.split("dropped ").nth(1).and_then(|rest| rest.split([',', ' ']).next()?.parse().ok());
    after.unwrap_or_else(|| panic!("no count of dropped packets in {shown}"))
}
