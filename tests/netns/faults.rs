//! Everything at once: frames that are lost, late and out of order, halves of the network that are cut apart, cables that
//! are pulled, and trackers, providers and callers that are killed and come back, all under load. Each call ends, none
//! runs twice, and what is answered is right.
//!
//! 1,500 calls; with `ELO_LONG=1` 20,000. What happens, and when, is drawn by `ELO_SEED`, which is printed: the same seed
//! draws the same again, though what it meets are real processes, which differ a little each time.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::harness::{figure, internet, seconds, until};
use super::net::{Cable, Host};
use super::nodes::{Door, Elo};
use super::wire::Worse;

/// The time of a call: longer than any fault lasts.
const TTL: Duration = Duration::from_secs(20);

/// How many calls each caller has under way: its door has 32 places.
const AT_ONCE: usize = 16;

/// How long each of them takes at least, with the pause after it: at most 48 calls a second in all.
const PACE: Duration = Duration::from_millis(1000);

/// Logs for which payload it was started, works for a while if that begins with an s, and answers with something that is
/// made of the payload and the task's id. A shell alone does all but the sleeping.
const PROGRAM: &str = "read -r line; p=${line#*'\"payload\":\"'}; p=${p%%'\"'*}; \
    echo \"${p%%.*} $ELO_TASK_ID\" >> LOG; \
    case $p in s*) sleep 0.5;; esac; echo \"$ELO_TASK_ID:$p:$p\"";

/// A node of the row, as the load sees it: how often it was killed, and whether it is away.
#[derive(Default)]
struct Deaths {
    count: AtomicU64,
    away: AtomicBool,
}

/// How a call ended.
struct End {
    /// What its payload begins with.
    tag: String,
    /// Right, or the error's code, with what is known of the task.
    how: Result<(), String>,
    /// Whether the error says that the task was not sent.
    not_sent: bool,
    took: Duration,
}

struct Load {
    doors: Vec<Door>,
    deaths: Vec<Arc<Deaths>>,
    wanted: u64,
    begun: AtomicU64,
    over: AtomicBool,
    /// Calls that died with their caller: it is asked anew.
    lost_callers: AtomicU64,
    ends: Mutex<Vec<End>>,
}

impl Load {
    /// One caller after another: each a line of calls.
    fn work(&self, caller: usize, mut dice: StdRng) {
        loop {
            let n = self.begun.fetch_add(1, Ordering::Relaxed);
            if n >= self.wanted {
                return;
            }
            let began = Instant::now();
            let kind = if dice.random_ratio(1, 5) { 's' } else { 'q' };
            let fill = "x".repeat(dice.random_range(0..2000));
            let mut attempt = 0;
            let end = loop {
                attempt += 1;
                // The tag of a call that died with its caller is not used again: its task may have run.
                if let Some(end) = self.call(caller, format!("{kind}{n}-{attempt}"), &fill) {
                    break end;
                }
                self.lost_callers.fetch_add(1, Ordering::Relaxed);
            };
            self.ends.lock().unwrap().push(end);
            sleep(PACE.saturating_sub(began.elapsed()));
        }
    }

    /// `None`: the caller was killed meanwhile.
    fn call(&self, caller: usize, tag: String, fill: &str) -> Option<End> {
        let deaths = &self.deaths[caller];
        while deaths.away.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(50));
        }
        let lives = deaths.count.load(Ordering::SeqCst);
        let payload = format!("{tag}.{fill}");
        let began = Instant::now();
        let result = self.doors[caller].call("work", &json!(payload), TTL);
        let took = began.elapsed();
        let (how, not_sent) = match result {
            Ok(outcome) => {
                let id = outcome["id"].as_str().unwrap_or("?");
                let right = outcome["payload"] == json!(format!("{id}:{payload}:{payload}"));
                (if right { Ok(()) } else { Err(format!("WRONG: {outcome}")) }, false)
            }
            Err(error) => {
                let text = |name: &str| error[name].as_str().unwrap_or("?").to_owned();
                if text("code") == "NO_ANSWER" && deaths.count.load(Ordering::SeqCst) != lives {
                    return None;
                }
                let message = if text("code") == "NO_ANSWER" { text("message") } else { String::new() };
                let delivery = text("delivery");
                (Err(format!("{} ({delivery}) {message}", text("code")).trim_end().to_owned()), delivery == "not_sent")
            }
        };
        Some(End { tag, how, not_sent, took })
    }
}

