//! Events, published and heard.

use serde_json::{Value, json};

use crate::client::{Api, answer, served};
use crate::common::{Home, eventually};

fn publish(api: &Api, n: u64) {
    api.post("/v1/events", format!(r#"{{"type": "test.n", "data": {n}}}"#)).json(200);
}

#[test]
fn what_one_node_publishes_others_hear() {
    let homes = (Home::new(), Home::new());
    let (other, there) = served(&homes.1, &[]);
    let (node, here) = served(&homes.0, &["--peer", &other.addr()]);
    node.event("peer_connected");
    let place = there.get("/v1/events?pattern=test.*").json(200)["next"].as_str().unwrap().to_owned();
    let waiting = there.send("GET", &format!("/v1/events?pattern=test.*&after={place}&wait_s=20"), &[], "");
    // Interests take a moment to get around.
    let ask = |after: &str| there.get(&format!("/v1/events?pattern=test.*&after={after}")).json(200);
    eventually("one gets there", || {
        publish(&here, 1);
        ask(&place)["events"] != json!([])
    });
    let heard = answer(waiting).json(200);
    assert_eq!((&heard["lost"], &heard["restarted"]), (&json!(0), &json!(false)));
    let event = &heard["events"][0];
    assert_eq!((&event["event_type"], &event["data"]), (&json!("test.n"), &json!(1)));
    assert_eq!((&event["origin"], &event["proven"]), (&node.ready["node_id"], &json!(true)));

    // For one node alone.
    let to = other.id();
    let sent = here.post("/v1/events", format!(r#"{{"type": "test.only", "data": {{"a": [1]}}, "to": ["{to}"]}}"#));
    assert_eq!(sent.json(200)["sent"], json!([to]));
    eventually("it gets there", || {
        let events = ask(&place)["events"].clone();
        events.as_array().unwrap().iter().any(|event| event["event_type"] == "test.only")
    });
    let nobody = Home::new();
    nobody.run(["init"]).ok();
    let nobody = nobody.run(["id", "--json"]).json()["node_id"].as_str().unwrap().to_owned();
    let sent = here.post("/v1/events", format!(r#"{{"type": "test.only", "to": ["{nobody}"]}}"#)).json(200);
    assert_eq!((&sent["sent"], &sent["not_sent"][0]["node_id"]), (&json!([]), &json!(nobody)));
}

#[test]
fn what_can_not_be_published_is_told() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.post("/v1/events", r#"{"type": ""}"#).problem(400, "BAD_REQUEST");
    api.post("/v1/events", r#"{"data": 1}"#).problem(422, "BAD_REQUEST");
    api.post("/v1/events", r#"{"type": "a", "to": ["nobody"]}"#).problem(422, "BAD_REQUEST");
    let large = format!(r#"{{"type": "a", "data": "{}"}}"#, "x".repeat(70_000));
    api.post("/v1/events", large).problem(413, "TOO_LARGE");
    api.get("/v1/events?after=x").problem(400, "BAD_REQUEST");
    api.get("/v1/events?pattern=").problem(400, "BAD_REQUEST");
    api.get("/v1/events?wait_s=601").problem(422, "BAD_REQUEST");
    api.get("/v1/events?waits=1").problem(400, "BAD_REQUEST");
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    let mut stream = api.stream("GET", "/v1/events?pattern=test.*", &[], "");
    let opened = stream.next().unwrap();
    assert_eq!(opened.name, "open");
    for n in 0..3 {
        publish(&api, n);
    }
    api.post("/v1/events", r#"{"type": "other"}"#).json(200);
    let heard: Vec<_> = stream.by_ref().take(3).collect();
    assert!(heard.iter().all(|sent| sent.name.is_empty()));
    let data = |heard: &[crate::client::Sent]| heard.iter().map(|s| s.data["data"].clone()).collect::<Vec<Value>>();
    assert_eq!(data(&heard), [0, 1, 2]);
    drop(stream);
    for n in 3..6 {
        publish(&api, n);
    }
    // From the second one on; and from before the first one.
    for (id, first) in [(&heard[1].id, 2), (&opened.id, 0)] {
        let last = format!("Last-Event-ID: {id}");
        let stream = api.stream("GET", "/v1/events?pattern=test.*", &[&last], "");
        let heard: Vec<_> = stream.skip(1).take(6 - first as usize).collect();
        assert_eq!(data(&heard), (first..6).collect::<Vec<u64>>());
    }
    // A browser comes back by itself, with whatever it had.
    let mut stream = api.stream("GET", "/v1/events?pattern=test.*", &["Last-Event-ID: of another world"], "").skip(1);
    assert_eq!(stream.next().unwrap().data, json!({"lost": null, "restarted": true}));
    assert_eq!(stream.next().unwrap().data["data"], 0);
}

#[test]
fn who_comes_too_late_is_told_how_much_is_missing() {
    const KEPT: u64 = 1024;
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    let place = api.get("/v1/events?pattern=test.*").json(200)["next"].as_str().unwrap().to_owned();
    for n in 0..KEPT + 10 {
        publish(&api, n);
    }
    let path = format!("/v1/events?pattern=test.*&after={place}&wait_s=20");
    eventually("they came", || api.get(&path).json(200)["lost"] == 10);
    let mut stream = api.stream("GET", "/v1/events?pattern=test.*", &[&format!("Last-Event-ID: {place}")], "").skip(1);
    let gap = stream.next().unwrap();
    assert_eq!((gap.name.as_str(), &gap.data), ("gap", &json!({"lost": 10, "restarted": false})));
    assert_eq!(stream.next().unwrap().data["data"], 10);

    // After a restart nobody knows how many.
    let mut stream = api.stream("GET", "/v1/events?pattern=test.*", &["Last-Event-ID: abcdef-7"], "");
    let gap = stream.nth(1).unwrap();
    assert_eq!((gap.name.as_str(), &gap.data), ("gap", &json!({"lost": null, "restarted": true})));
}
