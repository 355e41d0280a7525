//! `elo mcp --http`: who is let in, and what a request may cost.
#![cfg(all(unix, feature = "mcp"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Home, PATIENCE, Serve, mode};
use serde_json::{Value, json};

struct Server {
    _process: Serve,
    addr: String,
    token: String,
}

fn server(home: &Home) -> Server {
    let process = Serve::start(home.command(["mcp", "--http", "127.0.0.1:0", "--json"]));
    let url = process.ready["url"].as_str().unwrap().to_owned();
    let addr = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().to_owned();
    let token = std::fs::read_to_string(home.file("mcp.token")).unwrap().trim().to_owned();
    Server { _process: process, addr, token }
}

fn hello() -> String {
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }).to_string()
}

impl Server {
    /// Sends a request, and gives the status, the head and as much of the body as came with it.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // It may say no before it has read all.
        drop(stream.write_all(body.as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// Says hello with these headers in place of the usual ones.
    fn with(&self, changed: &[(&str, &str)]) -> (u16, String) {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![
            ("Host", self.addr.as_str()),
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        headers.retain(|(name, _)| !changed.iter().any(|(other, _)| other == name));
        headers.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
        self.send("POST", "/mcp", &headers, &hello())
    }
}

#[test]
fn only_who_has_the_token_and_comes_by_its_name_is_let_in() {
    let home = Home::new();
    let _node = home.serve(&[]);
    let server = server(&home);
    assert_eq!(mode(home.file("mcp.token")), 0o600);
    let (status, answer) = server.with(&[]);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.to_lowercase().contains("mcp-session-id") && answer.contains("\"name\":\"elo\""), "{answer}");
    for (headers, expected, said) in [
        (vec![("Authorization", "")], 401, "mcp.token"),
        (vec![("Authorization", "Bearer wrong")], 401, "mcp.token"),
        (vec![("Authorization", "Basic eDp5")], 401, "Bearer"),
        (vec![("Origin", "http://evil.example")], 403, "evil.example"),
        (vec![("Origin", "null")], 403, "FORBIDDEN_ORIGIN"),
        (vec![("Host", "evil.example")], 403, "FORBIDDEN_HOST"),
        (vec![("Host", "127.0.0.1.evil.example:80")], 403, "FORBIDDEN_HOST"),
        (vec![("Origin", "http://localhost:3000")], 200, "elo"),
        (vec![("Content-Type", "text/plain")], 415, ""),
        (vec![("mcp-session-id", "made-up")], 404, ""),
    ] {
        let (status, answer) = server.with(&headers);
        assert!(status == expected && answer.contains(said), "{headers:?}: {answer}");
    }
    let bearer = format!("Bearer {}", server.token);
    let known = [("Host", server.addr.as_str()), ("Authorization", bearer.as_str())];
    assert_eq!(server.send("GET", "/", &known, "").0, 404);
    assert_eq!(server.send("GET", "/../etc/passwd", &known, "").0, 404);
    // No path is open to who has no token.
    assert_eq!(server.send("GET", "/", &known[..1], "").0, 401);
    assert_eq!(server.send("PUT", "/mcp", &known, "").0, 405);
}

#[test]
fn a_request_and_the_sessions_have_bounds() {
    let home = Home::new();
    let _node = home.serve(&[]);
    let server = server(&home);
    let bearer = format!("Bearer {}", server.token);
    let headers = [
        ("Host", server.addr.as_str()),
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];
    for garbage in ["", "garbage", "[]", "{\"jsonrpc\":\"2.0\",\"id\":1}", "\u{0}"] {
        let (status, answer) = server.send("POST", "/mcp", &headers, garbage);
        assert!((400..500).contains(&status), "{garbage:?}: {answer}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(9 * 1024 * 1024));
    let (status, answer) = server.send("POST", "/mcp", &headers, &long);
    // Either it is told, or the connection is closed on it.
    assert!(matches!(status, 413 | 0), "{answer}");
    let opened: Vec<u16> = (0..70).map(|_| server.with(&[]).0).collect();
    assert_eq!(opened.iter().filter(|status| **status == 200).count(), 64, "{opened:?}");
    assert!(opened[64..].iter().all(|status| *status == 503), "{opened:?}");
}

#[test]
fn what_does_not_go_together_is_told_before_the_start() {
    let home = Home::new();
    home.run(["mcp", "--http", "0.0.0.0:0"]).failed(2, "not on this machine alone");
    home.run(["mcp", "--http", "localhost"]).failed(2, "--http");
    home.run(["mcp", "--http-insecure"]).failed(2, "--http");
    home.run(["mcp", "--webhook", "http://127.0.0.1:1"]).failed(2, "without a capability");
    assert!(!home.path().exists(), "a start that failed made the home");
    // A token that others can read is none.
    let node = home.serve(&[]);
    home.write("mcp.token", "x".repeat(43));
    std::fs::set_permissions(home.file("mcp.token"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    home.run(["mcp", "--http", "127.0.0.1:0"]).failed(1, "can be read by others");
    drop(node);
    // The node's own HTTP API goes by another flag here, and both can be had.
    std::fs::remove_file(home.file("mcp.token")).unwrap();
    let flags =
        ["mcp", "--json", "--http", "127.0.0.1:0", "--node-http", "127.0.0.1:0", "--bind", "127.0.0.1", "--port", "0"];
    let both = Serve::start(home.command(flags));
    assert_eq!(both.ready["event"], "ready");
    assert!(home.file("http.token").exists() && home.file("mcp.token").exists());
    let status: Value = home.run(["status", "--json"]).json();
    assert_eq!(status["running"], true);
    both.signal(rustix::process::Signal::TERM);
    assert_eq!(both.ended().0, 0);
}
