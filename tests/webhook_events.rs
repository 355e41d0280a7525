//! `elo serve --event-hook`: events posted to a server, in their order, whatever it does meanwhile.
#![cfg(all(unix, feature = "webhook"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod hook;

use common::{Home, Serve, eventually};
use hook::{Act, Receiver, Request, private, secret, signed_by};
use serde_json::{Value, json};

fn publish(home: &Home, event_type: &str, data: &Value) {
    home.run(["publish", event_type, &data.to_string()]).ok();
}

fn data(request: &Request) -> Value {
    request.json()["data"]["data"].clone()
}

fn with_hook(home: &Home, receiver: &Receiver) -> Serve {
    let file = private(home, "secret", &secret(32, 9));
    let hook = format!("work.*={}", receiver.url());
    home.serve(&["--event-hook", &hook, "--webhook-secret", &file])
}

#[test]
fn events_are_posted_in_their_order_each_until_it_is_taken() {
    // The second one is refused for a while, and broken off once.
    let receiver = Receiver::start(|n, _| match n {
        1 => Act::status(500),
        2 => Act::Close,
        3 => Act::Answer(429, vec![("retry-after", "0".into())], vec![]),
        _ => Act::status(204),
    });
    let home = Home::new();
    let node = with_hook(&home, &receiver);
    for n in 1..=3 {
        publish(&home, "work.done", &json!({ "n": n }));
        publish(&home, "rest", &json!({ "n": n }));
    }
    let seen = receiver.requests(6);
    let numbers: Vec<Value> = seen.iter().map(|request| data(request)["n"].clone()).collect();
    assert_eq!(numbers, [1, 2, 2, 2, 2, 3]);
    assert!(seen.iter().all(|request| signed_by(request, &secret(32, 9)) == 1));
    assert_eq!(seen[1].id(), seen[4].id(), "the same event is the same delivery");
    assert_ne!(seen[0].id(), seen[1].id());
    let body = seen[0].json();
    assert_eq!(body["type"], "work.done");
    assert!(body["timestamp"].as_str().unwrap().ends_with(".000Z"), "{body}");
    let about = &body["data"];
    assert_eq!((&about["event_type"], &about["proven"]), (&json!("work.done"), &json!(true)));
    assert_eq!((&about["origin"], about.get("lost")), (&json!(node.id()), None));
    assert!(about["id"].is_string(), "{about}");
}

#[test]
fn a_receiver_may_be_away_for_a_while_and_a_node_may_get_a_new_key() {
    let receiver = Receiver::acting(vec![Act::status(200)]);
    let addr = receiver.addr;
    let home = Home::new();
    let node = with_hook(&home, &receiver);
    publish(&home, "work.a", &json!(1));
    receiver.requests(1);
    drop(receiver);
    publish(&home, "work.a", &json!(2));
    publish(&home, "work.b", &json!(3));
    home.run(["rotate"]).ok();
    eventually("the node is back", || home.run(["publish", "work.c", "4"]).code == 0);
    let receiver = Receiver::at(addr, None, |_, _| Act::status(200));
    let seen = receiver.requests(3);
    assert_eq!(seen.iter().map(data).collect::<Vec<_>>(), [json!(2), json!(3), json!(4)]);
    let origin = |request: &Request| request.json()["data"]["origin"].as_str().unwrap().to_owned();
    assert_eq!(origin(&seen[1]), node.id());
    assert_ne!(origin(&seen[2]), node.id(), "it has a new key");
    // It ends with the node, also while nobody takes what it posts.
    drop(receiver);
    publish(&home, "work.d", &json!(5));
    home.run(["stop"]).ok();
    let (code, errors) = node.ended();
    assert_eq!(code, 0, "{errors}");
}

#[test]
fn events_of_others_are_posted_as_well() {
    let receiver = Receiver::acting(vec![Act::status(200)]);
    let (home, other) = (Home::new(), Home::new());
    let node = with_hook(&home, &receiver);
    let publisher = other.serve(&["--peer", &node.addr()]);
    publisher.event("peer_connected");
    // What it is interested in may still be on its way.
    eventually("an event arrives", || {
        publish(&other, "work.far", &json!("hello"));
        !receiver.so_far().is_empty()
    });
    let request = &receiver.so_far()[0];
    assert_eq!((data(request), &request.json()["data"]["origin"]), (json!("hello"), &json!(publisher.id())));
}
