//! A network that falls apart, and is whole again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{figure, internet, seconds};
use super::nodes::Elo;
use super::router::Nat;

/// How soon after healing the mesh must be whole. Promised are 10 s; most of it is waiting, which a slow machine does as
/// fast as any.
const WHOLE: Duration = Duration::from_secs(15);

const CUT: Duration = Duration::from_secs(30);

/// Calls from every node to every node of the other half until each has succeeded; how long the last one took.
fn whole(halves: &[Vec<Elo>; 2], patience: Duration) -> Duration {
    let start = Instant::now();
    let pairs = [0, 1].into_iter().flat_map(|here| halves[here].iter().map(move |from| (from, 1 - here)));
    let pairs = pairs.flat_map(|(from, there)| halves[there].iter().map(move |to| (from, to)));
    let calls: Vec<_> = pairs
        .map(|(from, to)| {
            let (door, from, to, id) = (from.door(), from.name.clone(), to.name.clone(), to.id());
            std::thread::spawn(move || {
                loop {
                    match door.call(&to, &json!(1), Duration::from_secs(3)) {
                        Ok(outcome) => assert_eq!(outcome["responder"], id),
                        Err(why) if start.elapsed() > patience => {
                            panic!("{from} can't call {to} after {patience:?}: {why}")
                        }
                        Err(_) => {
                            std::thread::sleep(Duration::from_millis(200));
                            continue;
                        }
                    }
                    return start.elapsed();
                }
            })
        })
        .collect();
    calls.into_iter().map(|call| call.join().unwrap()).max().unwrap()
}

/// Two halves with a tracker, a server and a home each, and one cable between them. Whole means: every node can call a
/// capability of every node of the other half.
#[test]
fn a_partition_of_30_s_heals() {
    let row = "everything cut for 30 s, and healed";
    let Some(net) = internet() else { return };
    let left = net.internet();
    let (right, cable) = net.beyond(&left);
    let mut homes = Vec::new();
    let mut other = None;
    let halves = [("left", &left), ("right", &right)].map(|(half, part)| {
        let tracker = net.host(part, &format!("{half}box"));
        let peer = tracker.addr();
        let box_ = format!("{half}-tracker");
        let mut args = vec!["--tracker", "--agent", &box_];
        let known = other.replace(peer.clone());
        if let Some(known) = &known {
            args.extend(["--peer", known]);
        }
        let mut nodes = vec![Elo::start(&tracker, &box_, &args)];
        let home = net.home(part, Nat::Cone);
        for (kind, at) in [("server", part), ("home", &home)] {
            let host = net.host(at, &format!("{half}{kind}"));
            let name = format!("{half}-{kind}");
            nodes.push(Elo::start(&host, &name, &["--peer", &peer, "--agent", &name]));
        }
        homes.push(home);
        nodes
    });
    let before = whole(&halves, Duration::from_secs(30));

    cable.cut();
    let start = Instant::now();
    let across = || halves[0][2].door().call(&halves[1][2].name, &json!(1), Duration::from_secs(3));
    assert!(across().is_err(), "the cut cuts nothing");
    std::thread::sleep(CUT.saturating_sub(start.elapsed()));
    cable.heal();
    let healed = whole(&halves, WHOLE);
    assert!(healed <= WHOLE, "whole again after {healed:?}");
    let pairs = 2 * halves[0].len() * halves[1].len();
    figure(
        row,
        &format!(
            "whole again {} after healing (promised 10 s), {pairs} pairs; at the start after {}",
            seconds(healed),
            seconds(before)
        ),
    );
}
