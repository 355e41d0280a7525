//! TLS as it is meant to be, and as another implementation may do it.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// Says hello as one that encrypts, reads the answer, and gives the socket.
pub(super) async fn introduced(addr: SocketAddr, me: &Identity) -> (TcpStream, Object) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let hello = hello(me, &nonce('x')).strings("features", &["tls"]).sign(me, &[]);
    stream.write_all(&[hello.raw(), &b"\n"[..]].concat()).await.unwrap();
    // Byte for byte: what comes after it is TLS.
    let mut line = Vec::new();
    loop {
        match soon(stream.read_u8()).await.unwrap() {
            b'\n' => return (stream, Object::parse(Bytes::from(line)).unwrap()),
            byte => line.push(byte),
        }
    }
}

pub(super) fn client(listener: NodeId) -> ClientConfig {
    TlsKeys::new(&identity(2)).client(listener)
}

pub(super) async fn begin(stream: TcpStream, client: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    soon(TlsConnector::from(Arc::new(client)).connect(name, stream)).await
}

pub(super) fn binding(stream: &TlsStream<TcpStream>) -> String {
    let label = b"EXPORTER-Channel-Binding";
    URL_SAFE_NO_PAD.encode(stream.get_ref().1.export_keying_material([0; 32], label, None).unwrap())
}

/// Connected to a node with the key 1, up to where `auth` is to be said: TLS, `hello_ack`, and the binding.
pub(super) async fn connect(addr: SocketAddr, me: &Identity) -> (Raw, Object, String) {
    let (stream, ack) = introduced(addr, me).await;
    let stream = begin(stream, client(identity(1).id())).await.unwrap();
    let binding = binding(&stream);
    (Raw { stream: Box::new(stream), buffer: BytesMut::new() }, ack, binding)
}

/// How a connection between two configurations comes about: what the dialer and the listener say.
async fn meet(
    listener: Arc<NetConfig>,
    dialer: &Arc<NetConfig>,
) -> (Result<Established, HandshakeError>, Result<Established, HandshakeError>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let taking = tokio::spawn(async move {
        let established = handshake_inbound(socket.accept().await.unwrap().0, &listener).await?;
        let first = welcome(&listener.identity.id(), established.addr, TrackerRole::None, std::iter::empty());
        let mut established = established;
        established.stream.write(&first).await?;
        Ok(established)
    });
    let dialled = soon(dial(&addr, None, dialer)).await;
    (dialled, soon(taking).await.unwrap())
}

#[tokio::test]
async fn both_sides_encrypt_when_both_can() {
    let plain = |seed| config(seed, |cfg| cfg.tls = Tls::Off);
    let required = |seed| encrypting(seed, |cfg| cfg.tls = Tls::Required);
    for (listener, dialer, encrypted) in [
        (encrypting(1, |_| {}), encrypting(2, |_| {}), true),
        (required(1), encrypting(2, |_| {}), true),
        (encrypting(1, |_| {}), required(2), true),
        (required(1), required(2), true),
        (plain(1), encrypting(2, |_| {}), false),
        (encrypting(1, |_| {}), plain(2), false),
        (plain(1), plain(2), false),
    ] {
        let (dialled, taken) = meet(listener, &dialer).await;
        let (dialled, taken) = (dialled.unwrap(), taken.unwrap());
        assert_eq!((dialled.encrypted(), taken.encrypted()), (encrypted, encrypted));
        assert_eq!(dialled.proven.node, identity(1).id());
        assert_eq!(taken.proven.node, identity(2).id());
    }
}

#[tokio::test]
async fn who_requires_encryption_refuses_who_does_not_in_words() {
    let plain = |seed| config(seed, |cfg| cfg.tls = Tls::Off);
    let required = |seed| encrypting(seed, |cfg| cfg.tls = Tls::Required);
    for (listener, dialer) in [(required(1), plain(2)), (plain(1), required(2))] {
        let (dialled, taken) = meet(listener, &dialer).await;
        let errors = [dialled.unwrap_err(), taken.unwrap_err()];
        for error in &errors {
            assert_eq!(error.reason(), Some(CloseReason::BadHandshake), "{error}");
            let text = error.to_string();
            assert!(text.contains("encrypted connections only") && text.contains("switch TLS on there"), "{text}");
        }
        // One of them was told by the other.
        let told = errors.iter().filter(|e| matches!(e, HandshakeError::Refused(refusal) if refusal.by_peer));
        assert_eq!(told.count(), 1, "{errors:?}");
    }
}

