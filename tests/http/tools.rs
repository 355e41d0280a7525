//! Programs of others read what the API says: a validator of OpenAPI, schemathesis, Prometheus' own parser.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with these is required.

use std::process::Command;
use std::time::Duration;

use crate::client::served;
use crate::common::{Home, run_for, run_with_input};

/// The interpreter, if these tests are on.
fn python(modules: &str) -> Option<String> {
    if std::env::var_os("ELO_INTEROP").is_none_or(|value| value != "1") {
        println!("not run: set ELO_INTEROP=1, and ELO_PYTHON to a Python 3 with {modules}");
        return None;
    }
    let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&name).args(["-c", &format!("import {modules}")]).output();
    let output = output.unwrap_or_else(|e| panic!("ELO_INTEROP needs Python 3, can't run {name:?}: {e}"));
    assert!(output.status.success(), "{name} has no {modules}: {}", String::from_utf8_lossy(&output.stderr));
    Some(name)
}

#[test]
fn the_description_is_openapi() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    let description = api.bare("GET", "/openapi.json", &[]);
    assert_eq!(description.json(200)["openapi"], "3.1.0");
    assert_eq!(description.json(200)["servers"][0]["url"], api.url());
    let Some(python) = python("openapi_spec_validator") else { return };
    let mut command = Command::new(python);
    command.args([
        "-c",
        "import json, sys; from openapi_spec_validator import OpenAPIV31SpecValidator as V; V(json.load(sys.stdin)).validate()",
    ]);
    assert_eq!(run_with_input(command, &description.body).ok(), "");
}

#[test]
fn the_metrics_are_those_of_prometheus() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "a\\\"b"]);
    api.offer("work");
    api.get("/v1/nothing");
    api.post("/v1/calls", r#"{"capability": "a\\\"b"}"#).json(200);
    let metrics = api.get("/metrics");
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = metrics.text();
    for line in [
        "# TYPE elo_http_requests_total counter",
        "elo_http_requests_total{route=\"/v1/calls\",method=\"POST\",status=\"200\"} 1",
        "elo_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
        "elo_http_requests_in_flight 1",
        "elo_calls_total{result=\"done\"} 1",
        "elo_desk_offers 1",
        "elo_agent_reachable{capability=\"work\",by=\"poll\"} 1",
        "elo_agent_reachable{capability=\"a\\\\\\\"b\",by=\"process\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in {text}");
    }
    // Each is documented.
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http-api.md")).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(document.contains(&format!("`{name}`")), "{name} is not in docs/http-api.md");
    }
    let Some(python) = python("prometheus_client") else { return };
    let mut command = Command::new(python);
    command.args([
        "-c",
        "import sys; from prometheus_client.parser import text_string_to_metric_families as parse\n\
         for family in parse(sys.stdin.read()):\n\
         \x20   assert family.type in ('counter', 'gauge') and family.documentation, family\n\
         \x20   print(family.name, len(family.samples))",
    ]);
    let families = run_with_input(command, &metrics.body).ok();
    assert!(families.contains("elo_http_requests 4\n") || families.contains("elo_http_requests "), "{families}");
    assert!(families.contains("elo_agent_reachable 2\n"), "{families}");
}

/// Of each operation examples that its schema allows and that it doesn't; the answers are those that are described.
#[test]
fn it_does_what_its_description_says() {
    let Some(python) = python("schemathesis") else { return };
    let home = Home::new();
    let (mut node, api) = served(&home, &["--agent", "echo"]);
    api.offer("work");
    let tests = format!("{}/tests/http", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.current_dir(folder.path()).env("SCHEMATHESIS_HOOKS", format!("{tests}/hooks.py"));
    command.args(["-m", "schemathesis.cli", "--config-file", &format!("{tests}/schemathesis.toml"), "run"]);
    command.args([&format!("{}/openapi.json", api.url()), "-H", &format!("Authorization: Bearer {}", api.token)]);
    // 503 and 504 are answers of the mesh; 500 is none that is described, and is found by that. A call that was taken back is known for
    // a while.
    let not = "not_a_server_error,use_after_free";
    command.args(["--checks", "all", "--exclude-checks", not, "--max-examples", "10", "--no-color"]);
    // Without a body `next` waits 30 s.
    command.args(["--request-timeout", "45", "--max-response-time", "40", "--seed", "7"]);
    let ran = run_for(command, Duration::from_secs(400));
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(node.is_running());
    api.get("/v1/status").json(200);
}
