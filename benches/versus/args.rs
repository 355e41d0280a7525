//! What was asked for.

use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
cargo bench --bench versus -- [OPTIONS]

  --short           every row for a moment, under a minute in all: shows that it runs, its figures mean little
  --rounds N        alternating rounds of each row (default 5, with --short 1)
  --seconds S       how long each contestant is measured in a round (default 2, with --short 0.3)
  --only ROW        this row alone, or those whose names begin so; may be said again
  --list            names the rows
  --json FILE       where the figures go (default target/versus.json)
  --require-peers   what can't be measured because nats-server or the Python package is missing is an error
  --check           compares with the numbers to reach, and fails when one is missed
  --default-limits  leaves elo's limits as they are: what is measured may then be the throttle

nats-server is looked for in PATH and in /usr/sbin ($NATS_SERVER names another), the Python package in $ELO_PYTHON
(default python3).";

/// The options.
#[derive(Debug)]
pub struct Args {
    pub short: bool,
    pub rounds: usize,
    pub window: Duration,
    pub only: Vec<String>,
    pub list: bool,
    pub json: PathBuf,
    pub require_peers: bool,
    pub check: bool,
    pub default_limits: bool,
}

impl Args {
    /// Reads them; the error is for the person who typed them.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        let mut args = Self {
            short: false,
            rounds: 0,
            window: Duration::ZERO,
            only: Vec::new(),
            list: false,
            json: target.join("versus.json"),
            require_peers: false,
            check: false,
            default_limits: false,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                // What cargo itself adds.
                "--bench" => {}
                "--short" => args.short = true,
                "--list" => args.list = true,
                "--require-peers" => args.require_peers = true,
                "--check" => args.check = true,
                "--default-limits" => args.default_limits = true,
                "--only" => args.only.push(value()?),
                "--json" => args.json = value()?.into(),
                "--rounds" => args.rounds = read(&word, &value()?, 1.0..=1000.0)? as usize,
                "--seconds" => args.window = Duration::from_secs_f64(read(&word, &value()?, 0.05..=600.0)?),
                _ => return Err(format!("unknown: {word}\n\n{HELP}")),
            }
        }
        if args.rounds == 0 {
            args.rounds = if args.short { 1 } else { 5 };
        }
        if args.window.is_zero() {
            args.window = Duration::from_secs_f64(if args.short { 0.3 } else { 2.0 });
        }
        Ok(args)
    }

    /// Whether a row is wanted.
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| row.starts_with(only.as_str()))
    }
}

fn read(option: &str, text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| format!("{option} takes a number from {} to {}, not {text:?}", range.start(), range.end()))
}
