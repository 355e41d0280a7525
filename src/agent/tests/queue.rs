//! How many at once, and who is next.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::ExecFailure;
use crate::agent::gate::Gate;

use super::{NoChunks, PATIENCE, sh, soon, task, until};

/// A program that works until a file appears.
fn until_released(folder: &tempfile::TempDir) -> String {
    let go = folder.path().join("go");
    format!("cat; until test -e '{}'; do sleep 0.01; done", go.display())
}

fn release(folder: &tempfile::TempDir) {
    std::fs::write(folder.path().join("go"), "").unwrap();
}

#[tokio::test]
async fn tasks_beyond_the_places_wait_and_beyond_the_queue_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let exec = sh(&until_released(&folder)).max_tasks(2).max_waiting(3);
    let mut runs = JoinSet::new();
    for n in 0..5 {
        let exec = exec.clone();
        runs.spawn(async move { exec.run_value(task(n.to_string()), NoChunks).await });
    }
    until(|| exec.running() == 2 && exec.waiting() == 3).await;
    let refused = exec.run_value(task("9"), NoChunks).await.unwrap_err();
    let expected = ExecFailure::Overloaded { waiting: 3, retry_after_s: 1 };
    assert_eq!(refused, expected);
    assert_eq!(refused.to_string(), "overloaded: 3 tasks wait already; try again in 1 s");
    release(&folder);
    let mut results: Vec<_> = soon(runs.join_all()).await.into_iter().map(|r| r.unwrap()).collect();
    results.sort_by_key(|value| value.as_i64());
    assert_eq!(results, [0, 1, 2, 3, 4].map(|n| json!(n)));
    assert_eq!((exec.running(), exec.waiting()), (0, 0));
}

#[tokio::test]
async fn a_waiting_task_leaves_the_queue_when_cancelled_late_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let exec = sh(&until_released(&folder)).max_tasks(1).max_waiting(3);
    let mut first = JoinSet::new();
    first.spawn({
        let exec = exec.clone();
        async move { exec.run_value(task("1"), NoChunks).await }
    });
    until(|| exec.running() == 1).await;

    let cancelled = task("2");
    let cancel = cancelled.cancelled.clone();
    let mut late = task("3");
    late.deadline = Instant::now() + Duration::from_millis(50);
    let mut dropped = JoinSet::new();
    dropped.spawn({
        let exec = exec.clone();
        async move { exec.run_value(task("4"), NoChunks).await }
    });
    let act = async {
        until(|| exec.waiting() == 3).await;
        cancel.cancel();
        dropped.abort_all();
    };
    let both = async { tokio::join!(exec.run_value(cancelled, NoChunks), exec.run_value(late, NoChunks), act) };
    let (cancelled, late, ()) = soon(both).await;
    assert_eq!(cancelled, Err(ExecFailure::Cancelled));
    assert_eq!(late, Err(ExecFailure::DeadlineExceeded));
    until(|| exec.waiting() == 0).await;
    release(&folder);
    assert_eq!(soon(first.join_all()).await, [Ok(json!(1))]);
}

#[tokio::test]
async fn without_a_queue_a_busy_program_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let exec = sh(&until_released(&folder)).max_tasks(0).max_waiting(0);
    let act = async {
        until(|| exec.running() == 1).await;
        let refused = exec.run_value(task("2"), NoChunks).await;
        release(&folder);
        refused
    };
    let (first, refused) = soon(async { tokio::join!(exec.run_value(task("1"), NoChunks), act) }).await;
    assert_eq!(first, Ok(json!(1)));
    assert_eq!(refused, Err(ExecFailure::Overloaded { waiting: 0, retry_after_s: 1 }));
}

#[tokio::test]
async fn first_come_first_served() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("cat >> '{}'; {}", log.display(), until_released(&folder));
    let exec = sh(&script).max_tasks(1);
    let mut runs = JoinSet::new();
    for n in 0..6 {
        let queued = exec.clone();
        runs.spawn(async move { queued.run_value(task(n.to_string()), NoChunks).await });
        until(|| exec.running() == 1 && exec.waiting() == n).await;
    }
    release(&folder);
    soon(runs.join_all()).await;
    assert_eq!(std::fs::read_to_string(log).unwrap(), "0\n1\n2\n3\n4\n5\n");
}

#[tokio::test]
async fn the_gate_takes_any_bounds() {
    let gate = Gate::new(usize::MAX, usize::MAX);
    let never = CancellationToken::new();
    let permit = gate.enter(&never, Instant::now() + PATIENCE).await.unwrap();
    assert_eq!(gate.running(), 1);
    drop(permit);
    assert_eq!(gate.running(), 0);
}
