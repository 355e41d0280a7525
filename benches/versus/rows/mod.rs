//! The rows of the table.

mod calls;
mod connections;
mod events;
mod payloads;
mod resting;
mod trackers;

use elo::Tls;

use crate::args::Args;
use crate::contestant::Contestant;
use crate::elo_side::Setting;
use crate::figures::{Row, Series};
use crate::{Fault, nats, python};

/// What the rows have in common.
pub struct Bench {
    pub args: Args,
    pub nats: bool,
    pub python: bool,
}

impl Bench {
    pub fn new(args: Args) -> Result<Self, Fault> {
        let bench = Self { nats: nats::program().is_some(), python: python::is_installed(), args };
        let missing = [(bench.nats, "nats-server"), (bench.python, "the Python package elo-node==0.5.0 ($ELO_PYTHON)")];
        for what in missing.iter().filter(|(there, _)| !there).map(|(_, what)| what) {
            if bench.args.require_peers {
                return Err(format!("--require-peers: {what} is not installed").into());
            }
            println!("{what} is not installed: not measured");
        }
        Ok(bench)
    }

    pub fn elo(&self, tls: Tls) -> Setting {
        Setting::new(tls, self.args.default_limits)
    }

    /// Contestants that are there.
    async fn nats(&self) -> Result<Option<Contestant>, Fault> {
        if self.nats { Contestant::nats().await.map(Some) } else { Ok(None) }
    }

    async fn python(&self) -> Result<Option<Contestant>, Fault> {
        if self.python { Contestant::python().await.map(Some) } else { Ok(None) }
    }
}

/// The contestants of a row, with what each gave.
struct Field(Vec<(Contestant, Series)>);

impl Field {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn enter(&mut self, name: &str, contestant: impl Into<Option<Contestant>>) {
        if let Some(contestant) = contestant.into() {
            self.0.push((contestant, Series { name: name.to_owned(), rounds: Vec::new() }));
        }
    }

    /// One round: each in turn, beginning with another each time.
    async fn round(
        &mut self,
        number: usize,
        in_flight: usize,
        message: &crate::contestant::Message,
        window: std::time::Duration,
    ) -> Result<(), Fault> {
        let count = self.0.len();
        for at in 0..count {
            let (contestant, series) = &mut self.0[(at + number) % count];
            let round = contestant.run(in_flight, message, window).await;
            series.rounds.push(round.map_err(|e| format!("{}: {e}", series.name))?);
        }
        Ok(())
    }

    fn series(self) -> Vec<Series> {
        self.0.into_iter().map(|(_, series)| series).collect()
    }
}

/// The rows' names, in the order they are run.
pub const NAMES: [&str; 17] = [
    "one-at-a-time",
    "in-flight-1",
    "in-flight-64",
    "in-flight-256",
    "payload-100",
    "payload-10k",
    "payload-500k",
    "small-beside-large",
    "tracker-1",
    "tracker-64",
    "events",
    "handshakes",
    "connections-1000",
    "connections-10000",
    "idle",
    "start",
    "binary",
];

/// Runs one; some give more than one.
pub async fn run(name: &'static str, bench: &Bench) -> Result<Vec<Row>, Fault> {
    let row = match name {
        "one-at-a-time" => calls::one_at_a_time(bench).await,
        "in-flight-1" => calls::in_flight(bench, name, 1).await,
        "in-flight-64" => calls::in_flight(bench, name, 64).await,
        "in-flight-256" => calls::in_flight(bench, name, 256).await,
        "payload-100" => payloads::of_size(bench, name, 100, 64).await,
        "payload-10k" => payloads::of_size(bench, name, 10_000, 64).await,
        "payload-500k" => payloads::of_size(bench, name, 500_000, 4).await,
        "small-beside-large" => payloads::small_beside_large(bench).await,
        "tracker-1" => trackers::relayed(bench, name, 1).await,
        "tracker-64" => trackers::relayed(bench, name, 64).await,
        "events" => events::fan_out(bench).await,
        "handshakes" => connections::handshakes(bench).await,
        "connections-1000" => connections::idle(bench, name, 1000).await,
        // In the short form it would be the same once more.
        "connections-10000" if bench.args.short => {
            println!("\n{name}: left out of the short form, where connections-1000 has as many");
            return Ok(Vec::new());
        }
        "connections-10000" => connections::idle(bench, name, 10_000).await,
        "idle" => return resting::idle(bench).await,
        "start" => resting::start(bench).await,
        "binary" => resting::binary(bench),
        _ => Err(format!("no row is named {name}").into()),
    };
    row.map(|row| vec![row])
}
