//! What this program does when it is started by itself, as another process of a row: `--role ROLE ARGUMENTS`.
//!
//! A role prints `ready ADDRESS` and runs until its input ends, which it does with the bench.

use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
#[cfg(unix)]
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

#[cfg(unix)]
use crate::process::EXEC;
use crate::{Fault, elo_side, events, nats};

/// Runs a role to its end.
pub fn run(role: &str, arguments: &[String]) -> Result<(), Fault> {
    end_with_the_bench();
    if role == "exec" {
        return exec(arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match (role, arguments.as_slice()) {
            ("echo", []) => echo().await,
            ("elo", settings) => elo_side::provide(settings).await,
            ("nats", [url]) => nats::respond(url).await,
            ("elo-subscribers", [peer, count]) => events::elo_subscribers(peer, count.parse()?).await,
            ("nats-subscribers", [url, count]) => events::nats_subscribers(url, count.parse()?).await,
            _ => Err(format!("no such role: {role} {arguments:?}").into()),
        }
    })
}

/// Says that it is ready, and waits for the end of its input.
pub async fn ready(what: &str) -> Result<(), Fault> {
    say(&format!("ready {what}"))?;
    tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().for_each(drop)).await?;
    Ok(())
}

pub fn say(line: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A newline echo: the floor under everything that goes over TCP.
async fn echo() -> Result<(), Fault> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let mut stream = BufReader::with_capacity(64 * 1024, stream);
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).await? > 0 {
                    stream.write_all(&line).await?;
                    line.clear();
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    ready(&addr.to_string()).await
}

/// Says when, and becomes another program. What `end_with_the_bench` said stays said.
#[cfg(unix)]
fn exec(arguments: &[String]) -> Result<(), Fault> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) = arguments.split_first().ok_or("exec what?")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    say(&format!("{EXEC}{}", now.as_nanos()))?;
    let fault = std::process::Command::new(program).args(arguments).exec();
    Err(format!("{program}: {fault}").into())
}

#[cfg(not(unix))]
fn exec(_: &[String]) -> Result<(), Fault> {
    Err("this needs exec(2)".into())
}

/// Has the system kill this process when the bench is gone, whatever ended it. Processes are started from the bench's main
/// thread, which lives as long as it does.
fn end_with_the_bench() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}
