//! Calls through a tracker: relayed, open and sealed.

use elo::{Sealing, Tls};

use super::{Bench, Field};
use crate::Fault;
use crate::contestant::{Contestant, Message};
use crate::figures::{Figure, Row};

/// So many in flight.
pub async fn relayed(bench: &Bench, name: &'static str, in_flight: usize) -> Result<Row, Fault> {
    let mut field = Field::new();
    for (name, sealing, tls) in [
        ("elo, relayed, open, plain", Sealing::Off, Tls::Off),
        ("elo, relayed, sealed, plain", Sealing::Required, Tls::Off),
        ("elo, relayed, sealed, encrypted", Sealing::Required, Tls::Required),
    ] {
        let mut setting = bench.elo(tls);
        setting.sealing = sealing;
        field.enter(name, Contestant::relayed(setting).await?);
    }
    field.enter("NATS", bench.nats().await?);
    let message = Message::usual();
    for round in 0..bench.args.rounds {
        field.round(round, in_flight, &message, bench.args.window).await?;
    }
    let figure = if in_flight == 1 { Figure::P50 } else { Figure::Rate };
    let about = format!("{in_flight} in flight through a tracker (`elo serve --tracker`)");
    let notes = vec!["\"encrypted\": each of the two connections has TLS as well".to_owned()];
    Ok(Row { name, about, unit: "", figure, bases: &["NATS"], series: field.series(), notes })
}
