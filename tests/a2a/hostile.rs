//! What the gateway makes of clients that are wrong, or mean harm: raw HTTP.

use std::io::Write;

use serde_json::{Value, json};

use crate::client::{Answer, Api, served};
use crate::common::{Home, eventually};

/// The code of a refusal of JSON-RPC.
#[track_caller]
fn code(answer: &Answer, id: Value) -> i64 {
    let body = answer.json(200);
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &id), "{body}");
    let error = &body["error"];
    assert!(error["message"].as_str().unwrap().len() > 5, "{body}");
    assert_eq!(error["data"][0]["domain"], "a2a-protocol.org", "{body}");
    error["code"].as_i64().unwrap()
}

/// A refusal of HTTP+JSON.
#[track_caller]
fn refused(answer: &Answer, status: u16, reason: &str) {
    let body = answer.json(status);
    assert_eq!(body["error"]["code"], status, "{body}");
    assert_eq!(body["error"]["details"][0]["reason"], reason, "{body}");
}

trait A2a {
    fn rpc_text(&self, agent: &str, body: &str) -> Answer;
    fn rpc(&self, agent: &str, method: &str, params: Value) -> Answer;
    fn rest(&self, method: &str, path: &str, body: &str) -> Answer;
}

impl A2a for Api {
    fn rpc_text(&self, agent: &str, body: &str) -> Answer {
        crate::client::answer(self.send("POST", &format!("/a2a/{agent}"), &["A2A-Version: 1.0"], body))
    }

    fn rpc(&self, agent: &str, method: &str, params: Value) -> Answer {
        self.rpc_text(agent, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
    }

    fn rest(&self, method: &str, path: &str, body: &str) -> Answer {
        crate::client::answer(self.send(method, &format!("/a2a/{path}"), &["A2A-Version: 1.0"], body))
    }
}

fn message(parts: Value) -> Value {
    json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": parts}})
}

/// Sends a message; gives the task.
#[track_caller]
fn send(api: &Api, agent: &str, payload: Value) -> Value {
    let answer = api.rpc(agent, "SendMessage", message(json!([{"data": payload}]))).json(200);
    answer["result"]["task"].clone()
}

#[test]
fn nothing_is_done_without_the_token() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    for (method, path) in [
        ("POST", "/a2a"),
        ("POST", "/a2a/echo"),
        ("POST", "/a2a/echo/v1/message:send"),
        ("POST", "/a2a/v1/message:stream"),
        ("GET", "/a2a/echo/v1/tasks"),
        ("GET", "/a2a/echo/v1/tasks/x"),
        ("POST", "/a2a/echo/v1/tasks/x:cancel"),
        ("GET", "/a2a/echo/v1/tasks/x/pushNotificationConfigs"),
        ("GET", "/a2a/v1/extendedAgentCard"),
        ("GET", "/a2a/other/.well-known/agent-card.json"),
        ("GET", "/a2a/@nobody/.well-known/agent-card.json"),
    ] {
        let answer = api.bare(method, path, &["A2A-Version: 1.0"]);
        answer.problem(401, "UNAUTHORIZED");
        assert!(answer.headers["www-authenticate"].starts_with("Bearer"), "{path}");
        api.bare(method, path, &["A2A-Version: 1.0", "Authorization: Bearer wrong"]).problem(401, "UNAUTHORIZED");
    }
    // What this node offers itself is for everybody, and nothing else is.
    let name = node_name(&api);
    for path in ["", "/a2a", "/a2a/echo", "/a2a/echo@", &format!("/a2a/@{name}"), &format!("/a2a/echo@{name}")] {
        let card = api.bare("GET", &format!("{path}/.well-known/agent-card.json"), &[]).json(200);
        assert_eq!(card["skills"][0]["id"], "echo", "{path}: {card}");
        assert_eq!(card["securityRequirements"], json!([{"schemes": {"token": {"list": []}}}]), "{card}");
    }
    // A page of somebody else, and a name that somebody else made lead here.
    let origin = ["Origin: http://evil.example"];
    api.bare("GET", "/.well-known/agent-card.json", &origin).problem(403, "FORBIDDEN_ORIGIN");
    let foreign = "GET /.well-known/agent-card.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    api.raw(foreign.as_bytes()).problem(403, "FORBIDDEN_HOST");
}

