//! The memory budget: what gives way, in which order, and that it comes back.

use std::time::Duration;

use elo::{MemoryInfo, NodeId};

use crate::common::Home;
#[cfg(target_os = "linux")]
use crate::common::proc::memory_kib;
use crate::mesh::{addr_of, eventually};
use crate::raw::{Raw, announce, record, sign, sign_flood};
use crate::target::{Target, limited};
use crate::{ELSEWHERE, elsewhere_is_served, is_served, is_served_soon};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn memory(target: &Target) -> MemoryInfo {
    target.node.metrics().memory
}

/// Connected, as soon as there is memory for it.
async fn gets_in(addr: &str, peer: NodeId) -> Raw {
    let tries = async {
        loop {
            if let Some(raw) = Raw::connect_to(addr, peer, [127, 0, 0, 1]).await {
                return raw;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), tries).await.expect("there is memory again")
}

/// The beginning of a message that has no end.
async fn begins(raw: &mut Raw, bytes: usize) {
    raw.bytes(b"{\"type\":\"").await;
    raw.bytes(&vec![b'x'; bytes]).await;
}

#[tokio::test]
async fn large_messages_begun_by_many_count_and_the_largest_go() {
    let target = limited(|l| l.memory_budget = 8 * MIB).await;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    let mut flood = Vec::new();
    for n in 0..40 {
        let mut raw = gets_in(&addr_of(&target.node), target.node.id()).await;
        begins(&mut raw, 900 * KIB).await;
        flood.push(raw);
        if n % 8 == 7 {
            is_served_soon(&mut other).await;
        }
        assert!(memory(&target).used < 12 * MIB as u64, "{:?}", memory(&target));
    }
    eventually("the largest are closed", || target.closed("TOO_SLOW") > 20).await;
    eventually("there is room again", || memory(&target).used < 8 * MIB as u64 * 9 / 10).await;
    assert!(memory(&target).input > 0 && memory(&target).shed["peers"] > 20, "{:?}", memory(&target));
    assert_eq!(flood[0].bye().await, "TOO_SLOW");
    is_served_soon(&mut other).await;
    elsewhere_is_served(&target).await;
    target.serves().await;
    drop((flood, other));
    eventually("nothing is held for them", || memory(&target).input == 0 && memory(&target).shedding.is_empty()).await;
    eventually("they left", || target.node.peers().len() == 1).await;
    target.serves().await;
}

#[tokio::test]
async fn what_is_cheapest_gives_way_first_and_all_comes_back() {
    let budget = 16 * MIB;
    let target = limited(|l| (l.memory_budget, l.max_tasks_per_caller) = (budget, 1000)).await;
    let used = || memory(&target).used as usize * 100 / budget;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    let mut raw = Raw::connect(&target.node).await;
    // Something of all that may go: answers and records of nodes that are not here.
    let payload = |bytes: usize| format!("\"{}\"", "x".repeat(bytes)).into_bytes();
    for n in 0..4 {
        raw.sends(raw.task(&format!("a{n}")).raw("payload", &payload(200 * KIB))).await;
        assert_eq!(raw.result(&format!("a{n}")).await["status"], "success");
    }
    for _ in 0..100 {
        let stranger = elo::Identity::generate();
        let long = record(&stranger, "known").str("x", &"y".repeat(3000));
        raw.send(&announce(&sign(long, &stranger))).await;
    }
    raw.heard().await;
    assert!(memory(&target).answers > 800 * KIB as u64 && memory(&target).records > 600 * KIB as u64);
    assert_eq!(memory(&target).shedding, Vec::<&str>::new());

    // What can't go: payloads that handlers have.
    let mut n = 0;
    let mut seen: Vec<String> = Vec::new();
    while used() < 83 {
        n += 1;
        raw.sends(raw.task(&format!("w{n}")).str("capability", "wait").raw("payload", &payload(64 * KIB))).await;
        raw.heard().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        for (what, count) in &memory(&target).shed {
            if *count > 0 && !seen.iter().any(|s| s == what) {
                seen.push((*what).to_owned());
            }
        }
    }
    // It stays at a level for as long as that has something to give.
    assert_eq!(seen, ["answers", "records"]);
    assert_eq!((memory(&target).answers, target.node.metrics().records), (0, 1), "the honest peer's stays");
    let before = target.refused("memory_gossip");
    for gossip in [raw.event("e"), raw.query("q", "echo")] {
        raw.send(&sign_flood(gossip, &raw.identity)).await;
    }
    raw.heard().await;
    assert_eq!((target.refused("memory_gossip"), memory(&target).shed["gossip"]), (before + 2, before + 2));
    // Tasks still run, for everybody; until the next level.
    is_served(&mut other).await;
    target.serves().await;
    assert_eq!(memory(&target).shed["tasks"], 0);
    for large in ["l1", "l2", "l3"] {
        let task = raw.task(large).str("capability", "wait").raw("payload", &payload(900 * KIB));
        raw.sends(task).await;
        raw.heard().await;
    }
    raw.sends(raw.task("t").str("capability", "work")).await;
    let refused = raw.result("t").await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["retry_after_s"]), (&"OVERLOADED".into(), &1.into()));
    assert!(memory(&target).shed["tasks"] > 0);
    // The largest goes: who only begins a message here takes the room of the others' tasks.
    let mut large = Raw::connect_from(&target.node, [127, 0, 0, 3]).await;
    begins(&mut large, 1000 * KIB).await;
    assert_eq!(large.bye().await, "TOO_SLOW");
    assert!(memory(&target).shed["peers"] > 0);
    // Peers that hold nothing stay, whatever happens.
    other.heard().await;
    raw.heard().await;
    assert!(used() < 100, "{:?}", memory(&target));

    // The load goes, and everything is as before.
    let held = (1..=n).map(|n| format!("w{n}")).chain(["l1", "l2", "l3"].map(str::to_owned));
    for id in held {
        let cancel = elo::wire::Builder::new("cancel").str("id", &id).str("target", &raw.peer.to_string());
        raw.sends(cancel.str("caller", &raw.id().to_string())).await;
    }
    eventually("its tasks have ended", || memory(&target).tasks == 0).await;
    drop(raw);
    eventually("the attacker is gone", || target.node.peers().len() == 2).await;
    assert_eq!(memory(&target).shedding, Vec::<&str>::new());
    is_served(&mut other).await;
    elsewhere_is_served(&target).await;
    target.serves().await;
}

