//! What calls came to.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::{CallError, Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::info::Route;
use crate::limits::MAX_TTL_S;
use crate::node::Outcome;

/// The finest that is told apart, and the longest that a call takes, in nanoseconds; three digits of each latency are kept. That
/// is a quarter of a megabyte.
const FINEST: u64 = 100;
const LONGEST: u64 = MAX_TTL_S * 1_000_000_000;

/// The most bars of a histogram: with what is said beside it fits a terminal of 24 lines.
const MAX_BARS: usize = 10;

/// The share of calls that is shown finely; the slowest share one bar, or they would set the scale for all.
const SHOWN: f64 = 0.999;

/// Where a bar may begin, within a power of ten, in hundredths: from fine to coarse.
const STEPS: &[&[u64]] = &[
    &[100, 125, 150, 175, 200, 250, 300, 400, 500, 600, 800],
    &[100, 150, 200, 300, 500, 700],
    &[100, 200, 500],
    &[100],
];

/// Some latencies, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// How many calls took so long: from the first time, up to the second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Bar {
    from_ms: f64,
    to_ms: f64,
    calls: u64,
}

/// A way that answers came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RouteTaken {
    pub(super) route: Route,
    /// The tracker in between.
    pub(super) via: Option<NodeId>,
    pub(super) via_name: String,
    /// Whether our end of it is encrypted now: the connection to the node, or to the tracker. `None`: it is not connected any more.
    pub(super) encrypted: Option<bool>,
    pub(super) sealed: bool,
    pub(super) calls: u64,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ErrorsSeen {
    pub(super) code: ErrorCode,
    pub(super) delivery: Delivery,
    pub(super) calls: u64,
    /// What the first of them said.
    pub(super) message: String,
    /// What may be done about it.
    pub(super) advice: Option<String>,
}

/// What was counted.
pub(super) struct Tally {
    /// In nanoseconds; `None` until a call was answered.
    latency: Option<Histogram<u64>>,
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// Of the answers' payloads.
    pub(super) bytes_in: u64,
    /// As many as there are trackers connected, and some more.
    routes: Vec<RouteTaken>,
    /// As many as there are codes and ways to fail, at most.
    errors: Vec<ErrorsSeen>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(FINEST, LONGEST, 3).ok();
        Self { latency, answered: 0, failed: 0, bytes_in: 0, routes: Vec::new(), errors: Vec::new() }
    }
}

fn millis(nanos: u64) -> f64 {
    (nanos as f64 / 1000.0).round() / 1000.0
}

impl Tally {
    pub(super) fn answered(&mut self, took: Duration, outcome: &Outcome) {
        self.took(took);
        self.bytes_in += outcome.payload_json().len() as u64;
        let (route, via, sealed) = (outcome.route, outcome.via, outcome.sealed);
        match self.routes.iter_mut().find(|taken| (taken.route, taken.via, taken.sealed) == (route, via, sealed)) {
            Some(taken) => taken.calls += 1,
            None => {
                self.routes.push(RouteTaken { route, via, via_name: String::new(), encrypted: None, sealed, calls: 1 });
            }
        }
    }

    fn took(&mut self, took: Duration) {
        self.answered += 1;
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
        }
    }

    pub(super) fn failed(&mut self, error: &CallError) {
        self.failed += 1;
        match self.errors.iter_mut().find(|seen| (seen.code, seen.delivery) == (error.code, error.delivery)) {
            Some(seen) => seen.calls += 1,
            None => self.errors.push(ErrorsSeen {
                code: error.code,
                delivery: error.delivery,
                calls: 1,
                message: error.message.clone(),
                advice: None,
            }),
        }
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        let latency = self.latency.as_ref().filter(|latency| !latency.is_empty())?;
        let at = |quantile: f64| millis(latency.value_at_quantile(quantile));
        Some(Latency {
            min: millis(latency.min()),
            mean: millis(latency.mean() as u64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: millis(latency.max()),
        })
    }

    /// Bars for all answers: as fine as there are not too many.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let Some(latency) = self.latency.as_ref().filter(|latency| !latency.is_empty()) else { return Vec::new() };
        let (least, shown) = (latency.highest_equivalent(latency.min()), latency.value_at_quantile(SHOWN));
        let mut edges = STEPS.iter().map(|steps| edges(steps, least, shown)).find(|edges| edges.len() <= MAX_BARS);
        let edges = edges.get_or_insert_with(|| vec![0]);
        let last = edges.last().copied().unwrap_or(u64::MAX);
        if latency.max() >= last {
            edges.push(latency.max().saturating_add(1));
        }
        let mut bars: Vec<Bar> =
            edges.windows(2).map(|edge| Bar { from_ms: millis(edge[0]), to_ms: millis(edge[1]), calls: 0 }).collect();
        for recorded in latency.iter_recorded() {
            // The greatest that counts as this value, as those are that the edges were chosen for.
            let value = recorded.value_iterated_to();
            let at = edges.partition_point(|edge| *edge <= value).saturating_sub(1).min(bars.len().saturating_sub(1));
            if let Some(bar) = bars.get_mut(at) {
                bar.calls += recorded.count_at_value();
            }
        }
        bars
    }

    /// The ways taken, the commonest first.
    pub(super) fn routes(&self) -> Vec<RouteTaken> {
        let mut routes = self.routes.clone();
        routes.sort_by_key(|taken| std::cmp::Reverse(taken.calls));
        routes
    }

    /// What failed, the commonest first.
    pub(super) fn errors(&self) -> Vec<ErrorsSeen> {
        let mut errors = self.errors.clone();
        errors.sort_by_key(|seen| std::cmp::Reverse(seen.calls));
        errors
    }
}

