//! `elo demo`: the newcomer's first command.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::time::{Duration, Instant};

use common::Home;

#[test]
fn the_demo_does_all_it_says_in_time() {
    let home = Home::new();
    let start = Instant::now();
    let text = home.run(["demo"]).ok();
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    for part in
        ["by capability", "streamed", "flooded", "three hops away", "relayed", "forged", "BAD_SIGNATURE", "all of it"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(text.matches("signature verified").count(), 4, "{text}");
    assert!(!home.path().exists(), "the demo left something behind");
}

#[test]
fn the_demo_as_json() {
    let steps = Home::new().run(["demo", "--json"]).json_lines();
    let routes: Vec<_> = steps.iter().filter_map(|step| step["route"].as_str()).collect();
    assert_eq!(routes, ["direct", "direct", "flood", "relay"]);
    assert_eq!(steps.last().unwrap()["step"], "end");
    assert!(steps.iter().all(|step| step["ok"] == true));
}
