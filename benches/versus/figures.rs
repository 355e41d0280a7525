//! What was measured: rounds, of a contestant, in a row.

use serde_json::{Value, json};

/// One contestant in one round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Operations a second.
    pub rate: Option<f64>,
    /// CPU time for each operation, of all processes that took part.
    pub cpu_us: Option<f64>,
    /// What the row is about when that is neither time nor rate; its unit is the row's.
    pub value: Option<f64>,
}

impl Round {
    /// A round that gave one figure.
    pub fn of(value: f64) -> Self {
        Self { value: Some(value), ..Self::default() }
    }
}

/// Which figure of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    P50,
    P99,
    Rate,
    Cpu,
    Value,
}

impl Figure {
    fn in_round(self, round: &Round) -> Option<f64> {
        match self {
            Self::P50 => round.p50_us,
            Self::P99 => round.p99_us,
            Self::Rate => round.rate,
            Self::Cpu => round.cpu_us,
            Self::Value => round.value,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::Rate => "per_s",
            Self::Cpu => "cpu_us",
            Self::Value => "value",
        }
    }
}

/// The median of some figures, the least and the most.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.retain(|f| f.is_finite());
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, most })
    }

    /// Half of what lies between the least and the most, in hundredths of the median.
    pub fn percent(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.most - self.least) / 2.0 / self.median * 100.0 }
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

/// A contestant in a row.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub rounds: Vec<Round>,
}

impl Series {
    pub fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| figure.in_round(round)).collect())
    }
}

/// One line of inquiry, and how each contestant did.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub about: String,
    /// The unit of [`Round::value`].
    pub unit: &'static str,
    /// What is compared, and to which contestants.
    pub figure: Figure,
    pub bases: &'static [&'static str],
    pub series: Vec<Series>,
    pub notes: Vec<String>,
}

impl Row {
    fn find(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// One contestant's figure by another's, round by round: what disturbs the machine for a while disturbs both.
    pub fn ratio(&self, figure: Figure, name: &str, to: &str) -> Option<Spread> {
        let (one, other) = (self.find(name)?, self.find(to)?);
        let rounds = one.rounds.iter().zip(&other.rounds);
        Spread::of(rounds.filter_map(|(a, b)| Some(figure.in_round(a)? / figure.in_round(b)?)).collect())
    }

    /// A contestant's figure.
    pub fn figure(&self, figure: Figure, name: &str) -> Option<Spread> {
        self.find(name)?.spread(figure)
    }

    pub fn json(&self) -> Value {
        let figures = [Figure::P50, Figure::P99, Figure::Rate, Figure::Cpu, Figure::Value];
        let series = self.series.iter().map(|series| {
            let mut of = serde_json::Map::new();
            of.insert("name".into(), json!(series.name));
            for figure in figures {
                if let Some(spread) = series.spread(figure) {
                    of.insert(figure.name().into(), spread.json());
                }
            }
            let ratios = self
                .bases
                .iter()
                .filter_map(|base| Some(((*base).to_owned(), self.ratio(self.figure, &series.name, base)?.json())));
            of.insert("ratios".into(), Value::Object(ratios.collect()));
            let rounds = series.rounds.iter().map(|round| {
                let some = figures.iter().filter_map(|f| Some((f.name().to_owned(), json!(f.in_round(round)?))));
                Value::Object(some.collect())
            });
            of.insert("rounds".into(), rounds.collect());
            Value::Object(of)
        });
        json!({
            "row": self.name,
            "about": self.about,
            "unit": self.unit,
            "compared": self.figure.name(),
            "bases": self.bases,
            "series": series.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}
