//! What one peer, or one address, may take of a node, against floods over real sockets: each bound holds, what was
//! refused is counted, and whoever behaves, from another address, is served all the while.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod door;
mod memory;
#[path = "../mesh/mod.rs"]
mod mesh;
mod peers;
#[allow(dead_code, reason = "others use the rest")]
#[path = "../hostile/raw.rs"]
mod raw;
mod relays;
#[allow(dead_code, reason = "others use the rest")]
#[path = "../hostile/target.rs"]
mod target;

use elo::wire::Builder;

use crate::raw::Raw;
use crate::target::Target;

/// Where those are who behave.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Somebody at another address connects, and has a task done.
async fn elsewhere_is_served(target: &Target) {
    let mut raw = Raw::connect_from(&target.node, ELSEWHERE).await;
    is_served(&mut raw).await;
}

/// A task over a connection that is there.
async fn is_served(raw: &mut Raw) {
    let id = raw::nonce();
    raw.sends(raw.task(&id).str("capability", "echo")).await;
    assert_eq!(raw.result(&id).await["status"], "success");
}

/// The same when the node may be short of memory: that is told, and passes.
async fn is_served_soon(raw: &mut Raw) {
    let served = async {
        loop {
            let id = raw::nonce();
            raw.sends(raw.task(&id).str("capability", "echo")).await;
            let result = raw.result(&id).await;
            if result["status"] == "success" {
                return;
            }
            assert_eq!(result["error"]["code"], "OVERLOADED", "{result}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), served).await.expect("it is served");
}

/// A message of about so many bytes that is counted and ignored.
fn ballast(bytes: usize) -> Vec<u8> {
    let mut line = Builder::new("no_such_type").str("x", &"x".repeat(bytes)).build().raw().to_vec();
    line.push(b'\n');
    line
}