fn node_name(api: &Api) -> String {
    api.get("/v1/status").json(200)["node"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_no_request_is_told_so() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    for (body, id, expected) in [
        ("nonsense", json!(null), -32700),
        ("{\"jsonrpc\":", json!(null), -32700),
        ("[]", json!(null), -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"GetTask\"}]", json!(null), -32600),
        ("1", json!(null), -32600),
        ("{}", json!(null), -32600),
        (r#"{"jsonrpc":"2.0","method":"GetTask"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":"x"}"#, json!("x"), -32600),
        (r#"{"jsonrpc":"1.0","id":7,"method":"GetTask"}"#, json!(7), -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"GetTask"}"#, json!(null), -32600),
        (r#"{"jsonrpc":"2.0","id":7,"method":"Nonsense"}"#, json!(7), -32601),
        (r#"{"jsonrpc":"2.0","id":7,"method":"message/send"}"#, json!(7), -32601),
        (r#"{"jsonrpc":"2.0","id":7,"method":"GetTask"}"#, json!(7), -32602),
        (r#"{"jsonrpc":"2.0","id":7,"method":"GetTask","params":[1]}"#, json!(7), -32602),
        (r#"{"jsonrpc":"2.0","id":7,"method":"SendMessage","params":{"message":{}}}"#, json!(7), -32602),
    ] {
        assert_eq!(code(&api.rpc_text("echo", body), id), expected, "{body}");
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(code(&api.rpc_text("echo", &deep), json!(null)), -32700);
    // Without a version 0.3 is meant, which is not spoken here.
    let request = r#"{"jsonrpc":"2.0","id":7,"method":"GetTask","params":{"id":"x"}}"#;
    assert_eq!(code(&api.post("/a2a/echo", request), json!(7)), -32009);
    for wrong in ["0.3", "2.0", "1.x", "1..", "-1", "one"] {
        let answer = api.send("POST", "/a2a/echo", &[&format!("A2A-Version: {wrong}")], request);
        assert_eq!(code(&crate::client::answer(answer), json!(7)), -32009, "{wrong}");
    }
    for right in ["1", "1.0", "1.1", "1.0.3"] {
        let answer = api.send("POST", "/a2a/echo", &[&format!("A2A-Version: {right}")], request);
        assert_eq!(code(&crate::client::answer(answer), json!(7)), -32001, "{right}");
    }
    assert_eq!(code(&api.post("/a2a/echo?A2A-Version=1.0", request), json!(7)), -32001);

    refused(&api.rest("POST", "echo/v1/message:send", "nonsense"), 400, "PARSE_ERROR");
    refused(&api.rest("POST", "echo/v1/message:send", "{}"), 400, "INVALID_PARAMS");
    refused(&api.rest("GET", "echo/v1/tasks?pageSize=many", ""), 400, "INVALID_PARAMS");
    refused(&api.rest("GET", "echo/v1/tasks?status=HAPPY", ""), 400, "INVALID_PARAMS");
    refused(&api.rest("GET", "echo/v1/tasks/x", ""), 404, "TASK_NOT_FOUND");
    refused(&api.rest("POST", "echo/v1/tasks/x", "{}"), 404, "TASK_NOT_FOUND");
    refused(&api.get("/a2a/echo/v1/tasks"), 400, "VERSION_NOT_SUPPORTED");
    let xml = "Content-Type: text/xml\r\nContent-Length: 4\r\nA2A-Version: 1.0";
    let token = format!("Authorization: Bearer {}", api.token);
    let mut request = api.request_text("POST", "/a2a/echo/v1/message:send", &[xml, &token], "");
    request.push_str("<x/>");
    refused(&api.raw(request.as_bytes()), 400, "CONTENT_TYPE_NOT_SUPPORTED");
    api.rest("GET", "echo/v1/nothing", "").problem(404, "NOT_FOUND");
    api.rest("DELETE", "echo/v1/tasks", "").problem(405, "METHOD_NOT_ALLOWED");
    for wrong in ["@", "%00", "%ff", &"x".repeat(300)] {
        assert_eq!(api.rpc(wrong, "GetTask", json!({"id": "x"})).status, 400, "{wrong}");
        assert_eq!(api.get(&format!("/a2a/{wrong}/.well-known/agent-card.json")).status, 400, "{wrong}");
    }
}

#[test]
fn what_can_not_be_done_is_told_so() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo", "--agent", "other"]);
    let task = send(&api, "echo", json!(1));
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
    let id = json!({"id": task["id"]});
    let expect = |agent: &str, method: &str, params: &Value, expected: i64| {
        assert_eq!(code(&api.rpc(agent, method, params.clone()), json!(1)), expected, "{method} {params}");
    };
    expect("echo", "CancelTask", &id, -32002);
    expect("echo", "SubscribeToTask", &id, -32004);
    for method in ["GetTask", "CancelTask", "SubscribeToTask"] {
        expect("echo", method, &json!({"id": "no-such"}), -32001);
        // It is none of another agent's.
        expect("other", method, &id, -32001);
    }
    expect("echo", "GetTask", &json!({"id": task["id"], "historyLength": -1}), -32602);
    for wrong in
        [json!({"pageSize": 0}), json!({"pageSize": 101}), json!({"pageToken": "x"}), json!({"pageToken": "1-"})]
    {
        expect("echo", "ListTasks", &wrong, -32602);
    }
    // A node that offers several has to be told which.
    let params = message(json!([{"text": "x"}]));
    let answer = api.rpc("", "SendMessage", params.clone());
    assert_eq!(answer.status, 404);
    let text = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}).to_string();
    let answer = crate::client::answer(api.send("POST", "/a2a", &["A2A-Version: 1.0"], &text));
    assert_eq!(code(&answer, json!(1)), -32602);
    assert!(answer.text().contains("echo, other"), "{}", answer.text());

    let with = |change: &dyn Fn(&mut Value)| {
        let mut params = message(json!([{"text": "x"}]));
        change(&mut params);
        params
    };
    for (params, expected) in [
        (with(&|p| p["message"]["parts"] = json!([])), -32602),
        (with(&|p| p["message"]["parts"] = json!([{"nothing": 1}])), -32602),
        (with(&|p| p["message"]["parts"] = json!([{"raw": "not base64!"}])), -32602),
        (with(&|p| p["message"]["parts"] = vec![json!({"text": "x"}); 257].into()), -32602),
        (with(&|p| p["message"]["role"] = json!("ROLE_AGENT")), -32602),
        (with(&|p| p["message"]["messageId"] = json!("")), -32602),
        (with(&|p| p["message"]["messageId"] = json!("x".repeat(300))), -32602),
        (with(&|p| p["message"]["contextId"] = json!("x".repeat(300))), -32602),
        (with(&|p| p["message"]["taskId"] = json!("no-such")), -32001),
        (with(&|p| p["message"]["taskId"] = task["id"].clone()), -32004),
        (with(&|p| p["configuration"] = json!({"historyLength": -1})), -32602),
        (with(&|p| p["configuration"] = json!({"acceptedOutputModes": ["image/png"]})), -32005),
        (with(&|p| p["configuration"] = json!({"taskPushNotificationConfig": {"url": "file:///x"}})), -32602),
        (with(&|p| p["metadata"] = json!({"elo.timeout_s": -1})), -32602),
        (with(&|p| p["metadata"] = json!({"elo.wait_s": "long"})), -32602),
        (with(&|p| p["metadata"] = json!({"elo.node": 7})), -32602),
    ] {
        for method in ["SendMessage", "SendStreamingMessage"] {
            expect("echo", method, &params, expected);
        }
    }
    assert_eq!(api.rpc("echo", "ListTasks", json!({})).json(200)["result"]["totalSize"], 1);
}

#[test]
fn what_is_too_large_is_refused() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    // More than a call carries, and more than is read.
    let answer = api.rpc("echo", "SendMessage", message(json!([{"text": "x".repeat(1_000_000)}])));
    assert_eq!(code(&answer, json!(1)), -32602);
    assert!(answer.text().contains("TOO_LARGE"), "{}", answer.text());
    let body = message(json!([{"text": "x".repeat(3_000_000)}])).to_string();
    api.rest("POST", "echo/v1/message:send", &body).problem(413, "TOO_LARGE");
    let declared = format!(
        "POST /a2a/echo HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 99999999999\r\n\r\n",
        api.addr, api.token
    );
    api.raw(declared.as_bytes()).problem(413, "TOO_LARGE");
    // What fits comes back, and is no part of the history.
    let task = send(&api, "echo", json!("x".repeat(500_000)));
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED");
    assert_eq!(task["artifacts"][0]["parts"][0]["text"].as_str().unwrap().len(), 500_000);
    assert_eq!(task.get("history"), None);
    // Deeper than the wire carries.
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let answer =
        api.rpc("echo", "SendMessage", message(json!([{"data": serde_json::from_str::<Value>(&deep).unwrap()}])));
    let body = answer.json(200);
    assert!(
        body["error"]["code"] == -32602 || body["result"]["task"]["status"]["state"] == "TASK_STATE_REJECTED",
        "{body}"
    );
}

#[test]
fn no_more_tasks_and_hooks_are_kept_than_may_be() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    let first = send(&api, "echo", json!(0));
    for n in 1..=1100 {
        send(&api, "echo", json!(n));
    }
    let listed = api.rpc("echo", "ListTasks", json!({"pageSize": 1, "includeArtifacts": true})).json(200);
    let total = listed["result"]["totalSize"].as_u64().unwrap();
    assert!((1000..=1024).contains(&total), "{total}");
    assert_eq!(listed["result"]["tasks"][0]["artifacts"][0]["parts"][0]["data"], 1100, "{listed}");
    assert_eq!(code(&api.rpc("echo", "GetTask", json!({"id": first["id"]})), json!(1)), -32001);

    let task = listed["result"]["tasks"][0]["id"].clone();
    let hook = |id: u32| json!({"taskId": task, "id": id.to_string(), "url": "http://127.0.0.1:9/"});
    for id in 0..8 {
        let set = api.rpc("echo", "CreateTaskPushNotificationConfig", hook(id)).json(200);
        assert_eq!(set["result"]["id"], id.to_string(), "{set}");
    }
    assert_eq!(code(&api.rpc("echo", "CreateTaskPushNotificationConfig", hook(8)), json!(1)), -32602);
    // One that is there may be changed.
    api.rpc("echo", "CreateTaskPushNotificationConfig", hook(7)).json(200)["result"].as_object().unwrap();
    let listed = api.rpc("echo", "ListTaskPushNotificationConfigs", json!({"taskId": task})).json(200);
    assert_eq!(listed["result"]["configs"].as_array().unwrap().len(), 8);
    let long = json!({"taskId": task, "id": "0", "url": format!("http://h/{}", "x".repeat(3000))});
    assert_eq!(code(&api.rpc("echo", "CreateTaskPushNotificationConfig", long), json!(1)), -32602);
    let inject = json!({"taskId": task, "id": "0", "url": "http://h/", "token": "a\r\nX: y"});
    assert_eq!(code(&api.rpc("echo", "CreateTaskPushNotificationConfig", inject), json!(1)), -32602);
    let other = json!({"taskId": "other", "id": "0", "url": "http://h/"}).to_string();
    let path = format!("echo/v1/tasks/{}/pushNotificationConfigs", task.as_str().unwrap());
    refused(&api.rest("POST", &path, &other), 400, "INVALID_PARAMS");
}

/// A client that leaves takes nothing back, and a node that stops leaves nobody waiting.
#[test]
fn streams_end_with_the_node_and_tasks_go_on_without_them() {
    let (home, other) = (Home::new(), Home::new());
    let works = other.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    let (node, api) = served(&home, &["--peer", &works.addr()]);
    let text =
        json!({"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message(json!([{"text": "x"}]))});
    let open = || api.stream("POST", "/a2a/slow", &["A2A-Version: 1.0"], &text.to_string());
    let mut left = open();
    let first = left.next().unwrap().data;
    let id = first["result"]["task"]["id"].clone();
    drop(left);
    let mut stays = open();
    stays.next().unwrap();
    eventually("it is worked on", || {
        let task = api.rpc("slow", "GetTask", json!({"id": id})).json(200);
        task["result"]["status"]["state"] == "TASK_STATE_WORKING"
    });
    node.signal(rustix::process::Signal::TERM);
    let rest: Vec<Value> = stays.map(|event| event.data).collect();
    assert!(rest.iter().all(|event| event["result"].is_object()), "{rest:?}");
    let (code, errors) = node.ended();
    assert_eq!(code, 0, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

/// Half a request holds up nobody.
#[test]
fn half_a_request_holds_up_nobody() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut stream = api.connect();
        let head = format!(
            "POST /a2a/echo HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nA2A-Version: 1.0\r\nContent-Length: 100\r\n\r\n{{",
            api.addr, api.token
        );
        stream.write_all(head.as_bytes()).unwrap();
        half.push(stream);
    }
    assert_eq!(send(&api, "echo", json!(1))["status"]["state"], "TASK_STATE_COMPLETED");
}