#[tokio::test]
async fn nothing_is_kept_for_a_later_connection() {
    let server = serve(encrypting(1, |_| {})).await;
    let (stream, ack) = introduced(server.addr, &identity(2)).await;
    let mut tls = begin(stream, client(identity(1).id())).await.unwrap();
    let me = identity(2);
    let auth = auth(&me, &nonce('x'), &ack).str("binding", &binding(&tls)).sign(&me, &[]);
    tls.write_all(&[auth.raw(), &b"\n"[..]].concat()).await.unwrap();
    tls.flush().await.unwrap();
    let mut first = vec![0; 64];
    assert!(soon(tls.read(&mut first)).await.unwrap() > 0);
    let session = tls.get_ref().1;
    assert_eq!(session.tls13_tickets_received(), 0);
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"elo/1"[..]));
    drop(server.connection().await);
}

#[tokio::test]
async fn new_keys_are_agreed_on_under_way() {
    let server = serve(encrypting(1, |_| {})).await;
    let me = identity(2);
    let (stream, ack) = introduced(server.addr, &me).await;
    let mut tls = begin(stream, client(identity(1).id())).await.unwrap();
    let auth = auth(&me, &nonce('x'), &ack).str("binding", &binding(&tls)).sign(&me, &[]);
    tls.write_all(&[auth.raw(), &b"\n"[..]].concat()).await.unwrap();
    let (connection, notes) = server.connection().await;
    for number in 0..20 {
        tls.get_mut().1.refresh_traffic_keys().unwrap();
        tls.write_all(&[beat(number).raw(), &b"\n"[..]].concat()).await.unwrap();
        tls.flush().await.unwrap();
        notes.wait(|n| (asks(n).len() as u64 == number + 1).then_some(())).await;
        connection.send_object(&beat(number)).unwrap();
    }
    let mut raw = Raw { stream: Box::new(tls), buffer: BytesMut::new() };
    assert_eq!(kind(&raw.read().await), "welcome");
    for number in 0..20 {
        assert_eq!(raw.read().await.u64("ask").unwrap(), Some(number));
    }
}

#[tokio::test]
async fn who_does_not_say_which_protocol_is_refused() {
    let said = |alpn: &[&[u8]]| {
        let mut client = client(identity(1).id());
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        client
    };
    let server = serve(encrypting(1, |_| {})).await;
    let (stream, _) = introduced(server.addr, &identity(2)).await;
    let stream = begin(stream, said(&[])).await.unwrap();
    let mut raw = Raw { stream: Box::new(stream), buffer: BytesMut::new() };
    // It hears that inside.
    assert!(raw.bye(CloseReason::BadHandshake).await.contains("elo/1"));
    drop(raw);
    assert_eq!(server.error().await.reason(), Some(CloseReason::BadHandshake));

    let server = serve(encrypting(1, |_| {})).await;
    let (stream, _) = introduced(server.addr, &identity(2)).await;
    let refused = match begin(stream, said(&[b"h2"])).await {
        Err(error) => error,
        Ok(mut stream) => soon(stream.read_u8()).await.unwrap_err(),
    };
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(server.error().await.reason(), Some(CloseReason::BadHandshake));
}

