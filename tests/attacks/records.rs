//! What is said of nodes and by nodes that may be heard by everybody: records, queries, events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Node, Tracker};
use serde_json::{Value, json};

use crate::attacker::{Attacker, announce, record, unix_ms};
use crate::canon::Key;
use crate::mesh::{addr_of, meets, node};
use crate::stage::{Stage, eventually};

/// What a node says that somebody else provides.
async fn provided(node: &Node, id: &str) -> Vec<String> {
    let found = node.find("", Some(Duration::ZERO)).await.unwrap();
    let of = found.iter().filter(|f| f.node_id.to_string() == id).flat_map(|f| &f.capabilities);
    of.map(|c| c.name.clone()).collect()
}

#[tokio::test]
async fn a_record_is_neither_forged_nor_rolled_back_not_even_after_it_was_forgotten() {
    let stage = Stage::tracker().await;
    let honest = node("shop").agent("old").peer(stage.addr()).start().await.unwrap();
    meets(&honest, &[&stage.victim]).await;
    let id = honest.id().to_string();
    // The attacker hears the record, as anybody may.
    let mut spy = Attacker::connect(&stage.addr()).await;
    let ask = async |spy: &mut Attacker, n: &str, capability: &str| {
        let query = spy.query(n, capability);
        spy.sign_and_say(query).await;
        let answer = spy.until("an answer", |m| m["type"] == "query_resp" && m["id"] == n).await;
        answer["nodes"].as_array().unwrap().iter().find(|r| r["node_id"] == id).unwrap().clone()
    };
    let old = ask(&mut spy, "1", "old").await;
    honest.unregister("old").unwrap();
    honest.register(elo::Capability::agent("new")).unwrap();
    eventually("it is known", || stage.victim.peers().iter().any(|p| p.capabilities.iter().any(|c| c.name == "new")))
        .await;
    let new = ask(&mut spy, "2", "new").await;
    // Older, older with a newer number, changed, and signed by the attacker.
    let forged = |change: &dyn Fn(&mut Value)| {
        let mut forged = old.clone();
        change(&mut forged);
        forged
    };
    let lies = [
        old.clone(),
        forged(&|r| r["seq"] = json!(unix_ms() + 10)),
        forged(&|r| r["caps"]["agents"][0]["name"] = json!("evil")),
        forged(&|r| r["addrs"] = json!(["203.0.113.9:1"])),
        spy.key.sign(forged(&|r| r["seq"] = json!(unix_ms() + 10))),
    ];
    for lie in &lies {
        spy.say(&announce(lie, 5)).await;
    }
    spy.heard().await;
    assert_eq!(provided(&stage.victim, &id).await, ["new"]);
    assert!(
        stage.refused("bad_signature") + stage.refused("forged_record") >= 4,
        "{:?}",
        stage.victim.metrics().refused
    );
    stage.answers().await;
    // It says goodbye, and is forgotten; no third brings it back.
    honest.shutdown().await;
    eventually("it is forgotten", || stage.victim.metrics().records <= 2).await;
    for record in lies.iter().chain([&new]) {
        spy.say(&announce(record, 5)).await;
    }
    spy.heard().await;
    assert!(provided(&stage.victim, &id).await.is_empty());
    drop(spy);
    stage.unharmed().await;
}

