//! Events to many: the subscribers, all in one process, which tells when an event has reached every one of them.

use std::collections::HashMap;

use futures_lite::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::elo_side::Setting;
use crate::{Fault, roles};
use elo::Tls;

/// What they listen to.
pub const TOPIC: &str = "versus";

/// The number that an event carries.
fn number(event: &Value) -> Option<u64> {
    event["n"].as_u64()
}

/// The role of so many nodes with a subscription each, connected to a node.
pub async fn elo_subscribers(peer: &str, count: usize) -> Result<(), Fault> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut nodes = Vec::new();
    for _ in 0..count {
        let node = Setting::new(Tls::Off, false).node().no_listen().peer(peer).start().await?;
        let mut events = node.subscribe(TOPIC)?;
        if !node.connected(std::time::Duration::from_secs(20)).await {
            return Err("a subscriber doesn't connect".into());
        }
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Some(number) = number(&event.data) {
                    let _ = sender.send(number);
                }
            }
        });
        nodes.push(node);
    }
    tell(count, receiver);
    roles::ready("-").await
}

/// The role of so many clients with a subscription each.
pub async fn nats_subscribers(url: &str, count: usize) -> Result<(), Fault> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for _ in 0..count {
        let client = async_nats::connect(url).await?;
        let mut events = client.subscribe(TOPIC).await?;
        client.flush().await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            let _client = client;
            while let Some(message) = events.next().await {
                // Read, as an event of elo is.
                let event = serde_json::from_slice(&message.payload).unwrap_or_default();
                if let Some(number) = number(&event) {
                    let _ = sender.send(number);
                }
            }
        });
    }
    tell(count, receiver);
    roles::ready("-").await
}

/// Prints the number of each event that all of them have.
fn tell(count: usize, mut arrived: mpsc::UnboundedReceiver<u64>) {
    tokio::spawn(async move {
        let mut missing: HashMap<u64, usize> = HashMap::new();
        while let Some(number) = arrived.recv().await {
            let left = missing.entry(number).or_insert(count);
            *left -= 1;
            if *left == 0 {
                missing.remove(&number);
                if roles::say(&format!("all {number}")).is_err() {
                    return;
                }
            }
        }
    });
}
