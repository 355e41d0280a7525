//! What web hooks are posted to in tests: a small HTTP server that behaves as it is told, also badly.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came over.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The delivery's id.
    #[track_caller]
    pub fn id(&self) -> String {
        self.header("webhook-id").unwrap().to_owned()
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// A status, headers, and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes instead of a response; then the connection ends.
    Raw(Vec<u8>),
    /// A response of that type that never ends.
    Endless(&'static str),
    /// The connection ends without a response.
    Close,
    /// Nothing, until the other side ends the connection.
    Hang,
}

impl Act {
    pub fn json(value: &Value) -> Self {
        Self::Answer(200, vec![("content-type", "application/json".into())], value.to_string().into())
    }

    pub fn text(status: u16, text: &str) -> Self {
        Self::Answer(status, vec![("content-type", "text/plain; charset=utf-8".into())], text.into())
    }

    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }
}

type Script = dyn Fn(usize, &Request) -> Act + Send + Sync;

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// How many that hung were given up by the other side.
    left: usize,
    connections: HashMap<usize, TcpStream>,
}

struct Inner {
    seen: Mutex<Seen>,
    news: Condvar,
    stop: AtomicBool,
    script: Box<Script>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// The server. It ends with its last connection when dropped.
pub struct Receiver {
    pub addr: SocketAddr,
    inner: Arc<Inner>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Does with the request of that number, from 0, what the script says.
    pub fn start(script: impl Fn(usize, &Request) -> Act + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None, script)
    }

    /// The acts one after the other, the last one from then on.
    pub fn acting(acts: Vec<Act>) -> Self {
        Self::start(move |n, _| acts[n.min(acts.len() - 1)].clone())
    }

    pub fn at(
        addr: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(usize, &Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            seen: Mutex::default(),
            news: Condvar::new(),
            stop: AtomicBool::new(false),
            script: Box::new(script),
            tls,
        });
        let accepting = std::thread::spawn({
            let inner = Arc::clone(&inner);
            move || {
                for (number, stream) in listener.incoming().enumerate() {
                    if inner.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    inner.seen.lock().unwrap().connections.insert(number, stream.try_clone().unwrap());
                    let inner = Arc::clone(&inner);
                    std::thread::spawn(move || inner.connection(stream, number));
                }
            }
        });
        Self { addr, inner, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    /// Waits until so many requests have come, and gives all there are.
    #[track_caller]
    pub fn requests(&self, least: usize) -> Vec<Request> {
        self.until(&format!("{least} requests"), |seen| seen.requests.len() >= least).requests.clone()
    }

    /// The requests that have come.
    pub fn so_far(&self) -> Vec<Request> {
        self.inner.seen.lock().unwrap().requests.clone()
    }

    /// Waits until so many that hung were given up.
    #[track_caller]
    pub fn left(&self, least: usize) {
        drop(self.until(&format!("{least} left"), |seen| seen.left >= least));
    }

    #[track_caller]
    fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> std::sync::MutexGuard<'_, Seen> {
        let seen = self.inner.seen.lock().unwrap();
        let (seen, late) = self.inner.news.wait_timeout_while(seen, PATIENCE, |seen| !condition(seen)).unwrap();
        assert!(!late.timed_out(), "{what}: {:?} have come, {} left", seen.requests.len(), seen.left);
        seen
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        // Wakes the listener up; its port is free once it has ended.
        drop(TcpStream::connect(self.addr));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
        for (_, stream) in self.inner.seen.lock().unwrap().connections.drain() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Inner {
    fn connection(&self, stream: TcpStream, number: usize) {
        match &self.tls {
            None => self.serve(BufReader::new(stream), number),
            Some(config) => {
                let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                self.serve(BufReader::new(rustls::StreamOwned::new(session, stream)), number);
            }
        }
        self.end(number);
    }

    fn serve<S: Read + Write>(&self, mut stream: BufReader<S>, number: usize) {
        while let Some(mut request) = read(&mut stream) {
            request.connection = number;
            let n = {
                let mut seen = self.seen.lock().unwrap();
                seen.requests.push(request.clone());
                self.news.notify_all();
                seen.requests.len() - 1
            };
            let out = stream.get_mut();
            let written = match (self.script)(n, &request) {
                Act::Answer(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} As It Is\r\n");
                    // There is no body to 204, nor a length.
                    if status != 204 {
                        head += &format!("content-length: {}\r\n", body.len());
                    }
                    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
                    out.write_all(&[head.as_bytes(), b"\r\n", &body].concat())
                }
                Act::Raw(bytes) => {
                    drop(out.write_all(&bytes));
                    return;
                }
                Act::Endless(kind) => {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                    let mut written = out.write_all(head.as_bytes());
                    while written.is_ok() {
                        written = out.write_all(chunk.as_bytes());
                    }
                    written
                }
                Act::Close => return,
                Act::Hang => {
                    let mut byte = [0];
                    drop(stream.read(&mut byte));
                    self.seen.lock().unwrap().left += 1;
                    self.news.notify_all();
                    return;
                }
            };
            if written.and_then(|()| stream.get_mut().flush()).is_err() {
                break;
            }
        }
    }

    /// Ends a connection, of which another handle is kept.
    fn end(&self, number: usize) {
        if let Some(stream) = self.seen.lock().unwrap().connections.remove(&number) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line: line.trim_end().to_owned(), headers, body, connection: 0 })
}
