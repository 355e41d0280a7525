//! A bad connection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{figure, internet, seconds, until};
use super::load::{Done, Load};
use super::nodes::Elo;
use super::wire::Worse;

const WORSE: Worse = Worse { delay_ms: 20, jitter_ms: 5, loss_percent: 1, reorders: false, seed: 20 };

/// 50 calls a second of 1 KiB for a while, and as much as a message takes there and back.
#[test]
fn calls_go_through_with_delay_and_loss() {
    let row = "20 ms ± 5 ms and 1 % loss each way";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let (near, mut far) = (net.host(&world, "near"), net.host_far_away(&world, "far", WORSE));
    let provider = Elo::start(&near, "provider", &["--agent", "echo"]);
    let caller = Elo::start(&far, "caller", &["--peer", &near.addr()]);
    until("a first call", Duration::from_secs(30), || caller.call("echo", &json!(1)));

    let payload = json!("x".repeat(1024));
    let load = Load::start(vec![caller.door()], 50, "echo", &payload, Duration::from_secs(20));
    std::thread::sleep(Duration::from_secs(5));
    let calls = load.end();
    for call in &calls {
        let outcome = call.result.as_ref().unwrap();
        assert_eq!((&outcome["responder"], &outcome["payload"]), (&json!(provider.id()), &payload));
    }
    let mut took: Vec<Duration> = calls.iter().map(Done::took).collect();
    took.sort();
    let (half, worst) = (took[took.len() / 2], took[took.len() - 1]);
    // Else this would be a good connection.
    assert!(took[0] >= Duration::from_millis(30), "a call took {:?}: there is no delay", took[0]);
    let wire = far.wire.as_mut().unwrap();
    assert!(wire.lost() > 0, "nothing was lost");

    // A message has 1 MiB, and what is in it must fit sealed as well.
    let large = Value::String("y".repeat(elo::limits::MAX_PAYLOAD - 2));
    let start = Instant::now();
    let outcome = caller.call("echo", &large).unwrap();
    assert_eq!(outcome["payload"], large);
    let large = seconds(start.elapsed());
    let (calls, half, worst) = (calls.len(), half.as_millis(), worst.as_millis());
    let (lost, kind) = (wire.lost(), wire.kind());
    let of_1k = format!("{calls} calls of 1 KiB at 50/s: median {half} ms, slowest {worst} ms");
    figure(row, &format!("{of_1k}; 752 KiB there and back {large}; {lost} frames lost ({kind})"));
}
