//! What goes into a program and what comes out.

use serde_json::{Value, json};

use crate::agent::output::{Tail, value};
use crate::agent::{Exec, ExecFailure};

use super::{Chunks, NoChunks, chunks, sh, soon, task};

#[tokio::test]
async fn stdin_is_the_task_and_stdout_the_result() {
    let exec = Exec::new("cat", false).unwrap();
    let result = exec.run_value(task(r#"{"a":[1,2]}"#), NoChunks).await;
    assert_eq!(result.unwrap(), json!({"a": [1, 2]}));
    // A line, so that a shell's `read` takes it.
    let exec = sh("read -r line && echo \"got $line\"");
    assert_eq!(exec.run_value(task("[1]"), NoChunks).await.unwrap(), "got [1]");
    let exec = Exec::new("wc -c", false).unwrap();
    assert_eq!(exec.run_value(task("[1]\n"), NoChunks).await.unwrap(), 4);
}

#[tokio::test]
async fn output_is_json_if_it_parses_else_text() {
    for (script, expected) in [
        ("echo '{\"x\": null}'", json!({"x": null})),
        ("echo 42", json!(42)),
        ("echo '\"quoted\"'", json!("quoted")),
        ("echo hello world", json!("hello world")),
        ("printf 'a\\nb\\n\\n'", json!("a\nb\n")),
        ("printf 'a\\r\\n'", json!("a")),
        ("printf bare", json!("bare")),
        ("echo '{} {}'", json!("{} {}")),
        ("printf 'caf\\351\\n'", json!("caf\u{FFFD}")),
        (":", json!("")),
    ] {
        assert_eq!(sh(script).run_value(task("null"), NoChunks).await.unwrap(), expected, "{script}");
    }
    // Nested too deeply to be parsed: text, and no overflow.
    let deep = "[".repeat(100_000);
    assert_eq!(value(deep.as_bytes()).into_value(), Value::String(deep));
}

#[tokio::test]
async fn the_environment_tells_what_the_task_is() {
    let exec = sh("printf '%s|%s|%s' \"$ELO_TASK_ID\" \"$ELO_CAPABILITY\" \"$ELO_CALLER\"; test -n \"$PATH\"");
    let mut odd = task("null");
    odd.capability = "a\0b $(id) 'é\n".into();
    let result = exec.run_value(odd, NoChunks).await.unwrap();
    assert_eq!(result, "task-1|a\u{FFFD}b $(id) 'é\n|caller-1");
}

#[tokio::test]
async fn without_a_shell_nothing_is_expanded() {
    let exec = Exec::new("echo '$HOME' * ';' \"a  b\"", false).unwrap();
    assert_eq!(exec.run_value(task("null"), NoChunks).await.unwrap(), "$HOME * ; a  b");
}

#[tokio::test]
async fn a_program_may_ignore_its_input() {
    let input = format!("\"{}\"", "x".repeat(2 << 20));
    for script in ["echo ok", "exec <&-; echo ok", "head -c 1 >/dev/null; echo ok"] {
        let result = soon(sh(script).run_value(task(input.clone()), NoChunks)).await;
        assert_eq!(result.unwrap(), "ok", "{script}");
    }
}

#[tokio::test]
async fn much_in_and_much_out_at_once_do_not_deadlock() {
    let input = "x".repeat(2 << 20);
    // Three pipes fuller than any pipe's buffer.
    let exec = sh("tee /dev/stderr").max_output(4 << 20);
    let result = soon(exec.run_value(task(input.clone()), NoChunks)).await;
    assert!(result.unwrap() == input.as_str(), "not what was sent");
}

#[tokio::test]
async fn failure_quotes_the_end_of_stderr() {
    let failed = |script: &'static str| async move {
        match sh(script).run_value(task("null"), NoChunks).await.unwrap_err() {
            ExecFailure::Failed { status, stderr_tail } => (status, stderr_tail),
            other => panic!("{other}"),
        }
    };
    let (status, tail) = failed("echo partial; echo 'no such model' >&2; exit 3").await;
    assert_eq!((status.as_str(), tail.as_str()), ("exit status: 3", "no such model"));
    let (status, tail) = failed("kill -9 $$").await;
    assert!(status.contains("signal: 9"), "{status}");
    assert_eq!(tail, "");
    let (_, tail) = failed("seq 1 100000 >&2; exit 1").await;
    assert!(tail.starts_with('…') && tail.ends_with("\n99999\n100000"), "{tail}");
    assert!(tail.len() <= 2048 + '…'.len_utf8());

    let text = sh("echo boom >&2; exit 1").run_value(task("null"), NoChunks).await;
    let text = text.unwrap_err().to_string();
    assert_eq!(text, "the program failed with exit status: 1: boom");
}

#[test]
fn stderr_is_cut_between_characters() {
    for shift in 0..4 {
        let mut tail = Tail::default();
        tail.push(&b"abc"[..shift.min(3)]);
        for _ in 0..1000 {
            tail.push("🥚".as_bytes());
        }
        tail.push(&b"abc"[..shift.min(3)]);
        let text = tail.text();
        assert!(text.starts_with("…🥚") && !text.contains('\u{FFFD}'), "{text}");
    }
    let mut tail = Tail::default();
    tail.push(&[0x80, 0x80, b'a']);
    assert_eq!(tail.text(), "\u{FFFD}\u{FFFD}a");
}

#[tokio::test]
async fn too_much_output_ends_the_program() {
    let just = sh("head -c 1000 /dev/zero | tr '\\0' x").max_output(1000);
    assert_eq!(just.run_value(task("null"), NoChunks).await.unwrap(), "x".repeat(1000));
    for script in ["head -c 1001 /dev/zero", "yes", "yes & wait"] {
        let exec = sh(script).max_output(1000);
        let failure = soon(exec.run_value(task("null"), NoChunks)).await.unwrap_err();
        assert_eq!(failure, ExecFailure::TooLarge { limit: 1000 }, "{script}");
    }
}

#[tokio::test]
async fn each_line_is_a_chunk_as_it_appears() {
    // The program writes the next line only when the test has seen the last: the file says so.
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = format!(
        "echo '{{\"n\":1}}'; until test -e '{}'; do sleep 0.01; done; echo two; echo; printf 'la\\377st'",
        go.display()
    );
    let exec = sh(&script).stream(true);
    let (sink, mut got) = chunks();
    let run = exec.run_value(task("null"), sink);
    let watch = async {
        assert_eq!(got.recv().await.unwrap(), json!({"n": 1}));
        std::fs::write(&go, "").unwrap();
        let mut rest = Vec::new();
        while let Some(chunk) = got.recv().await {
            rest.push(chunk);
        }
        assert_eq!(rest, [json!("two"), json!(""), json!("la\u{FFFD}st")]);
    };
    let (result, ()) = soon(async { tokio::join!(run, watch) }).await;
    assert_eq!(result.unwrap(), json!({"lines": 4}));
}

#[tokio::test]
async fn a_line_has_a_limit_and_their_sum_has_none() {
    let drain = |mut got: tokio::sync::mpsc::Receiver<Value>| async move {
        let mut count = 0;
        while got.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let (sink, got) = chunks();
    let exec = sh("seq 1000001 1005000").stream(true).max_output(7);
    let (result, count) = tokio::join!(exec.run_value(task("null"), sink), drain(got));
    assert_eq!((result.unwrap(), count), (json!({"lines": 5000}), 5000));

    let (sink, got) = chunks();
    let exec = sh("echo 1234567; echo 12345678; sleep 300").stream(true).max_output(7);
    let (result, count) = soon(async { tokio::join!(exec.run_value(task("null"), sink), drain(got)) }).await;
    assert_eq!((result, count), (Err(ExecFailure::TooLarge { limit: 7 }), 1));
}

#[tokio::test]
async fn a_failing_program_may_have_streamed() {
    let (sink, mut got) = chunks();
    let exec = sh("echo half; echo why >&2; exit 7").stream(true);
    let failure = exec.run_value(task("null"), sink).await.unwrap_err();
    assert!(failure.to_string().ends_with("exit status: 7: why"), "{failure}");
    assert_eq!(got.recv().await.unwrap(), "half");
}

#[tokio::test]
async fn a_slow_sink_slows_the_program_down_and_loses_nothing() {
    /// Takes its first chunk only after the program has ended and the grace for what it left is over.
    struct Slow(Chunks, bool);
    impl crate::agent::ChunkSink for Slow {
        async fn send(&mut self, value: crate::node::Payload) -> Result<(), ()> {
            let value = value.into_value();
            if !std::mem::replace(&mut self.1, true) {
                tokio::time::sleep(crate::agent::GRACE * 2).await;
            }
            self.0.send(value.into()).await
        }
    }
    // More than fits one read, less than fits the pipe: the program ends at once.
    let exec = sh("seq 1 8000").stream(true);
    let (sink, mut got) = chunks();
    let check = async {
        for n in 1..=8000 {
            assert_eq!(got.recv().await.unwrap(), n);
        }
    };
    let run = exec.run_value(task("null"), Slow(sink, false));
    let (result, ()) = soon(async { tokio::join!(run, check) }).await;
    assert_eq!(result.unwrap(), json!({"lines": 8000}));
}
