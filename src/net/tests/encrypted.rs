//! The same under TLS.

use super::*;

#[path = "connection.rs"]
mod connection;
#[path = "hostile.rs"]
mod hostile;
#[path = "rates.rs"]
mod rates;

fn config(seed: u8, change: impl FnOnce(&mut NetConfig)) -> Arc<NetConfig> {
    encrypting(seed, change)
}

async fn connected(change: impl FnOnce(&mut NetConfig)) -> (Connection, Arc<Notes>, Raw) {
    connected_by(config(1, change)).await
}
