//! A closed loop: so many operations in flight, each followed by the next, for a time.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::Fault;
use crate::contestant::Operation;
use crate::figures::Round;
use crate::process::cpu_time;

/// How long it runs before it counts, as a share of the time measured.
const WARM: f64 = 0.2;

/// Latencies from a tenth of a microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Microseconds at a quantile.
pub fn micros(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

/// Nothing ended in the time measured.
#[derive(Debug)]
pub struct TooShort;

impl std::fmt::Display for TooShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing ended in the time measured: give it more with --seconds")
    }
}

impl std::error::Error for TooShort {}

/// Runs it. `of` are the processes that take part, this one excluded: what all of them used is counted.
///
/// # Errors
///
/// One operation failed: then it is no measurement. [`TooShort`]: none ended.
pub async fn run<F, Fut>(in_flight: usize, window: Duration, of: &[u32], operation: F) -> Result<Round, Fault>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), Fault>> + Send,
{
    let processes: Vec<u32> = of.iter().copied().chain([std::process::id()]).collect();
    let cpu_before = cpu_time(&processes)?;
    let from = Instant::now() + window.mul_f64(WARM);
    let until = from + window;
    // Dropped, it stops them all.
    let mut loops = JoinSet::new();
    for _ in 0..in_flight {
        let operation = operation.clone();
        loops.spawn(async move {
            let (mut latencies, mut all) = (histogram(), 0u64);
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return Ok::<_, Fault>((latencies, all));
                }
                operation().await?;
                let done = Instant::now();
                all += 1;
                // By its end: one that takes longer than the warming up counts as well.
                if done >= from && done < until {
                    latencies.saturating_record((done - begun).as_nanos() as u64);
                }
            }
        });
    }
    let (mut latencies, mut all) = (histogram(), 0);
    while let Some(ended) = loops.join_next().await {
        let (some, count) = ended??;
        latencies.add(some)?;
        all += count;
    }
    let cpu = cpu_time(&processes)?.saturating_sub(cpu_before);
    if latencies.is_empty() {
        return Err(TooShort.into());
    }
    Ok(Round {
        p50_us: Some(micros(&latencies, 0.5)),
        p99_us: Some(micros(&latencies, 0.99)),
        rate: Some(latencies.len() as f64 / window.as_secs_f64()),
        cpu_us: Some(cpu.as_secs_f64() * 1e6 / all as f64),
        value: None,
    })
}

/// One operation after another, until it is aborted or one fails.
pub async fn keep_on(operation: Operation) -> Result<(), Fault> {
    loop {
        operation().await?;
    }
}
