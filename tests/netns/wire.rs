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
        let Worse { delay_ms, jitter_ms, loss_percent } = worse;
        let (delay, jitter, loss) = (format!("{delay_ms}ms"), format!("{jitter_ms}ms"), format!("{loss_percent}%"));
        let netem = ends.iter().all(|(space, device)| {
            let qdisc = ["tc", "-n", space, "qdisc", "add", "dev", device, "root", "netem"];
            tried(&[&qdisc[..], &["limit", "10000", "delay", &delay, &jitter, "loss", &loss]].concat()).is_ok()
        });
        if netem {
            return Self::Netem(ends.map(|(space, device)| (space.to_owned(), device.to_owned())));
        }
        must(&["ip", "-n", near, "link", "del", near_device]);
        let mut command = enter(near, python());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns/wire.py");
        command.arg(script).args([near_device, "far"]);
        command.args([delay_ms, jitter_ms, loss_percent].map(|n| n.to_string()));
        let mut process = Reaped(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let stdin = process.0.stdin.take().unwrap();
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "the emulated cable did not get ready; has this kernel TAP devices?");
        must(&["ip", "-n", near, "link", "set", "far", "netns", far, "name", far_device]);
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
        match self {
            Self::Netem(ends) => ends.iter().map(|(space, device)| dropped(space, device)).sum(),
            Self::Emulated { stdin, stdout, .. } => {
                stdin.write_all(b"?\n").unwrap();
                let mut line = String::new();
                stdout.read_line(&mut line).unwrap();
                let counts: serde_json::Value = serde_json::from_str(&line).unwrap();
                counts["lost"].as_u64().unwrap()
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
