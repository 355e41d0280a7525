//! `elo bench`: what is measured between real nodes, how it ends, and what it refuses.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::process::Stdio;

use common::{Home, PATIENCE, Ran, Reaped, Serve, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Little load: the machine may have other things to do.
const SHORT: &[&str] = &["--duration", "400ms", "--warm-up", "100ms", "--in-flight", "4"];

#[track_caller]
fn number(report: &Value, member: &str) -> u64 {
    report[member].as_u64().unwrap_or_else(|| panic!("{member} is no number in {report}"))
}

/// What must hold of any report.
#[track_caller]
fn sound(report: &Value) {
    let answered = number(report, "answered");
    let sum = |list: &str| -> u64 { report[list].as_array().unwrap().iter().map(|entry| number(entry, "calls")).sum() };
    assert_eq!(sum("histogram"), answered, "{report}");
    assert_eq!(sum("routes"), answered, "{report}");
    assert_eq!(sum("errors"), number(report, "failed"), "{report}");
    let latency = &report["latency_ms"];
    assert_eq!(latency.is_null(), answered == 0, "{report}");
    if answered > 0 {
        let order = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| latency[name].as_f64().unwrap());
        assert!(order.is_sorted() && order[0] > 0.0, "{latency}");
    }
}

#[track_caller]
fn report(ran: &Ran) -> Value {
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    sound(&report);
    report
}

#[test]
fn a_node_by_its_address_and_a_peer_of_the_running_one() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--name", "box"]);
    let through = here.serve(&["--peer", &node.addr(), "--name", "me"]);
    through.event("peer_connected");
    let addr = node.addr();
    let stranger = Home::new();
    for ran in [
        stranger.run([&["bench", "--peer", &addr, "--json"], SHORT].concat()),
        here.run([&["bench", "box", "--json"], SHORT].concat()),
    ] {
        let report = report(&ran);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert_eq!((&report["node_id"], &report["name"]), (&json!(node.id()), &json!("box")));
        assert_eq!((&report["capability"], &report["payload_bytes"]), (&json!("ping"), &json!(100)));
        assert_eq!((&report["ended"], &report["failed"]), (&json!("duration"), &json!(0)));
        assert!(number(&report, "answered") > 0 && report["calls_per_s"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["warm_up_ms"].as_f64().unwrap() > 0.0, "{report}");
        // `ping` sends the payload back, and more than the payload goes over the wire.
        let rate = |member: &str| report[member].as_f64().unwrap();
        assert!(rate("payload_in_bytes_per_s") > rate("payload_out_bytes_per_s"), "{report}");
        assert!(rate("wire_out_bytes_per_s") > rate("payload_out_bytes_per_s"), "{report}");
        let route = &report["routes"][0];
        assert_eq!(
            (&route["route"], &route["encrypted"], &route["via"]),
            (&json!("direct"), &json!(true), &Value::Null)
        );
    }
    assert!(!stranger.path().exists(), "a bench made the home folder");
    // The load came from the node that runs here: nobody else was connected for it.
    assert_eq!(here.run(["peers", "--json"]).json_lines().len(), 1);
}

#[test]
fn a_number_of_calls_is_made_exactly() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--agent", "add"]);
    let addr = node.addr();
    let ran = here.run([
        "bench",
        "--peer",
        &addr,
        "--capability",
        "add",
        "--payload",
        "[1, 2]",
        "--calls",
        "37",
        "--in-flight",
        "5",
        "--json",
    ]);
    let report = report(&ran);
    assert_eq!((ran.code, number(&report, "answered"), number(&report, "cut_off")), (0, 37, 0), "{report}");
    assert_eq!((&report["ended"], &report["payload_bytes"]), (&json!("calls"), &json!(5)));
    // Nothing was asked for beyond that: no warm-up, and `ping` finds the node.
    for _ in 0..37 {
        finished(&node, "add");
    }
    let status = there.run(["status", "--json"]).json();
    assert_eq!(status["node"]["metrics"]["tasks_done"], 38, "{status}");

    let sized = here.run(["bench", "--peer", &addr, "--size", "10kB", "--calls", "3", "--json"]);
    assert_eq!(self::report(&sized)["payload_bytes"], 10_000);
}

