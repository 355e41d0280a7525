//! `elo serve --webhook`: tasks posted to a server that answers well, badly, late, or not at all.
#![cfg(all(unix, feature = "webhook"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod hook;

use std::process::Stdio;
use std::sync::Arc;

use common::{Home, Ran, Reaped, Serve, eventually, run};
use hook::{Act, Receiver, private, secret, signed_by};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A node whose agent is behind a URL, and somebody who calls it.
struct Stage {
    home: Home,
    caller: Home,
    node: Serve,
}

impl Stage {
    fn new(url: &str, more: &[&str]) -> Self {
        let (home, caller) = (Home::new(), Home::new());
        let node = home.serve(&[&["--agent", "sum", "--webhook", url], more].concat());
        Self { home, caller, node }
    }

    fn call(&self, payload: &str, more: &[&str]) -> Ran {
        let addr = self.node.addr();
        self.caller.run([&["call", "sum", payload, "--peer", &addr], more].concat())
    }
}

#[test]
fn a_task_is_posted_with_all_that_is_known_and_the_response_is_the_result() {
    let digits = "123456789012345678901234567890";
    let answer = format!("{{\"sum\":{digits}}}");
    let receiver = Receiver::acting(vec![Act::Answer(
        200,
        vec![("Content-Type", "Application/JSON; charset=utf-8".into())],
        answer.clone().into(),
    )]);
    let home = Home::new();
    let file = private(&home, "secret", &secret(32, 7));
    let stage = Stage::new(&receiver.url(), &["--webhook-secret", &file]);
    let said = stage.call(&format!("{{\"n\":{digits}}}"), &["--json", "--timeout", "30s"]).ok();
    assert!(said.contains(digits), "digits were lost on the way back: {said}");
    let outcome: Value = serde_json::from_str(&said).unwrap();

    let request = &receiver.requests(1)[0];
    assert_eq!(request.line, "POST /hook HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.header("user-agent").unwrap().starts_with("elo/"), "{request:?}");
    assert!(request.text().contains(digits), "digits were lost on the way there: {}", request.text());
    assert_eq!(signed_by(request, &secret(32, 7)), 1);
    assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), 1);
    let body = request.json();
    assert_eq!(body["type"], "elo.task");
    let time = body["timestamp"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    let data = &body["data"];
    assert_eq!(data["id"], outcome["id"]);
    assert_eq!((&data["capability"], &data["via"], &data["attempt"]), (&json!("sum"), &Value::Null, &json!(1)));
    assert_eq!((&data["ttl_s"], &data["sealed"]), (&json!(30), &json!(false)));
    assert_eq!(data["delivery_id"], request.id());
    assert!(request.id().starts_with("t_") && request.id().len() == 18, "{}", request.id());
    assert_eq!(data["caller"].as_str().unwrap().len(), 43);
    let remaining = data["remaining_ms"].as_u64().unwrap();
    assert!(remaining > 20_000 && remaining <= 30_000, "{remaining}");
    // Times in this form are in their order.
    let text = |name: &str| data[name].as_str().unwrap().to_owned();
    assert!(text("issued") < text("deadline"), "{data}");
    assert!(data.get("reply_url").is_none(), "there is no HTTP API: {data}");
    stage.node.event("task_finished");
}

#[test]
fn a_response_is_json_text_or_nothing() {
    let json = || ("content-type", "application/problem+json".to_owned());
    let answers = vec![
        (Act::text(200, "plain text"), json!("plain text")),
        // What says that it is plain text is text.
        (Act::text(200, "[1]"), json!("[1]")),
        (Act::Answer(200, vec![], b" [1, 2] \n".into()), json!([1, 2])),
        (Act::Answer(200, vec![("content-type", "text/html".into())], b"<p>\xC3\xBC</p>".into()), json!("<p>ü</p>")),
        (Act::Answer(201, vec![json()], b"\"made\"".into()), json!("made")),
        (Act::status(200), Value::Null),
        (Act::status(204), Value::Null),
        (Act::Answer(200, vec![json()], b" ".into()), Value::Null),
    ];
    let receiver = Receiver::acting(answers.iter().map(|(act, _)| act.clone()).collect());
    let stage = Stage::new(&receiver.url(), &[]);
    for (act, expected) in &answers {
        assert_eq!(stage.call("1", &["--json"]).json()["payload"], *expected, "{act:?}");
    }
    let requests = receiver.so_far();
    assert!(requests.iter().all(|request| request.connection == 0), "the connection is kept");
    // Without a secret there is nothing to sign with; the id and the time are there all the same.
    assert!(
        requests.iter().all(|r| r.header("webhook-signature").is_none() && r.header("webhook-timestamp").is_some())
    );
}

