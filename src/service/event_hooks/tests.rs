//! Event hooks with real nodes, and a real server that takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::event_hooks;
use crate::agent::webhook::Secrets;
use crate::agent::webhook::receiver::{Act, Receiver, Request};
use crate::node::Node;
use crate::service::{Current, Service};

async fn node() -> (Node, Arc<Service>) {
    let node = Node::builder().no_listen().start().await.unwrap();
    let service = Service::new(Current::new(node.clone()), Arc::default());
    (node, service)
}

fn hook(pattern: &str, receiver: &Receiver) -> Vec<(String, String)> {
    vec![(pattern.to_owned(), receiver.url())]
}

/// Waits for requests without holding up what is to make them.
async fn requests(receiver: &Arc<Receiver>, least: usize) -> Vec<Request> {
    let receiver = Arc::clone(receiver);
    tokio::task::spawn_blocking(move || receiver.requests(least)).await.unwrap()
}

fn number(request: &Request) -> u64 {
    request.json()["data"]["data"]["n"].as_u64().unwrap()
}

#[tokio::test]
async fn what_is_not_taken_in_time_makes_room_and_is_counted() {
    const EVENTS: u64 = 1500;
    let open = Arc::new(AtomicBool::new(false));
    let receiver = Arc::new(Receiver::start({
        let open = Arc::clone(&open);
        move |_, _| Act::status(if open.load(Ordering::SeqCst) { 200 } else { 503 })
    }));
    let (node, service) = node().await;
    let _hooks = event_hooks(&service, &hook("work", &receiver), &Secrets::default()).unwrap();
    for n in 0..EVENTS {
        node.publish("work", json!({ "n": n })).unwrap();
        if n == 0 {
            // It is being posted, and nobody takes it.
            requests(&receiver, 1).await;
        }
        tokio::task::yield_now().await;
    }
    open.store(true, Ordering::SeqCst);
    let taken = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let seen = receiver.so_far();
            match seen.last() {
                Some(last) if number(last) == EVENTS - 1 => return seen,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .unwrap();
    // The first one again and again, the same each time; then each once, in their order.
    let first = taken.iter().take_while(|request| number(request) == 0).count();
    assert!(first > 1 && taken[..first].iter().all(|request| request.id() == taken[0].id()));
    let numbers: Vec<u64> = taken[first - 1..].iter().map(number).collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
    let lost: u64 = taken.iter().filter_map(|request| request.json()["data"]["lost"].as_u64()).sum();
    assert!(lost > 0 && numbers.len() as u64 + lost == EVENTS, "{} taken, {lost} lost", numbers.len());
}

#[tokio::test]
async fn what_is_refused_is_lost_and_the_next_one_says_so() {
    let receiver =
        Arc::new(Receiver::acting(vec![Act::status(200), Act::status(400), Act::status(302), Act::status(204)]));
    let (node, service) = node().await;
    let hooks = event_hooks(&service, &hook("work.*", &receiver), &Secrets::default()).unwrap();
    for n in 0..5 {
        node.publish("work.done", json!({ "n": n })).unwrap();
        node.publish("other", json!({ "n": n })).unwrap();
    }
    let seen = requests(&receiver, 5).await;
    let lost: Vec<u64> = seen.iter().map(|r| r.json()["data"]["lost"].as_u64().unwrap_or_default()).collect();
    assert_eq!(lost, [0, 0, 1, 2, 0]);
    assert!(seen.iter().all(|request| request.json()["type"] == "work.done"), "what no pattern covers is not posted");
    // It ends with what holds it.
    drop(hooks);
    node.publish("work.done", json!({ "n": 9 })).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.so_far().len(), 5);
}

#[tokio::test]
async fn hooks_that_make_no_sense_are_refused() {
    let (_node, service) = node().await;
    let code = |hooks: &[(String, String)]| event_hooks(&service, hooks, &Secrets::default()).unwrap_err().code;
    assert_eq!(code(&[("work".into(), "not a URL".into())]), "BAD_REQUEST");
    assert_eq!(code(&[(String::new(), "http://127.0.0.1:1/".into())]), "BAD_REQUEST");
    assert_eq!(code(&vec![("work".into(), "http://127.0.0.1:1/".into()); 33]), "BAD_REQUEST");
}