#[tokio::test]
async fn what_is_asked_is_answered_to_the_bringer_alone_and_within_bounds() {
    let stage = Stage::of(|b| b.tracker(Tracker::Public).interest("*")).await;
    // As much as there may be to tell: fat records, of a capability that somebody asks for.
    let mut crowd = Vec::new();
    for _ in 0..70 {
        let mut one = Attacker::connect(&stage.addr()).await;
        let mut fat = record(&one.key, &["fat"], 300);
        fat["caps"]["agents"][0]["about"] = json!("x".repeat(7000));
        one.sign_and_say_in(fat, |r| announce(r, 1)).await;
        crowd.push(one);
    }
    for one in &mut crowd {
        one.heard().await;
    }
    let mut asker = Attacker::connect(&stage.addr()).await;
    let (mut asked, mut answered) = (0, 0);
    for n in 0..10 {
        let question = asker.key.sign(asker.query(&format!("q{n}"), "fat"));
        asked += crate::canon::canonical(&question).len();
        asker.say(&question).await;
        for answer in asker.heard().await {
            answered += if answer["type"] == "query_resp" { crate::canon::canonical(&answer).len() } else { 0 };
        }
        stage.answers().await;
    }
    println!("{asked} bytes of questions, {answered} bytes of answers: {} each", answered / asked);
    // No more than 64 records and half a mebibyte from one node, and all of it to the one that asked.
    assert!(answered > 0 && answered <= 10 * 520 * 1024, "{answered}");
    // In somebody else's name, unsigned or signed by the asker: nothing. Recorded and brought by another: to the bringer.
    let mut victim = Attacker::connect(&stage.addr()).await;
    let mut forged = asker.query("forged", "fat");
    forged["origin"] = json!(victim.id());
    asker.say(&forged).await;
    asker.sign_and_say(forged).await;
    let recorded = victim.key.sign(victim.query("recorded", "fat"));
    asker.say(&recorded).await;
    let heard = asker.heard().await;
    let ids: Vec<&Value> = heard.iter().filter(|m| m["type"] == "query_resp").map(|m| &m["id"]).collect();
    assert_eq!(ids, ["recorded"]);
    assert_eq!(stage.refused("bad_signature"), 2);
    let heard = victim.heard().await;
    assert!(heard.iter().all(|m| m["type"] != "query_resp"), "nothing reaches who did not ask: {heard:?}");
    drop((crowd, asker, victim));
    stage.unharmed().await;
}

/// One question crosses each link of the mesh once or little more, however many nodes there are.
#[tokio::test]
async fn one_question_costs_the_mesh_little_more_than_a_message_for_each_link() {
    let stage = Stage::tracker().await;
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..8 {
        let mut builder = node(&format!("n{n}")).peer(stage.addr());
        for other in &nodes {
            builder = builder.peer(addr_of(other));
        }
        let one = builder.start().await.unwrap();
        meets(&one, &nodes.iter().chain([&stage.victim]).collect::<Vec<_>>()).await;
        nodes.push(one);
    }
    // A clique of nine, and the two that watch.
    let links = 9 * 8 / 2 + 3;
    let flooded = || {
        nodes.iter().chain([&stage.victim, &stage.caller, &stage.provider]).map(|n| n.metrics().flooded).sum::<u64>()
    };
    let before = flooded();
    let mut asker = Attacker::connect(&stage.addr()).await;
    for n in 0..20 {
        let question = asker.query(&format!("q{n}"), "nobody has it");
        let question = asker.key.sign(question);
        // Again and again, over several ways.
        for _ in 0..5 {
            asker.say(&question).await;
        }
    }
    asker.heard().await;
    stage.answers().await;
    let mut last = 0;
    eventually("it is quiet", || {
        let now = flooded();
        std::mem::replace(&mut last, now) == now && now > before
    })
    .await;
    let each = (flooded() - before) as f64 / 20.0;
    println!("{each:.1} messages a question, {links} links");
    assert!(each <= 2.0 * links as f64, "{each} messages for one question over {links} links");
    for node in nodes {
        node.shutdown().await;
    }
    drop(asker);
    stage.unharmed().await;
}

#[tokio::test]
async fn thousands_of_keys_push_out_nobody_who_is_there() {
    let stage = Stage::of(|b| {
        b.tracker(Tracker::Public).limits(elo::Limits::default().with(|l| {
            (l.max_records, l.floods_per_second, l.flood_burst) = (200, 100_000, 100_000);
        }))
    })
    .await;
    let provider = stage.provider.id().to_string();
    let mut attacker = Attacker::connect(&stage.addr()).await;
    for n in 0..3000u64 {
        let key = Key::fresh();
        let record = key.sign(record(&key, &["steady", &format!("cap{}", n % 50)], 1));
        attacker.say(&announce(&record, 5)).await;
        if n % 500 == 0 {
            attacker.heard().await;
            stage.answers().await;
            assert!(stage.victim.metrics().records <= 200);
            assert_eq!(provided(&stage.victim, &provider).await, ["steady"], "the provider was pushed out");
        }
    }
    attacker.heard().await;
    assert!(stage.victim.metrics().records <= 200);
    assert_eq!(provided(&stage.victim, &provider).await, ["steady"]);
    // And the interest table still leads to those who are there: a call by capability is answered.
    let outcome = stage.victim.call("steady", json!(1)).timeout(crate::attacker::PATIENCE).await.unwrap();
    assert_eq!(outcome.responder.to_string(), provider);
    drop(attacker);
    stage.unharmed().await;
}