#[test]
fn an_old_server_will_do_and_no_proxy_is_asked() {
    let old = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n[\"to the end\"]".to_vec();
    let continued = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7".to_vec();
    let receiver = Receiver::acting(vec![Act::Raw(old), Act::Raw(continued)]);
    let home = Home::new();
    let mut command = home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "sum"]);
    command.args(["--webhook", &receiver.url()]);
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    let stage = Stage { home, caller: Home::new(), node: Serve::start(command) };
    assert_eq!(stage.call("1", &[]).ok(), "[\"to the end\"]\n");
    assert_eq!(stage.call("1", &[]).ok(), "7\n");
}

#[test]
fn what_can_be_no_result_is_an_error_that_says_why() {
    let json = || vec![("content-type", "application/json".to_owned())];
    let long = "y".repeat(300);
    let answers = vec![
        (Act::Answer(200, json(), b"{\"half\":".into()), "HANDLER_ERROR", "that is not JSON"),
        (Act::Answer(200, vec![], vec![0xFF, 0xFE, 0]), "HANDLER_ERROR", "neither JSON nor text"),
        (Act::Endless("text/plain"), "TOO_LARGE", "more than 770048 bytes"),
        (Act::text(200, &"x".repeat(1024 * 1024)), "TOO_LARGE", "more than 770048 bytes"),
        (Act::text(404, "no\u{1b}[31m such\r\n\u{202e}thing\0"), "HANDLER_ERROR", "404 Not Found: no [31m such thing"),
        (Act::text(400, &"y".repeat(5000)), "HANDLER_ERROR", long.as_str()),
        (Act::status(410), "HANDLER_ERROR", "answered 410 Gone"),
        (
            Act::Answer(302, vec![("location", "http://127.0.0.1:1/?token=hidden".into())], b"elsewhere".into()),
            "HANDLER_ERROR",
            "302 Found: elsewhere; redirects are not followed",
        ),
        (Act::Endless("text/plain; of what is no result"), "TOO_LARGE", "more than 770048 bytes"),
    ];
    let count = answers.len();
    let receiver = Receiver::acting(answers.iter().map(|(act, ..)| act.clone()).collect());
    let stage = Stage::new(&receiver.url(), &[]);
    for (act, code, why) in &answers {
        let ran = stage.call("1", &[]);
        ran.failed(1, code);
        ran.failed(1, why);
        assert!(ran.stderr.len() < 1000, "{act:?}: {} bytes", ran.stderr.len());
        assert!(!ran.stderr.contains(['\u{1b}', '\u{202e}', '\0']) && !ran.stderr.contains("hidden"), "{ran:?}");
    }
    assert_eq!(receiver.so_far().len(), count, "none of them is asked again");
}

#[test]
fn a_delivery_keeps_its_id_over_all_attempts_until_one_is_answered() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let receiver = Receiver::acting(vec![
        Act::text(500, "oops"),
        Act::Close,
        Act::Raw(half),
        Act::Raw(b"\x00\x01garbage\r\n\r\n".to_vec()),
        Act::Answer(503, vec![("retry-after", "0".into())], vec![]),
        Act::Answer(429, vec![("retry-after", "soon".into())], vec![]),
        Act::status(502),
        Act::json(&json!("at last")),
    ]);
    let home = Home::new();
    let file = private(&home, "secret", &secret(24, 1));
    let stage = Stage::new(&receiver.url(), &["--webhook-secret", &file]);
    assert_eq!(stage.call("1", &[]).ok(), "at last\n");
    let requests = receiver.so_far();
    assert_eq!(requests.len(), 8);
    for (n, request) in requests.iter().enumerate() {
        let data = &request.json()["data"];
        assert_eq!(request.id(), requests[0].id());
        assert_eq!((&data["attempt"], &data["delivery_id"]), (&json!(n + 1), &json!(requests[0].id())));
        assert_eq!(data["id"], requests[0].json()["data"]["id"]);
        assert_eq!(signed_by(request, &secret(24, 1)), 1, "each attempt is signed by itself");
    }
    // The next task is another delivery.
    assert_eq!(stage.call("1", &[]).ok(), "at last\n");
    assert_ne!(receiver.so_far()[8].id(), requests[0].id());
}

