//! Somebody who can change the stream, or who listens in a node's place.

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::tls::spki;

/// An X.509 certificate of the key 1, signed by itself: `openssl req -x509 -key KEY -subj /CN=elo -days 36500`.
const X509: &str = "\
    MIIBMjCB5aADAgECAhQwHJs3+ErjBfpF2J25P61ljpJA9jAFBgMrZXAwDjEMMAoGA1UEAwwDZWxvMCAXDTI2MTEyMTE4Mzk1MloY\
    DzIxMjYxMDI4MTgzOTUyWjAOMQwwCgYDVQQDDANlbG8wKjAFBgMrZXADIQCKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9v\
    XKNTMFEwHQYDVR0OBBYEFJrRng8W7vcUy5DG8ZXbzmbpRYD5MB8GA1UdIwQYMBaAFJrRng8W7vcUy5DG8ZXbzmbpRYD5MA8GA1Ud\
    EwEB/wQFMAMBAf8wBQYDK2VwA0EA4azKH5oHyYTmtGp5PzcLUIW0sIKlcSoo523DVowbW71ivGK0xTVSYjWiZ+xhu+x26nYNnd0k\
    spyroEEsXR58Bw==";

fn x509() -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(X509).unwrap()
}

/// Passes lines on, one side's changed; gives up when either side does.
async fn between(listener: SocketAddr, change: impl Fn(Object) -> Object + Send + 'static, whose: Whose) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut dialer = Raw::over(socket.accept().await.unwrap().0);
        let mut listener = Raw::connect(listener).await;
        let hello = dialer.read().await;
        listener.send(&if whose == Whose::Dialer { change(hello) } else { hello }).await;
        let answer = listener.read().await;
        let changed = if whose == Whose::Listener { change(answer) } else { answer };
        dialer.send(&changed).await;
        drop(tokio::io::copy_bidirectional(&mut dialer.stream, &mut listener.stream).await);
    });
    addr
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Dialer,
    Listener,
}

#[tokio::test]
async fn nobody_between_talks_the_two_out_of_encryption() {
    for whose in [Whose::Dialer, Whose::Listener] {
        let server = serve(encrypting(1, |_| {})).await;
        let strip = |message: Object| {
            assert!(message.raw().windows(5).any(|w| w == b"\"tls\""), "{message:?}");
            message.with_member("features", b"[\"one\"]")
        };
        let addr = between(server.addr, strip, whose).await;
        let error = soon(dial(&addr.to_string(), None, &encrypting(2, |_| {}))).await.unwrap_err();
        assert_eq!(error.reason(), Some(CloseReason::BadHandshake));
        let heard = server.error().await;
        let (refuser, words) = match whose {
            Whose::Dialer => (&heard, "hello: "),
            Whose::Listener => (&error, "hello_ack: "),
        };
        assert!(refuser.to_string().contains(words) && refuser.to_string().contains("does not fit"), "{refuser}");
    }
}

/// A listener by hand, with the key 1: answers a `hello`, and says something more with it.
async fn answer_and(more: &'static [u8], pause: bool) -> (HandshakeError, Vec<u8>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let dialling = tokio::spawn(async move { dial(&addr, None, &encrypting(2, |_| {})).await });
    let mut raw = Raw::over(socket.accept().await.unwrap().0);
    let hello = raw.read().await;
    let ack = hello_ack(&identity(1), &hello);
    if pause {
        raw.send(&ack).await;
        // The dialer has begun with TLS.
        assert!(raw.fill().await > 0);
        raw.bytes(more).await;
    } else {
        raw.bytes(&[ack.raw(), &b"\n"[..], more].concat()).await;
    }
    raw.is_over().await;
    (soon(dialling).await.unwrap().unwrap_err(), raw.buffer.to_vec())
}

fn hello_ack(id: &Identity, hello: &Object) -> Object {
    Builder::new("hello_ack")
        .str("node_id", &id.id().to_string())
        .str("version", "9")
        .str("nonce", &nonce('z'))
        .str("hello_nonce", &hello.str("nonce").unwrap().unwrap())
        .strings("features", &["tls"])
        .i64("timestamp", NOW)
        .sign(id, &[])
}

#[tokio::test]
async fn what_is_put_in_before_tls_begins_is_refused() {
    // Towards the dialer: a forged `welcome`, an empty line, half a message.
    for more in [&b"{\"type\":\"welcome\",\"peers\":[]}\n"[..], b"\n", b"{"] {
        let (error, said) = answer_and(more, false).await;
        assert_eq!(error.reason(), Some(CloseReason::BadHandshake));
        assert!(error.to_string().contains("the beginning of TLS"), "{error}");
        // It was told in plain text, and TLS was never begun.
        assert!(said.starts_with(b"{") && said.windows(13).any(|w| w == b"BAD_HANDSHAKE"), "{said:?}");
    }
    // Later it is taken for TLS, and is none.
    let (error, said) = answer_and(b"{\"type\":\"welcome\",\"peers\":[]}\n", true).await;
    assert_eq!(error.reason(), Some(CloseReason::BadHandshake));
    assert!(error.to_string().starts_with("TLS: "), "{error}");
    assert_eq!(said.first(), Some(&0x16));

    // Towards the listener.
    for more in [&b"{\"type\":\"auth\"}\n"[..], b"\r\n", b"\x16"] {
        let server = serve(encrypting(1, |_| {})).await;
        let mut raw = Raw::connect(server.addr).await;
        let hello = hello(&identity(2), &nonce('x')).strings("features", &["tls"]).sign(&identity(2), &[]);
        raw.bytes(&[hello.raw(), &b"\n"[..], more].concat()).await;
        assert_eq!(kind(&raw.read().await), "hello_ack");
        assert!(raw.bye(CloseReason::BadHandshake).await.contains("the beginning of TLS"));
        drop(raw);
        assert_eq!(server.error().await.reason(), Some(CloseReason::BadHandshake));
    }
}

