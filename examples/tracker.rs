//! A tracker box: nodes that can't reach each other meet here and are relayed.
//!
//! ```sh
//! cargo run --example tracker -- 7878                 # for everybody
//! cargo run --example tracker -- 7878 NODE_ID…        # for these nodes only
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use elo::{Activity, Node, NodeId, Tracker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().map_or(Ok(7878), |p| p.parse())?;
    let allow: Vec<NodeId> = args.map(|id| id.parse()).collect::<Result<_, _>>()?;
    let role = if allow.is_empty() { Tracker::Public } else { Tracker::Private { allow } };

    let node = Node::builder()
        .name("tracker")
        .listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        .tracker(role)
        .start()
        .await?;
    println!("tracker {} on {:?}", node.id(), node.listen_addrs());

    let mut activity = node.activity();
    loop {
        tokio::select! {
            Some(happened) = activity.recv() => match happened {
                Activity::PeerConnected { node_id, addr, .. } => println!("+ {} {addr}", node_id.short()),
                Activity::PeerLost { node_id, name, .. } => println!("- {} {name}", node_id.short()),
                Activity::Refused { addr, message, .. } => println!("! {addr}: {message}"),
                _ => {}
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.shutdown().await;
    Ok(())
}
