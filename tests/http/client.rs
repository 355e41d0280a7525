//! A client of the API that does no more than it is told.
#![allow(dead_code, reason = "the tests of the A2A gateway use a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::common::{Home, PATIENCE, Serve};

/// An API, and its token.
#[derive(Clone, Debug)]
pub struct Api {
    pub addr: String,
    pub token: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, of an answer with this status.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// It is a problem with this status and code; gives what it says.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.json(status);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(problem["detail"].as_str().unwrap().len() > 5, "{problem}");
        problem
    }
}

/// A node with its API.
pub fn served(home: &Home, args: &[&str]) -> (Serve, Api) {
    let mut all = vec!["--http", "127.0.0.1:0"];
    all.extend(args);
    let node = home.serve(&all);
    let api = Api::of(home, &node);
    (node, api)
}

impl Api {
    pub fn of(home: &Home, node: &Serve) -> Self {
        let url = node.ready["http"].as_str().unwrap();
        let token = std::fs::read_to_string(home.file("http.token")).unwrap().trim().to_owned();
        Self { addr: url.split_once("://").unwrap().1.to_owned(), token }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The text of a request.
    pub fn request_text(&self, method: &str, path: &str, headers: &[&str], body: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.addr);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        format!("{head}\r\n{body}")
    }

    /// Sends a request without waiting for its answer.
    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
        let mut stream = self.connect();
        let token = format!("Authorization: Bearer {}", self.token);
        let headers: Vec<&str> = headers.iter().copied().chain([token.as_str()]).collect();
        stream.write_all(self.request_text(method, path, &headers, body).as_bytes()).unwrap();
        stream
    }

    /// A request with the token.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        answer(self.send(method, path, &[], body))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        self.ask("POST", path, &body.into())
    }

    /// A request as it is written, and nothing else.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The other side may have enough before all of it is written.
        drop(stream.write_all(request));
        answer(stream)
    }

    /// A request with these headers and no others but Host.
    pub fn bare(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        self.raw(self.request_text(method, path, headers, "").as_bytes())
    }

    /// Offers a capability.
    pub fn offer(&self, name: &str) {
        self.ask("PUT", &format!("/v1/offers/{name}"), "{}").json(200);
    }

    /// The next task.
    #[track_caller]
    pub fn take(&self, body: &str) -> Value {
        self.post("/v1/tasks/next", body).json(200)
    }

    pub fn reply(&self, task: &Value, body: &str) -> Answer {
        self.post(&format!("/v1/tasks/{}/reply", task["task_id"].as_str().unwrap()), body)
    }

    pub fn progress(&self, task: &Value, body: &str) -> Answer {
        self.post(&format!("/v1/tasks/{}/progress", task["task_id"].as_str().unwrap()), body)
    }

    /// How agents use the node.
    pub fn agents(&self) -> Value {
        self.get("/v1/status").json(200)["agents"].clone()
    }

    /// A stream of events.
    pub fn stream(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Stream {
        let mut all = vec!["Accept: text/event-stream"];
        all.extend(headers);
        let mut reader = BufReader::new(self.send(method, path, &all, body));
        let (status, headers) = head(&mut reader);
        assert_eq!((status, headers["content-type"].as_str()), (200, "text/event-stream"));
        Stream { reader, rest: String::new() }
    }
}

/// Reads an answer to its end.
pub fn answer(stream: impl Read) -> Answer {
    let mut reader = BufReader::new(stream);
    let (status, headers) = head(&mut reader);
    let mut body = Vec::new();
    match headers.get("content-length") {
        Some(length) => {
            body.resize(length.parse().unwrap(), 0);
            reader.read_exact(&mut body).unwrap();
        }
        None => drop(reader.read_to_end(&mut body)),
    }
    Answer { status, headers, body }
}

fn head(reader: &mut impl BufRead) -> (u16, BTreeMap<String, String>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}")).parse().unwrap();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return (status, headers),
        };
    }
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Empty: none was given.
    pub name: String,
    pub id: String,
    pub data: Value,
}

/// Events as they come.
pub struct Stream {
    reader: BufReader<TcpStream>,
    rest: String,
}

impl Iterator for Stream {
    type Item = Sent;

    fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some((event, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.collect::<Vec<_>>().join("\n")
                };
                let (name, id, data) = (field("event"), field("id"), field("data"));
                self.rest = rest.to_owned();
                if !data.is_empty() {
                    return Some(Sent { name, id, data: serde_json::from_str(&data).unwrap() });
                }
            }
            // A chunk: its length in hexadecimal, itself, and an empty line.
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok().filter(|length| *length > 0)?;
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk).ok()?;
            self.rest.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        }
    }
}
