//! Finding through the Kademlia DHT: nodes of this process, on loopback, each with a DHT node of its own.
#![cfg(feature = "dht")]
#![allow(clippy::unwrap_used, reason = "a test stops where one fails")]

mod mesh;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use elo::{Builder, Dht, Node, Task};
use mesh::{addr_of, eventually, node};
use serde_json::json;

/// A node that others join the DHT through.
fn first(name: &str) -> Builder {
    node(name).dht(Dht::Bootstrap(Vec::new()))
}

/// A node that joins through these.
fn joined(name: &str, through: &[&Node]) -> Builder {
    node(name).dht(Dht::Bootstrap(through.iter().map(|n| dht_addr(n)).collect()))
}

fn answering(builder: Builder, capability: &str) -> Builder {
    builder.agent(capability).default_handler(|_: Task, context: elo::Context| async move {
        let name = context.node().map(|n| n.name()).unwrap_or_default();
        Ok(json!(name))
    })
}

/// Where a node's DHT server is.
fn dht_addr(node: &Node) -> String {
    format!("127.0.0.1:{}", node.status().dht.port.unwrap())
}

/// Waits until others keep all that a node says and provides.
async fn published(node: &Node) {
    let all = 1 + if node.listen_addrs().is_empty() { 0 } else { node.status().capabilities.len() };
    eventually("others keep what it announces", || node.status().dht.announced == all).await;
}