#[test]
fn an_agent_that_keeps_failing_is_not_asked_until_the_deadline() {
    let receiver = Receiver::acting(vec![Act::text(500, "KeyError: 'n'")]);
    let stage = Stage::new(&receiver.url(), &[]);
    let ran = stage.call("1", &["--timeout", "10m"]);
    ran.failed(1, "HANDLER_ERROR");
    ran.failed(1, "500 Internal Server Error: KeyError: 'n' (6 attempts)");
    assert_eq!(receiver.so_far().len(), 6);
    // A server whose own errors are all there is, is seen as failing.
    let found = || stage.home.run(["find", "sum", "--json"]).json_lines();
    eventually("it is told", || {
        found()[0]["capabilities"][0]["details"]["reach"]["ok"] == false
            && found()[0]["capabilities"][0]["details"]["reach"]["by"] == "webhook"
    });
}

#[test]
fn who_is_busy_for_longer_than_the_caller_waits_is_overloaded() {
    let receiver = Receiver::acting(vec![Act::Answer(503, vec![("retry-after", "120".into())], b"busy".into())]);
    let stage = Stage::new(&receiver.url(), &[]);
    let ran = stage.call("1", &["--timeout", "60s", "--json"]);
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["retry_after_s"]),
        (&json!("OVERLOADED"), &json!(120.0)),
        "{error}"
    );
    assert_eq!(receiver.so_far().len(), 1);
    // A pause beyond reason is no fault of ours.
    let receiver = Receiver::acting(vec![Act::Answer(429, vec![("retry-after", u64::MAX.to_string())], vec![])]);
    let stage = Stage::new(&receiver.url(), &[]);
    stage.call("1", &[]).failed(1, "OVERLOADED");
}

#[test]
fn at_the_deadline_the_caller_is_told_and_the_request_is_dropped() {
    let receiver = Receiver::acting(vec![Act::Hang]);
    let stage = Stage::new(&receiver.url(), &[]);
    let ran = stage.call("1", &["--timeout", "2s"]);
    ran.failed(4, "TIMEOUT");
    ran.failed(4, "was given the task, and did not answer in its time");
    receiver.left(1);
    // Until then it is asked again and again.
    let receiver = Receiver::acting(vec![Act::status(502)]);
    let stage = Stage::new(&receiver.url(), &[]);
    stage.call("1", &["--timeout", "2s"]).failed(1, "502 Bad Gateway, until it was too late");
}

