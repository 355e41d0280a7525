//! elo beside NATS, the Python package elo-node 0.5.0 and a bare socket: one run, one machine, alternating rounds.
//!
//! `cargo bench --bench versus` (`-- --help` tells the options)
//!
//! What is compared, and how it is kept fair:
//!
//! - Callers are in this process, whoever answers is in another one, for everybody. NATS has a third, its server, since it
//!   has one wherever it is used; elo has none, since it needs none. Where elo goes through a tracker it has a third too.
//! - Each contestant's caller has one connection, and so has whoever answers. All Rust callers share one tokio runtime of
//!   the usual kind (a worker for each core), on which nothing else runs while one is measured.
//! - All are measured by the same closed loop: so many calls in flight, each followed by the next, for a set time; what
//!   starts up is not counted. Rounds alternate, each begins with another contestant, and ratios are taken within a
//!   round: what disturbs the machine for a while disturbs all.
//! - elo is what a user gets: release build, public API, signatures made and checked by both, payloads as JSON values that
//!   are read and printed on both sides. NATS moves bytes that nobody looks at, signs nothing, and runs with the
//!   settings that it comes with. The Python package signs and checks as well; its limit of 100 messages a minute is lifted.
//! - elo's limits on what one peer may send are raised, unless `--default-limits` is given: what is measured is the work.
//!   The output says so.
//! - CPU time is that of all processes that take part, from /proc (Linux), in ticks of 10 ms.
// A bench's helpers are as private as a test's.
#![allow(missing_docs)]

mod args;
mod bare;
mod bare_tls;
mod check;
mod command;
mod contestant;
mod elo_side;
mod events;
mod figures;
mod limit;
mod load;
mod nats;
mod process;
mod python;
mod report;
mod roles;
mod rows;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Instant;

use serde_json::{Value, json};

use crate::args::{Args, HELP};
use crate::rows::Bench;

/// What went wrong, for a person.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role, arguments @ ..] = words.as_slice()
        && flag == "--role"
    {
        return finish(roles::run(role, arguments));
    }
    if words.iter().any(|word| word == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if !words.iter().any(|word| word == "--bench") {
        // `cargo test --all-targets` runs benches as well, without this word.
        println!("nothing is measured without --bench, which `cargo bench --bench versus` says");
        return ExitCode::SUCCESS;
    }
    finish(Args::parse(words.into_iter()).map_err(Fault::from).and_then(run))
}

fn finish(result: Result<(), Fault>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("versus: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Fault> {
    if args.list {
        rows::NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The processes are started, held and ended here, on the main thread.
    runtime.block_on(async {
        tokio::select! {
            done = measure(args) => done,
            () = interrupted() => Err("interrupted".into()),
        }
    })
}

/// Ctrl-C, or what ends services.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut ended) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = ended.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

async fn measure(args: Args) -> Result<(), Fault> {
    let started = Instant::now();
    let wanted: Vec<&'static str> = rows::NAMES.iter().copied().filter(|name| args.wants(name)).collect();
    if wanted.is_empty() {
        return Err("no row is named so: --list names them".into());
    }
    let bench = Bench::new(args)?;
    let setting = setting(&bench);
    let (mut measured, mut failed) = (Vec::new(), Vec::new());
    for name in wanted {
        match row(name, &bench).await {
            Ok(rows) => {
                rows.iter().for_each(report::print);
                measured.extend(rows);
            }
            // The others are measured nevertheless.
            Err(fault) => {
                println!("\n{name}: FAILED: {fault}");
                failed.push((name, fault.to_string()));
            }
        }
    }
    let numbers = if bench.args.check { check::numbers(&measured, |row| bench.args.wants(row)) } else { Vec::new() };
    report::write(&bench.args.json, &setting, &measured, &failed, &check::json(&numbers))?;
    println!("\n{} rows in {:.0} s; {}", measured.len(), started.elapsed().as_secs_f64(), bench.args.json.display());
    let reached = check::print(&numbers);
    if failed.is_empty() {
        return reached;
    }
    let faults: Vec<String> = failed.iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
    let missed = reached.err().map(|fault| format!("\n{fault}")).unwrap_or_default();
    Err(format!("{} rows failed\n{}{missed}", failed.len(), faults.join("\n")).into())
}

/// Measures a row, or some; a panic in it is a fault of that row. What it started has ended then.
async fn row(name: &'static str, bench: &Bench) -> Result<Vec<figures::Row>, Fault> {
    let mut rows = pin!(rows::run(name, bench));
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| rows.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err("it panicked, see above".into())))
    })
    .await
}

/// Says what is measured under which conditions.
fn setting(bench: &Bench) -> Value {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "release" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let limits = if bench.args.default_limits { "default" } else { "raised" };
    let (rounds, seconds) = (bench.args.rounds, bench.args.window.as_secs_f64());
    println!(
        "{build} build, {cores} cores, load {load} at the start; {rounds} rounds of {seconds} s for each contestant"
    );
    println!("± is half of what lies between the least and the most of the rounds; ratios are medians of each round's");
    if bench.args.default_limits {
        println!("elo's limits are the default ones");
    } else {
        println!("elo's limits on messages, signatures checked, bytes, relayed bytes, floods and remembered tasks are");
        println!("raised, those of `elo serve --tracker` on connections, handshakes and memory as well");
    }
    if cfg!(debug_assertions) {
        println!("THIS IS A DEBUG BUILD: IT SHOWS THAT THE BENCH RUNS. THESE ARE NOT FIGURES.");
    }
    json!({
        "build": build, "cores": cores, "load": load, "limits": limits, "rounds": rounds, "seconds": seconds,
        "nats": bench.nats, "python": bench.python, "short": bench.args.short,
    })
}