#[tokio::test]
async fn who_never_finishes_the_tls_handshake_is_left_behind() {
    for trickle in [false, true] {
        let server = serve(encrypting(1, |c| c.limits.handshake_timeout = Duration::from_secs(3))).await;
        let began = Instant::now();
        let (mut stream, _) = introduced(server.addr, &identity(2)).await;
        if trickle {
            // The beginning of a record of TLS, and a byte of it now and then.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
            while began.elapsed() < Duration::from_secs(2) {
                stream.write_all(&[0]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // No `bye`: there is no layer to say one in.
        assert_eq!(soon(stream.read(&mut [0; 64])).await.unwrap(), 0);
        drop(stream);
        assert!(matches!(server.error().await, HandshakeError::Timeout(_)));
        assert!(began.elapsed() >= Duration::from_secs(3));
    }
}

/// Introduces itself, says that instead of TLS, and gives what comes back.
async fn instead_of_tls(said: &[u8]) -> (Vec<u8>, HandshakeError) {
    let server = serve(encrypting(1, |_| {})).await;
    let (mut stream, _) = introduced(server.addr, &identity(2)).await;
    stream.write_all(said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    soon(stream.read_to_end(&mut back)).await.unwrap();
    (back, server.error().await)
}

#[tokio::test]
async fn what_is_not_tls_1_3_is_refused() {
    let auth = auth(&identity(2), &nonce('x'), &hello(&identity(1), &nonce('z')).build()).sign(&identity(2), &[]);
    let junk = vec![0xff; 40_000];
    for said in [&junk[..], &[auth.raw(), &b"\n"[..]].concat(), b"GET / HTTP/1.1\r\n\r\n"] {
        let (back, error) = instead_of_tls(said).await;
        assert_eq!(error.reason(), Some(CloseReason::BadHandshake), "{error}");
        assert!(error.to_string().starts_with("TLS: "), "{error}");
        // An alert at most: nothing in plain text.
        assert!(back.len() <= 7 && (back.is_empty() || back[0] == 0x15), "{back:?}");
    }
    // A `ClientHello` of TLS 1.2: version 3.3, one of its cipher suites, ed25519, and no extension that names a later version.
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0], &[0, 8, 0, 13, 0, 4, 0, 2, 8, 7]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let hello = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat();
    let (back, error) = instead_of_tls(&hello).await;
    assert_eq!(error.reason(), Some(CloseReason::BadHandshake), "{error}");
    // Fatal, 70: the version.
    assert_eq!(back, [0x15, 3, 3, 0, 2, 2, 70], "{error}");
}

#[tokio::test]
async fn a_stream_that_is_cut_is_a_broken_connection() {
    // In the handshake: before `auth`.
    let server = serve(encrypting(1, |_| {})).await;
    let (raw, _, _) = connect(server.addr, &identity(2)).await;
    drop(raw);
    assert!(matches!(server.error().await, HandshakeError::Ended { heard: true }));

    // Later: the socket is closed, and nobody has said that this is the end.
    let (connection, notes, raw) = connected_by(encrypting(1, |_| {})).await;
    drop(raw);
    let (reason, message) = notes.closed().await;
    assert_eq!(reason, None);
    assert!(message.contains("broke") && message.contains("was cut"), "{message}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_byte_that_is_changed_under_way_breaks_the_connection() {
    let server = serve(encrypting(1, |_| {})).await;
    let me = identity(2);
    let (stream, ack) = introduced(server.addr, &me).await;
    let mut tls = begin(stream, client(identity(1).id())).await.unwrap();
    let auth = auth(&me, &nonce('x'), &ack).str("binding", &binding(&tls)).sign(&me, &[]);
    tls.write_all(&[auth.raw(), &b"\n"[..]].concat()).await.unwrap();
    tls.flush().await.unwrap();
    let (_connection, notes) = server.connection().await;
    let (mut tcp, mut session) = tls.into_inner();
    std::io::Write::write_all(&mut session.writer(), &[beat(1).raw(), &b"\n"[..]].concat()).unwrap();
    let mut sealed = Vec::new();
    session.write_tls(&mut sealed).unwrap();
    let middle = sealed.len() / 2;
    sealed[middle] ^= 1;
    tcp.write_all(&sealed).await.unwrap();
    let (reason, message) = notes.closed().await;
    assert_eq!(reason, None);
    assert!(message.contains("the connection broke"), "{message}");
    assert!(notes.notes.lock().unwrap().messages.is_empty());
}

#[tokio::test]
async fn what_comes_over_the_wire_is_paced_not_what_it_says() {
    let (connection, notes, mut raw) = connected_by(encrypting(1, |c| {
        c.limits.bytes_per_second = 256 * 1024;
        c.limits.byte_burst = 1;
    }))
    .await;
    let began = Instant::now();
    // A byte in a record of its own is 23 on the wire: 0.1 MiB of text, and 0.3 MiB more than may come at once.
    let mut said = vec![b' '; 100_000];
    said.extend_from_slice(beat(1).raw());
    said.push(b'\n');
    let sending = tokio::spawn(async move {
        for byte in said.chunks(1) {
            raw.stream.write_all(byte).await.unwrap();
        }
        raw.stream.flush().await.unwrap();
        raw
    });
    notes.wait(|n| (asks(n) == [1]).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    drop((connection, sending.await.unwrap()));
}

#[tokio::test]
async fn records_that_say_nothing_keep_no_connection_up() {
    let (_connection, notes, _sending) = {
        let server = serve(encrypting(1, |c| c.limits.idle_timeout = Duration::from_secs(2))).await;
        let me = identity(2);
        let (stream, ack) = introduced(server.addr, &me).await;
        let mut tls = begin(stream, client(identity(1).id())).await.unwrap();
        let auth = auth(&me, &nonce('x'), &ack).str("binding", &binding(&tls)).sign(&me, &[]);
        tls.write_all(&[auth.raw(), &b"\n"[..]].concat()).await.unwrap();
        tls.flush().await.unwrap();
        let (connection, notes) = server.connection().await;
        let sending = tokio::spawn(async move {
            let (mut tcp, mut session) = tls.into_inner();
            // One new key after the other, as fast as they go; few enough in a row that TLS itself bears it.
            for _ in 0..30 {
                session.refresh_traffic_keys().unwrap();
                let mut out = Vec::new();
                while session.wants_write() {
                    session.write_tls(&mut out).unwrap();
                }
                if tcp.write_all(&out).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        (connection, notes, sending)
    };
    let (reason, _) = notes.closed().await;
    assert_eq!(reason, Some(CloseReason::Idle));
}
