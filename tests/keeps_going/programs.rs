//! Programs (`--exec`) that never end, crash, or whose caller or node is killed.

use std::path::Path;
use std::time::Duration;

use elo::{ErrorCode, Route};
use rustix::process::Signal;
use serde_json::json;

use super::common::Home;
use super::mesh::{eventually, node};
use super::{PATIENCE, until};

/// Sleeps for ever, crashes, counts, or answers, as it is asked; tells its process id to a file first. It heeds no signal
/// that can be caught.
const PROGRAM: &str = "read -r line; trap '' TERM INT HUP; echo $$ >> PIDS; case $line in \
    *forever*) while :; do sleep 1; done;; \
    *crash*) kill -SEGV $$;; \
    *count*) n=0; while [ $n -lt 100000 ]; do echo $n; n=$((n+1)); sleep 0.05; done;; \
    *) printf '\"answer\"';; esac";

fn program(home: &Home) -> String {
    std::fs::create_dir_all(home.path()).unwrap();
    PROGRAM.replace("PIDS", home.file("pids").to_str().unwrap())
}

fn pids(home: &Home) -> Vec<String> {
    std::fs::read_to_string(home.file("pids")).unwrap_or_default().lines().map(str::to_owned).collect()
}

pub fn lives(pid: &str) -> bool {
    // What is dead and not yet collected does no work.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_ends_or_crashes_is_ended_and_gives_its_place_back() {
    let home = Home::new();
    let exec = program(&home);
    let provider = home.serve(&["--agent", "work", "--exec-shell", "--exec", &exec, "--max-tasks", "1"]);
    let caller = node("caller").peer(provider.addr()).start().await.unwrap();
    eventually("they meet", || caller.peers().iter().any(|p| !p.name.is_empty())).await;
    for _ in 0..3 {
        let call = caller.call("work", json!("forever")).timeout(Duration::from_secs(1));
        let error = call.await.unwrap_err();
        assert!(matches!(error.code, ErrorCode::Timeout | ErrorCode::Expired), "{error}");
        let error = caller.call("work", json!("crash")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::HandlerError);
        assert!(error.message.contains("signal"), "{error}");
        assert_eq!(caller.call("work", json!("x")).await.unwrap().payload, json!("answer"));
    }
    until("no program is left", || pids(&home).iter().all(|pid| !lives(pid))).await;
    assert_eq!(pids(&home).len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_a_caller_that_was_killed_is_ended_soon() {
    let (home, callers) = (Home::new(), Home::new());
    let exec = program(&home);
    let provider = home.serve(&["--agent", "work", "--exec-shell", "--exec", &exec]);
    let caller = callers.serve(&["--peer", &provider.addr()]);
    // A call of an hour. The command that made it goes with its node.
    let mut call = callers.command(["call", "work", "forever", "--timeout", "3600"]);
    let _call = super::common::Reaped(
        call.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
    );
    until("the program runs", || pids(&home).iter().any(|pid| lives(pid))).await;
    caller.signal(Signal::KILL);
    // 30 s, in which it might come back.
    until("the program is ended", || pids(&home).iter().all(|pid| !lives(pid))).await;
    let status = home.run(["status", "--json"]).json();
    assert_eq!(status["node"]["metrics"]["refused"]["caller_gone"], json!(1), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_restarts_in_the_middle_of_an_answer_is_told_apart() {
    let home = Home::new();
    let exec = program(&home);
    let args = ["--agent", "work", "--exec-shell", "--exec-stream", "--exec", &exec];
    let provider = home.serve(&args);
    let port = provider.addr().rsplit(':').next().unwrap().to_owned();
    let caller = node("caller").peer(provider.addr()).start().await.unwrap();
    eventually("they meet", || caller.peers().iter().any(|p| !p.name.is_empty())).await;
    let call = caller.call("work", json!("count")).timeout(Duration::from_secs(120));
    let mut call = call.start().await.unwrap();
    for n in 0..5 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    provider.signal(Signal::KILL);
    drop(provider.ended());
    let mut again = vec!["serve", "--json", "--bind", "127.0.0.1", "--port", &port];
    again.extend(args);
    let provider = super::common::Serve::start(home.command(again));
    // What came before the end is still in order, and nothing of a second run follows it.
    let mut next = 5;
    while let Some(chunk) = tokio::time::timeout(PATIENCE, call.next_chunk()).await.expect("the call ends") {
        assert_eq!(chunk, json!(next));
        next += 1;
    }
    let error = call.outcome().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
    assert!(error.message.contains("not known") || error.message.contains("lost"), "{error}");
    let ran = pids(&home).len();
    answered_by(&caller, &provider.id()).await;
    assert_eq!(ran, 1, "the task was begun once");
}

/// Waits until the provider is there again and answers.
async fn answered_by(caller: &elo::Node, id: &str) {
    let trying = async {
        loop {
            let call = caller.call("work", json!("x")).to(id).timeout(Duration::from_secs(10));
            match call.await {
                Ok(outcome) => return assert_eq!((outcome.route, outcome.chunks), (Route::Direct, 1)),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.expect("the new run answers");
}