#[test]
fn people_are_told_what_is_done_and_what_came_of_it() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--agent", "echo", "--name", "box"]);
    let addr = node.addr();
    let ran = here.run(["bench", "--peer", &addr, "--capability", "echo", "--calls", "20"]);
    let plan = ran.stderr.replace('\n', " ");
    for said in ["asking box", &node.id()[..12], "for echo", "20 calls", "1 in flight", "real work"] {
        assert!(plan.contains(said), "{said:?} is not in {plan:?}");
    }
    // stderr is no terminal: there is no progress.
    assert!(!ran.stderr.contains('\r') && !ran.stderr.contains("answered"), "{}", ran.stderr);
    let text = ran.ok();
    for said in ["20 answered, 0 failed", "calls/s", "direct, TLS: 20 calls", "p99.9", "%"] {
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
    let nameless = Home::new();
    let other = nameless.serve(&[]);
    let once = here.run(["bench", "--peer", &other.addr(), "--calls", "1"]);
    let short = &other.id()[..12];
    assert!(once.stdout.starts_with(&format!("node      {short}: ping")), "{once:?}");
    assert!(once.stderr.starts_with(&format!("asking {short} for ping")), "{once:?}");
    let quiet = here.run(["bench", "--peer", &addr, "--calls", "1", "-q"]);
    assert_eq!(quiet.stderr, "");
    assert!(quiet.ok().contains("1 answered"));
}

#[test]
fn through_a_tracker_it_is_relayed_and_sealed() {
    let (middle, there, here) = (Home::new(), Home::new(), Home::new());
    let tracker = middle.serve(&["--tracker", "--name", "tracker"]);
    let addr = tracker.addr();
    let hidden = ["serve", "--json", "--no-listen", "--name", "box", "--peer", &addr];
    let node = Serve::start(there.command(hidden));
    let id = node.ready["node_id"].as_str().unwrap().to_owned();
    let listed = || middle.run(["peers", "--json"]).json_lines().iter().any(|peer| peer["node_id"] == id.as_str());
    eventually("the node is registered", listed);
    let ran = here.run([&["bench", "box", "--via", "tracker", "--peer", &addr, "--json"], SHORT].concat());
    let report = report(&ran);
    assert_eq!((ran.code, &report["node_id"], &report["via"]), (0, &json!(id), &json!("tracker")), "{ran:?}");
    let routes = report["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 1, "{report}");
    let route = &routes[0];
    assert_eq!((&route["route"], &route["sealed"], &route["encrypted"]), (&json!("relay"), &json!(true), &json!(true)));
    assert_eq!((&route["via"], &route["via_name"]), (&json!(tracker.id()), &json!("tracker")));
}

#[test]
fn failures_are_counted_and_explained() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--agent", "fail", "--exec", "false"]);
    let addr = node.addr();
    // What fails for good is not repeated for ten minutes.
    let ran = here.run(["bench", "--peer", &addr, "--capability", "nothing", "--calls", "1000", "--json"]);
    let report = report(&ran);
    assert_eq!((&report["ended"], number(&report, "answered")), (&json!("failing"), 0));
    assert!((10..1000).contains(&number(&report, "failed")), "{report}");
    let error = &report["errors"][0];
    assert_eq!((&error["code"], &error["delivery"]), (&json!("UNKNOWN_CAPABILITY"), &json!("answered")));
    assert!(error["advice"].as_str().unwrap().contains("elo find"), "{error}");
    ran.failed(1, "UNKNOWN_CAPABILITY");
    let said: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((&said["error"]["code"], &said["error"]["exit"]), (&json!("UNKNOWN_CAPABILITY"), &json!(1)));

    let text = here.run(["bench", "--peer", &addr, "--capability", "fail", "--calls", "3"]);
    text.failed(1, "3 calls failed, none was answered: HANDLER_ERROR");
    assert!(text.stdout.contains("0 answered, 3 failed") && text.stdout.contains("HANDLER_ERROR: 3 calls"), "{text:?}");
}

#[test]
fn who_is_above_the_other_sides_rate_is_told_which_limit_that_is() {
    let (there, here) = (Home::new(), Home::new());
    there.write("elo.toml", "[limits]\nmessages_per_second = 20\nmessage_burst = 40\n");
    let node = there.serve(&[]);
    let ran = here.run(["bench", "--peer", &node.addr(), "--in-flight", "32", "--calls", "200", "--json"]);
    let report = report(&ran);
    let limited = report["errors"].as_array().unwrap().iter().find(|error| error["code"] == "RATE_LIMITED").unwrap();
    assert!(limited["advice"].as_str().unwrap().contains("messages_per_second"), "{limited}");
    assert!(number(&report, "answered") > 0, "{report}");
    ran.failed(1, "of 200 calls failed");
}