/// What is broken, one thing after the other.
struct Chaos {
    nodes: Vec<(Elo, Arc<Deaths>)>,
    hosts: Vec<Host>,
    between: Cable,
    done: BTreeMap<&'static str, u32>,
}

impl Chaos {
    fn run(mut self, load: &Load, mut dice: StdRng) -> Self {
        let wait = |dice: &mut StdRng, from: u64, to: u64| sleep(Duration::from_millis(dice.random_range(from..to)));
        while !load.over.load(Ordering::Relaxed) {
            wait(&mut dice, 1000, 4000);
            let what = match dice.random_range(0..100) {
                0..45 => {
                    let at = dice.random_range(0..self.nodes.len());
                    let (node, deaths) = &mut self.nodes[at];
                    deaths.away.store(true, Ordering::SeqCst);
                    deaths.count.fetch_add(1, Ordering::SeqCst);
                    node.kill();
                    wait(&mut dice, 100, 3000);
                    node.restart();
                    deaths.away.store(false, Ordering::SeqCst);
                    if node.name.starts_with("tracker") { "trackers killed" } else { "nodes killed" }
                }
                45..75 => {
                    let at = dice.random_range(0..self.hosts.len());
                    let cable = self.hosts[at].cable();
                    cable.cut();
                    wait(&mut dice, 1000, 6000);
                    cable.heal();
                    "cables pulled"
                }
                _ => {
                    self.between.cut();
                    wait(&mut dice, 3000, 8000);
                    self.between.heal();
                    "partitions"
                }
            };
            *self.done.entry(what).or_default() += 1;
        }
        self
    }
}

/// How often the program was started for each payload.
fn ran(log: &Path) -> BTreeMap<String, u64> {
    let mut ran = BTreeMap::new();
    for line in read_to_string(log).unwrap_or_default().lines() {
        let tag = line.split_whitespace().next().unwrap_or_default();
        *ran.entry(tag.to_owned()).or_default() += 1;
    }
    ran
}

