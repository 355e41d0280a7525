//! Several trackers: one that dies under load and returns, and two that stand in for each other's nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use elo::ErrorCode;
use serde_json::json;

use super::harness::{figure, internet, seconds, until};
use super::load::{Done, Load};
use super::nodes::Elo;
use super::router::Nat;

const PATIENCE: Duration = Duration::from_secs(30);

/// How many nodes call: a node's door has 32 places for calls under way, and some wait for as long as it takes to notice
/// that the tracker is gone.
const CALLERS: usize = 12;

/// The time of a call: more than the longest that it takes to notice.
const TTL: Duration = Duration::from_secs(40);

/// The ids of the tasks that the provider's program was started for, one for each start.
fn ran(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn is_peer(node: &Elo, id: &str) -> bool {
    // Its door may be full of calls that wait.
    let (peers, _) = node.door().ask("peers", &json!({})).unwrap_or_default();
    peers.iter().any(|peer| peer["node_id"] == id && peer["way"] != "relay")
}

/// How a tracker goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Its process is killed: the system closes its connections.
    Killed,
    /// Its cable is pulled: nobody is told anything.
    CutOff,
}

impl Death {
    /// How long it is away: longer than its nodes may take to be reached through the other one.
    fn away(self) -> Duration {
        match self {
            Self::Killed => Duration::from_secs(12),
            Self::CutOff => Duration::from_secs(20),
        }
    }

    /// Calls a second. Those that wait for a silent tracker are to fit in the callers' doors.
    fn pace(self) -> u32 {
        match self {
            Self::Killed => 50,
            Self::CutOff => 15,
        }
    }
}

#[test]
fn a_tracker_is_killed_under_load_and_returns() {
    dies_and_returns("tracker killed while 50 calls/s go through it (promised: reachable again in 5 s)", Death::Killed);
}

#[test]
fn a_tracker_is_cut_off_under_load_and_returns() {
    dies_and_returns("tracker cut off, no goodbye, 15 calls/s (promised: reachable again in 5 s)", Death::CutOff);
}

