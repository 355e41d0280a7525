//! An agent that answers as it is told, whether that is A2A or not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What it is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Asked {
    pub fn is_card(&self) -> bool {
        self.method == "GET" && self.path.ends_with("agent-card.json")
    }

    /// The method of JSON-RPC.
    pub fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
}

/// What it answers.
pub enum Says {
    /// JSON with a status.
    Json(u16, Value),
    /// As it stands, and the connection ends.
    Raw(Vec<u8>),
    /// This, again and again, without end.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing, for as long as the agent is there.
    Nothing,
}

impl Says {
    /// The result of JSON-RPC.
    pub fn result(result: Value) -> Self {
        Self::Json(200, json!({"jsonrpc": "2.0", "id": "1", "result": result}))
    }
}

/// An agent; gone when it is dropped.
pub struct Fake {
    pub addr: SocketAddr,
    pub seen: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    /// On any port, or on one that it had before.
    pub fn start(
        addr: Option<SocketAddr>,
        answer: impl Fn(&Asked, SocketAddr) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let over: Arc<AtomicBool> = Arc::default();
        let answer = Arc::new(answer);
        let (kept, ended) = (Arc::clone(&seen), Arc::clone(&over));
        let accepting = std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                open.push(stream.try_clone().unwrap());
                let (answer, kept, ended) = (Arc::clone(&answer), Arc::clone(&kept), Arc::clone(&ended));
                std::thread::spawn(move || one(stream, addr, answer.as_ref(), &kept, &ended));
            }
            for stream in open {
                drop(stream.shutdown(std::net::Shutdown::Both));
            }
        });
        Self { addr, seen, over, accepting: Some(accepting) }
    }

    /// One with a card that names these skills, and streams or does not.
    pub fn agent(
        addr: Option<SocketAddr>,
        skills: &'static [&'static str],
        streaming: bool,
        answer: impl Fn(&Asked) -> Says + Send + Sync + 'static,
    ) -> Self {
        Self::start(
            addr,
            move |asked, addr| {
                if asked.is_card() { Says::Json(200, card(addr, skills, streaming)) } else { answer(asked) }
            },
        )
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How often it was asked for something.
    pub fn count(&self, what: impl Fn(&Asked) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|asked| what(asked)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

pub fn card(addr: SocketAddr, skills: &[&str], streaming: bool) -> Value {
    let skills: Vec<Value> = skills
        .iter()
        .map(|id| json!({"id": id, "name": id, "description": format!("does {id}"), "tags": []}))
        .collect();
    json!({
        "name": "Fake", "description": "an agent of the tests", "version": "1", "skills": skills,
        "supportedInterfaces": [{"url": format!("http://{addr}/rpc"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "capabilities": {"streaming": streaming}, "defaultInputModes": [], "defaultOutputModes": [],
    })
}

fn one(
    stream: TcpStream,
    addr: SocketAddr,
    answer: &(impl Fn(&Asked, SocketAddr) -> Says + ?Sized),
    seen: &Mutex<Vec<Asked>>,
    over: &AtomicBool,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let Some(asked) = read(&mut reader) else { return };
    seen.lock().unwrap().push(asked.clone());
    // Whoever asked may have left.
    let said = match answer(&asked, addr) {
        Says::Json(status, value) => {
            let body = value.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes()))
        }
        Says::Raw(bytes) => writer.write_all(&bytes),
        Says::Endless(first, again) => {
            let mut said = writer.write_all(&first);
            while said.is_ok() && !over.load(Ordering::SeqCst) {
                said = writer.write_all(&again);
            }
            said
        }
        Says::Nothing => {
            while !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
    };
    drop(said);
    drop(writer.shutdown(std::net::Shutdown::Both));
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
}
