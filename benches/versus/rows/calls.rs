//! Calls between two nodes.

use elo::Tls;

use super::{Bench, Field};
use crate::Fault;
use crate::contestant::{Contestant, Message, USUAL};
use crate::figures::{Figure, Round, Row, Series};
use crate::limit;

/// One call after another, beside the limit.
pub async fn one_at_a_time(bench: &Bench) -> Result<Row, Fault> {
    let message = Message::usual();
    let mut field = Field::new();
    field.enter("newline echo", Contestant::echo().await?);
    field.enter("elo, plain", Contestant::elo(bench.elo(Tls::Off)).await?);
    field.enter("elo, encrypted", Contestant::elo(bench.elo(Tls::Required)).await?);
    field.enter("NATS", bench.nats().await?);
    field.enter("Python", bench.python().await?);
    let mut notes = vec![format!("messages of {USUAL} bytes: the echo's line, NATS' payload")];
    for (contestant, series) in &field.0 {
        if let Contestant::Elo(elo) = contestant {
            let (out, back) = elo.bytes_of(&message).await?;
            notes.push(format!("{}: {out} bytes there, {back} back, payload {}", series.name, message.value));
        }
    }
    let mut signing = Vec::new();
    for round in 0..bench.args.rounds {
        signing.push(limit::signature(message.bytes.len(), bench.args.window / 4)?);
        field.round(round, 1, &message, bench.args.window).await?;
    }
    let mut series = field.series();
    let echoes = series[0].rounds.iter().filter_map(|round| round.p50_us);
    let limits = echoes.zip(&signing).map(|(echo, (sign, verify))| echo + 2.0 * sign + 2.0 * verify);
    let rounds = limits.map(|p50| Round { p50_us: Some(p50), ..Round::default() }).collect();
    series.insert(1, Series { name: "the limit".into(), rounds });
    let mean = |of: fn(&(f64, f64)) -> f64| signing.iter().map(of).sum::<f64>() / signing.len() as f64;
    notes.push(format!(
        "the limit: echo + 2 sign ({:.1} µs) + 2 verify ({:.1} µs)",
        mean(|(sign, _)| *sign),
        mean(|(_, verify)| *verify)
    ));
    notes.push(
        "the echo's caller is a task of the runtime that elo's is in, its other end in one of the same kind: \
         tokio's with a worker for each core"
            .to_owned(),
    );
    let about = "one call after another".to_owned();
    Ok(Row {
        name: "one-at-a-time",
        about,
        unit: "",
        figure: Figure::P50,
        bases: &["the limit", "NATS"],
        series,
        notes,
    })
}

/// So many at once.
pub async fn in_flight(bench: &Bench, name: &'static str, in_flight: usize) -> Result<Row, Fault> {
    let mut field = Field::new();
    field.enter("elo, plain", Contestant::elo(bench.elo(Tls::Off)).await?);
    field.enter("elo, encrypted", Contestant::elo(bench.elo(Tls::Required)).await?);
    field.enter("NATS", bench.nats().await?);
    field.enter("Python", bench.python().await?);
    let message = Message::usual();
    for round in 0..bench.args.rounds {
        field.round(round, in_flight, &message, bench.args.window).await?;
    }
    let about = format!("{in_flight} calls in flight on one connection");
    Ok(Row {
        name,
        about,
        unit: "",
        figure: Figure::Rate,
        bases: &["NATS", "Python"],
        series: field.series(),
        notes: Vec::new(),
    })
}