/// Shows that to everybody, and signs with that key.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>, bool);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn only_raw_public_keys(&self) -> bool {
        self.1
    }
}

fn shows(shown: Vec<u8>, key: &Identity, raw: bool) -> ServerConfig {
    let der = {
        let pem = key.to_pem();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(body).unwrap()
    };
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der));
    let key: Arc<dyn SigningKey> = rustls::crypto::ring::sign::any_eddsa_type(&match der {
        PrivateKeyDer::Pkcs8(der) => der,
        _ => unreachable!("it was made so"),
    })
    .unwrap();
    let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(shown)], key));
    let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(certified, raw)));
    server.alpn_protocols = vec![b"elo/1".to_vec()];
    server
}

/// In the middle: passes `hello` and `hello_ack` on unchanged, and then is the TLS server itself. Gives what the dialer says
/// of it, and whether it got as far as to say anything inside.
async fn intercepted(server: ServerConfig) -> (HandshakeError, bool) {
    let listener = serve(encrypting(1, |_| {})).await;
    let to = listener.addr;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let dialling = tokio::spawn(async move { dial(&addr, None, &encrypting(2, |_| {})).await });
    let mut dialer = socket.accept().await.unwrap().0;
    let (mut there, mut line) = (TcpStream::connect(to).await.unwrap(), Vec::new());
    for _ in 0..2 {
        // `hello` there, `hello_ack` back.
        line.clear();
        while line.last() != Some(&b'\n') {
            line.push(soon(dialer.read_u8()).await.unwrap());
        }
        there.write_all(&line).await.unwrap();
        std::mem::swap(&mut dialer, &mut there);
    }
    let mut heard = false;
    if let Ok(mut inside) = soon(TlsAcceptor::from(Arc::new(server)).accept(dialer)).await {
        heard = soon(inside.read_u8()).await.is_ok();
    }
    drop(there);
    (soon(dialling).await.unwrap().unwrap_err(), heard)
}

#[tokio::test]
async fn nobody_in_the_middle_passes_for_the_listener() {
    let (listener, mallory) = (identity(1), identity(3));
    for (server, words) in [
        // Its own key, as the raw key it is.
        (shows(spki(&mallory.id()), &mallory, true), "somebody is in between"),
        // The listener's key, which it can show and not use.
        (shows(spki(&listener.id()), &mallory, true), "somebody is in between"),
        // A certificate instead of a raw key, even one of the right key: called a raw key, and called what it is.
        (shows(x509(), &listener, true), "somebody is in between"),
        (shows(x509(), &listener, false), "TLS"),
    ] {
        let (error, heard) = intercepted(server).await;
        assert!(!heard, "the dialer said something inside");
        assert_eq!(error.reason(), Some(CloseReason::BadHandshake));
        assert!(error.to_string().contains(words), "{error}");
    }
    // Who has the listener's key is the listener, as far as anybody can tell.
    let (_, heard) = intercepted(shows(spki(&listener.id()), &listener, true)).await;
    assert!(heard);
}

#[tokio::test]
async fn a_proof_is_good_for_one_encrypted_connection() {
    let me = identity(2);
    let refused = |binding: Option<String>| {
        let me = me.clone();
        async move {
            let server = serve(encrypting(1, |_| {})).await;
            let (mut raw, ack, own) = tls::connect(server.addr, &me).await;
            assert_ne!(Some(&own), binding.as_ref());
            let auth = auth(&me, &nonce('x'), &ack);
            let auth = match &binding {
                Some(binding) => auth.str("binding", binding),
                None => auth,
            };
            raw.send(&auth.sign(&me, &[])).await;
            let said = raw.bye(CloseReason::BadHandshake).await;
            drop(raw);
            assert_eq!(server.error().await.reason(), Some(CloseReason::BadHandshake));
            said
        }
    };
    // Of another connection to the same node.
    let other = serve(encrypting(1, |_| {})).await;
    let (_raw, _, binding) = tls::connect(other.addr, &me).await;
    assert!(refused(Some(binding)).await.contains("made for another encrypted connection"));
    assert!(refused(Some("short".into())).await.contains("32 bytes"));
    assert!(refused(None).await.contains("missing"));

    // And one that names an encryption is for none without.
    let server = serve(config(1, |_| {})).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.send(&hello(&me, &nonce('x')).sign(&me, &[])).await;
    let ack = raw.read().await;
    raw.send(&auth(&me, &nonce('x'), &ack).str("binding", &nonce('b')).sign(&me, &[])).await;
    assert!(raw.bye(CloseReason::BadHandshake).await.contains("not encrypted"));
}