fn dies_and_returns(row: &str, death: Death) {
    let Some(net) = internet() else { return };
    let world = net.internet();
    let boxes = ["first", "second"].map(|name| net.host(&world, name));
    let addrs = [0, 1].map(|n: usize| boxes[n].addr());
    let peers = addrs.join(",");
    // Each knows the other, so either may die.
    let mut trackers = [0, 1].map(|n| Elo::start(&boxes[n], "tracker", &["--tracker", "--peer", &addrs[1 - n]]));
    // Nothing but a relay connects these two homes.
    let homes = [(); 2].map(|()| net.home(&world, Nat::Symmetric));
    let (worker, desk) = (net.host(&homes[0], "worker"), net.host(&homes[1], "desk"));
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("ran");
    // It takes its time, so that calls are under way when the tracker goes.
    let program = format!("echo $ELO_TASK_ID >> {}; sleep 0.2; cat", log.display());
    let exec = ["--agent", "work", "--exec", &program, "--exec-shell", "--max-tasks", "64", "--peer", &peers];
    let provider = Elo::start(&worker, "provider", &exec);
    let callers: Vec<Elo> =
        (0..CALLERS).map(|n| Elo::start(&desk, &format!("caller{n}"), &["--port", "0", "--peer", &peers])).collect();
    for node in callers.iter().chain([&provider]) {
        until("both trackers are connected", PATIENCE, || {
            let both = trackers.iter().all(|tracker| is_peer(node, &tracker.id()));
            both.then_some(()).ok_or_else(|| node.name.clone())
        });
    }
    for caller in &callers {
        until("a first call", PATIENCE, || caller.call("work", &json!(1)));
    }
    let relayed = |tracker: &Elo| tracker.status()["metrics"]["relayed"].as_u64().unwrap();

    let doors = callers.iter().map(Elo::door).collect();
    let load = Load::start(doors, death.pace(), "work", &json!({"n": 1}), TTL);
    // The one that most of the load goes through is the one to die.
    let (dies, _) = until("the load goes through the trackers", PATIENCE, || {
        let carried = [0, 1].map(|n: usize| relayed(&trackers[n]));
        let most = usize::from(carried[1] > carried[0]);
        if carried[most] > 200 { Ok(most) } else { Err(format!("{carried:?} relayed")) }
    });
    std::thread::sleep(Duration::from_secs(1));
    let carried = relayed(&trackers[dies]);
    let id = trackers[dies].id();
    let tracker = &mut trackers[dies];
    let killed = Instant::now();
    match death {
        Death::Killed => tracker.kill(),
        Death::CutOff => boxes[dies].cable().cut(),
    }
    std::thread::sleep(death.away());
    let returned = Instant::now();
    match death {
        Death::Killed => tracker.restart(),
        Death::CutOff => boxes[dies].cable().heal(),
    }
    assert_eq!(tracker.id(), id);
    for node in callers.iter().chain([&provider]) {
        until("a node comes back to the tracker", PATIENCE, || {
            is_peer(node, &id).then_some(()).ok_or_else(|| node.name.clone())
        });
    }
    let back = returned.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let calls = load.end();

    // Each caller's first call that began after the kill and was answered; the last of them counts.
    let reached = (0..CALLERS).map(|n| {
        let of_caller = calls.iter().skip(n).step_by(CALLERS);
        let answered =
            of_caller.filter(|call| call.began > killed && call.result.is_ok()).map(|call| call.ended - killed);
        answered.min().expect("a caller never reached the provider again")
    });
    let reached = reached.max().unwrap();
    // What is promised is 5 s; a slow machine may need longer, but never the 15 s after which the connections are given up.
    assert!(reached < Duration::from_secs(10), "reachable again after {reached:?}");

    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    for code in calls.iter().filter_map(Done::code) {
        *failed.entry(code).or_default() += 1;
    }
    let retryable = |code: &str| ErrorCode::from_wire(code).is_some_and(ErrorCode::is_retryable);
    assert!(failed.keys().all(|code| retryable(code)), "not retryable: {failed:?}");
    // A call that is told nothing until its time is over, was met with silence.
    assert!(!failed.contains_key("TIMEOUT"), "silence: {failed:?}");
    let crowded = calls.iter().filter_map(|call| call.result.as_ref().err());
    let crowded =
        crowded.filter(|error| error["message"].as_str().unwrap_or_default().contains("commands are connected"));
    assert_eq!(crowded.count(), 0, "the doors of the callers were too small for this load");

    let mut tasks = ran(&log);
    let starts = tasks.len();
    tasks.sort();
    tasks.dedup();
    assert_eq!(starts - tasks.len(), 0, "some tasks ran twice");
    let unheard = calls.iter().filter_map(|call| call.result.as_ref().ok());
    let unheard: Vec<_> =
        unheard.filter(|outcome| tasks.binary_search_by_key(&outcome["id"].as_str(), |t| Some(t)).is_err()).collect();
    assert!(unheard.is_empty(), "answers to tasks that never ran: {unheard:?}");

    let under_way = calls.iter().filter(|call| call.began < killed && call.ended > killed).count();
    assert!(under_way > 0, "no call was under way when the tracker went");
    let slowest = calls.iter().map(Done::took).max().unwrap();
    let failures =
        if failed.is_empty() { "none failed".to_owned() } else { format!("failed {failed:?}, all retryable") };
    let calls = format!(
        "{} calls, {under_way} of them under way at that moment: {failures}; {starts} tasks ran, none twice; slowest call {}",
        calls.len(),
        seconds(slowest)
    );
    let times =
        format!("reachable again after {}, returned tracker has all again after {}", seconds(reached), seconds(back));
    figure(row, &format!("{times}; {calls}; the tracker that went had relayed {} frames", carried));
}

#[test]
fn nodes_of_two_federated_trackers_reach_each_other() {
    let row = "two federated trackers, a NATed node at each";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let boxes = ["east", "west"].map(|name| net.host(&world, name));
    let [east, west] = [0, 1].map(|n| boxes[n].addr());
    let _east = Elo::start(&boxes[0], "east", &["--tracker"]);
    let _west = Elo::start(&boxes[1], "west", &["--tracker", "--peer", &east]);
    let homes = [(); 2].map(|()| net.home(&world, Nat::Cone));
    let (worker, desk) = (net.host(&homes[0], "worker"), net.host(&homes[1], "desk"));
    let start = Instant::now();
    let provider = Elo::start(&worker, "provider", &["--agent", "work", "--peer", &east]);
    let caller = Elo::start(&desk, "caller", &["--peer", &west]);
    let call = || caller.call("work", &json!("across"));
    let (first, _) = until("a call from one tracker's node to the other's", PATIENCE, call);
    let took = start.elapsed();
    assert_eq!((&first["responder"], &first["payload"]), (&json!(provider.id()), &json!("across")));
    assert_eq!(first["route"], "relay");
    // They register with the trackers that they learn of, and one that both know can tell them when to punch.
    let (_, punched) = until("a hole is punched", PATIENCE, || match call()?["route"].as_str() {
        Some("direct") => Ok(()),
        route => Err(format!("{route:?}")),
    });
    let (took, punched, hops) = (seconds(took), seconds(punched), &first["hops"]);
    figure(row, &format!("start to first call {took} (relay, {hops} hops), punched {punched} later"));
}
