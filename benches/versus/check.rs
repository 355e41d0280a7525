//! The numbers to reach: ratios within one run, and a few that stand for themselves.

use serde_json::{Value, json};

use crate::Fault;
use crate::figures::{Figure, Row};
use crate::report::digits;

/// What a number is held against.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

/// A number to reach: a contestant's figure in a row, by another's if it has one.
struct Goal {
    row: &'static str,
    of: &'static str,
    figure: Figure,
    by: Option<&'static str>,
    bound: Bound,
}

const fn goal(row: &'static str, of: &'static str, figure: Figure, by: Option<&'static str>, bound: Bound) -> Goal {
    Goal { row, of, figure, by, bound }
}

const PLAIN: &str = "elo, plain";
const TLS: &str = "elo, encrypted";
const LIMIT: Option<&str> = Some("the limit");
const NATS: Option<&str> = Some("NATS");
const PYTHON: Option<&str> = Some("Python");

use Bound::{AtLeast, AtMost, Below};
use Figure::{P50, P99, Rate, Value as Amount};

const GOALS: &[Goal] = &[
    goal("one-at-a-time", PLAIN, P50, LIMIT, AtMost(1.25)),
    goal("one-at-a-time", TLS, P50, LIMIT, AtMost(1.4)),
    goal("in-flight-64", PLAIN, Rate, NATS, AtLeast(1.0)),
    goal("in-flight-64", PLAIN, Rate, PYTHON, AtLeast(30.0)),
    goal("in-flight-256", PLAIN, Rate, NATS, AtLeast(1.0)),
    goal("in-flight-256", PLAIN, Rate, PYTHON, AtLeast(30.0)),
    goal("tracker-64", "elo, relayed, open, plain", Rate, NATS, AtLeast(0.7)),
    goal("tracker-64", "elo, relayed, sealed, plain", Rate, NATS, AtLeast(0.7)),
    goal("connections-10000", PLAIN, Amount, NATS, AtMost(1.0)),
    goal("connections-10000", PLAIN, Amount, None, AtMost(16.0)),
    goal("connections-10000", TLS, Amount, None, AtMost(40.0)),
    goal("connections-1000", PLAIN, Amount, NATS, AtMost(1.0)),
    goal("connections-1000", PLAIN, Amount, None, AtMost(16.0)),
    goal("connections-1000", TLS, Amount, None, AtMost(40.0)),
    goal("idle-memory", "elo", Amount, None, AtMost(10.0)),
    goal("idle-cpu", "elo", Amount, None, Below(0.1)),
    goal("start", "elo", Amount, None, AtMost(30.0)),
    goal("binary", "elo", Amount, None, AtMost(12.0)),
    goal("payload-10k", PLAIN, Amount, Some("raw socket"), AtLeast(0.5)),
    goal("small-beside-large", "elo, plain, beside 500 kB", P50, Some("elo, plain, alone"), AtMost(2.0)),
    goal("small-beside-large", "elo, plain, beside 500 kB", P99, Some("elo, plain, alone"), AtMost(2.0)),
    goal("small-beside-large", "elo, encrypted, beside 500 kB", P50, Some("elo, encrypted, alone"), AtMost(2.0)),
    goal("small-beside-large", "elo, encrypted, beside 500 kB", P99, Some("elo, encrypted, alone"), AtMost(2.0)),
];

/// How one of them came out.
#[derive(Debug)]
pub struct Number {
    what: String,
    measured: Option<f64>,
    bound: Bound,
}

impl Number {
    /// `None`: it was not measured.
    fn reached(&self) -> Option<bool> {
        self.measured.map(|measured| match self.bound {
            AtMost(most) => measured <= most,
            AtLeast(least) => measured >= least,
            Below(least) => measured < least,
        })
    }

    fn bound(&self) -> String {
        match self.bound {
            AtMost(most) => format!("≤ {}", digits(most)),
            AtLeast(least) => format!("≥ {}", digits(least)),
            Below(least) => format!("< {}", digits(least)),
        }
    }
}

/// Those of the rows that were wanted, whether they could be measured or not.
pub fn numbers(rows: &[Row], wants: impl Fn(&str) -> bool) -> Vec<Number> {
    let wanted = GOALS.iter().filter(|goal| wants(goal.row));
    let numbers = wanted.map(|goal| {
        let row = rows.iter().find(|row| row.name == goal.row);
        let spread = row.and_then(|row| match goal.by {
            Some(by) => row.ratio(goal.figure, goal.of, by),
            None => row.figure(goal.figure, goal.of),
        });
        let figure = match goal.figure {
            P50 => "p50",
            P99 => "p99",
            Rate => "rate",
            Figure::Cpu => "CPU time",
            Amount => row.map_or("", |row| row.unit),
        };
        let by = goal.by.map(|by| format!(" ÷ {by}")).unwrap_or_default();
        let figure = if figure.is_empty() { String::new() } else { format!(" ({figure})") };
        let what = format!("{}: {}{by}{figure}", goal.row, goal.of);
        Number { what, measured: spread.map(|spread| spread.median), bound: goal.bound }
    });
    numbers.collect()
}

/// Prints them.
///
/// # Errors
///
/// One was not reached.
pub fn print(numbers: &[Number]) -> Result<(), Fault> {
    if numbers.is_empty() {
        return Ok(());
    }
    println!("\nnumbers to reach");
    for number in numbers {
        let verdict = match number.reached() {
            Some(true) => "reached",
            Some(false) => "NOT REACHED",
            None => "not measured",
        };
        let measured = number.measured.map_or_else(|| "-".to_owned(), digits);
        println!("  {:<80}{measured:>10}  {:<8}  {verdict}", number.what, number.bound());
    }
    let missed = numbers.iter().filter(|number| number.reached() == Some(false)).count();
    if missed > 0 {
        return Err(format!("{missed} of {} numbers not reached", numbers.len()).into());
    }
    Ok(())
}

pub fn json(numbers: &[Number]) -> Value {
    let each = numbers.iter().map(|number| {
        json!({
            "what": number.what,
            "measured": number.measured,
            "bound": number.bound(),
            "reached": number.reached(),
        })
    });
    each.collect()
}
