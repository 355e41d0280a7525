//! Trackers made to carry what they should not: in circles, and past an allowlist.

use elo::{Limits, Node, Tracker};
use serde_json::{Value, json};

use crate::attacker::{Attacker, announce, record, relay, task};
use crate::canon::Key;
use crate::mesh::{addr_of, meets, node};
use crate::stage::{Stage, eventually};

/// Three trackers, each connected with both others, and the attacker connected with all as a fourth.
struct Ring {
    trackers: Vec<Node>,
    links: Vec<Attacker>,
    key: Key,
}

impl Ring {
    async fn of() -> Self {
        let mut trackers: Vec<Node> = Vec::new();
        for n in 0..3 {
            let limits = Limits::default().with(|l| l.max_trackers = 0);
            let mut builder = node(&format!("t{n}")).tracker(Tracker::Public).limits(limits);
            for other in &trackers {
                builder = builder.peer(addr_of(other));
            }
            let tracker = builder.start().await.unwrap();
            meets(&tracker, &trackers.iter().collect::<Vec<_>>()).await;
            trackers.push(tracker);
        }
        let (key, mut links) = (Key::fresh(), Vec::new());
        for tracker in &trackers {
            links.push(Attacker::connect_as_tracker(&addr_of(tracker), &key).await);
        }
        Self { trackers, links, key }
    }

    /// Somebody who isn't there, and is said to be registered with all of them.
    async fn ghost(&mut self) -> Key {
        let ghost = Key::fresh();
        let mut says = record(&ghost, &[], 60);
        says["trackers"] = self.trackers.iter().map(|t| t.id().to_string()).collect();
        let says = ghost.sign(says);
        for link in &mut self.links {
            link.say(&announce(&says, 1)).await;
            link.heard().await;
        }
        ghost
    }

    fn sum(&self, of: impl Fn(&elo::Metrics) -> u64) -> u64 {
        self.trackers.iter().map(|t| of(&t.metrics())).sum()
    }

    /// Waits until the trackers say no more to each other, for as long as a message takes many times over.
    async fn quiet(&mut self) {
        let (mut last, mut same) = (0, 0);
        eventually("the trackers are quiet", || {
            let now = self.sum(|m| m.messages_in);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == 20
        })
        .await;
    }

    async fn over(self) {
        for tracker in self.trackers {
            tracker.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_frame_goes_through_three_trackers_at_most_however_it_lies_of_its_hops() {
    const FRAMES: u64 = 60;
    let stage = Stage::plain().await;
    let mut ring = Ring::of().await;
    let (source, target) = (ring.ghost().await, ring.ghost().await);
    for n in 0..FRAMES {
        let frame = source.sign(task(&source, &format!("t{n}"), &target.id()));
        let link = &mut ring.links[(n % 3) as usize];
        // 0 says that the attacker signed it: refused. The rest says that it came a way.
        link.say(&relay(&target.id(), &source.id(), n % 5, &frame)).await;
    }
    for link in &mut ring.links {
        link.heard().await;
    }
    ring.quiet().await;
    let carried = ring.sum(|m| m.relayed);
    println!("{FRAMES} frames were passed on {carried} times");
    assert!(carried > 0 && carried <= 2 * FRAMES, "{carried}");
    // One who is a tracker itself, and sends back whatever comes with fewer hops, pays for each round.
    let key = ring.key.clone();
    let mut says = record(&target, &[], 60);
    says["trackers"] = json!([key.id()]);
    says["seq"] = json!(crate::attacker::unix_ms() + 1000);
    let says = target.sign(says);
    for link in &mut ring.links {
        link.say(&announce(&says, 1)).await;
        link.heard().await;
    }
    let before = ring.sum(|m| m.relayed);
    let mut sent = 0;
    for n in 0..20 {
        let frame = source.sign(task(&source, &format!("round{n}"), &target.id()));
        ring.links[0].say(&relay(&target.id(), &source.id(), 1, &frame)).await;
        sent += 1;
        for _ in 0..3 {
            // It comes back on one of the links, or not at all: not to where it came from.
            for link in &mut ring.links {
                let back: Vec<Value> = link.heard().await.into_iter().filter(|m| m["type"] == "relay").collect();
                for mut message in back {
                    message["hops"] = json!(1);
                    link.say(&message).await;
                    sent += 1;
                }
            }
        }
    }
    ring.quiet().await;
    let carried = ring.sum(|m| m.relayed) - before;
    println!("{sent} frames of the attacker were passed on {carried} times");
    assert!(carried <= 2 * sent, "{carried} for {sent}");
    stage.answers().await;
    ring.over().await;
    stage.unharmed().await;
}

/// `relay_error` says nothing of how far it came.
#[tokio::test]
async fn word_of_a_failed_relay_does_not_go_round_in_a_ring_of_trackers() {
    const ERRORS: u64 = 50;
    let stage = Stage::plain().await;
    let mut ring = Ring::of().await;
    let (source, target) = (ring.ghost().await, ring.ghost().await);
    ring.quiet().await;
    let before = ring.sum(|m| m.messages_in);
    for n in 0..ERRORS {
        let error = json!({
            "type": "relay_error", "target": target.id(), "source": source.id(), "id": format!("t{n}"),
            "code": "PEER_GONE", "message": "round and round"
        });
        ring.links[(n % 3) as usize].say(&error).await;
    }
    ring.quiet().await;
    let heard = ring.sum(|m| m.messages_in) - before;
    println!("{ERRORS} errors made {heard} messages");
    assert!(heard <= 4 * ERRORS, "{heard}");
    stage.answers().await;
    ring.over().await;
    stage.unharmed().await;
}

/// The allowlist is of callers, not of doors: a stranger's task is refused also when somebody who is admitted brings it.
#[tokio::test]
async fn nobody_gets_past_an_allowlist_through_somebody_who_is_on_it() {
    let admitted = Key::fresh();
    let stage = Stage::private(&[&admitted]).await;
    let mut stranger = Attacker::dial(&stage.addr()).await;
    let said = crate::attacker::hello(&stranger.key, &[]);
    stranger.say(&said).await;
    let ack = stranger.hear().await.unwrap();
    let proof = crate::attacker::auth(&stranger.key, &stage.id(), &said["nonce"], &ack["nonce"]);
    stranger.say(&proof).await;
    assert_eq!(stranger.closed().await, "NOT_ALLOWED");
    let key = Key::fresh();
    let mut helper = Attacker::connect_as_tracker(&stage.addr(), &admitted).await;
    for hops in [0, 1, 2] {
        let frame = key.sign(task(&key, &format!("t{hops}"), &stage.id()));
        helper.say(&relay(&stage.id(), &key.id(), hops, &frame)).await;
        helper.say(&frame).await;
    }
    let heard = helper.heard().await;
    assert!(heard.iter().all(|m| m["frame"]["status"] != "success"), "{heard:?}");
    assert_eq!(stage.runs(), 0, "a stranger's task ran on a private node");
    stage.answers().await;
    drop((stranger, helper));
    stage.unharmed().await;
}
