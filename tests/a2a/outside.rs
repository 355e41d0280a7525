//! Agents outside of the mesh: those that come late, leave, say nonsense or never end; and a gateway of another mesh.

use serde_json::{Value, json};

use crate::client::served;
use crate::common::{Home, Ran, Serve, eventually};
use crate::fake::{Asked, Fake, Says, card};

/// What the node of a home provides, with how it is reached.
fn provided(home: &Home) -> Vec<(String, Value)> {
    let found = home.run(["find", "--json", "--timeout", "500ms"]).json_lines();
    let own = found.iter().find(|node| node["found"] == "self").unwrap();
    let caps = own["capabilities"].as_array().unwrap();
    caps.iter().map(|cap| (cap["name"].as_str().unwrap().to_owned(), cap["details"].clone())).collect()
}

fn names(home: &Home) -> Vec<String> {
    provided(home).into_iter().map(|(name, _)| name).collect()
}

/// A node with the agent, and one that calls it.
struct Pair {
    home: Home,
    node: Serve,
    other: Home,
    _caller: Serve,
}

impl Pair {
    fn with(url: &str) -> Self {
        let (home, other) = (Home::new(), Home::new());
        let node = home.serve(&["--a2a-agent", url]);
        let caller = other.serve(&["--peer", &node.addr()]);
        Self { home, node, other, _caller: caller }
    }

    fn has(&self, name: &str) {
        eventually(name, || names(&self.home).contains(&name.to_owned()));
    }

    fn call(&self, args: &[&str]) -> Ran {
        let mut all = vec!["call", "--to"];
        let id = self.node.id();
        all.push(&id);
        all.extend(args);
        self.other.run(all)
    }

    fn stopped(self) -> String {
        self.home.run(["stop"]).ok();
        let (_, errors) = self.node.ended();
        assert!(!errors.contains("panicked"), "{errors}");
        errors
    }
}

fn task(state: &str, more: Value) -> Value {
    let mut task = json!({"id": "t-1", "contextId": "c", "status": {"state": state}});
    for (name, value) in more.as_object().unwrap() {
        task[name] = value.clone();
    }
    task
}

fn answered(text: &str) -> Says {
    let artifacts = json!([{"artifactId": "a", "parts": [{"text": text}]}]);
    Says::result(json!({"task": task("TASK_STATE_COMPLETED", json!({ "artifacts": artifacts }))}))
}

/// It is provided once it is there; its card is read again after it was away, and the caller may wait for it.
#[test]
fn an_agent_may_come_late_and_leave_and_come_back_as_another() {
    let late = Fake::start(None, |_, _| Says::Json(503, json!({})));
    let addr = late.addr;
    let pair = Pair::with(&late.url());
    eventually("it is looked for", || late.count(Asked::is_card) > 1);
    assert!(names(&pair.home).is_empty());
    drop(late);

    let agent = Fake::agent(Some(addr), &["first", "both"], false, |_| answered("one"));
    pair.has("first");
    let (_, details) = provided(&pair.home).into_iter().find(|(name, _)| name == "both").unwrap();
    assert_eq!(details["description"], "does both", "{details}");
    assert_eq!((&details["reach"]["by"], &details["reach"]["ok"]), (&json!("a2a"), &json!(true)), "{details}");
    assert_eq!(pair.call(&["both", "\"x\""]).ok(), "one\n");
    let cards = agent.count(Asked::is_card);
    let woken = pair.other.run(["wake", &pair.node.id(), "both", "--json"]).json();
    assert_eq!((&woken["reach"]["by"], &woken["reach"]["ok"]), (&json!("a2a"), &json!(true)), "{woken}");
    assert!(agent.count(Asked::is_card) > cards, "a wake asks the agent itself");
    drop(agent);

    let away = pair.call(&["both", "1"]);
    away.failed(3, "AGENT_AWAY");
    assert!(away.stderr.contains("A2A agent"), "{away:?}");

    let waiting = std::thread::scope(|scope| {
        let (other, id) = (&pair.other, pair.node.id());
        let waiting =
            scope.spawn(move || other.run(["call", "--to", &id, "both", "1", "--wait", "25s", "--timeout", "29s"]));
        eventually("it is seen that it is away", || {
            provided(&pair.home).iter().any(|(_, details)| details["reach"]["ok"] == false)
        });
        let agent = Fake::agent(Some(addr), &["both", "second"], false, |_| answered("two"));
        let ran = waiting.join().unwrap();
        pair.has("second");
        eventually("what it offers no longer is provided no longer", || names(&pair.home) == ["both", "second"]);
        drop(agent);
        ran
    });
    assert_eq!(waiting.ok(), "two\n");
    let errors = pair.stopped();
    assert!(errors.contains("is looked for again"), "{errors}");
}

