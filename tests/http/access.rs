//! Who may ask.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::client::{answer, served};
use crate::common::{Home, PATIENCE, Serve, mode};

#[test]
fn without_the_token_nothing_is_told_but_that_it_is_there() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    assert_eq!(mode(home.file("http.token")), 0o600);
    assert_eq!(api.bare("GET", "/health", &[]).json(200), serde_json::json!({"status": "ok"}));
    // The description says for each which may be asked without.
    let description = api.bare("GET", "/openapi.json", &[]).json(200);
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] == serde_json::json!([{}]) {
                assert_eq!(path, "/health");
                continue;
            }
            asked += 1;
            let path = path.replace("{id}", "x").replace("{task_id}", "x").replace("{name}", "x");
            let path = path.replace("{node}", "x").replace("{capability}", "x");
            let wrong = format!("Authorization: Bearer {}x", api.token);
            let cut = format!("Authorization: Bearer {}", &api.token[1..]);
            let basic = format!("Authorization: Basic {}", api.token);
            for headers in [&[][..], &[wrong.as_str()], &[&cut], &[&basic], &["Authorization: Bearer"]] {
                let answer = api.bare(&method.to_uppercase(), &path, headers);
                answer.problem(401, "UNAUTHORIZED");
                assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"elo\"");
                assert!(!answer.text().contains(&api.token));
            }
        }
    }
    assert!(asked >= 17, "{asked}");
    api.get("/v1/status").json(200);
}

#[test]
fn a_token_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let path = home.write("http.token", "a-token-that-is-long-enough-to-be-one");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let args = ["serve", "--no-listen", "--http", "127.0.0.1:0"];
    home.run(args).failed(1, "can be read by others");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (_node, api) = served(&home, &[]);
    assert_eq!(api.token, "a-token-that-is-long-enough-to-be-one");
    api.get("/v1/status").json(200);
}

#[test]
fn pages_and_names_of_others_are_refused_with_the_token_too() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--http-host", "box.example.org"]);
    let port = api.addr.rsplit(':').next().unwrap();
    let ask = |path: &str, host: &str, origin: &str| {
        let token = &api.token;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n");
        let origin = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        api.raw(format!("{head}{origin}\r\n").as_bytes())
    };
    for host in [format!("localhost:{port}"), "127.0.0.1".into(), "[::1]:1".into(), "box.example.org".into()] {
        ask("/v1/status", &host, "").json(200);
        ask("/v1/status", &host, "http://localhost:3000").json(200);
    }
    for path in ["/v1/status", "/health", "/openapi.json", "/metrics", "/nothing"] {
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""] {
            ask(path, host, "").problem(403, "FORBIDDEN_HOST");
        }
        for origin in ["http://evil.example", "null", "https://localhost.evil.example"] {
            ask(path, "localhost", origin).problem(403, "FORBIDDEN_ORIGIN");
        }
    }
    // A name in the request line counts as well.
    let token = &api.token;
    let absolute = format!(
        "GET http://evil.example/v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    api.raw(absolute.as_bytes()).problem(403, "FORBIDDEN_HOST");
    api.raw(b"GET /health HTTP/1.0\r\n\r\n").problem(400, "BAD_REQUEST");
    api.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").problem(400, "BAD_REQUEST");
}

#[test]
fn beyond_this_machine_only_with_tls_or_when_told_so() {
    let home = Home::new();
    home.run(["serve", "--http", "0.0.0.0:0"]).failed(2, "has no TLS");
    home.run(["serve", "--http", "[::]:0"]).failed(2, "has no TLS");
}

fn file(name: &str) -> String {
    format!("{}/tests/http/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn over_tls() {
    let home = Home::new();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let args = ["serve", "--json", "--no-listen", "--http", "127.0.0.1:0", "--http-cert", &cert, "--http-key", &key];
    let node = Serve::start(home.command(args));
    let url = node.ready["http"].as_str().unwrap().to_owned();
    let addr = url.strip_prefix("https://127.0.0.1:").map(|port| format!("127.0.0.1:{port}")).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let token = std::fs::read_to_string(home.file("http.token")).unwrap();
    let ask = |token: &str| {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let tcp = TcpStream::connect(&addr).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        answer(stream)
    };
    assert_eq!(ask(token.trim()).json(200)["node"]["node_id"], node.ready["node_id"]);
    ask("wrong").problem(401, "UNAUTHORIZED");

    // In plain text nothing is said, and nothing breaks.
    let mut plain = TcpStream::connect(&addr).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    drop(std::io::Read::read_to_end(&mut plain, &mut said));
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    ask(token.trim()).json(200);
}

#[test]
fn a_certificate_that_is_none_is_told() {
    let home = Home::new();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let run = |cert: &str, key: &str| {
        home.run(["serve", "--no-listen", "--http", "127.0.0.1:0", "--http-cert", cert, "--http-key", key])
    };
    run("/nowhere.pem", &key).failed(1, "/nowhere.pem: there is no such file");
    run(&key, &key).failed(1, "there is no certificate in PEM in it");
    run(&cert, &cert).failed(1, "there is no key in PEM in it");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    let other = Home::new();
    other.run(["serve", "--no-listen", "--http", &api.addr]).failed(1, &format!("can't listen on {}", api.addr));
}
