//! Nobody in common but one address to enter the DHT by.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{SLOW, figure, internet, seconds, until};
use super::nodes::Elo;
use super::router::Nat;

const NODES: usize = 20;

/// Those behind a router: they ask, and nobody can dial them.
const AT_HOME: [usize; 2] = [15, 18];

/// From the call to the first verified provider.
const PROMISED: Duration = Duration::from_secs(1);

#[test]
fn twenty_nodes_find_each_other_by_dht_alone() {
    let row = "DHT only, 20 nodes (2 of them behind a NAT), no common peer";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let home = net.home(&world, Nat::Cone);
    let at = |n| if AT_HOME.contains(&n) { &home } else { &world };
    let hosts: Vec<_> = (0..NODES).map(|n| net.host(at(n), &format!("host{n}"))).collect();
    let env = [("ELO_NO_LAN", "true")];
    let bootstrap = hosts[0].addr();
    let start = Instant::now();
    let nodes: Vec<Elo> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| {
            let capability = format!("skill{n}");
            Elo::start_with(host, &format!("node{n}"), &["--agent", &capability, "--dht", &bootstrap], &env)
        })
        .collect();
    let started = start.elapsed();
    // Until the last node's announcement is there, a node that is asked nothing else asks for it.
    let (last, scout) = (NODES - 1, &nodes[1]);
    let (_, announced) =
        until("the announcements", Duration::from_secs(30), || scout.call(&format!("skill{last}"), &json!(1)));
    // Cold: each asks for what it never asked for, of a node it isn't connected to.
    let mut took = Vec::new();
    for (asks, answers) in [(2, 12), (7, 17), (18, 3), (11, 5), (15, 9)] {
        let (asks, answers): (&Elo, &Elo) = (&nodes[asks], &nodes[answers]);
        assert_eq!(asks.peers().len(), 0, "{} is to know nobody", asks.name);
        let start = Instant::now();
        let outcome = asks.elo_call(&answers.name.replace("node", "skill"), "cold").unwrap();
        took.push(start.elapsed());
        assert_eq!(outcome["responder"], answers.id());
        let steps: Vec<_> = outcome["tried"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
        assert!(steps.contains(&json!("dht")), "{outcome}");
    }
    took.sort();
    let (half, worst) = (took[took.len() / 2], took[took.len() - 1]);
    assert!(worst <= PROMISED * SLOW, "cold lookups took {took:?}");
    let cold = format!("`elo call`, cold: median {}, slowest {} (promised 1 s)", seconds(half), seconds(worst));
    figure(row, &format!("{cold}; 20 nodes started in {}, announced {} later", seconds(started), seconds(announced)));
}
