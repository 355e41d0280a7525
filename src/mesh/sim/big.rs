//! Hundreds of nodes for some minutes, with everything that goes wrong; what must hold is checked all along.
//!
//! `ELO_SIM_SEEDS=20` runs seeds 0 to 19 instead of the few of every day, `ELO_SIM_SEED=7` that one alone.

use std::time::{Duration, Instant};

use super::world::{Ev, Faults};
use super::*;
use crate::error::ErrorCode;

/// What kinds of tasks there are.
const CAPS: usize = 12;

struct Size {
    trackers: usize,
    hidden: usize,
    open: usize,
    seconds: u64,
    calls_per_s: usize,
}

const SIZE: Size = Size { trackers: 6, hidden: 110, open: 190, seconds: 20, calls_per_s: 50 };

pub fn seeds(most: u64) -> Vec<u64> {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("ELO_SIM_SEED"), number("ELO_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, seeds) => (0..seeds.unwrap_or(most)).collect(),
    }
}

/// A mesh: trackers that know each other, hidden nodes behind one or two of them, and open nodes in chains and small
/// worlds that begin at a tracker or at each other.
fn mesh(seed: u64, size: &Size) -> World {
    let mut w = World::new(seed);
    for i in 0..size.trackers {
        let t = w.add(Spec::new(&format!("t{i}")).tracker().punches().limits(|l| l.clock_skew = secs(20)));
        for other in 0..t {
            w.join(t, other);
        }
    }
    for i in 0..size.hidden + size.open {
        let hidden = i < size.hidden;
        let mut spec = Spec::new(&format!("n{i}")).punches().provides(&format!("cap.{}", w.below(CAPS)));
        if w.chance(0.1) {
            spec = spec.interest("cap.*");
        }
        spec.offset_ms = w.below(4000) as i64 - 2000;
        spec.listens = !hidden;
        // What is seen is remembered for as long as clocks may differ: shorter here, to see it forgotten sooner.
        spec.limits.clock_skew = secs(20);
        let n = w.add(spec);
        let tracker = w.below(size.trackers);
        if hidden {
            w.join(n, tracker);
            if w.chance(0.3) {
                let second = w.below(size.trackers);
                w.join(n, second);
            }
        } else {
            // Mostly to the one before: long chains, with a shortcut now and then.
            let before = if n > size.trackers + size.hidden { n - 1 } else { tracker };
            w.join(n, before);
            if w.chance(0.2) {
                let any = w.below(n);
                if w.nodes[any].spec.listens {
                    w.join(n, any);
                }
            }
            if w.chance(0.1) {
                w.join(n, tracker);
            }
        }
    }
    w
}

fn random_call(w: &mut World) {
    let n = w.below(w.nodes.len());
    if !w.nodes[n].up {
        return;
    }
    let mut ask = Ask::new(&format!("cap.{}", w.below(CAPS + 1))).timeout(secs(15));
    if w.chance(0.2) {
        let to = w.below(w.nodes.len());
        ask.capability = "ping".into();
        ask = ask.to(w.id(to));
    }
    ask.plan.ms = w.below(1500) as u64;
    if w.chance(0.2) {
        ask.plan.chunks = w.below(60) as u64;
    }
    ask.plan.error = match w.below(20) {
        0 => Some(ErrorCode::HandlerError),
        1 => Some(ErrorCode::Overloaded),
        2 => Some(ErrorCode::PeerGone),
        _ => None,
    };
    let call = w.call(n, ask);
    if w.chance(0.05) {
        let run = w.nodes[n].run;
        let wait = Duration::from_millis(w.below(1000) as u64);
        w.after(wait, Ev::Cancel { n, run, id: call.1 });
    }
}