/// The edges of bars that cover these times, in nanoseconds: one more than there are bars.
fn edges(steps: &[u64], from: u64, to: u64) -> Vec<u64> {
    let mut edges = vec![0];
    // Whole numbers from here on, whatever the step.
    let mut decade = 100;
    while decade <= LONGEST {
        for step in steps {
            let edge = decade * step / 100;
            if edge <= from {
                edges.clear();
            }
            edges.push(edge);
            if edge > to {
                return edges;
            }
        }
        decade *= 10;
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(nanos: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::default();
        nanos.into_iter().for_each(|n| tally.took(Duration::from_nanos(n)));
        tally
    }

    #[test]
    fn every_call_stands_in_one_bar() {
        let mut x = 1u64;
        let spread = || {
            std::iter::repeat_with(move || {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                x >> 33
            })
        };
        for scale in [1, 50, 1_000, 60_000, 1_000_000, 90_000_000, 5_000_000_000, LONGEST] {
            for width in [1, 10, scale / 3 + 1, scale, scale.saturating_mul(1000)] {
                let tally = tally(spread().take(2000).map(|x| scale.saturating_add(x % width)));
                let bars = tally.bars();
                assert!(!bars.is_empty() && bars.len() <= MAX_BARS, "{scale} {width}: {bars:?}");
                assert_eq!(bars.iter().map(|bar| bar.calls).sum::<u64>(), 2000, "{scale} {width}: {bars:?}");
                assert!(bars.windows(2).all(|two| two[0].to_ms == two[1].from_ms), "{bars:?}");
                assert!(bars.first().is_some_and(|bar| bar.calls > 0) && bars.last().is_some_and(|bar| bar.calls > 0));
            }
        }
        assert!(tally([]).bars().is_empty() && tally([]).latency().is_none());
    }

    #[test]
    fn the_slowest_share_a_bar() {
        let mut calls = vec![600_000; 9_990];
        calls.extend([610_000; 9_000]);
        calls.push(90_000_000);
        let bars = tally(calls).bars();
        assert_eq!(bars.len(), 2, "{bars:?}");
        // Edges belong to the bar that they begin, to three digits.
        assert_eq!((bars[0].from_ms, bars[0].to_ms, bars[0].calls), (0.6, 0.8, 18_990));
        assert_eq!((bars[1].from_ms, bars[1].calls), (0.8, 1));
        assert!(bars[1].to_ms > 89.0);
    }

    #[test]
    fn latencies_keep_three_digits() {
        let latency = tally((1..=1000).map(|n| n * 1_000_000)).latency().unwrap();
        let near = |value: f64, wanted: f64| assert!((value / wanted - 1.0).abs() < 0.002, "{value} for {wanted}");
        near(latency.min, 1.0);
        near(latency.p50, 500.0);
        near(latency.p90, 900.0);
        near(latency.p99, 990.0);
        near(latency.p99_9, 999.0);
        near(latency.max, 1000.0);
        near(latency.mean, 500.5);
    }

    #[test]
    fn failures_are_counted_by_code_and_delivery() {
        let mut tally = Tally::default();
        let mut fail = |code, delivery, message: &str| {
            let (message, tried) = (message.to_owned(), Vec::new());
            tally.failed(&CallError { code, message, retry_after: None, delivery, responder: None, tried });
        };
        fail(ErrorCode::Timeout, Delivery::Accepted, "late");
        fail(ErrorCode::Overloaded, Delivery::Answered, "full");
        fail(ErrorCode::Overloaded, Delivery::NotSent, "full here");
        fail(ErrorCode::Overloaded, Delivery::Answered, "still full");
        let errors = tally.errors();
        assert_eq!((tally.failed, tally.answered, errors.len()), (4, 0, 3));
        assert_eq!((errors[0].calls, errors[0].message.as_str()), (2, "full"));
        assert_eq!((errors[0].code, errors[0].delivery), (ErrorCode::Overloaded, Delivery::Answered));
    }
}
