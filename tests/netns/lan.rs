//! One network and nobody's address known.

use std::time::Duration;

use serde_json::json;

use super::harness::{SLOW, figure, internet, seconds, until};
use super::nodes::Elo;

const PROMISED: Duration = Duration::from_secs(3);

#[test]
fn two_nodes_on_one_lan_call_each_other() {
    let row = "LAN only, no peer given";
    let Some(net) = internet(row) else { return };
    let lan = net.lan();
    let hosts = ["one", "two"].map(|name| net.host(&lan, name));
    let start = std::time::Instant::now();
    let env = [("ELO_DHT", "off")];
    let one = Elo::start_with(&hosts[0], "one", &["--agent", "first"], &env);
    let two = Elo::start_with(&hosts[1], "two", &["--agent", "second"], &env);
    let (there, _) = until("the LAN's first call", PROMISED * SLOW, || one.call("second", &json!("hi")));
    let took = start.elapsed();
    assert_eq!((&there["payload"], &there["responder"]), (&json!("hi"), &json!(two.id())));
    let (back, _) = until("the call back", PROMISED * SLOW, || two.call("first", &json!("ho")));
    assert_eq!((&back["payload"], &back["responder"]), (&json!("ho"), &json!(one.id())));
    let both = start.elapsed();
    // One of the two dialled the other; how it found it is told.
    let found = [one.peer(&two.id()), two.peer(&one.id())].map(|peer| peer.unwrap()["found"].clone());
    assert!(found.contains(&json!("lan")), "found: {found:?}");
    figure(row, &format!("start to first call {} (promised 3 s), both ways {}", seconds(took), seconds(both)));
}
