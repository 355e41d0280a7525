//! A node that has nothing to do, how it starts, and how large it is.

use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::Bench;
use crate::Fault;
use crate::command::{ELO, Home, Serve};
use crate::figures::{Figure, Round, Row, Series};
use crate::nats::{self, Server};
use crate::process::{EXEC, Process, cpu_time, free_port, resident_kb};

/// How long an idle process settles.
const SETTLE: Duration = Duration::from_secs(2);

fn named(names: &[&str]) -> Vec<Series> {
    names.iter().map(|name| Series { name: (*name).to_owned(), rounds: Vec::new() }).collect()
}

/// Resident memory, and CPU time over a minute; both at once, of `elo serve` and nats-server side by side.
pub async fn idle(bench: &Bench) -> Result<Vec<Row>, Fault> {
    let minute = Duration::from_secs(if bench.args.short { 3 } else { 60 });
    let node = Serve::start(Home::new(false)?, &["--agent", "idle"]).await?;
    let server = if bench.nats { Some(Server::start().await?) } else { None };
    tokio::time::sleep(SETTLE.min(minute)).await;
    let mut processes = vec![("elo", node.process.id())];
    processes.extend(server.as_ref().map(|server| ("NATS", server.process.id())));
    let names: Vec<&str> = processes.iter().map(|(name, _)| *name).collect();
    let (mut memory, mut cpu) = (named(&names), named(&names));
    let mut before = Vec::new();
    for (_, process) in &processes {
        before.push(cpu_time(&[*process])?);
    }
    tokio::time::sleep(minute).await;
    for (at, (_, process)) in processes.iter().enumerate() {
        memory[at].rounds.push(Round::of(resident_kb(*process)? / 1000.0));
        let used = cpu_time(&[*process])?.saturating_sub(before[at]);
        cpu[at].rounds.push(Round::of(used.as_secs_f64() / minute.as_secs_f64() * 100.0));
    }
    let row = |name, about: String, unit, series| Row {
        name,
        about,
        unit,
        figure: Figure::Value,
        bases: &["NATS"],
        series,
        notes: Vec::new(),
    };
    let seconds = minute.as_secs();
    let mut memory = row("idle-memory", format!("resident memory of an idle node, after {seconds} s"), "MB", memory);
    memory
        .notes
        .push("elo serve --agent, on loopback: without the local network's multicast and without the DHT".into());
    let mut cpu = row("idle-cpu", format!("CPU time of an idle node over {seconds} s"), "% of a core", cpu);
    cpu.notes.push(format!("counted in ticks of 10 ms: one is {:.3} %", 1.0 / seconds as f64));
    Ok(vec![memory, cpu])
}

/// From exec to the line that says that it is ready.
pub async fn start(bench: &Bench) -> Result<Row, Fault> {
    let names: &[&str] = if bench.nats { &["elo", "NATS"] } else { &["elo"] };
    let mut series = named(names);
    let home = Home::new(false)?;
    let elo = home.command(&["--agent", "idle"]);
    for round in 0..bench.args.rounds * 5 {
        for at in 0..names.len() {
            let at = (at + round) % names.len();
            let (mut process, word) = if at == 0 {
                (Process::program(names[at], ELO.as_os_str(), &elo)?, "\"ready\"")
            } else {
                let program = nats::program().ok_or("nats-server is gone")?;
                let port = free_port()?.to_string();
                (Process::program(names[at], &program, &["-a", "127.0.0.1", "-p", &port])?, "Server is ready")
            };
            let begun = UNIX_EPOCH + Duration::from_nanos(process.line(EXEC).await?.parse()?);
            process.line(word).await?;
            // By the clock that both processes have. Were it set back meanwhile, this is an error.
            series[at].rounds.push(Round::of(begun.elapsed()?.as_secs_f64() * 1000.0));
        }
    }
    Ok(Row {
        name: "start",
        about: "from exec to the line that says it is ready, with a key that is there".to_owned(),
        unit: "ms",
        figure: Figure::Value,
        bases: &["NATS"],
        series,
        notes: Vec::new(),
    })
}

/// The program file, without symbols.
pub fn binary(bench: &Bench) -> Result<Row, Fault> {
    let folder = tempfile::tempdir()?;
    let mut notes = Vec::new();
    let mut size = |name: &str, program: &std::path::Path| -> Result<Round, Fault> {
        let copy = folder.path().join("copy");
        std::fs::copy(program, &copy).map_err(|e| format!("{}: {e}", program.display()))?;
        if !Command::new("strip").arg(&copy).status().is_ok_and(|status| status.success()) {
            notes.push(format!("{name}: there is no strip(1), so this is the file as it was built"));
        }
        Ok(Round::of(std::fs::metadata(&copy)?.len() as f64 / 1e6))
    };
    let mut series = vec![Series { name: "elo".to_owned(), rounds: vec![size("elo", &ELO)?] }];
    if let Some(program) = nats::program().filter(|_| bench.nats) {
        series.push(Series { name: "NATS".to_owned(), rounds: vec![size("NATS", program.as_ref())?] });
    }
    let about = "size of the program, stripped".to_owned();
    Ok(Row { name: "binary", about, unit: "MB", figure: Figure::Value, bases: &["NATS"], series, notes })
}
