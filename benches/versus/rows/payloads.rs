//! Payloads of other sizes, and what large ones do to small ones on the same connection.

use elo::Tls;

use super::{Bench, Field};
use crate::Fault;
use crate::contestant::{Contestant, Message};
use crate::figures::{Figure, Row, Series};
use crate::load;

/// The echo without anything around it.
const RAW: &str = "raw socket";

/// Payloads of a size, so many in flight.
pub async fn of_size(bench: &Bench, name: &'static str, bytes: usize, in_flight: usize) -> Result<Row, Fault> {
    let message = Message::of(bytes);
    let mut field = Field::new();
    field.enter(RAW, Contestant::echo().await?);
    field.enter("elo, plain", Contestant::elo(bench.elo(Tls::Off)).await?);
    field.enter("elo, encrypted", Contestant::elo(bench.elo(Tls::Required)).await?);
    field.enter("NATS", bench.nats().await?);
    let mut notes = Vec::new();
    if bytes <= 32 * 1024 {
        field.enter("Python", bench.python().await?);
    } else if bench.python {
        // It reads lines of 64 KiB at most.
        notes.push("the Python package can't carry payloads of that size".to_owned());
    }
    for round in 0..bench.args.rounds {
        field.round(round, in_flight, &message, bench.args.window).await?;
    }
    let mut series = field.series();
    for round in series.iter_mut().flat_map(|series| &mut series.rounds) {
        round.value = round.rate.map(|rate| rate * bytes as f64 / 1e6);
    }
    let about = format!("payloads of {bytes} bytes there and back, {in_flight} in flight; MB/s one way");
    Ok(Row { name, about, unit: "MB/s", figure: Figure::Value, bases: &[RAW, "NATS"], series, notes })
}

/// Small calls, one at a time, alone and while large ones run on the same connection, one at a time.
pub async fn small_beside_large(bench: &Bench) -> Result<Row, Fault> {
    const LARGE: usize = 500_000;
    let (small, large) = (Message::usual(), Message::of(LARGE));
    let mut field = Vec::new();
    field.push(("elo, plain", Contestant::elo(bench.elo(Tls::Off)).await?));
    field.push(("elo, encrypted", Contestant::elo(bench.elo(Tls::Required)).await?));
    if let Some(nats) = bench.nats().await? {
        field.push(("NATS", nats));
    }
    let mut series: Vec<Series> = Vec::new();
    for (name, _) in &field {
        for way in ["alone", "beside 500 kB"] {
            series.push(Series { name: format!("{name}, {way}"), rounds: Vec::new() });
        }
    }
    for round in 0..bench.args.rounds {
        for at in 0..field.len() {
            let at = (at + round) % field.len();
            let contestant = &mut field[at].1;
            series[2 * at].rounds.push(contestant.run(1, &small, bench.args.window).await?);
            let operation = contestant.operation(&large).ok_or("only what has an operation is here")?;
            let beside = tokio::spawn(load::keep_on(operation));
            let measured = contestant.run(1, &small, bench.args.window).await;
            beside.abort();
            // Its end: an error of the large calls is one of this row.
            if let Ok(Err(fault)) = beside.await {
                return Err(format!("the large calls: {fault}").into());
            }
            series[2 * at + 1].rounds.push(measured?);
        }
    }
    let mut row = Row {
        name: "small-beside-large",
        about: "small calls one at a time, alone and while calls of 500 kB run on the same connection".to_owned(),
        unit: "",
        figure: Figure::P50,
        bases: &[],
        series,
        notes: Vec::new(),
    };
    for (name, _) in &field {
        let (alone, beside) = (format!("{name}, alone"), format!("{name}, beside 500 kB"));
        let times = |figure| row.ratio(figure, &beside, &alone).map_or(f64::NAN, |ratio| ratio.median);
        let note = format!("{name}: beside ÷ alone: p50 × {:.2}, p99 × {:.2}", times(Figure::P50), times(Figure::P99));
        row.notes.push(note);
    }
    Ok(row)
}