#[test]
fn a_node_that_goes_away_ends_it_early() {
    let (there, here) = (Home::new(), Home::new());
    let mut node = there.serve(&["--agent", "echo"]);
    let addr = node.addr();
    let args = [
        "bench",
        "--peer",
        &addr,
        "--capability",
        "echo",
        "--duration",
        "10m",
        "--warm-up",
        "0",
        "--timeout",
        "1s",
        "--in-flight",
        "8",
        "--json",
    ];
    let mut command = here.command(args);
    let bench = Reaped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    for _ in 0..100 {
        node.event("task_finished");
    }
    drop(node.child.0.kill());
    let ran = ended(bench);
    let report = report(&ran);
    assert_eq!((ran.code, &report["ended"]), (1, &json!("failing")), "{report}");
    assert!(number(&report, "answered") > 0 && number(&report, "failed") >= 10, "{report}");
    let codes: Vec<&str> = report["errors"].as_array().unwrap().iter().map(|e| e["code"].as_str().unwrap()).collect();
    assert!(codes.iter().all(|code| ["TIMEOUT", "PEER_GONE", "NO_PEER"].contains(code)), "{codes:?}");
}

/// Waits until a task was answered there; others than these, such as the `ping` that looks for the node, are passed over.
#[track_caller]
fn finished(node: &Serve, capability: &str) -> Value {
    loop {
        let event = node.event("task_finished");
        if event["capability"] == capability {
            return event;
        }
    }
}