#[test]
fn every_call_ends_and_none_runs_twice_whatever_breaks() {
    let Some(net) = internet() else { return };
    let long = std::env::var("ELO_LONG").is_ok_and(|v| v == "1");
    let wanted = if long { 20_000 } else { 1_500 };
    let seed: u64 = std::env::var("ELO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    figure("faults", &format!("ELO_SEED={seed}, {wanted} calls"));
    let mut dice = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("ran");

    let left = net.internet();
    let (right, between) = net.beyond(&left);
    let mut bad = || {
        let seed = dice.random::<u64>() >> 1;
        Worse { delay_ms: 100, jitter_ms: 50, loss_percent: 5, reorders: true, seed }
    };
    let mut hosts = Vec::new();
    for (name, at) in [("t1", &left), ("t2", &right), ("t3", &left), ("p2", &right), ("p3", &left)] {
        hosts.push(net.host(at, name));
    }
    for (name, at) in [("p1", &left), ("p4", &right), ("c1", &left), ("c2", &right), ("c3", &left)] {
        hosts.push(net.host_far_away(at, name, bad()));
    }
    let trackers = hosts[..3].iter().map(Host::addr).collect::<Vec<_>>().join(",");
    let program = PROGRAM.replace("LOG", log.to_str().unwrap());
    let start = |n: usize, name: &str, args: &[&str]| {
        let all = [&["--peer", &trackers][..], args].concat();
        (Elo::start(&hosts[n], name, &all), Arc::<Deaths>::default())
    };
    let answers = ["--agent", "work", "--exec-shell", "--exec", &program, "--max-tasks", "16"];
    let hidden = [&answers[..], &["--no-listen"]].concat();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(start(n, &format!("tracker{n}"), &["--tracker"]));
    }
    for (n, args) in [(3, &answers[..]), (4, &hidden), (5, &answers), (6, &hidden)] {
        nodes.push(start(n, &format!("provider{n}"), args));
    }
    for n in 7..10 {
        nodes.push(start(n, &format!("caller{n}"), &[]));
    }
    let callers = &nodes[7..];
    for (caller, _) in callers {
        until("a first call", Duration::from_secs(60), || caller.call("work", &json!("first.")));
    }
    let load = Arc::new(Load {
        doors: callers.iter().map(|(node, _)| node.door()).collect(),
        deaths: callers.iter().map(|(_, deaths)| Arc::clone(deaths)).collect(),
        wanted,
        begun: AtomicU64::new(0),
        over: AtomicBool::new(false),
        lost_callers: AtomicU64::new(0),
        ends: Mutex::default(),
    });
    let began = Instant::now();
    let mut working = Vec::new();
    for n in 0..AT_ONCE * load.doors.len() {
        let (load, dice) = (Arc::clone(&load), StdRng::seed_from_u64(seed ^ (n as u64 + 1)));
        working.push(spawn(move || load.work(n % load.doors.len(), dice)));
    }
    let chaos = Chaos { nodes, hosts, between, done: BTreeMap::new() };
    let (breaking, breaks) = (Arc::clone(&load), StdRng::seed_from_u64(!seed));
    let breaking = spawn(move || chaos.run(&breaking, breaks));
    let worked: Vec<_> = working.into_iter().map(std::thread::JoinHandle::join).collect();
    load.over.store(true, Ordering::Relaxed);
    let took = began.elapsed();
    let mut chaos = breaking.join().unwrap();
    worked.into_iter().for_each(|one| one.unwrap());

    // Nothing is left at work: also not what callers that were killed had asked for.
    for (node, _) in &chaos.nodes {
        until(&format!("{} is at rest", node.name), Duration::from_secs(180), || {
            let status = node.status();
            let metrics = &status["metrics"];
            let at_rest = metrics["tasks_running"] == 0 && metrics["calls_running"] == 0;
            if at_rest { Ok(()) } else { Err(status.to_string()) }
        });
    }
    let ends = std::mem::take(&mut *load.ends.lock().unwrap());
    let ran = ran(&log);
    let mut hows: BTreeMap<&str, u64> = BTreeMap::new();
    for end in &ends {
        *hows.entry(end.how.as_ref().err().map_or("right", |e| e.as_str())).or_default() += 1;
    }
    let twice: Vec<_> = ran.iter().filter(|(tag, times)| **times > 1 && *tag != "first").collect();
    let unsent: Vec<_> = ends.iter().filter(|e| e.not_sent && ran.contains_key(&e.tag)).map(|e| &e.tag).collect();
    let unrun: Vec<_> = ends.iter().filter(|e| e.how.is_ok() && !ran.contains_key(&e.tag)).map(|e| &e.tag).collect();
    let slowest = ends.iter().map(|e| e.took).max().unwrap_or_default();
    let (mut lost, mut overtaken) = (0, 0);
    for host in &mut chaos.hosts {
        if let Some(wire) = &mut host.wire {
            let carried = wire.carried();
            (lost, overtaken) = (lost + carried.lost, overtaken + carried.overtaken);
        }
    }
    figure("faults", &format!("{} calls ended in {}: {hows:?}", ends.len(), seconds(took)));
    figure("faults", &format!("ran twice: {}; slowest end {}", twice.len(), seconds(slowest)));
    let lost_callers = load.lost_callers.load(Ordering::Relaxed);
    figure(
        "faults",
        &format!(
            "{:?}; {lost_callers} calls died with their caller; {lost} frames lost, {overtaken} overtaken",
            chaos.done
        ),
    );

    assert_eq!(ends.len() as u64, wanted, "calls that did not end");
    let bad: Vec<_> = hows.keys().filter(|how| how.starts_with("WRONG") || how.starts_with("NO_ANSWER")).collect();
    assert!(bad.is_empty(), "answers that are wrong, or none at all: {bad:?}");
    assert!(twice.is_empty(), "ran twice: {twice:?}");
    assert!(unsent.is_empty(), "said not to have been sent, and ran: {unsent:?}");
    assert!(unrun.is_empty(), "answered, and never ran: {unrun:?}");
    assert!(slowest < TTL + Duration::from_secs(20), "a call ended {slowest:?} after it began");
    let right = hows.get("right").copied().unwrap_or_default();
    assert!(right * 3 >= wanted, "only {right} of {wanted} were answered: {hows:?}");
    assert!(lost > 0, "nothing was lost");
}
