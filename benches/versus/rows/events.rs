//! Events to a hundred subscribers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elo::{Node, Tls};
use serde_json::json;

use super::Bench;
use crate::Fault;
use crate::command::Serve;
use crate::events::TOPIC;
use crate::figures::{Figure, Round, Row, Series};
use crate::load::{TooShort, histogram, micros};
use crate::nats::Server;
use crate::process::{Process, cpu_time};

/// How many listen.
const SUBSCRIBERS: usize = 100;

/// How many events are under way: few enough that nobody's 256 places for waiting ones are ever full.
const UNDER_WAY: usize = 32;

/// How long is measured at least: in a build without optimisation an event takes a third of a second to all.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long the last may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where events go out.
enum Publisher {
    Elo(Node),
    Nats(async_nats::Client),
}

impl Publisher {
    async fn publish(&self, number: u64) -> Result<(), Fault> {
        let event = json!({ "n": number, "text": "x".repeat(100) });
        match self {
            Self::Elo(node) => drop(node.publish(TOPIC, event)?),
            Self::Nats(client) => client.publish(TOPIC, Bytes::from(event.to_string())).await?,
        }
        Ok(())
    }
}

struct Fan {
    publisher: Publisher,
    subscribers: Process,
    /// What is in between.
    between: Option<Process>,
    /// The next event's number.
    next: u64,
    _tracker: Option<Serve>,
}

impl Fan {
    /// The publisher listens, and all subscribers are connected to it.
    async fn elo() -> Result<Self, Fault> {
        let node = crate::elo_side::Setting::new(Tls::Off, false).node();
        let node = node.listen(([127, 0, 0, 1], 0).into()).start().await?;
        let addr = node.listen_addrs().first().ok_or("it doesn't listen")?.to_string();
        let mut fan = Self::new(Publisher::Elo(node), "elo-subscribers", &addr)?;
        fan.settle().await?;
        Ok(fan)
    }

    /// All are connected to a tracker.
    async fn relayed() -> Result<Self, Fault> {
        let tracker = Serve::tracker(true).await?;
        let node =
            crate::elo_side::Setting::new(Tls::Off, false).node().no_listen().peer(&tracker.addr).start().await?;
        if !node.connected(PATIENCE).await {
            return Err("the tracker is not reached".into());
        }
        let mut fan = Self::new(Publisher::Elo(node), "elo-subscribers", &tracker.addr)?;
        fan._tracker = Some(tracker);
        fan.settle().await?;
        Ok(fan)
    }

    async fn nats() -> Result<Self, Fault> {
        let server = Server::start().await?;
        let client = server.client().await?;
        let mut fan = Self::new(Publisher::Nats(client), "nats-subscribers", &server.url)?;
        fan.between = Some(server.process);
        fan.settle().await?;
        Ok(fan)
    }

    fn new(publisher: Publisher, role: &str, addr: &str) -> Result<Self, Fault> {
        let subscribers = Process::role(role, &[addr, &SUBSCRIBERS.to_string()])?;
        Ok(Self { publisher, subscribers, between: None, next: 0, _tracker: None })
    }

    /// Publishes until an event has reached everybody: then all are known to listen.
    async fn settle(&mut self) -> Result<(), Fault> {
        self.subscribers.line("ready ").await?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.next += 1;
            self.publisher.publish(self.next).await?;
            let arrived = self.subscribers.line("all ");
            if let Ok(arrived) = tokio::time::timeout(Duration::from_millis(500), arrived).await {
                arrived?;
                // What may still be on its way.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Ok(());
            }
        }
        Err("no event reaches all subscribers".into())
    }

    fn processes(&self) -> Vec<u32> {
        let tracker = self._tracker.as_ref().map(|tracker| tracker.process.id());
        let between = self.between.as_ref().map(Process::id);
        [Some(std::process::id()), Some(self.subscribers.id()), tracker, between].into_iter().flatten().collect()
    }

    async fn run(&mut self, under_way: usize, window: Duration) -> Result<Round, Fault> {
        let processes = self.processes();
        let before = cpu_time(&processes)?;
        let from = Instant::now() + window.mul_f64(0.2);
        let until = from + window;
        let (mut sent, mut latencies, mut all) = (HashMap::new(), histogram(), 0u64);
        loop {
            while sent.len() < under_way && Instant::now() < until {
                self.next += 1;
                sent.insert(self.next, Instant::now());
                self.publisher.publish(self.next).await?;
            }
            if sent.is_empty() {
                break;
            }
            let arrived = tokio::time::timeout(PATIENCE, self.subscribers.line("all ")).await;
            let arrived = arrived.map_err(|_| format!("{} events did not reach everybody", sent.len()))??;
            let Some(begun) = sent.remove(&arrived.parse()?) else { continue };
            all += 1;
            let done = Instant::now();
            if done >= from && done < until {
                latencies.saturating_record((done - begun).as_nanos() as u64);
            }
        }
        let cpu = cpu_time(&processes)?.saturating_sub(before);
        if latencies.is_empty() {
            return Err(TooShort.into());
        }
        Ok(Round {
            p50_us: Some(micros(&latencies, 0.5)),
            p99_us: Some(micros(&latencies, 0.99)),
            rate: Some(latencies.len() as f64 / window.as_secs_f64() * SUBSCRIBERS as f64),
            cpu_us: Some(cpu.as_secs_f64() * 1e6 / (all.max(1) * SUBSCRIBERS as u64) as f64),
            value: None,
        })
    }
}

/// From one publisher to all of them.
pub async fn fan_out(bench: &Bench) -> Result<Row, Fault> {
    let mut field = vec![("elo, subscribers at the publisher", Fan::elo().await?)];
    field.push(("elo, all at a tracker", Fan::relayed().await?));
    if bench.nats {
        field.push(("NATS", Fan::nats().await?));
    }
    let mut series: Vec<Series> =
        field.iter().map(|(name, _)| Series { name: (*name).to_owned(), rounds: Vec::new() }).collect();
    for round in 0..bench.args.rounds {
        for at in 0..field.len() {
            let at = (at + round) % field.len();
            let (name, fan) = &mut field[at];
            let window = bench.args.window.max(SHORTEST);
            let mut measured = fan.run(UNDER_WAY, window).await;
            if measured.as_ref().is_err_and(|fault| fault.is::<TooShort>()) {
                measured = fan.run(UNDER_WAY, window * 8).await;
            }
            series[at].rounds.push(measured.map_err(|fault| format!("{name}: {fault}"))?);
        }
    }
    Ok(Row {
        name: "events",
        about: format!(
            "events to {SUBSCRIBERS} subscribers in one process, {UNDER_WAY} under way; times until the last one has it, deliveries a second"
        ),
        unit: "",
        figure: Figure::Rate,
        bases: &["NATS"],
        series,
        notes: vec!["elo's are signed, and checked by every subscriber".to_owned()],
    })
}