/// Waits for the end of a command, with what it printed.
fn ended(mut child: Reaped) -> Ran {
    let (mut out, mut err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    let stdout = std::thread::spawn(move || std::io::read_to_string(&mut out).unwrap());
    let stderr = std::thread::spawn(move || std::io::read_to_string(&mut err).unwrap());
    let status = child.wait(PATIENCE).expect("the command ends");
    Ran { code: status.code().unwrap_or(-1), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn interrupt(child: &Reaped) {
    kill_process(Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap(), Signal::INT).unwrap();
}

#[test]
fn ctrl_c_ends_it_with_what_was_measured() {
    let (there, here, stranger) = (Home::new(), Home::new(), Home::new());
    let node = there.serve(&["--agent", "echo", "--name", "box"]);
    let through = here.serve(&["--peer", &node.addr()]);
    through.event("peer_connected");
    let addr = node.addr();
    let common = ["--capability", "echo", "--duration", "10m", "--warm-up", "0", "--in-flight", "3", "--json"];
    let through_the_running_one = here.command([&["bench", "box"], &common[..]].concat());
    let of_its_own = stranger.command([&["bench", "--peer", &addr], &common[..]].concat());
    for mut command in [through_the_running_one, of_its_own] {
        let bench = Reaped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        for _ in 0..50 {
            node.event("task_finished");
        }
        interrupt(&bench);
        let ran = ended(bench);
        let report = report(&ran);
        assert_eq!((ran.code, &report["ended"]), (130, &json!("interrupted")), "{ran:?}");
        assert!(number(&report, "answered") > 0, "{report}");
    }
    // The running node makes no more of them, and is as it was.
    eventually("no call is left", || here.run(["status", "--json"]).json()["node"]["metrics"]["calls_running"] == 0);
    eventually("no task is left", || there.run(["status", "--json"]).json()["node"]["metrics"]["tasks_running"] == 0);
}

#[test]
fn calls_in_flight_at_the_end_are_cancelled() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    let through = here.serve(&["--peer", &node.addr(), "--name", "me"]);
    through.event("peer_connected");
    let ran =
        here.run(["bench", &node.id(), "--capability", "slow", "--duration", "300ms", "--in-flight", "2", "--json"]);
    let report = report(&ran);
    assert_eq!((number(&report, "answered"), number(&report, "cut_off")), (0, 2), "{report}");
    ran.failed(4, "none of the 2 calls in flight was answered");
    for _ in 0..2 {
        assert_eq!(finished(&node, "slow")["success"], false);
    }
    // A bench whose command is killed leaves nothing behind either.
    let mut command = here.command(["bench", &node.id(), "--capability", "slow", "--duration", "10m"]);
    let bench = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    while node.event("task_received")["capability"] != "slow" {}
    drop(bench);
    assert_eq!(finished(&node, "slow")["success"], false);
    eventually("there is room for another", || here.run(["bench", &node.id(), "--calls", "1", "--json"]).code == 0);
}

#[test]
fn a_node_makes_one_at_a_time() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--agent", "echo"]);
    let through = here.serve(&["--peer", &node.addr()]);
    through.event("peer_connected");
    let mut command = here.command(["bench", &node.id(), "--capability", "echo", "--duration", "10m"]);
    let _bench = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    while node.event("task_received")["capability"] != "echo" {}
    here.run(["bench", &node.id(), "--calls", "1"]).failed(1, "another bench is under way");
}

#[test]
fn what_can_t_be_measured_is_refused() {
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--name", "box"]);
    let through = here.serve(&["--peer", &node.addr(), "--name", "me"]);
    through.event("peer_connected");
    for (args, code, said) in [
        (&["bench"][..], 2, "which node?"),
        (&["bench", "10.0.0.1:7878"], 2, "say --peer 10.0.0.1:7878"),
        (&["bench", "--peer", "a", "--peer", "b"], 2, "say which node"),
        (&["bench", "me"], 2, "a bench needs another"),
        (&["bench", "nobody-here", "--timeout", "5s"], 3, "NO_PEER"),
        (&["bench", "box", "--via", "nobody-here", "--timeout", "5s"], 3, "NO_PEER"),
        (&["bench", "box", "--in-flight", "0"], 2, "1 to 4096"),
        (&["bench", "box", "--in-flight", "4097"], 2, "1 to 4096"),
        (&["bench", "box", "--duration", "11m"], 2, "at most 600 s"),
        (&["bench", "box", "--duration", "0"], 2, "at least 1ms"),
        (&["bench", "box", "--warm-up", "2m"], 2, "at most 60 s"),
        (&["bench", "box", "--calls", "0"], 2, "--calls"),
        (&["bench", "box", "--calls", "100000001"], 2, "--calls"),
        (&["bench", "box", "--calls", "5", "--duration", "1s"], 2, "cannot be used with"),
        (&["bench", "box", "--size", "1"], 2, "2 to 770048 bytes"),
        (&["bench", "box", "--size", "1MB"], 2, "2 to 770048 bytes"),
        (&["bench", "box", "--size", "ten"], 2, "10kB"),
        (&["bench", "box", "--size", "9", "--payload", "x"], 2, "cannot be used with"),
        (&["bench", "box", "--capability", ""], 2, "1 to 128 characters"),
        (&["bench", "--calls"], 2, "--calls"),
        (&["bench", "--json", "--calls", "5", "--", "--x"], 2, "looks like a flag"),
    ] {
        let ran = here.run(args);
        ran.failed(code, said);
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
    }
    assert!(!here.run(["bench", "nobody-here", "--timeout", "5s"]).stderr.contains("--trace"));
    // The program that speaks to the socket itself is held to the same bounds.
    for args in [
        json!({"in_flight": 5000}),
        json!({"in_flight": 0}),
        json!({"duration_ms": 600_001}),
        json!({"duration_ms": 0}),
        json!({"warm_up_ms": 60_001}),
        json!({"calls": 0}),
        json!({"payload": "x".repeat(800_000)}),
    ] {
        let mut all = json!({"to": "box", "capability": "ping", "payload": null, "in_flight": 1, "duration_ms": 100, "timeout_ms": 5000});
        all.as_object_mut().unwrap().extend(args.as_object().unwrap().clone());
        let answer = ask(&here, &all);
        let is_refused = answer["type"] == "error" || answer["data"]["errors"][0]["code"] == "TOO_LARGE";
        assert!(is_refused, "{args}: {answer}");
    }
    here.run(["stop"]).ok();
    here.run(["bench", "box"]).failed(3, "elo serve");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    here.run(["bench", "--peer", &free]).failed(3, &free);
}

/// Asks a running node over its socket; gives the last line of the answer.
fn ask(home: &Home, args: &Value) -> Value {
    use std::io::{BufRead, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(home.file("node.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(socket, "{}", json!({"v": 1, "op": "bench", "args": args})).unwrap();
    let lines = std::io::BufReader::new(socket).lines().map_while(Result::ok);
    serde_json::from_str(&lines.last().expect("an answer")).unwrap()
}

#[test]
fn on_a_terminal_it_is_seen_how_far_it_is() {
    if !common::terminal::has_python() {
        return;
    }
    let (there, here) = (Home::new(), Home::new());
    let node = there.serve(&["--name", "box"]);
    let addr = node.addr();
    let args = ["bench", "--peer", &addr, "--duration", "10m", "--warm-up", "0"];
    let steps = json!([
        ["expect", "asking box"],
        ["expect", "s of 10 min 0 s: "],
        ["expect", "answered, 0 failed"],
        ["send", "\u{3}"],
        ["expect", "(interrupted)"],
        ["expect", "p99.9"],
        ["code", 130]
    ]);
    let seen = common::terminal::sit(&here, &args, &steps).ok();
    // What was shown meanwhile is taken away before the result.
    let report = &seen[seen.find("node  ").unwrap()..];
    assert!(!report.contains(" of 10 min"), "{report:?}");
    assert!(seen[..seen.len() - report.len()].ends_with("\u{1b}[K"), "{seen:?}");
    for args in [["--quiet"], ["--json"]] {
        let all = [&["bench", "--peer", &addr, "--calls", "5"][..], &args[..]].concat();
        let seen = common::terminal::sit(&here, &all, &json!([["expect", "answered"]])).ok();
        assert!(!seen.contains("asking box") && !seen.contains("\u{1b}[K"), "{args:?}: {seen:?}");
    }
}
