//! What is wrong is refused with a problem that says why, and harms nothing.

use std::io::Write;

use crate::client::{answer, served};
use crate::common::Home;

#[test]
fn what_makes_no_sense_is_told_so() {
    let home = Home::new();
    let (mut node, api) = served(&home, &["--agent", "echo"]);
    for path in ["/", "/nothing", "/v1", "/v1/calls/", "/v1/tasks", "/v1//status", "/v1/status/", "/%ff"] {
        api.get(path).problem(404, "NOT_FOUND");
    }
    for (method, path) in [("POST", "/health"), ("PUT", "/v1/status"), ("PATCH", "/v1/calls"), ("BREW", "/v1/peers")] {
        let answer = api.ask(method, path, "");
        answer.problem(405, "METHOD_NOT_ALLOWED");
        assert!(!answer.headers["allow"].is_empty());
    }
    for body in ["{", "nonsense", "{\"capability\": }", "\u{1}", "{\"capability\": \"echo\"} {}", "\"\\ud800\""] {
        api.post("/v1/calls", body).problem(400, "BAD_REQUEST");
    }
    for body in [
        "[]",
        "null",
        "1",
        "{}",
        "{\"capability\": 1}",
        "{\"capability\": \"echo\", \"payloud\": 1}",
        "{\"capability\": \"echo\", \"timeout_s\": \"1\"}",
        "{\"capability\": \"echo\", \"timeout_s\": 1e9}",
        "{\"capability\": \"echo\", \"timeout_s\": -1}",
        "[\"echo\"]",
    ] {
        api.post("/v1/calls", body).problem(422, "BAD_REQUEST");
    }
    // Duplicated members, depth beyond reason, invalid UTF-8.
    api.post("/v1/calls", "{\"capability\": \"echo\", \"capability\": \"echo\"}").problem(422, "BAD_REQUEST");
    let deep = format!("{{\"capability\": \"echo\", \"payload\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    api.post("/v1/calls", deep).problem(400, "BAD_REQUEST");
    let token = &api.token;
    let head = |rest: &str| {
        format!(
            "POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{rest}\r\n\r\n"
        )
    };
    let mut bytes = head("Content-Type: application/json\r\nContent-Length: 3").into_bytes();
    bytes.extend(b"\"\xff\"");
    api.raw(&bytes).problem(400, "BAD_REQUEST");
    // A form, which any page may send, is none of what is taken here.
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
        let request = head(&format!("Content-Type: {kind}\r\nContent-Length: 2"));
        api.raw(format!("{request}{{}}").as_bytes()).problem(415, "BAD_REQUEST");
    }
    api.raw(format!("{}{{}}", head("Content-Length: 2")).as_bytes()).problem(415, "BAD_REQUEST");
    for query in ["wait_s=NaN", "wait_s=-1", "wait_s=inf", "after=-1", "nothing=1", "wait_s=1&wait_s=2"] {
        let answer = api.get(&format!("/v1/calls/x?{query}"));
        assert!([400, 422].contains(&answer.status), "{query}: {}", answer.text());
        answer.problem(answer.status, "BAD_REQUEST");
    }
    api.post("/v1/calls", "{\"capability\": \"echo\", \"payload\": {\"still\": \"here\"}}").json(200);
    assert!(node.is_running());
}

#[test]
fn what_is_too_large_is_not_taken() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    let token = &api.token;
    let head = |rest: &str| {
        format!(
            "POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n{rest}\r\n\r\n"
        )
    };
    // What is announced is believed, and none of it is read.
    for length in ["2097153", "99999999999999"] {
        api.raw(head(&format!("Content-Length: {length}")).as_bytes()).problem(413, "TOO_LARGE");
    }
    // What is not announced is read up to there.
    let mut stream = api.connect();
    stream.write_all(head("Transfer-Encoding: chunked").as_bytes()).unwrap();
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    for _ in 0..65 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    answer(stream).problem(413, "TOO_LARGE");
    // A body that fits with a payload that doesn't.
    let payload = |bytes: usize| format!("{{\"capability\": \"echo\", \"payload\": \"{}\"}}", "x".repeat(bytes));
    api.post("/v1/calls", payload(900_000)).problem(413, "TOO_LARGE");
    assert_eq!(api.post("/v1/calls", payload(700_000)).json(200)["payload"].as_str().unwrap().len(), 700_000);
    // Heads have their bounds too; who goes beyond is answered by the layer below.
    let long = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(api.raw(long.as_bytes()).status, 431);
    let many = "X: y\r\n".repeat(100);
    assert_eq!(api.raw(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes()).status, 431);
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let home = Home::new();
    let (node, api) = served(&home, &["--agent", "echo"]);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"{\"v\":1,\"type\":\"hello\"}\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x00\x00\x00",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = api.connect();
        drop(stream.write_all(garbage));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut said = Vec::new();
        drop(std::io::Read::read_to_end(&mut stream, &mut said));
        let said = String::from_utf8_lossy(&said);
        assert!(!said.starts_with("HTTP/1.1 2") || garbage.starts_with(b"GET /health"), "{garbage:?}: {said}");
    }
    // Halves of requests, of whoever then hangs up.
    let whole = api.request_text(
        "POST",
        "/v1/calls",
        &[&format!("Authorization: Bearer {}", api.token)],
        "{\"capability\": \"echo\"}",
    );
    for end in (0..whole.len()).step_by(7) {
        drop(api.connect().write_all(&whole.as_bytes()[..end]));
    }
    api.get("/v1/status").json(200);
    node.signal(rustix::process::Signal::TERM);
    let (code, errors) = node.ended();
    assert_eq!(code, 0);
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn many_large_bodies_at_once_have_their_bound() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "echo"]);
    let token = &api.token;
    let head = format!(
        "POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: 2097152\r\n\r\n"
    );
    let almost = " ".repeat(2_000_000);
    // Each of them lacks its end.
    let mut slow: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = api.connect();
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(almost.as_bytes())));
            stream
        })
        .collect();
    let large = format!("{{\"capability\": \"echo\", \"payload\": \"{}\"}}", "x".repeat(700_000));
    let small = "{\"capability\": \"echo\"}";
    slow.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    crate::common::eventually("some of 80 MB are refused", || slow.iter().any(|stream| stream.peek(&mut [0]).is_ok()));
    let refused = slow.iter().position(|stream| stream.peek(&mut [0]).is_ok()).unwrap();
    let refused = slow.swap_remove(refused);
    refused.set_nonblocking(false).unwrap();
    answer(refused).problem(503, "OVERLOADED");
    slow.clear();
    crate::common::eventually("there is room again", || api.post("/v1/calls", large.as_str()).status == 200);
    api.post("/v1/calls", small).json(200);
}