fn random_trouble(w: &mut World) {
    // A connection breaks; both sides notice soon, or one of them late.
    for _ in 0..2 {
        let link = w.below(w.links.len());
        if w.links[link].alive {
            let late = w.chance(0.2);
            let notice = [ms(w.below(200) as u64), if late { secs(90) } else { ms(w.below(200) as u64) }];
            w.cut(link, notice);
        }
    }
    // A node dies, and comes back after a while; a hidden one may say nothing of it.
    if w.chance(0.5) {
        let n = w.below(w.nodes.len());
        if w.nodes[n].up {
            let noticed = w.chance(0.7);
            w.kill(n, noticed);
            // Its old port is free again, unless it is a plain node that takes any.
            let port = if w.nodes[n].spec.name.starts_with('t') { 7000 } else { 7000 + w.below(2) as u16 };
            let wait = ms(w.below(5000) as u64);
            w.after(wait, Ev::Revive { n, port });
        }
    }
    if w.chance(0.2) {
        let n = w.below(w.nodes.len());
        if w.nodes[n].up {
            w.publish(n, "cap.news");
        }
    }
}

fn big_run(seed: u64) {
    let began = Instant::now();
    let mut w = mesh(seed, &SIZE);
    w.run(secs(5));
    w.faults = Faults { relay_loss: 0.03, relay_full: 0.01, relay_twice: 0.05, relay_late: 0.05 };
    for second in 0..SIZE.seconds {
        for _ in 0..SIZE.calls_per_s {
            random_call(&mut w);
            w.run(Duration::from_secs(1) / SIZE.calls_per_s as u32);
        }
        random_trouble(&mut w);
        if second % 5 == 0 {
            w.settle_calls();
            w.check_bounds();
        }
    }
    // The trouble ends, and so does every call.
    w.faults = Faults::default();
    w.run(secs(20));
    w.settle_calls();
    w.check_bounds();
    let busy: u64 = w.received.values().sum();
    // Everybody is back, and what is over is forgotten: the seen ids last, after their timestamps.
    let quiet = secs(150);
    w.run(quiet);
    let idle = w.received.values().sum::<u64>() - busy;
    w.check_empty();
    let nodes = w.nodes.len();
    let per_node = idle as f64 / nodes as f64 / quiet.as_secs_f64();
    let l = &w.ledger;
    eprintln!(
        "seed {seed}: {nodes} nodes, {} calls ({} good, {:?}), {} tasks ran, {} dials, {} frames lost, {busy} messages \
         {:?}, {per_node:.2} a second and node when idle, {} rejected; {:.1} s",
        l.calls,
        l.succeeded,
        l.failed,
        l.runs(),
        w.dials,
        w.lost,
        w.received,
        w.rejected,
        began.elapsed().as_secs_f64(),
    );
    assert_eq!(w.rejected, 0, "seed {seed}: honest nodes send nothing that is refused");
    assert!(per_node < 2.0, "seed {seed}: {per_node} messages a second and node when idle");
    assert!(l.succeeded * 10 > l.calls * 6, "seed {seed}: only {} of {}", l.succeeded, l.calls);
}

#[test]
fn hundreds_of_nodes_with_cuts_losses_and_restarts() {
    // Two at a time: as many as there are cores at the least.
    for pair in seeds(2).chunks(2) {
        std::thread::scope(|scope| {
            for seed in pair {
                scope.spawn(|| big_run(*seed));
            }
        });
    }
}

#[test]
fn a_run_repeats_with_its_seed() {
    let run = |seed| {
        let size = Size { trackers: 2, hidden: 10, open: 20, seconds: 0, calls_per_s: 0 };
        let mut w = mesh(seed, &size);
        w.run(secs(2));
        w.faults = Faults { relay_loss: 0.1, relay_full: 0.1, relay_twice: 0.1, relay_late: 0.1 };
        for _ in 0..60 {
            random_call(&mut w);
            random_trouble(&mut w);
            w.run(ms(100));
        }
        w.run(secs(20));
        w.settle_calls();
        (format!("{:?}", w.ledger.failed), w.received, w.dials, w.ledger.succeeded)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
