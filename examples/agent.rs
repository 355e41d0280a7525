//! An agent behind a tracker, and a call to it.
//!
//! ```sh
//! cargo run --example agent -- 127.0.0.1:7878 serve                 # provides "summarise"
//! cargo run --example agent -- 127.0.0.1:7878 ask "a long text …"   # finds it, calls it
//! ```

use std::time::Duration;

use elo::{Context, Node, Task, TaskResult};
use serde_json::json;

async fn summarise(task: Task, context: Context) -> TaskResult {
    let text = task.payload["text"].as_str().ok_or("the payload must be {\"text\": …}")?;
    // Parts of an answer may go out while the rest is being worked on.
    for word in text.split_whitespace().take(3) {
        context.chunk(json!({ "word": word })).await?;
    }
    Ok(json!({ "words": text.split_whitespace().count(), "characters": text.chars().count() }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: agent TRACKER serve | agent TRACKER ask TEXT";
    let (tracker, what) = (args.first().ok_or(usage)?, args.get(1).ok_or(usage)?);
    // It doesn't listen: everything goes over the connection it makes to the tracker.
    let builder = Node::builder().peer(tracker).no_listen();

    if what == "serve" {
        let node = builder.name("summariser").agent("summarise").handler("summarise", summarise).start().await?;
        println!("{} provides \"summarise\"; Ctrl-C ends it", node.id());
        tokio::signal::ctrl_c().await?;
        node.shutdown().await;
        return Ok(());
    }

    let node = builder.start().await?;
    let text = args.get(2).ok_or(usage)?;
    let mut call = node.call("summarise", json!({ "text": text })).timeout(Duration::from_secs(30)).start().await?;
    while let Some(chunk) = call.next_chunk().await {
        println!("chunk   {chunk}");
    }
    let outcome = call.outcome().await?;
    println!("result  {}", outcome.payload);
    println!("by      {} ({:?}, {} ms)", outcome.responder, outcome.route, outcome.timings.total_ms);
    node.shutdown().await;
    Ok(())
}
