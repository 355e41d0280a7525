//! How programs come to an end, and nothing of them is left.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::agent::{Exec, ExecFailure, GRACE};

use super::{NoChunks, alive, chunks, exists, pid, sh, soon, task, until};

/// Tells its own id and that of a grandchild, then works for ever. Neither minds being asked to stop.
const FAMILY: &str = "trap '' TERM INT HUP; sleep 300 & echo $$; echo $!; while :; do sleep 300; done";

async fn pids(got: &mut Receiver<Value>) -> [rustix::process::Pid; 2] {
    let mut next = async || pid(&soon(got.recv()).await.expect("a process id"));
    let pids = [next().await, next().await];
    assert!(pids.iter().all(|&pid| alive(pid)));
    pids
}

#[tokio::test]
async fn cancelling_kills_the_program_and_its_children() {
    let exec = sh(FAMILY).stream(true);
    let (sink, mut got) = chunks();
    let task = task("null");
    let cancel = task.cancelled.clone();
    let run = exec.run_value(task, sink);
    let watch = async {
        let family = pids(&mut got).await;
        cancel.cancel();
        family
    };
    let (result, family) = soon(async { tokio::join!(run, watch) }).await;
    assert_eq!(result, Err(ExecFailure::Cancelled));
    assert!(!exists(family[0]), "the program wasn't collected");
    until(|| !alive(family[1])).await;
    assert_eq!(exec.running(), 0);
}

#[tokio::test]
async fn the_deadline_kills_the_program_and_its_children() {
    let exec = sh(FAMILY).stream(true);
    let (sink, mut got) = chunks();
    let mut task = task("null");
    task.deadline = Instant::now() + Duration::from_secs(2);
    let deadline = task.deadline;
    let run = exec.run_value(task, sink);
    let (result, family) = soon(async { tokio::join!(run, pids(&mut got)) }).await;
    assert_eq!(result, Err(ExecFailure::DeadlineExceeded));
    assert!(Instant::now() >= deadline);
    assert!(!exists(family[0]), "the program wasn't collected");
    until(|| !alive(family[1])).await;
}

#[tokio::test]
async fn dropping_the_future_kills_and_collects() {
    let exec = sh(FAMILY).stream(true);
    let (sink, mut got) = chunks();
    let mut run = Box::pin(exec.run_value(task("null"), sink));
    let family = tokio::select! {
        result = &mut run => panic!("{result:?}"),
        family = pids(&mut got) => family,
    };
    drop(run);
    assert_eq!(exec.running(), 0);
    until(|| !alive(family[1])).await;
    until(|| !exists(family[0])).await;
}

#[tokio::test]
async fn a_sink_that_is_gone_ends_the_program() {
    let exec = sh(&FAMILY.replace("do sleep 300", "do echo x")).stream(true);
    let (sink, mut got) = chunks();
    let watch = async move { pids(&mut got).await };
    let (result, family) = soon(async { tokio::join!(exec.run_value(task("null"), sink), watch) }).await;
    assert_eq!(result, Err(ExecFailure::NobodyListens));
    until(|| family.iter().all(|&pid| !alive(pid))).await;
}

#[tokio::test]
async fn cancelling_works_while_the_sink_is_stuck() {
    let exec = sh(&FAMILY.replace("while :; do sleep 300; done", "yes")).stream(true);
    let (sink, mut got) = chunks();
    let task = task("null");
    let cancel = task.cancelled.clone();
    let watch = async {
        let family = pids(&mut got).await;
        // One chunk waits in the channel and nobody takes it: the next is stuck.
        until(|| got.len() == 1).await;
        cancel.cancel();
        family
    };
    let (result, family) = soon(async { tokio::join!(exec.run_value(task, sink), watch) }).await;
    assert_eq!(result, Err(ExecFailure::Cancelled));
    until(|| family.iter().all(|&pid| !alive(pid))).await;
    assert!(got.len() <= 1);
}

#[tokio::test]
async fn a_program_without_input_or_output_is_still_stopped() {
    let mut task = task("null");
    task.deadline = Instant::now() + Duration::from_millis(200);
    let exec = sh("exec <&- >&- 2>&-; sleep 300");
    let result = soon(exec.run_value(task, NoChunks)).await;
    assert_eq!(result, Err(ExecFailure::DeadlineExceeded));
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_does_not_hold_the_task() {
    let started = Instant::now();
    let result = soon(sh("sleep 300 & echo $!").run_value(task("null"), NoChunks)).await;
    let grandchild = pid(&result.unwrap());
    assert!(started.elapsed() >= GRACE, "it had no time to finish");
    assert!(started.elapsed() < Duration::from_secs(10));
    until(|| !alive(grandchild)).await;
}

#[tokio::test]
async fn a_grandchild_may_finish_writing() {
    // It writes only once the program has ended and been collected.
    let exec = sh("(while kill -0 $$; do sleep 0.01; done 2>/dev/null; echo late) & echo early");
    let result = soon(exec.run_value(task("null"), NoChunks)).await;
    assert_eq!(result.unwrap(), "early\nlate");
}

#[tokio::test]
async fn what_is_left_of_the_group_after_the_end_is_killed() {
    let exec = sh("sleep 300 >/dev/null 2>&1 & echo $!");
    let grandchild = pid(&soon(exec.run_value(task("null"), NoChunks)).await.unwrap());
    until(|| !alive(grandchild)).await;
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hold_the_task() {
    if Exec::new("setsid", false).is_err() {
        return;
    }
    for (script, stream) in [("setsid sleep 300 & echo $!", false), ("setsid yes & echo $!", true)] {
        let (sink, mut got) = chunks();
        let exec = sh(script).stream(stream);
        let first = async {
            let mut escaped = None;
            // `yes` may be faster than the line we are after.
            while let Some(chunk) = got.recv().await {
                escaped = escaped.or(chunk.is_i64().then(|| pid(&chunk)));
            }
            escaped
        };
        let (result, escaped) = soon(async { tokio::join!(exec.run_value(task("null"), sink), first) }).await;
        let result = result.unwrap();
        let escaped = escaped.unwrap_or_else(|| pid(&result));
        // `yes` dies of the closed pipe; a sleeper is ours to stop.
        let _ = rustix::process::kill_process(escaped, rustix::process::Signal::KILL);
        until(|| !alive(escaped)).await;
    }
}

#[tokio::test]
async fn a_cancelled_task_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let exec = Exec::new(&format!("touch '{}'", mark.display()), false).unwrap();
    let cancelled = task("null");
    cancelled.cancelled.cancel();
    assert_eq!(exec.run_value(cancelled, NoChunks).await, Err(ExecFailure::Cancelled));
    let mut late = task("null");
    late.deadline = Instant::now();
    assert_eq!(exec.run_value(late, NoChunks).await, Err(ExecFailure::DeadlineExceeded));
    assert!(!mark.exists());
    assert_eq!(exec.run_value(task("null"), NoChunks).await, Ok(json!("")));
    assert!(mark.exists());
}