#[test]
fn a_caller_that_leaves_takes_the_request_with_it() {
    let receiver = Receiver::acting(vec![Act::Hang]);
    let mut stage = Stage::new(&receiver.url(), &[]);
    let mut command = stage.caller.command(["call", "sum", "--peer", &stage.node.addr()]);
    let mut call = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    receiver.requests(1);
    kill_process(Pid::from_raw(i32::try_from(call.0.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(call.wait(common::PATIENCE).unwrap().code(), Some(130));
    receiver.left(1);
    // So does a node that stops.
    let mut command = stage.caller.command(["call", "sum", "--peer", &stage.node.addr()]);
    let _call = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    receiver.requests(2);
    eventually("the node is told twice, and ends", || {
        stage.node.signal(Signal::INT);
        !stage.node.is_running()
    });
    receiver.left(2);
}

#[test]
fn nobody_behind_the_url_is_an_agent_that_is_away_until_it_is_back() {
    let addr = Receiver::acting(vec![Act::Close]).addr;
    let stage = Stage::new(&format!("http://user:pass-word@{addr}/hidden?token=to-ken"), &[]);
    let ran = stage.call("1", &["--json"]);
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &error["error"]["code"]), (3, &json!("AGENT_AWAY")), "{error}");
    let receiver = Receiver::at(addr, None, |_, _| Act::json(&json!("back")));
    assert_eq!(stage.call("1", &[]).ok(), "back\n");
    let request = &receiver.so_far()[0];
    assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNzLXdvcmQ="));
    assert_eq!(request.line, "POST /hidden?token=to-ken HTTP/1.1");
    // What is secret in a URL is told to nobody.
    stage.home.run(["stop"]).ok();
    let (_, errors) = stage.node.ended();
    for text in [ran.stderr, errors] {
        assert!(!["pass-word", "hidden", "to-ken"].iter().any(|secret| text.contains(secret)), "{text}");
    }
}

#[test]
fn an_agent_may_start_again_while_a_task_is_with_it() {
    let receiver = Receiver::acting(vec![Act::status(503)]);
    let addr = receiver.addr;
    let stage = Stage::new(&receiver.url(), &[]);
    let command = stage.caller.command(["call", "sum", "--peer", &stage.node.addr()]);
    let call = std::thread::spawn(move || run(command));
    let first = receiver.requests(1)[0].id();
    drop(receiver);
    // For longer than somebody is waited for who was never there.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let receiver = Receiver::at(addr, None, |_, _| Act::json(&json!("again")));
    assert_eq!(call.join().unwrap().ok(), "again\n");
    assert_eq!(receiver.so_far()[0].id(), first);
}

#[test]
fn secrets_are_read_from_a_file_of_their_owner_and_several_sign_together() {
    let receiver = Receiver::acting(vec![Act::json(&json!("ok"))]);
    let home = Home::new();
    let refused = |content: &str, why: &str| {
        let file = private(&home, "secret", content);
        let ran = home.run(["serve", "--agent", "sum", "--webhook", &receiver.url(), "--webhook-secret", &file]);
        ran.failed(2, why);
        assert!(content.len() < 20 || !ran.stderr.contains(&content[10..]), "the secret is told: {}", ran.stderr);
    };
    refused("", "no secret is in it");
    refused("# nothing\n\n", "no secret is in it");
    refused(&secret(23, 1), "has 23 bytes, not 24 to 64");
    refused(&secret(65, 1), "has 65 bytes, not 24 to 64");
    refused("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "line 1 is no secret: it begins with whsec_");
    refused(&format!("{}\nwhsec_!!!not*base64!!!", secret(32, 1)), "line 2 is no secret");
    refused(&vec![secret(32, 1); 9].join("\n"), "9 secrets are in it");
    refused(&"#".repeat(20_000), "more than 16384 bytes");
    let file = private(&home, "secret", &secret(32, 1));
    let args = ["serve", "--agent", "sum", "--webhook", &receiver.url(), "--webhook-secret", &file];
    for mode in [0o640, 0o604, 0o644] {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        home.run(args).failed(2, "can be read by others than its owner: `chmod 600");
    }
    let args = ["serve", "--agent", "sum", "--webhook", &receiver.url(), "--webhook-secret", "/dev/null"];
    home.run(args).failed(2, "is not a file");
    let args = ["serve", "--agent", "sum", "--webhook", &receiver.url(), "--webhook-secret", "no-such-file"];
    home.run(args).failed(2, "openssl rand -base64 32");
    assert!(!home.file("identity.seed").exists(), "nothing is made before the settings are right");

    // The new one and the old one: whoever knows either is served.
    let (old, new) = (secret(24, 1), secret(64, 2));
    let file = private(&home, "secret", &format!("# since today\n{new}\n\n  {old}  \n"));
    let stage = Stage::new(&receiver.url(), &["--webhook-secret", &file]);
    stage.call("1", &[]).ok();
    let request = &receiver.so_far()[0];
    assert_eq!((signed_by(request, &old), signed_by(request, &new), signed_by(request, &secret(24, 3))), (1, 1, 0));
    assert_eq!(request.header("webhook-signature").unwrap().split(' ').count(), 2);
}

#[test]
fn a_url_that_leads_nowhere_is_told_at_the_start() {
    let home = Home::new();
    for (url, why) in [
        ("ftp://example.org/", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://[::1/", "invalid IPv6 address"),
        ("http://127.0.0.1:99999/", "invalid port number"),
        ("http://:80/", "empty host"),
    ] {
        home.run(["serve", "--agent", "sum", "--webhook", url]).failed(2, why);
        home.run(["serve", "--event-hook", &format!("work.*={url}")]).failed(2, why);
    }
}

#[test]
fn a_wake_knocks_at_the_url_and_a_new_key_keeps_the_hook() {
    let receiver = Receiver::start(|_, request| match request.json()["type"].as_str() {
        Some("elo.probe") => Act::status(404),
        _ => Act::json(&json!("ok")),
    });
    let home = Home::new();
    let file = private(&home, "secret", &secret(32, 5));
    let stage = Stage::new(&receiver.url(), &["--webhook-secret", &file]);
    let addr = stage.node.addr();
    let wake = || {
        let ran = stage.caller.run(["call", "wake", r#"{"capability":"sum"}"#, "--peer", &addr, "--json"]);
        ran.json()["payload"]["reach"].clone()
    };
    // Who answers, whatever it is, is there.
    let reach = wake();
    assert_eq!((&reach["by"], &reach["ok"]), (&json!("webhook"), &json!(true)), "{reach}");
    let probe = &receiver.requests(1)[0];
    assert_eq!((&probe.json()["data"], signed_by(probe, &secret(32, 5))), (&json!({"capability": "sum"}), 1));
    stage.home.run(["rotate"]).ok();
    eventually("the node is back", || stage.call("1", &[]).code == 0);
    let gone = receiver.addr;
    drop(receiver);
    eventually("it is seen", || wake()["ok"] == json!(false));
    let reach = wake();
    assert!(reach["note"].as_str().unwrap().contains("refused"), "{reach}: {gone}");
}

#[test]
fn https_is_checked_against_the_certificates_that_are_trusted() {
    let Some((authority, tls)) = certificates() else { return };
    let serve = |url: &str, trusted: &str| {
        let home = Home::new();
        let mut command = home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "sum"]);
        command.args(["--webhook", url]).env("SSL_CERT_FILE", trusted);
        let node = Serve::start(command);
        Stage { home, caller: Home::new(), node }
    };
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let receiver = Receiver::at(local, Some(Arc::clone(&tls)), |_, _| Act::json(&json!("ok")));
    let trusted = authority.path().join("ca.pem");
    let stage = serve(&format!("https://localhost:{}/", receiver.addr.port()), trusted.to_str().unwrap());
    assert_eq!(stage.call("1", &[]).ok(), "ok\n");
    // A name that the certificate is not for.
    let stage = serve(&format!("https://127.0.0.2:{}/", receiver.addr.port()), trusted.to_str().unwrap());
    stage.call("1", &[]).failed(3, "AGENT_AWAY");
    // An authority that is not trusted.
    let other = certificates().unwrap().0;
    let stage = serve(
        &receiver.url().replace("http://127.0.0.1", "https://localhost"),
        other.path().join("ca.pem").to_str().unwrap(),
    );
    let ran = stage.call("1", &[]);
    ran.failed(3, "AGENT_AWAY");
    ran.failed(3, "certificate");
    assert_eq!(receiver.so_far().len(), 1);
    // Nobody to trust.
    let home = Home::new();
    let mut command = home.command(["serve", "--agent", "sum", "--webhook", "https://localhost/"]);
    let empty = home.write("empty.pem", "");
    command.env("SSL_CERT_FILE", &empty).env("SSL_CERT_DIR", home.path().join("nothing"));
    run(command).failed(2, "SSL_CERT_FILE");
}

/// A folder with the certificate of an authority, and a server's certificate for `localhost` by it. `None` without the
/// command `openssl`; with `ELO_INTEROP=1` it must be there.
fn certificates() -> Option<(tempfile::TempDir, Arc<rustls::ServerConfig>)> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch";
    for args in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=elo-test"),
        format!("req {key} -keyout key.pem -out request.pem -subj /CN=localhost"),
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile san"
            .to_owned(),
    ] {
        let mut openssl = std::process::Command::new("openssl");
        let made = openssl.args(args.split(' ')).current_dir(folder.path()).output();
        match made {
            Ok(made) => assert!(made.status.success(), "openssl {args}: {made:?}"),
            Err(error) => {
                let required = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
                assert!(!required, "ELO_INTEROP needs openssl: {error}");
                println!("not run: there is no openssl to make certificates with");
                return None;
            }
        }
    }
    let chain = vec![CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Some((folder, Arc::new(config)))
}