#[test]
fn what_the_node_provides_itself_stays_its_own() {
    let agent = Fake::agent(None, &["mine", "theirs"], false, |_| answered("from outside"));
    let again = Fake::agent(None, &["theirs", "more"], false, |_| answered("from the other"));
    let home = Home::new();
    let node = home.serve(&["--agent", "mine", "--a2a-agent", &agent.url(), "--a2a-agent", &again.url()]);
    eventually("both have joined", || names(&home) == ["mine", "more", "theirs"]);
    assert_eq!(home.run(["call", "mine", "\"own\""]).ok(), "own\n");
    assert_eq!(home.run(["call", "more", "\"x\""]).ok(), "from the other\n");
    assert!(home.run(["call", "theirs", "\"x\""]).ok().starts_with("from "));
    home.run(["stop"]).ok();
    let (_, errors) = node.ended();
    assert!(
        errors.contains("\\\"mine\\\": this node provides that already")
            || errors.contains("\"mine\": this node provides that already"),
        "{errors}"
    );
}

#[test]
fn what_is_no_agent_is_told_and_provides_nothing() {
    let cards: [(&str, fn(&Asked, std::net::SocketAddr) -> Says); 8] = [
        ("can't be read", |_, _| Says::Json(200, json!({"name": "x"}))),
        ("can't be read", |_, _| Says::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense".to_vec())),
        ("redirects are not followed", |_, _| {
            Says::Raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n".to_vec())
        }),
        ("a2a.tokens", |_, _| Says::Json(401, json!({}))),
        ("404", |_, _| Says::Json(404, json!({}))),
        ("more than", |_, _| Says::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 64 * 1024])),
        ("is not on", |_, addr| {
            let mut card = card(addr, &["x"], false);
            card["supportedInterfaces"][0]["url"] = json!("http://10.0.0.1/rpc");
            Says::Json(200, card)
        }),
        ("none of its skills", |_, addr| Says::Json(200, card(addr, &["ping", "x*"], false))),
    ];
    for (why, answer) in cards {
        let agent = Fake::start(None, answer);
        let home = Home::new();
        let node = home.serve(&["--a2a-agent", &agent.url()]);
        eventually(why, || agent.count(Asked::is_card) > 1);
        assert!(names(&home).is_empty(), "{why}");
        home.run(["stop"]).ok();
        let (_, errors) = node.ended();
        assert!(errors.contains(why) && !errors.contains("panicked"), "{why}: {errors}");
    }
}

#[test]
fn urls_that_can_not_be_are_refused_at_the_start() {
    for (args, why) in [
        (vec!["--a2a-agent", "127.0.0.1:9"], "http://"),
        (vec!["--a2a-agent", "http://:secret@127.0.0.1:9/"], "a2a.tokens"),
        (vec!["--a2a-agent", "http://127.0.0.1:9,http://127.0.0.1:9"], "twice"),
    ] {
        let home = Home::new();
        let mut all = vec!["serve", "--bind", "127.0.0.1", "--port", "0"];
        all.extend(args);
        let ran = home.run(all);
        ran.failed(2, why);
        assert!(!ran.stderr.contains("secret") || why == "a2a.tokens", "{ran:?}");
    }
    let home = Home::new();
    home.write("a2a.tokens", "http://127.0.0.1:9 token");
    let ran = home.run(["serve", "--bind", "127.0.0.1", "--port", "0", "--a2a-agent", "http://127.0.0.1:9"]);
    ran.failed(2, "chmod 600");
}