async fn serving(node: &Node) {
    eventually("the DHT runs", || node.status().dht.port.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_nodes_without_a_common_peer_find_each_other() {
    let mut nodes = vec![answering(first("n0"), "cap0").start().await.unwrap()];
    serving(&nodes[0]).await;
    for n in 1..20 {
        // One or two to join through, and not the same for all.
        let through: Vec<&Node> = if n < 3 { vec![&nodes[0]] } else { vec![&nodes[n / 2], &nodes[n - 1]] };
        let builder = joined(&format!("n{n}"), &through);
        let builder = answering(builder, &format!("cap{n}"));
        let node = builder.start().await.unwrap();
        serving(&node).await;
        nodes.push(node);
    }
    for node in &nodes {
        published(node).await;
        assert!(node.peers().is_empty(), "nobody is connected");
    }
    let mut slowest = Duration::ZERO;
    for (from, to) in [(19, 7), (3, 18), (11, 0), (8, 15), (0, 12)] {
        // A node that has asked nothing yet has everything to learn.
        let began = Instant::now();
        let outcome = nodes[from].call(format!("cap{to}"), json!(null)).await.unwrap();
        let took = began.elapsed();
        assert_eq!(outcome.responder, nodes[to].id());
        assert_eq!(outcome.route, elo::Route::Direct);
        assert!(outcome.tried.iter().any(|a| a.step == "dht" && a.node == Some(nodes[to].id())), "{:?}", outcome.tried);
        println!("cold lookup by capability, 20 nodes: first answer in {took:?}");
        slowest = slowest.max(took);
    }
    for (from, to) in [(1, 9), (14, 2), (6, 17)] {
        let began = Instant::now();
        let outcome = nodes[from].call("ping", json!(null)).to(nodes[to].id().to_string()).await.unwrap();
        println!("cold lookup by id, 20 nodes: first answer in {:?}", began.elapsed());
        assert_eq!(outcome.responder, nodes[to].id());
        let found = nodes[from].peers().into_iter().find(|p| p.node_id == nodes[to].id()).unwrap();
        assert_eq!(found.found, elo::Source::Dht);
        slowest = slowest.max(began.elapsed());
    }
    // And one that has only just come up, and knows nothing but an address.
    let late = joined("late", &[&nodes[4]]).no_listen().start().await.unwrap();
    let began = Instant::now();
    let outcome = late.call("cap13", json!(null)).await.unwrap();
    println!("a node that starts now: first answer in {:?}", began.elapsed());
    assert_eq!(outcome.responder, nodes[13].id());
    late.shutdown().await;
    println!("slowest of all: {slowest:?}");
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_left_is_no_longer_used_and_one_that_came_is() {
    let a = first("a").start().await.unwrap();
    serving(&a).await;
    let gone = answering(joined("gone", &[&a]), "work").start().await.unwrap();
    let stays = answering(joined("stays", &[&a]), "work").start().await.unwrap();
    published(&gone).await;
    published(&stays).await;
    gone.shutdown().await;
    // Its address still stands in the DHT; whoever asks now is never led astray by it.
    for n in 0..3 {
        let caller = joined(&format!("caller{n}"), &[&a]).no_listen().start().await.unwrap();
        published(&caller).await;
        let outcome = caller.call("work", json!(null)).await.unwrap();
        assert_eq!(outcome.payload, json!("stays"));
        caller.shutdown().await;
    }
    // One that provides it no longer is still named too, and not asked.
    let withdraws = answering(joined("withdraws", &[&a]), "other").start().await.unwrap();
    published(&withdraws).await;
    withdraws.unregister("other").unwrap();
    let caller = joined("asks", &[&a]).start().await.unwrap();
    published(&caller).await;
    let began = Instant::now();
    let error = caller.call("other", json!(null)).await.unwrap_err();
    assert_eq!(error.code, elo::ErrorCode::NoPeer);
    assert!(began.elapsed() < Duration::from_secs(10));
    for node in [a, stays, withdraws, caller] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mesh_mode_the_dht_is_joined_through_what_peers_say_of_themselves() {
    let tracker = node("tracker").tracker(elo::Tracker::Public).dht(Dht::Mesh).start().await.unwrap();
    serving(&tracker).await;
    let builder = |name: &str| node(name).dht(Dht::Mesh).peer(addr_of(&tracker));
    let provider = answering(builder("provider"), "work").start().await.unwrap();
    // A client: it can't be dialled, so it serves nothing.
    let client = builder("client").no_listen().start().await.unwrap();
    published(&provider).await;
    published(&client).await;
    assert_eq!(provider.status().dht.state, "server");
    assert_eq!(client.status().dht.state, "client");
    eventually("the client has come to know the provider's server", || client.status().dht.nodes == 2).await;
    // Everybody who introduced them is gone; the DHT alone is left.
    tracker.shutdown().await;
    eventually("the tracker is gone", || client.peers().is_empty() && provider.peers().is_empty()).await;
    let outcome = client.call("work", json!(null)).await.unwrap();
    assert_eq!(outcome.responder, provider.id());
    let found = client.find("work", Some(Duration::from_millis(500))).await.unwrap();
    assert_eq!(found.iter().map(|f| f.node_id).collect::<Vec<_>>(), [provider.id()]);
    for node in [provider, client] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_nobody_can_dial_is_found_through_its_tracker_by_id_and_by_capability() {
    let a = first("a").start().await.unwrap();
    serving(&a).await;
    let tracker = joined("tracker", &[&a]).tracker(elo::Tracker::Public).start().await.unwrap();
    published(&tracker).await;
    let hidden = answering(joined("hidden", &[&a]).no_listen().peer(addr_of(&tracker)), "work");
    let hidden = hidden.start().await.unwrap();
    eventually("the hidden node is registered", || tracker.peers().iter().any(|p| !p.capabilities.is_empty())).await;
    published(&hidden).await;
    eventually("its tracker announces for it", || tracker.status().dht.announced == 2).await;

    let by_capability = joined("by_capability", &[&a]).no_listen().start().await.unwrap();
    published(&by_capability).await;
    let outcome = by_capability.call("work", json!(null)).await.unwrap();
    assert_eq!((outcome.responder, outcome.route), (hidden.id(), elo::Route::Relay));
    assert_eq!(outcome.via, Some(tracker.id()));

    let by_id = joined("by_id", &[&a]).no_listen().start().await.unwrap();
    published(&by_id).await;
    eventually("its item names its tracker", || hidden.status().dht.last_announce_s.is_some()).await;
    let outcome = by_id.call("ping", json!(null)).to(hidden.id().to_string()).await.unwrap();
    assert_eq!((outcome.responder, outcome.route), (hidden.id(), elo::Route::Relay));

    let finds = joined("finds", &[&a]).no_listen().start().await.unwrap();
    published(&finds).await;
    let found = finds.find("work", Some(Duration::from_secs(2))).await.unwrap();
    assert_eq!(found.iter().map(|f| (f.node_id, f.found)).collect::<Vec<_>>(), [(hidden.id(), "dht")]);
    for node in [a, tracker, hidden, by_capability, by_id, finds] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_a_dht() {
    let a = answering(first("a"), "work").start().await.unwrap();
    serving(&a).await;
    let b = answering(joined("b", &[&a]), "play").start().await.unwrap();
    published(&a).await;
    published(&b).await;
    assert_eq!(b.call("work", json!(null)).await.unwrap().responder, a.id());
    let c = joined("c", &[&a]).no_listen().start().await.unwrap();
    published(&c).await;
    assert_eq!(c.call("play", json!(null)).await.unwrap().responder, b.id());
    assert_eq!(c.call("work", json!(null)).await.unwrap().responder, a.id());
    for node in [a, b, c] {
        node.shutdown().await;
    }
}

/// Threads of this process that are mainline's.
fn dht_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    // The system cuts the name at 15 bytes.
    tasks.filter_map(name).filter(|name| name.starts_with("Mainline Dht")).count()
}

#[test]
#[cfg(target_os = "linux")]
fn the_thread_ends_with_the_node() {
    // In a process of its own: other tests' nodes have threads of that name too.
    let test = "the_thread_ends_with_the_node_alone";
    let me = std::env::current_exe().unwrap();
    let run = std::process::Command::new(me).args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the_thread_ends_with_the_node"]
async fn the_thread_ends_with_the_node_alone() {
    assert_eq!(dht_threads(), 0);
    let a = answering(first("a"), "work").start().await.unwrap();
    serving(&a).await;
    let b = joined("b", &[&a]).start().await.unwrap();
    published(&b).await;
    assert_eq!(dht_threads(), 2);
    // In the middle of a lookup that finds nobody.
    let call = b.call("nobody", json!(null)).start().await.unwrap();
    let port = b.status().dht.port.unwrap();
    b.shutdown().await;
    assert!(call.outcome().await.is_err());
    // The port is free when the shutdown is done.
    drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    eventually("one thread is left", || dht_threads() == 1).await;
    drop(a);
    eventually("none is left", || dht_threads() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_bound_to_an_ipv6_address_does_without_and_says_so() {
    let Ok(a) = Node::builder().listen("[::1]:0".parse().unwrap()).dht(Dht::Mesh).start().await else {
        println!("no IPv6 here");
        return;
    };
    let health = a.status().dht;
    assert_eq!(health.state, "off");
    assert!(health.detail.contains("IPv4 only"), "{health:?}");
    let began = Instant::now();
    let error = a.call("work", json!(null)).await.unwrap_err();
    assert_eq!(error.code, elo::ErrorCode::NoPeer);
    assert!(error.tried.iter().all(|t| t.step != "dht"), "{:?}", error.tried);
    assert!(began.elapsed() < Duration::from_secs(10));
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_looked_up_is_said() {
    let a = first("a").start().await.unwrap();
    serving(&a).await;
    let said = |error: &elo::CallError| -> String {
        error.tried.iter().filter(|t| t.step == "dht").map(|t| t.result.clone()).collect()
    };
    let error = a.call("work", json!(null)).to("somebody").await.unwrap_err();
    assert!(said(&error).contains("whole ids only"), "{error:?}");
    let error = a.call("work", json!(null)).await.unwrap_err();
    assert_eq!(said(&error), "it names nobody");
    // In a mesh of one there is no DHT to be joined: the call ends at once with what is known.
    let alone = node("alone").no_listen().dht(Dht::Mesh).start().await.unwrap();
    let error = alone.call("work", json!(null)).await.unwrap_err();
    assert!(said(&error).contains("not joined: no connected peer runs a DHT server yet"), "{error:?}");
    a.shutdown().await;
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_any_datagram_and_goes_on() {
    let a = answering(first("a"), "work").start().await.unwrap();
    serving(&a).await;
    eventually("its own server keeps it", || a.status().dht.kept_here == 2).await;
    let at: SocketAddr = dht_addr(&a).parse().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ping = b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe".to_vec();
    let mut datagrams: Vec<Vec<u8>> = vec![
        vec![],
        vec![0; 5],
        vec![b'l'; 2048],
        b"d1:a".repeat(500),
        b"l".repeat(1000).into_iter().chain(b"e".repeat(1000)).collect(),
        b"99999999999999999999:".to_vec(),
        b"i99999999999999999999e".to_vec(),
        b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaa9:info_hash20:bbbbbbbbbbbbbbbbbbbbe1:q9:get_peers1:t0:1:y1:qe".to_vec(),
        b"d1:ad2:id0:6:target0:e1:q9:find_node1:t2:aa1:y1:qe".to_vec(),
        vec![0xff; 2048],
    ];
    // Every byte of a good one wrong in turn, and every length of it.
    for n in 0..ping.len() {
        for byte in [0, b'0', b'9', b'd', b'e', b'i', b'l', b':', 0xff] {
            let mut bad = ping.clone();
            bad[n] = byte;
            datagrams.push(bad);
        }
        datagrams.push(ping[..n].to_vec());
    }
    for datagram in &datagrams {
        socket.send_to(datagram, at).unwrap();
    }
    let b = joined("b", &[&a]).no_listen().start().await.unwrap();
    published(&b).await;
    assert_eq!(b.call("work", json!(null)).await.unwrap().responder, a.id());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_bogus_addresses_the_provider_is_found_and_strangers_are_let_go() {
    let a = first("a").start().await.unwrap();
    serving(&a).await;
    // Somebody puts in doors that open and say nothing, doors that are shut, and a node that provides something else.
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let other = answering(joined("other", &[&a]), "else").start().await.unwrap();
    published(&other).await;
    let mut ports: Vec<u16> = silent.iter().map(|l| l.local_addr().unwrap().port()).collect();
    ports.extend([1, 2, 3, mesh::port_of(&other)]);
    let liar = mainline::Config {
        bootstrap: Some(vec![dht_addr(&a).parse().unwrap()]),
        bind_address: Some(Ipv4Addr::LOCALHOST),
        port: Some(0),
        ..mainline::Config::default()
    };
    let liar = tokio::task::spawn_blocking(move || mainline::Dht::new(liar)).await.unwrap().unwrap().as_async();
    // `printf elo:capability:work | sha1sum`
    let key: mainline::Id = "9248df54225fc2a468621e00dfeefb5e47767e1e".parse().unwrap();
    for port in ports {
        liar.announce_peer(key, Some(port)).await.unwrap();
    }
    let honest = answering(joined("honest", &[&a]), "work").start().await.unwrap();
    published(&honest).await;

    let caller = joined("caller", &[&a]).no_listen().start().await.unwrap();
    published(&caller).await;
    let began = Instant::now();
    let outcome = caller.call("work", json!(null)).await.unwrap();
    println!("among seven bogus addresses: first answer in {:?}", began.elapsed());
    assert_eq!(outcome.responder, honest.id());
    // A stranger that was connected in vain is let go again, the provider is not.
    eventually("strangers are gone", || caller.peers().iter().map(|p| p.node_id).collect::<Vec<_>>() == [honest.id()])
        .await;
    for node in [a, other, honest, caller] {
        node.shutdown().await;
    }
}

/// A server of the DHT that is many: each of its sockets names those nearer to the key than itself, so that whoever puts
/// something there asks them all.
fn many(key: [u8; 20]) -> SocketAddr {
    let id_of = move |n: u32| {
        // Alike but for the first 21 bits, by which mainline tells apart what one host runs.
        let mut id = key;
        let near = (u32::from_be_bytes([0, id[0], id[1], id[2]]) ^ (n << 3)).to_be_bytes();
        id[..3].copy_from_slice(&near[1..]);
        id
    };
    let sockets: Vec<UdpSocket> = (0..300).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let ports: Vec<u16> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
    let entrance = sockets[299].local_addr().unwrap();
    for (n, socket) in sockets.into_iter().enumerate() {
        let ports = ports.clone();
        std::thread::spawn(move || {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let asked = &buffer[..length];
                let Some(at) = asked.windows(4).rposition(|w| w == b"1:t4") else { continue };
                let mut nodes = Vec::new();
                let nearer = ports.iter().enumerate().take(n).skip(n.saturating_sub(20));
                for (near, port) in nearer {
                    nodes.extend(id_of(near as u32));
                    nodes.extend([127, 0, 0, 1]);
                    nodes.extend(port.to_be_bytes());
                }
                let mut answer = b"d1:rd2:id20:".to_vec();
                answer.extend(id_of(n as u32));
                answer.extend(format!("5:nodes{}:", nodes.len()).bytes());
                answer.extend(nodes);
                answer.extend(b"5:token4:toke");
                answer.extend(b"e1:t4:");
                answer.extend(&asked[at + 5..at + 9]);
                answer.extend(b"1:y1:re");
                drop(socket.send_to(&answer, from));
            }
        });
    }
    entrance
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_mainlines_thread_does_not_kill_its_use() {
    // It refuses to put something at more than 255 nodes with an assertion.
    let key = *mainline::Id::from_str("9248df54225fc2a468621e00dfeefb5e47767e1e").unwrap().as_bytes();
    let entrance = many(key);
    let a = answering(node("a").dht(Dht::Bootstrap(vec![entrance.to_string()])), "work").start().await.unwrap();
    let mut activity = Vec::new();
    eventually("the thread has died and is started again", || {
        let detail = a.status().dht.detail;
        if activity.last() != Some(&detail) {
            activity.push(detail);
        }
        activity.iter().any(|d| d.contains("ended unexpectedly")) && a.status().dht.port.is_some()
    })
    .await;
    // The node itself is none the worse for it.
    let caller = node("caller").peer(addr_of(&a)).start().await.unwrap();
    assert!(caller.connected(Duration::from_secs(10)).await);
    assert_eq!(caller.call("work", json!(null)).await.unwrap().responder, a.id());
    let error = a.call("nobody", json!(null)).await.unwrap_err();
    assert_eq!(error.code, elo::ErrorCode::NoPeer);
    a.shutdown().await;
    caller.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_same_list_for_all_the_dht_outlives_those_who_stand_in_it() {
    let free = |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ports: Vec<u16> = [0, 1].map(free).iter().map(|s| s.local_addr().unwrap().port()).collect();
    let list: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let mut nodes = Vec::new();
    for n in 0..6 {
        let builder = answering(node(&format!("n{n}")), &format!("cap{n}")).dht(Dht::Bootstrap(list.clone()));
        let builder = match ports.get(n) {
            Some(port) => builder.dht_port(*port),
            None => builder,
        };
        nodes.push(builder.start().await.unwrap());
        serving(&nodes[n]).await;
    }
    for node in &nodes {
        eventually("they all know each other", || node.status().dht.nodes >= 5).await;
        published(node).await;
    }
    for node in nodes.drain(..2) {
        node.shutdown().await;
    }
    let outcome = nodes[0].call("cap5", json!(null)).await.unwrap();
    assert_eq!(outcome.responder, nodes[3].id());
    for node in nodes {
        node.shutdown().await;
    }
}
