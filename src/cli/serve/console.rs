//! A served node's face: its lines on stdout, or a prompt with the lines scrolling above it.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::control::Door;
use crate::identity::NodeId;
use crate::info::{Activity, PeerInfo};
use crate::node::Node;
use crate::service::Current;

use crate::cli::output::{self, Lines, Output, Printer, Tone};
use crate::cli::{App, render, text};

use super::prompt::{Prompt, QUIT};

/// How long the line about a new peer waits for its name: longer than a record takes on a busy machine.
const NAME_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const NAME_LOOK: Duration = Duration::from_millis(20);

/// Where a node's lines go, and where commands come from.
pub(super) struct Console {
    out: Output,
    printer: Printer,
    lines: Lines,
    log: Option<Printer>,
    prompt: Option<Prompt>,
}

fn now() -> String {
    text::clock(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

fn print(out: &Output, lines: &Lines, what: &Activity) {
    let what = serde_json::to_value(what).unwrap_or(Value::Null);
    if out.json {
        let line = what.to_string();
        lines.print(if out.terminal { text::escaped_json(&line) } else { line });
    } else {
        let (tone, line) = render::activity(&what);
        lines.print(out.toned(tone, &format!("{} {line}", now())));
    }
}

/// Puts the name of a peer that connected in: it comes with the peer's record, in a moment. What happens meanwhile is told
/// after it.
async fn named(mut what: Activity, node: &Node) -> Activity {
    // A Python node has none.
    let Activity::PeerConnected { node_id, name, proven: true, .. } = &mut what else { return what };
    let since = Instant::now();
    while name.is_empty() && since.elapsed() < NAME_WAIT {
        match node.peers().into_iter().find(|peer| peer.node_id == *node_id) {
            Some(peer) => *name = peer.name,
            None => break,
        }
        if name.is_empty() {
            tokio::time::sleep(NAME_LOOK).await;
        }
    }
    what
}

impl Console {
    /// A prompt if a person sits there, else stdout alone.
    pub(super) fn start(app: &App, node: &Current) -> io::Result<Self> {
        let person = !app.out.json && app.out.terminal && io::stdin().is_terminal() && in_foreground();
        let (prompt, printer) = if person {
            let (prompt, above) = Prompt::start(&app.home, node.clone())?;
            (Some(prompt), Printer::above(above)?)
        } else {
            (None, Printer::stdout()?)
        };
        let log = output::route_log(prompt.is_some().then_some(&printer))?;
        Ok(Self { out: app.out.clone(), lines: printer.lines(), printer, log, prompt })
    }

    /// Nothing is printed: stdin and stdout are somebody else's.
    pub(super) fn silent(app: &App) -> io::Result<Self> {
        let printer = Printer::nowhere()?;
        Ok(Self { out: app.out.clone(), lines: printer.lines(), printer, log: None, prompt: None })
    }

    /// A way to print for those who carry out the prompt's commands.
    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// A line for people; programs that read JSON don't get it.
    pub(super) fn note(&self, line: &str) {
        if !self.out.json {
            self.lines.print(self.out.toned(Tone::Plain, line));
        }
    }

    /// The first line: where the node is.
    pub(super) fn ready(&self, node: &Node, id: NodeId, door: Option<&Door>, told: &[(&'static str, String)]) {
        let listen = node.listen_addrs();
        let control = door.map(|door| door.path().display().to_string());
        if self.out.json {
            let mut ready =
                json!({ "event": "ready", "node_id": id, "name": node.name(), "listen": listen, "control": control });
            for (name, value) in told {
                ready[*name] = json!(value);
            }
            self.lines.print(ready.to_string());
            return;
        }
        let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
        let place =
            if listen.is_empty() { "not listening".to_owned() } else { format!("listening on {}", listen.join(", ")) };
        self.lines.print(self.out.toned(Tone::Good, &format!("ready: {} {place}", node.name())));
        self.lines.print(self.out.toned(Tone::Plain, &format!("node id {id}")));
        for (name, value) in told {
            self.lines.print(self.out.toned(Tone::Plain, &format!("{name} {value}")));
        }
        if self.prompt.is_some() {
            self.lines
                .print(self.out.toned(Tone::Dim, "`help` lists the commands, Tab completes, Ctrl-C stops the node"));
        }
    }

    /// The node has another key.
    pub(super) fn rotated(&self, report: &Value) {
        if self.out.json {
            let mut line = report.clone();
            if let Some(members) = line.as_object_mut() {
                members.insert("event".to_owned(), "rotated".into());
            }
            self.lines.print(line.to_string());
            return;
        }
        let text = |member: &str| report[member].as_str().unwrap_or_default().to_owned();
        let line = format!("new key: node id {} instead of {}", text("new"), text("old"));
        self.lines.print(self.out.toned(Tone::Good, &line));
    }

    /// Prints what happens from now on, and who has connected already.
    pub(super) fn follow(&self, node: &Node) -> AbortOnDropHandle<()> {
        let (out, lines) = (self.out.clone(), self.lines());
        // In this order a peer that connects meanwhile is told of twice rather than not at all.
        let mut activity = node.activity();
        let early = node.peers();
        let node = node.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut told: HashSet<NodeId> = HashSet::new();
            for PeerInfo { node_id, name, addr, inbound, proven, .. } in early {
                told.insert(node_id);
                let what = Activity::PeerConnected { node_id, name, addr, inbound, proven };
                let what = if out.json { what } else { named(what, &node).await };
                print(&out, &lines, &what);
            }
            loop {
                let what = activity.recv().await;
                let Some(what) = what else { break };
                match &what {
                    Activity::PeerConnected { node_id, .. } if told.remove(node_id) => continue,
                    Activity::PeerLost { node_id, .. } => {
                        told.remove(node_id);
                    }
                    _ => {}
                }
                let what = if out.json { what } else { named(what, &node).await };
                print(&out, &lines, &what);
            }
        }))
    }

    /// The next line entered at the prompt; never, without one.
    pub(super) async fn entered(&mut self) -> String {
        match &mut self.prompt {
            Some(prompt) => prompt.next().await,
            None => std::future::pending().await,
        }
    }

    /// Completes when Ctrl-C is pressed at the prompt once more: there it is a key and no signal.
    pub(super) async fn quit_again(&mut self) {
        while self.entered().await != QUIT {}
    }

    /// The node is about to stop.
    pub(super) fn stopping(&self) {
        self.note("stopping (Ctrl-C again stops at once)");
    }

    /// Lets the last lines out, and gives the terminal back as it was.
    pub(super) fn finish(self) {
        // Said last of all: the editor has printed a line for sure when it takes the next one.
        self.note("stopped");
        self.printer.finish();
        if let Some(prompt) = self.prompt {
            prompt.end();
            output::clear_line();
        }
        if let Some(log) = self.log {
            log.finish();
        }
    }
}

/// Whether this process may read the terminal: one started with `&` would be stopped for trying.
#[cfg(unix)]
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(not(unix))]
fn in_foreground() -> bool {
    true
}