/// Each answer is an error that says why, in its time.
#[test]
fn nonsense_is_told_to_the_caller() {
    fn stream(events: &[Value]) -> Vec<u8> {
        let mut text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n".to_owned();
        for event in events {
            text.push_str(&format!("data: {}\n\n", json!({"jsonrpc": "2.0", "id": "1", "result": event})));
        }
        text.into_bytes()
    }
    let agent = Fake::agent(None, &["x"], true, |asked| {
        let parts = &asked.body["params"]["message"]["parts"][0];
        match (asked.rpc(), parts["text"].as_str().unwrap_or_default()) {
            ("SendStreamingMessage", "json") => {
                Says::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense".to_vec())
            }
            ("SendStreamingMessage", "event") => Says::Raw(stream(&[json!({"surprise": 1})])),
            ("SendStreamingMessage", "no task") => Says::Raw(stream(&[])),
            ("SendStreamingMessage", "error") => Says::Json(
                200,
                json!({"jsonrpc": "2.0", "id": "1", "error": {"code": -32602, "message": "no such colour"}}),
            ),
            ("SendStreamingMessage", "busy") => {
                Says::Raw(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".to_vec())
            }
            ("SendStreamingMessage", "endless") => Says::Endless(stream(&[]), vec![b'x'; 64 * 1024]),
            ("SendStreamingMessage", "flood") => {
                let piece = json!({"jsonrpc": "2.0", "id": "1", "result": {"artifactUpdate": {"taskId": "t-1", "contextId": "c",
                    "append": true, "artifact": {"artifactId": "a", "parts": [{"text": "x".repeat(200_000)}]}}}});
                Says::Endless(stream(&[]), format!("data: {piece}\n\n").into_bytes())
            }
            ("SendStreamingMessage", "silent") => Says::Nothing,
            ("SendStreamingMessage", "broken") => {
                Says::Raw(stream(&[json!({"task": task("TASK_STATE_WORKING", json!({}))})]))
            }
            ("GetTask", _) => {
                let artifacts = json!([{"artifactId": "a", "parts": [{"text": "after all"}]}]);
                Says::result(task("TASK_STATE_COMPLETED", json!({ "artifacts": artifacts })))
            }
            ("CancelTask", _) => Says::result(task("TASK_STATE_CANCELED", json!({}))),
            (other, text) => panic!("{other} {text}"),
        }
    });
    let pair = Pair::with(&agent.url());
    pair.has("x");
    for (payload, said) in [
        ("json", "HANDLER_ERROR"),
        ("event", "makes no sense"),
        ("no task", "neither a message nor a task"),
        ("error", "no such colour"),
        ("busy", "OVERLOADED"),
        ("endless", "more than"),
        ("flood", "more than"),
    ] {
        let ran = pair.call(&["x", &json!(payload).to_string(), "--timeout", "20s"]);
        assert_ne!(ran.code, 0, "{payload}: {ran:?}");
        assert!(ran.stderr.contains(said), "{payload}: {ran:?}");
    }
    pair.call(&["x", "\"silent\"", "--timeout", "2s"]).failed(4, "TIMEOUT");
    // A stream that breaks off is looked after.
    assert_eq!(pair.call(&["x", "\"broken\""]).ok(), "after all\n");
    assert_eq!(pair.call(&["x", "\"broken\""]).ok(), "after all\n");
    pair.stopped();
}

/// The agent hears that nobody waits any more.
#[test]
fn a_task_is_taken_back() {
    let agent = Fake::agent(None, &["x"], false, |asked| match asked.rpc() {
        "SendMessage" => Says::result(json!({"task": task("TASK_STATE_WORKING", json!({}))})),
        "GetTask" => Says::result(task("TASK_STATE_WORKING", json!({}))),
        "CancelTask" => Says::result(task("TASK_STATE_CANCELED", json!({}))),
        other => panic!("{other}"),
    });
    let home = Home::new();
    let (_node, api) = served(&home, &["--a2a-agent", &agent.url()]);
    eventually("it has joined", || names(&home) == ["x"]);
    let started = api.post("/v1/calls", r#"{"capability": "x", "payload": 1, "async": true, "local": true}"#);
    let id = started.json(202)["id"].as_str().unwrap().to_owned();
    eventually("it is worked on", || agent.count(|asked| asked.rpc() == "GetTask") > 1);
    api.ask("DELETE", &format!("/v1/calls/{id}"), "");
    eventually("the agent is told", || agent.count(|asked| asked.rpc() == "CancelTask") == 1);
    let told = agent.seen.lock().unwrap().iter().find(|asked| asked.rpc() == "CancelTask").cloned().unwrap();
    assert_eq!(told.body["params"]["id"], "t-1");
    assert_eq!(told.headers["a2a-version"], "1.0");
    let sent = agent.seen.lock().unwrap().iter().find(|asked| asked.rpc() == "SendMessage").cloned().unwrap();
    assert_eq!(sent.body["params"]["metadata"]["elo.capability"], "x");
    assert_eq!(sent.body["params"]["configuration"]["returnImmediately"], true);
}

/// The agent of one mesh is a capability of another, through the gateway and its token.
#[test]
fn two_meshes_meet_at_a_gateway() {
    let (first, second) = (Home::new(), Home::new());
    let (_gateway, api) = served(&first, &["--agent", "count", "--exec", "seq 3", "--exec-stream"]);
    let url = format!("{}/a2a/count", api.url());
    let home = Home::new();
    let node = home.serve(&["--a2a-agent", &url]);
    eventually("its card is for everybody", || names(&home) == ["count"]);
    let refused = home.run(["call", "count", "1"]);
    assert!(refused.stderr.contains("a2a.tokens"), "{refused:?}");
    drop(node);

    let path = second.write("a2a.tokens", format!("# the other mesh\n{url} {}\n", api.token));
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let _node = second.serve(&["--a2a-agent", &url]);
    eventually("it has joined", || names(&second) == ["count"]);
    assert_eq!(second.run(["call", "count", "1", "--stream"]).ok(), "1\n2\n3\n{\"lines\":3}\n");
    let whole = second.run(["call", "count", "1"]).ok();
    assert!(whole.contains("\"lines\""), "{whole}");
}
