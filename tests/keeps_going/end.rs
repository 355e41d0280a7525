//! A node's own end: calls in flight are drained for a while, peers are told, and a second signal waits for nothing.

use std::time::Duration;

use elo::{Activity, CloseReason, ErrorCode};
use rustix::process::Signal;
use serde_json::json;

use super::common::Home;
use super::mesh::{eventually, node};
use super::{PATIENCE, until};

/// Works until a file is there.
const PROGRAM: &str = "read -r line; echo $$ > STARTED; while [ ! -e GO ]; do sleep 0.05; done; printf '\"done\"'";

fn program(home: &Home) -> String {
    std::fs::create_dir_all(home.path()).unwrap();
    let name = |name: &str| home.file(name).to_str().unwrap().to_owned();
    PROGRAM.replace("STARTED", &name("started")).replace("GO", &name("go"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_are_answered_before_the_node_goes_and_says_so() {
    for late in [false, true] {
        let home = Home::new();
        let exec = program(&home);
        let provider = home.serve(&["--agent", "work", "--exec-shell", "--exec", &exec]);
        let caller = node("caller").peer(provider.addr()).start().await.unwrap();
        eventually("they meet", || caller.peers().iter().any(|p| !p.name.is_empty())).await;
        let mut activity = caller.activity();
        let mut call = caller.call("work", json!(1)).timeout(Duration::from_secs(120)).start().await.unwrap();
        assert!(call.accepted().await);
        provider.signal(Signal::TERM);
        // While it waits for what runs it takes nothing new, and says that it did not run it.
        let refused = async {
            loop {
                let new = caller.call("ping", json!(2)).to(provider.id()).timeout(Duration::from_secs(10)).await;
                match new {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => return error,
                }
            }
        };
        let error = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
        if !late {
            home.write("go", "");
            assert_eq!(call.outcome().await.unwrap().payload, json!("done"));
        } else {
            // It does not come in time: the caller is told, and not kept waiting.
            let error = call.outcome().await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
        }
        let bye = async {
            loop {
                if let Some(Activity::PeerLost { reason, .. }) = activity.recv().await {
                    return reason;
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, bye).await.unwrap(), Some(CloseReason::Shutdown));
        let (code, errors) = tokio::task::spawn_blocking(move || provider.ended()).await.unwrap();
        assert_eq!(code, 0, "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_and_its_programs_at_once() {
    let home = Home::new();
    let exec = program(&home);
    let provider = home.serve(&["--agent", "work", "--exec-shell", "--exec", &exec]);
    let caller = node("caller").peer(provider.addr()).start().await.unwrap();
    eventually("they meet", || caller.peers().iter().any(|p| !p.name.is_empty())).await;
    let call = caller.call("work", json!(1)).timeout(Duration::from_secs(120)).start().await.unwrap();
    eventually("the program runs", || home.file("started").exists()).await;
    let started = || std::fs::read_to_string(home.file("started")).unwrap_or_default().trim().to_owned();
    until("the program said which it is", || !started().is_empty()).await;
    let pid = started();
    provider.signal(Signal::TERM);
    let addr = provider.addr();
    until("the node stops listening", || std::net::TcpStream::connect(&addr).is_err()).await;
    provider.signal(Signal::TERM);
    let (code, errors) = tokio::task::spawn_blocking(move || provider.ended()).await.unwrap();
    // 130 by the second signal, 0 if the node was quicker than it.
    assert!([0, 130].contains(&code), "{code}: {errors}");
    until("the program is ended", || !super::programs::lives(&pid)).await;
    let error = call.outcome().await.unwrap_err();
    // Whichever was quicker, the program's end or the connection's.
    assert!(matches!(error.code, ErrorCode::PeerGone | ErrorCode::Cancelled), "{error}");
}
