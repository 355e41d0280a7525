//! Encrypted connections between whole nodes, with somebody on the wire.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[cfg(unix)]
mod common;
mod mesh;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use elo::{Activity, Error, Node, Task, Tls};
use mesh::{addr_of, eventually, meets, node};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What nobody on the wire may see.
const MARKER: &str = "the-secret-of-this-test";

/// Bytes that went to the listener, and back.
type Seen = Arc<[Mutex<Vec<u8>>; 2]>;

/// Passes everything on, and writes it down.
async fn tapped(to: String) -> (String, Seen) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((near, _)) = socket.accept().await {
            let far = TcpStream::connect(&to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            for (way, mut from, mut to) in [(0, near_in, far_out), (1, far_in, near_out)] {
                let notes = Arc::clone(&notes);
                tokio::spawn(async move {
                    let mut part = vec![0; 65_536];
                    while let Ok(read @ 1..) = from.read(&mut part).await {
                        notes[way].lock().unwrap().extend_from_slice(&part[..read]);
                        if to.write_all(&part[..read]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    (addr, seen)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn echo(name: &str, tls: Tls) -> Node {
    let echo = |task: Task, _| async move { Ok(task.payload) };
    node(name).agent("whisper").default_handler(echo).tls(tls).start().await.unwrap()
}

#[tokio::test]
async fn who_reads_along_sees_the_two_introductions_and_nothing_else() {
    for (tls, encrypted) in [(Tls::Preferred, true), (Tls::Off, false)] {
        let provider = echo("provider", tls).await;
        let (addr, seen) = tapped(addr_of(&provider)).await;
        let caller = node("caller").peer(addr).start().await.unwrap();
        meets(&caller, &[&provider]).await;
        let outcome = caller.call("whisper", json!({ "text": MARKER })).await.unwrap();
        assert_eq!(outcome.payload, json!({ "text": MARKER }));
        for node in [&caller, &provider] {
            assert_eq!(node.peers()[0].encrypted, encrypted);
            assert_eq!(node.metrics().encrypted_peers, usize::from(encrypted));
        }
        caller.shutdown().await;
        provider.shutdown().await;
        for (way, kind) in [(0, "hello"), (1, "hello_ack")] {
            let bytes = seen[way].lock().unwrap().clone();
            let end = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let (first, rest) = bytes.split_at(end);
            assert!(contains(first, &format!("\"type\":\"{kind}\"")), "{first:?}");
            // The second run, without TLS, shows that they would be found.
            let words = [MARKER, "whisper", "\"type\"", "signature", "node_id"];
            let read: Vec<_> = words.into_iter().filter(|word| contains(rest, word)).collect();
            if encrypted {
                assert!(read.is_empty(), "{read:?} can be read");
                // A record of TLS: of its handshake.
                assert_eq!(&rest[..2], [0x16, 3]);
            } else {
                assert_eq!(read, words);
            }
        }
    }
}

#[tokio::test]
async fn what_can_not_encrypt_is_refused_where_that_is_required() {
    for (listener, dialer) in [(Tls::Required, Tls::Off), (Tls::Off, Tls::Required)] {
        let provider = echo("provider", listener).await;
        let caller = node("caller").tls(dialer).peer(addr_of(&provider)).start().await.unwrap();
        let mut activity = caller.activity();
        let refusal = async {
            loop {
                if let Some(Activity::DialFailed { message, .. }) = activity.recv().await {
                    break message;
                }
            }
        };
        let said = tokio::time::timeout(Duration::from_secs(30), refusal).await.expect("one of them refuses");
        assert!(said.contains("encrypted connections only"), "{said}");
        assert!(caller.peers().is_empty() && provider.peers().is_empty());
    }
}

#[tokio::test]
async fn nodes_of_the_python_package_do_not_go_with_required_encryption() {
    let error = node("box").legacy(true).tls(Tls::Required).start().await.unwrap_err();
    assert!(matches!(&error, Error::Config(why) if why.contains("legacy")), "{error}");
}

#[tokio::test]
async fn long_and_many_payloads_pass() {
    let provider = echo("provider", Tls::Required).await;
    let caller = node("caller").tls(Tls::Required).peer(addr_of(&provider)).start().await.unwrap();
    meets(&caller, &[&provider]).await;
    let long = json!("x".repeat(700_000));
    for _ in 0..5 {
        assert_eq!(caller.call("whisper", long.clone()).await.unwrap().payload, long);
    }
    let mut calls = Vec::new();
    for number in 0..200 {
        calls.push(caller.call("whisper", json!(number)).start().await.unwrap());
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.outcome().await.unwrap().payload, json!(number));
    }
    eventually("the peer is shown as encrypted", || provider.peers().iter().all(|peer| peer.encrypted)).await;
}

#[cfg(unix)]
mod command {
    use super::common::Home;
    use serde_json::json;

    #[test]
    fn peers_and_status_tell_what_is_encrypted() {
        for (flags, encrypted, shown) in [(&[][..], true, ", TLS"), (&["--no-tls"][..], false, ", plain text")] {
            let (first, second) = (Home::new(), Home::new());
            let one = first.serve(flags);
            let two = second.serve(&["--peer", &one.addr()]);
            two.event("peer_connected");
            one.event("peer_connected");
            for home in [&first, &second] {
                assert_eq!(home.run(["peers", "--json"]).json_lines()[0]["encrypted"], json!(encrypted));
                let table = home.run(["peers"]).ok();
                assert!(table.contains(shown), "{table}");
                let status = home.run(["status", "--json"]).json();
                assert_eq!(status["node"]["metrics"]["encrypted_peers"], json!(u8::from(encrypted)));
                let text = home.run(["status"]).ok();
                assert!(text.contains(&format!("{} encrypted", u8::from(encrypted))), "{text}");
            }
        }
    }

    #[test]
    fn a_command_says_what_to_do_where_encryption_is_required() {
        let (first, second) = (Home::new(), Home::new());
        let one = first.serve(&["--require-tls", "--agent", "echo"]);
        second.run(["call", "echo", "1", "--peer", &one.addr()]).ok();
        let mut command = second.command(["call", "echo", "1", "--peer", &one.addr()]);
        command.env("ELO_TLS", "off");
        super::common::run(command).failed(3, "switch TLS on there");
        second.write("elo.toml", "tls = 'off'");
        second.run(["call", "echo", "1", "--peer", &one.addr()]).failed(3, "switch TLS on there");
        second.write("elo.toml", "tls = 'sometimes'");
        second.run(["serve"]).failed(2, "elo.toml:1: tls: \"sometimes\" is none of");
    }
}