/// What a subscriber gets, by event id.
async fn listen(node: &Node) -> (Arc<AtomicUsize>, tokio_util::task::AbortOnDropHandle<BTreeMap<String, usize>>) {
    let (count, mut news) = (Arc::new(AtomicUsize::new(0)), node.subscribe("news").unwrap());
    let counter = Arc::clone(&count);
    let task = tokio::spawn(async move {
        let mut seen = BTreeMap::new();
        while let Some(event) = news.recv().await {
            if event.id == "the end" {
                break;
            }
            *seen.entry(event.id).or_default() += 1;
            counter.fetch_add(1, Ordering::SeqCst);
        }
        seen
    });
    (count, tokio_util::task::AbortOnDropHandle::new(task))
}

/// The memory of what was seen is filled up, and then an old event and an old question are brought again.
#[tokio::test]
async fn filling_the_memory_of_what_was_seen_lets_nothing_come_twice() {
    let stage = Stage::limited(|l| {
        (l.max_seen, l.floods_per_second, l.flood_burst) = (256, 100_000, 100_000);
    })
    .await;
    let (count, listening) = listen(&stage.victim).await;
    let mut honest = Attacker::connect(&stage.addr()).await;
    let event = honest.key.sign(honest.event("pay me"));
    honest.say(&event).await;
    eventually("it is told", || count.load(Ordering::SeqCst) == 1).await;
    let mut attacker = Attacker::connect(&stage.addr()).await;
    for n in 0..1000 {
        let filler = attacker.event(&n.to_string());
        attacker.sign_and_say(filler).await;
        if n % 250 == 0 {
            stage.answers().await;
        }
    }
    attacker.heard().await;
    for _ in 0..3 {
        attacker.say(&event).await;
    }
    attacker.heard().await;
    let end = attacker.event("the end");
    attacker.sign_and_say(end).await;
    honest.sign_and_say(honest.event("the end")).await;
    let seen = tokio::time::timeout(crate::attacker::PATIENCE, listening).await.unwrap().unwrap();
    assert_eq!(seen["pay me"], 1, "the honest event was told again");
    drop((attacker, honest));
    stage.unharmed().await;
}

/// As many events as the line takes: what is above the rate is dropped, what is honest comes through.
#[tokio::test]
async fn a_storm_of_events_drowns_nobody() {
    let limits = elo::Limits::default().with(|l| (l.floods_per_second, l.flood_burst) = (5, 50));
    let stage = Stage::of(|b| b.tracker(Tracker::Public).limits(limits)).await;
    // One who never takes what it subscribed to, and one who does.
    let lazy = stage.caller.subscribe("*").unwrap();
    let (count, listening) = listen(&stage.provider).await;
    eventually("the tracker knows who wants what", || stage.victim.peers().len() == 2).await;
    let mut attacker = Attacker::connect(&stage.addr()).await;
    let fat = "x".repeat(4000);
    for n in 0..4000 {
        let mut event = attacker.event(&format!("storm {n}"));
        event["data"] = json!(fat);
        attacker.sign_and_say(event).await;
        if n % 1000 == 0 {
            stage.answers().await;
        }
    }
    attacker.heard().await;
    stage.answers().await;
    assert!(stage.refused("rate_limited") >= 3000, "{:?}", stage.victim.metrics().refused);
    // An honest event comes through meanwhile.
    let before = count.load(Ordering::SeqCst);
    let mut sent = 0;
    eventually("an honest event arrives", || {
        sent += 1;
        stage.caller.publish("news", json!(sent)).unwrap();
        count.load(Ordering::SeqCst) > before
    })
    .await;
    drop((attacker, lazy, listening));
    stage.unharmed().await;
}
