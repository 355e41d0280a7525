//! Calls between two nodes over loopback: one after another, and 64 in flight, in plain text and under TLS; each beside a
//! bare exchange of the same bytes over the same kind of socket, so that the ratio says what the mesh costs. And how long
//! a node takes to connect.
//!
//! `cargo bench --bench mesh`

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use elo::{Node, Sealing, Task, TaskResult, Tls, Tracker};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const IN_FLIGHT: u64 = 64;

async fn echo(task: Task, _: elo::Context) -> TaskResult {
    Ok(task.payload.into())
}

fn payload() -> Value {
    json!({ "text": "a question of the usual length, with some words in it", "n": 42, "options": [1, 2, 3] })
}

const LAYERS: [(&str, Tls); 2] = [("plain", Tls::Off), ("TLS", Tls::Preferred)];

/// A caller and a provider that it is connected to.
async fn pair(tls: Tls) -> (Node, Node) {
    let provider = provider(tls).await;
    let addr = provider.listen_addrs()[0].to_string();
    let caller =
        Node::builder().no_listen().tls(tls).limits(limits()).peer(addr).start().await.expect("no port needed");
    while caller.find("echo", None).await.expect("running").is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (caller, provider)
}

fn limits() -> elo::Limits {
    // A bench sends more than any honest peer; what is measured is the work, not the throttle.
    elo::Limits::default().with(|l| {
        l.messages_per_second = u32::MAX;
        l.message_burst = u32::MAX;
        l.max_remembered_tasks = usize::MAX;
    })
}

async fn provider(tls: Tls) -> Node {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let provider = Node::builder().listen(loopback).tls(tls).limits(limits()).agent("echo").default_handler(echo);
    provider.start().await.expect("a free port")
}

/// An echo of lines without any of the mesh: the floor under every figure here.
async fn bare() -> BufReader<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("one connection");
        stream.set_nodelay(true).expect("a socket");
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
            stream.write_all(line.as_bytes()).await.expect("connected");
            line.clear();
        }
    });
    let stream = TcpStream::connect(addr).await.expect("listening");
    stream.set_nodelay(true).expect("a socket");
    BufReader::new(stream)
}

fn calls(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("call");
    group.sample_size(30).measurement_time(Duration::from_secs(4));
    for (layer, tls) in LAYERS {
        let (caller, _provider) = runtime.block_on(pair(tls));

        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("sequential, {layer}"), |b| {
            b.to_async(Wrapper(&runtime)).iter(|| async {
                black_box(caller.call("echo", payload()).await.expect("answered"));
            });
        });

        group.throughput(Throughput::Elements(IN_FLIGHT));
        group.bench_function(format!("64 in flight, {layer}"), |b| {
            b.to_async(Wrapper(&runtime)).iter(|| async {
                let mut running = Vec::new();
                for _ in 0..IN_FLIGHT {
                    running.push(caller.call("echo", payload()).start().await.expect("sent"));
                }
                for call in running {
                    black_box(call.outcome().await.expect("answered"));
                }
            });
        });
    }

    group.throughput(Throughput::Elements(1));
    let mut stream = runtime.block_on(bare());
    let line = format!("{}\n", payload());
    group.bench_function("bare line echo, for comparison", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let mut back = String::new();
                stream.write_all(line.as_bytes()).await.expect("connected");
                stream.read_line(&mut back).await.expect("connected");
                black_box(back);
            });
        });
    });
    group.finish();
}

/// A node starts, connects to another, and stops.
fn connecting(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("connect");
    group.sample_size(30).measurement_time(Duration::from_secs(4));
    for (layer, tls) in LAYERS {
        let provider = runtime.block_on(provider(tls));
        let addr = provider.listen_addrs()[0].to_string();
        group.bench_function(layer, |b| {
            b.to_async(Wrapper(&runtime)).iter(|| async {
                let node = Node::builder().no_listen().tls(tls).peer(&addr).start().await.expect("no port needed");
                assert!(node.connected(Duration::from_secs(10)).await, "connected");
            });
        });
    }
    group.finish();
}

/// Criterion's own way to use a runtime would need a feature of it for each runtime; this is all it takes.
struct Wrapper<'a>(&'a Runtime);

impl criterion::async_executor::AsyncExecutor for Wrapper<'_> {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }
}

/// A caller and a provider that reach each other through a tracker alone.
async fn behind_a_tracker(sealing: Sealing) -> (Node, Node, Node) {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let limits = elo::Limits::default().with(|l| {
        l.messages_per_second = u32::MAX;
        l.message_burst = u32::MAX;
        l.max_remembered_tasks = usize::MAX;
    });
    let builder = || Node::builder().limits(limits.clone()).sealing(sealing);
    let tracker = builder().listen(loopback).tracker(Tracker::Public).start().await.expect("a free port");
    let addr = tracker.listen_addrs()[0].to_string();
    let provider = builder().no_listen().peer(&addr).agent("echo").default_handler(echo).start().await.expect("starts");
    let caller = builder().no_listen().peer(&addr).start().await.expect("starts");
    while caller.call("echo", payload()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (caller, provider, tracker)
}

/// The same through a tracker, open and sealed.
fn relayed(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("relayed call");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    for (name, sealing) in [("open", Sealing::Off), ("sealed", Sealing::Required)] {
        let (caller, _provider, _tracker) = runtime.block_on(behind_a_tracker(sealing));
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}, sequential"), |b| {
            b.to_async(Wrapper(&runtime)).iter(|| async {
                black_box(caller.call("echo", payload()).await.expect("answered"));
            });
        });
        group.throughput(Throughput::Elements(IN_FLIGHT));
        group.bench_function(format!("{name}, 64 in flight"), |b| {
            b.to_async(Wrapper(&runtime)).iter(|| async {
                let calls: Vec<_> =
                    (0..IN_FLIGHT).map(|_| tokio::spawn(caller.call("echo", payload()).into_future())).collect();
                for call in calls {
                    black_box(call.await.expect("not dropped").expect("answered"));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls, connecting, relayed);
criterion_main!(benches);
