//! Clients that shake hands by hand, and are quiet from then on. They hold a socket and the keys of its TLS, and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use elo::wire::{Builder, Object};
use elo::{Identity, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::Value;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many shake hands at once.
const AT_ONCE: usize = 8;

/// What they do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// They encrypt.
    pub tls: bool,
    /// They announce a record of theirs.
    pub registers: bool,
    /// They say something of so many bytes before they are quiet.
    pub says: usize,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection after its handshake.
pub struct Light {
    _stream: Box<dyn Stream>,
}

/// So many of them at that node.
pub fn connect(addr: &str, peer: NodeId, manner: Manner, count: usize) -> Vec<Light> {
    let config = manner.tls.then(config);
    let (all, left) = (Mutex::new(Vec::new()), Mutex::new(count));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    {
                        let mut left = left.lock().unwrap();
                        if *left == 0 {
                            return;
                        }
                        *left -= 1;
                    }
                    let light = Light::connect(addr, peer, manner, config.clone());
                    all.lock().unwrap().push(light);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

impl Light {
    /// Through the handshake. At its end it asks for a heartbeat, so that both ways were used, and all that it said is done with.
    fn connect(addr: &str, peer: NodeId, manner: Manner, config: Option<Arc<ClientConfig>>) -> Self {
        let identity = Identity::generate();
        let mut tcp = TcpStream::connect(addr).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let me = identity.id().to_string();
        // 32 random bytes in base64url.
        let nonce = Identity::generate().id().to_string();
        let features: &[&str] = if config.is_some() { &["tls"] } else { &[] };
        let hello = Builder::new("hello")
            .str("node_id", &me)
            .str("version", "0")
            .str("nonce", &nonce)
            .i64("timestamp", now.as_secs() as i64)
            .strings("features", features)
            .str("instance", "run");
        say(&mut tcp, &hello.sign(&identity, &[]));
        let ack = until(&mut tcp, "hello_ack");
        let mut proof = Builder::new("auth")
            .str("node_id", &me)
            .str("peer", &peer.to_string())
            .str("hello_nonce", &nonce)
            .str("ack_nonce", ack["nonce"].as_str().unwrap());
        let mut stream: Box<dyn Stream> = match config {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
                let mut tls = ClientConnection::new(config, name).unwrap();
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp).unwrap();
                }
                let binding = tls.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", None).unwrap();
                proof = proof.str("binding", &BASE64_URL_SAFE_NO_PAD.encode(binding));
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        say(&mut stream, &proof.sign(&identity, &[]));
        until(&mut stream, "welcome");
        if manner.registers {
            let record = Builder::new("record")
                .str("node_id", &me)
                .str("name", "light")
                .raw("caps", br#"{"agents":[{"name":"work"}]}"#)
                .strings("trackers", &[peer.to_string()])
                .str("instance", "run")
                .u64("seq", now.as_millis() as u64)
                .u64("ttl_s", 300)
                .sign(&identity, &[]);
            say(&mut stream, &Builder::new("announce").object("record", &record).u64("ttl", 5).build());
        }
        if manner.says > 0 {
            say(&mut stream, &Builder::new("no_such_type").str("x", &"x".repeat(manner.says)).build());
        }
        say(&mut stream, &Builder::new("heartbeat").str("node_id", &me).u64("ask", 1).build());
        until(&mut stream, "heartbeat");
        Self { _stream: stream }
    }
}

fn say(stream: &mut impl Write, message: &Object) {
    stream.write_all(&[message.raw(), &b"\n"[..]].concat()).unwrap();
}

/// Reads line by line, up to one of that type; byte by byte, so that nothing is taken that belongs to TLS.
fn until(stream: &mut impl Read, kind: &str) -> Value {
    loop {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} instead of {kind}"));
            line.push(byte[0]);
        }
        let message: Value = serde_json::from_slice(&line).unwrap();
        if message["type"] == kind {
            return message;
        }
    }
}

fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"elo/1".to_vec()];
    Arc::new(config)
}

/// Takes any key: who answers is not what is looked at here.
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