#[tokio::test]
async fn at_the_end_of_the_budget_nobody_new_gets_in_and_who_is_in_stays() {
    let budget = 4 * MIB;
    let target = limited(|l| l.memory_budget = budget).await;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    // Connections at rest hold nothing that could be given back.
    let mut idle = Vec::new();
    while let Some(raw) = Raw::connect_to(&addr_of(&target.node), target.node.id(), [127, 0, 0, 1]).await {
        idle.push(raw);
        assert!(idle.len() < 200, "{:?}", memory(&target));
    }
    assert!(idle.len() > 100, "{} {:?}", idle.len(), memory(&target));
    assert_eq!(memory(&target).shedding.last(), Some(&"connections"), "{:?}", memory(&target));
    assert_eq!(Raw::dial_from(&target.node, [127, 0, 0, 3]).await.bye().await, "FULL");
    assert_eq!((target.refused("memory_connections"), target.closed("TOO_SLOW")), (2, 0));
    other.heard().await;
    drop(idle);
    is_served_soon(&mut other).await;
    eventually("there is room", || memory(&target).shedding.is_empty()).await;
    elsewhere_is_served(&target).await;
    drop(other);
    target.unharmed().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_stays_small_under_real_load_and_recovers() {
    let home = Home::new();
    home.write("elo.toml", "agent = 'echo'\n[limits]\nmemory_budget = '32 MiB'\nwrite_timeout = '30s'\n");
    let serve = home.serve(&[]);
    let (addr, peer, pid) = (serve.addr(), serve.id().parse().unwrap(), serve.child.0.id());
    let at_rest = memory_kib(pid, "VmRSS") as usize * KIB;
    let mut other = Raw::connect_to(&addr, peer, ELSEWHERE).await.unwrap();

    // 90 MiB of messages that don't end, and 90 MiB of answers that nobody reads.
    let mut flood = Vec::new();
    for n in 0..100 {
        let mut raw = gets_in(&addr, peer).await;
        begins(&mut raw, 900 * KIB).await;
        flood.push(raw);
        if n % 10 == 9 {
            // New tasks may be refused for a moment, which is told; what was there is not closed.
            other.heard().await;
        }
    }
    let payload = format!("\"{}\"", "x".repeat(900 * KIB)).into_bytes();
    for n in 0..20 {
        let mut raw = gets_in(&addr, peer).await;
        for task in 0..5 {
            raw.sends(raw.task(&format!("{n}-{task}")).str("capability", "echo").raw("payload", &payload)).await;
        }
        flood.push(raw);
    }
    other.heard().await;
    let most = memory_kib(pid, "VmHWM") as usize * KIB;
    // The budget, once more for what the allocator keeps and the system's buffers, and the program itself.
    assert!(most < at_rest + 2 * 32 * MIB, "{} MiB at rest, {} MiB at most", at_rest / MIB, most / MIB);

    drop(flood);
    let status = || home.run(["status", "--json"]).json()["node"].take();
    let calm = |s: &serde_json::Value| s["metrics"]["memory"]["shedding"].as_array().is_some_and(Vec::is_empty);
    let mut last = status();
    for _ in 0..100 {
        if calm(&last) && last["metrics"]["memory"]["input"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = status();
    }
    assert!(calm(&last), "{last}");
    assert_eq!(last["metrics"]["memory"]["budget"], 32 * MIB);
    assert!(last["metrics"]["memory"]["shed"]["peers"].as_u64().unwrap() > 0, "{last}");
    let table = home.run(["status"]).ok();
    assert!(table.contains("memory ") && table.contains(" of 33.6 MB"), "{table}");
    is_served(&mut other).await;
}
