//! A man in the middle of an encrypted connection, and who would like to talk two nodes out of encrypting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elo::{Activity, Node, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::attacker::{Attacker, LAIR, PATIENCE, auth, connect_from, hello};
use crate::canon::{Key, canonical, encode, nonce};
use crate::mesh::{meets, node};
use crate::stage::Stage;
use crate::wiretap::{From, Wiretap};

const MARKER: &str = "attack at dawn";

async fn dial_fails(node: &Node) -> String {
    let mut activity = node.activity();
    let looking = async {
        loop {
            if let Some(Activity::DialFailed { message, .. }) = activity.recv().await {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("the dial fails")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// He passes everything on, and has the two introductions and noise. Once he changes a byte, he has lost the stream too.
#[tokio::test]
async fn a_man_in_the_middle_reads_nothing_and_can_change_nothing() {
    let stage = Stage::plain().await;
    // From which piece on he changes a bit; first never.
    let (from, pieces) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicUsize::new(0)));
    let (changes, count) = (Arc::clone(&from), Arc::clone(&pieces));
    let tap = Wiretap::changing(&stage.addr(), move |_, mut piece| {
        if piece.first() != Some(&b'{') && count.fetch_add(1, Ordering::SeqCst) >= changes.load(Ordering::SeqCst) {
            let middle = piece.len() / 2;
            piece[middle] ^= 1;
        }
        piece
    })
    .await;
    let dialer = node("dialer").peer(format!("{}@{}", stage.id(), tap.addr)).start().await.unwrap();
    meets(&dialer, &[&stage.victim]).await;
    let outcome = dialer.call("work", json!(MARKER)).to(stage.id()).await.unwrap();
    assert_eq!(outcome.payload, json!(MARKER));
    let mut heard = [Vec::new(), Vec::new()];
    for (side, piece) in tap.heard() {
        heard[usize::from(side == From::Listener)].extend_from_slice(&piece);
    }
    for bytes in &heard {
        assert!(!contains(bytes, MARKER) && !contains(bytes, "\"task\"") && !contains(bytes, "\"auth\""));
        assert!(contains(bytes, "\"hello"), "the tap works");
    }
    // Now he changes what goes by: nothing that he touched is taken, and the connection ends.
    let refused = |node: &Node| node.metrics().refused.values().sum::<u64>();
    let (before, runs) = (refused(&stage.victim), stage.runs());
    let mut activity = dialer.activity();
    from.store(pieces.load(Ordering::SeqCst), Ordering::SeqCst);
    let call = dialer.call("work", json!(2)).to(stage.id()).timeout(std::time::Duration::from_secs(2)).start().await;
    let lost = async { while !matches!(activity.recv().await, Some(Activity::PeerLost { .. })) {} };
    tokio::time::timeout(PATIENCE, lost).await.expect("the connection ends");
    assert_eq!((refused(&stage.victim), stage.runs()), (before, runs), "what he changed was read");
    stage.answers().await;
    drop((call, activity));
    dialer.shutdown().await;
    drop(tap);
    stage.unharmed().await;
}

/// What is put in before the encryption begins is not taken for what comes inside it.
#[tokio::test]
async fn what_is_put_in_before_tls_ends_the_handshake() {
    let stage = Stage::plain().await;
    for (side, kind) in [(From::Dialer, "hello"), (From::Listener, "hello_ack")] {
        let tap = Wiretap::changing(&stage.addr(), move |from, piece| {
            let message = serde_json::from_slice::<Value>(&piece).unwrap_or_default();
            if from != side || message["type"] != kind {
                return piece;
            }
            let task = canonical(&json!({"type": "heartbeat", "node_id": "x", "ts": 0}));
            [piece, format!("{task}\n").into_bytes()].concat()
        })
        .await;
        let dialer = node("dialer").peer(format!("{}@{}", stage.id(), tap.addr)).start().await.unwrap();
        dial_fails(&dialer).await;
        assert!(dialer.peers().is_empty(), "{side:?}");
        dialer.shutdown().await;
        drop(tap);
        stage.answers().await;
    }
    stage.unharmed().await;
}

/// Where encryption is required, nobody is let in without, whatever it says that it can.
#[tokio::test]
async fn where_encryption_is_required_plain_text_gets_nowhere() {
    let stage = Stage::of(|b| b.tls(Tls::Required)).await;
    assert!(stage.victim.peers().iter().all(|p| p.encrypted));
    let mut plain = Attacker::dial(&stage.addr()).await;
    plain.say(&hello(&plain.key, &[])).await;
    assert_eq!(plain.closed().await, "BAD_HANDSHAKE");
    // It says that it encrypts, and goes on in plain text.
    let mut liar = Attacker::dial(&stage.addr()).await;
    let said = hello(&liar.key, &["tls"]);
    liar.say(&said).await;
    let ack = liar.hear().await.unwrap();
    let mut proof = auth(&liar.key, &stage.id(), &said["nonce"], &ack["nonce"]);
    proof["binding"] = json!(nonce());
    let proof = liar.key.sign(proof);
    liar.say(&proof).await;
    liar.closed().await;
    stage.answers().await;
    assert_eq!(stage.victim.metrics().peers, 2);
    drop((plain, liar));
    stage.unharmed().await;
}

/// Takes any key for any node's: what a careless client would do, and an attacker.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("there is no 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// An attacker inside TLS, before its proof: itself, the proof without a binding, and this connection's binding.
async fn inside(addr: &str, key: &Key) -> (Attacker, Value, String) {
    let mut stream = connect_from(LAIR, addr).await.unwrap();
    let said = hello(key, &["tls"]);
    stream.write_all(format!("{}\n", canonical(&said)).as_bytes()).await.unwrap();
    let mut ack = Vec::new();
    while ack.last() != Some(&b'\n') {
        ack.push(stream.read_u8().await.unwrap());
    }
    let ack: Value = serde_json::from_slice(&ack).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"elo/1".to_vec()];
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let binding = tls.get_ref().1.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", None).unwrap();
    let peer = ack["node_id"].as_str().unwrap().to_owned();
    let proof = auth(key, &peer, &said["nonce"], &ack["nonce"]);
    let mut attacker = Attacker::over(tls, key);
    attacker.peer = peer;
    (attacker, proof, encode(&binding))
}

/// A proof is for one encrypted connection: without its binding, or with another's, it opens nothing.
#[tokio::test]
async fn a_proof_for_another_encrypted_connection_opens_nothing() {
    let stage = Stage::plain().await;
    let key = Key::fresh();
    let (other, _, elsewhere) = inside(&stage.addr(), &key).await;
    for binding in [Value::Null, json!(""), json!(elsewhere), json!(nonce())] {
        let (mut attacker, mut proof, _) = inside(&stage.addr(), &key).await;
        proof["binding"] = binding.clone();
        if binding.is_null() {
            proof.as_object_mut().unwrap().remove("binding");
        }
        let proof = key.sign(proof);
        attacker.say(&proof).await;
        assert_eq!(attacker.closed().await, "BAD_HANDSHAKE", "{binding}");
    }
    // With its own it does, and inside everything is as outside.
    let (mut attacker, mut proof, own) = inside(&stage.addr(), &key).await;
    proof["binding"] = json!(own);
    let proof = key.sign(proof);
    attacker.say(&proof).await;
    attacker.until("welcome", |m| m["type"] == "welcome").await;
    let task = attacker.task("t");
    attacker.sign_and_say(task).await;
    assert_eq!(attacker.result("t").await["status"], "success");
    drop((attacker, other));
    stage.unharmed().await;
}
