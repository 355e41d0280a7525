//! What `elo bench` measured, in 80 columns.

use std::fmt::Write;

use serde_json::Value;

use super::{number, short, text_of};
use crate::cli::text;

/// Reports are kept and compared: they look the same on every terminal.
const WIDTH: u16 = 79;
/// Where values begin.
const INDENT: usize = 10;
/// The longest bar.
const BAR: usize = 36;

fn float(value: &Value, member: &str) -> f64 {
    value[member].as_f64().unwrap_or_default()
}

fn row(name: &str, value: &str) -> String {
    text::hung(name, &text::line(value), INDENT, Some(WIDTH))
}

fn calls(number: u64) -> String {
    format!("{} call{}", text::count(number), if number == 1 { "" } else { "s" })
}

fn rate(per_second: f64) -> String {
    match per_second {
        few if few < 10.0 => format!("{few:.1}"),
        many => text::count(many as u64),
    }
}

/// A node's name with the beginning of its id.
pub(in crate::cli) fn bench_node(value: &Value, name: &str, id: &str) -> String {
    let id = short(text_of(value, id));
    match text_of(value, name) {
        // Who has no name of its own goes by the beginning of its id.
        name if name.is_empty() || id.starts_with(name) => id,
        name => format!("{name} ({id})"),
    }
}

/// How far it is, on one line.
pub(in crate::cli) fn bench_progress(news: &Value, of: &str) -> String {
    let stage = match text_of(news, "stage") {
        "warm_up" => return format!("warming up ({:.1} s)", float(news, "elapsed_ms") / 1000.0),
        "ending" => "waiting for the last".to_owned(),
        _ => format!("{:.1} s of {of}", float(news, "elapsed_ms") / 1000.0),
    };
    let mut line = format!(
        "{stage}: {} answered, {} failed, {}/s",
        text::count(number(news, "answered")),
        text::count(number(news, "failed")),
        rate(float(news, "calls_per_s"))
    );
    let latency = &news["latency_ms"];
    if latency.is_object() {
        let at = |name| text::fine_millis(float(latency, name));
        let _ = write!(line, ", p50 {}, p99 {}", at("p50"), at("p99"));
    }
    line
}

/// The whole.
pub(in crate::cli) fn bench(report: &Value) -> String {
    let mut out = head(report);
    if report["latency_ms"].is_object() {
        out.push('\n');
        out.push_str(&latency(&report["latency_ms"]));
        out.push('\n');
        out.push_str(&histogram(report));
    }
    let errors = report["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !errors.is_empty() {
        out.push('\n');
        for (at, seen) in errors.iter().enumerate() {
            out.push_str(&error(if at == 0 { "errors" } else { "" }, seen));
        }
    }
    out
}

fn head(report: &Value) -> String {
    let seconds = |member| format!("{:.2} s", float(report, member) / 1000.0);
    let mut out = row(
        "node",
        &format!(
            "{}: {}, {} in flight, {} of payload",
            bench_node(report, "name", "node_id"),
            text_of(report, "capability"),
            text::count(number(report, "in_flight")),
            text::bytes(number(report, "payload_bytes"))
        ),
    );
    let mut calls = format!(
        "{} answered, {} failed",
        text::count(number(report, "answered")),
        text::count(number(report, "failed"))
    );
    match number(report, "cut_off") {
        0 => {}
        cut_off => {
            let _ = write!(calls, ", {} cut off at the end", text::count(cut_off));
        }
    }
    let _ = write!(calls, ", in {}", seconds("elapsed_ms"));
    if float(report, "warm_up_ms") > 0.0 {
        let _ = write!(calls, " after {} of warm-up", seconds("warm_up_ms"));
    }
    calls.push_str(match text_of(report, "ended") {
        "interrupted" => " (interrupted)",
        "failing" => " (ended early: it only failed)",
        "too_long" => " (not all were made: the time was over)",
        _ => "",
    });
    out.push_str(&row("calls", &calls));
    let bytes = |member| text::bytes(float(report, member) as u64);
    out.push_str(&row(
        "rate",
        &format!(
            "{} calls/s; payloads {}/s out, {}/s in",
            rate(float(report, "calls_per_s")),
            bytes("payload_out_bytes_per_s"),
            bytes("payload_in_bytes_per_s")
        ),
    ));
    let (sent, received) = (bytes("wire_out_bytes_per_s"), bytes("wire_in_bytes_per_s"));
    out.push_str(&row("traffic", &format!("{sent}/s out, {received}/s in: all of this node's messages meanwhile")));
    for (at, taken) in report["routes"].as_array().into_iter().flatten().enumerate() {
        out.push_str(&row(if at == 0 { "route" } else { "" }, &route(taken)));
    }
    out
}

fn route(taken: &Value) -> String {
    let layer = match taken["encrypted"].as_bool() {
        Some(true) => ", TLS",
        Some(false) => ", plain text",
        None => "",
    };
    let calls = calls(number(taken, "calls"));
    match text_of(taken, "route") {
        "relay" => {
            let sealed = if taken["sealed"] == true { "sealed" } else { "not sealed" };
            format!("relay via {}{layer} to it, {sealed}: {calls}", bench_node(taken, "via_name", "via"))
        }
        "flood" => format!("direct{layer}, found by asking the mesh: {calls}"),
        other => format!("{other}{layer}: {calls}"),
    }
}

fn latency(latency: &Value) -> String {
    let columns = [
        ("min", "min"),
        ("mean", "mean"),
        ("p50", "p50"),
        ("p90", "p90"),
        ("p99", "p99"),
        ("p99.9", "p99_9"),
        ("max", "max"),
    ];
    let mut out = format!("{:<INDENT$}", "latency");
    for (name, _) in columns {
        let _ = write!(out, "{name:>9}");
    }
    let _ = write!(out, "\n{:INDENT$}", "");
    for (_, name) in columns {
        let _ = write!(out, "{:>9}", text::fine_millis(float(latency, name)));
    }
    out.push('\n');
    out
}

fn histogram(report: &Value) -> String {
    let bars = report["histogram"].as_array().map(Vec::as_slice).unwrap_or_default();
    let most = bars.iter().map(|bar| number(bar, "calls")).max().unwrap_or_default().max(1);
    let all = bars.iter().map(|bar| number(bar, "calls")).sum::<u64>().max(1);
    let mut out = String::new();
    for bar in bars {
        let calls = number(bar, "calls");
        // One call among a million is seen.
        let long = (calls as f64 / most as f64 * BAR as f64).ceil() as usize;
        let percent = calls as f64 * 100.0 / all as f64;
        let line = format!(
            "{:>8} ..{:>9}  {:<BAR$} {:>11} {:>6.2}%",
            edge(float(bar, "from_ms")),
            edge(float(bar, "to_ms")),
            "#".repeat(long.min(BAR)),
            text::count(calls),
            percent
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The end of a bar: a round number, of which nothing is to be dropped, but for the last.
fn edge(ms: f64) -> String {
    let (value, unit) = if ms >= 1000.0 { (ms / 1000.0, "s") } else { (ms, "ms") };
    let text = match value {
        v if v < 10.0 => format!("{v:.3}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

/// Failures of one kind, and what may be done about them.
fn error(name: &str, seen: &Value) -> String {
    let calls = calls(number(seen, "calls"));
    let what = format!("{}: {calls} {}, the first: {}", text_of(seen, "code"), came(seen), text_of(seen, "message"));
    let mut out = row(name, &what);
    if let Some(advice) = seen["advice"].as_str() {
        out.push_str(&row("", &format!("({advice})")));
    }
    out
}

fn came(seen: &Value) -> &'static str {
    match text_of(seen, "delivery") {
        "not_sent" => "not sent",
        "unconfirmed" => "sent, arrival not known",
        "accepted" => "accepted there, not answered",
        _ => "answered so",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let bar = |from: f64, to: f64, calls: u64| json!({"from_ms": from, "to_ms": to, "calls": calls});
        json!({
            "node_id": "8fJ2kd9xQwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUiO", "name": "n".repeat(128), "capability": "c".repeat(128),
            "in_flight": 4096, "payload_bytes": 770_048, "ended": "too_long", "warm_up_ms": 60_000.0, "elapsed_ms": 600_000.0,
            "answered": 99_999_999, "failed": 9_999_999, "cut_off": 4096, "calls_per_s": 166_666.6,
            "payload_out_bytes_per_s": 1e12, "payload_in_bytes_per_s": 1e12, "wire_out_bytes_per_s": 1e12, "wire_in_bytes_per_s": 1e12,
            "latency_ms": {"min": 0.0001, "mean": 1.0, "p50": 10.55, "p90": 99.99, "p99": 100.0, "p99_9": 9999.0, "max": 86_400_000.0},
            "histogram": [bar(0.0, 0.125, 1), bar(0.125, 150.0, 99_999_999), bar(150.0, 86_400_000.0, 12)],
            "routes": [
                {"route": "relay", "via": "x".repeat(43), "via_name": "box", "encrypted": true, "sealed": true, "calls": 99_999_999},
                {"route": "direct", "via": null, "via_name": "", "encrypted": false, "sealed": false, "calls": 1}],
            "errors": [{"code": "UNKNOWN_CAPABILITY", "delivery": "accepted", "calls": 9_999_999, "message": "no \u{1b}[31m such thing",
                "advice": "look elsewhere for it ".repeat(9)}],
        })
    }

    #[test]
    fn it_fits_80_columns_and_is_harmless() {
        let mut report = report();
        report["name"] = json!("box");
        report["capability"] = json!("ping");
        let text = bench(&report);
        for line in text.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        for said in
            ["99,999,999 answered", "not all were made", "relay via box (xxxxxxxxxxxx), TLS to it, sealed", "0.125 ms"]
        {
            assert!(text.contains(said), "{said:?} is not in {text}");
        }
        assert!(text.contains("direct, plain text: 1 call\n"), "{text}");
        // The longest bar is full, and the shortest is there.
        assert!(text.contains(&"#".repeat(BAR)) && text.contains("  # "), "{text}");
    }

    #[test]
    fn a_report_without_answers_has_no_latencies() {
        let mut report = report();
        for member in ["latency_ms", "histogram", "routes"] {
            report[member] = Value::Null;
        }
        let text = bench(&report);
        assert!(!text.contains("latency") && !text.contains("route") && text.contains("UNKNOWN_CAPABILITY"), "{text}");
        // What another version leaves out is no reason to fail.
        assert!(bench(&json!({})).contains("0 answered"));
        assert!(bench_progress(&json!({}), "5 s").contains("0.0 s of 5 s"));
    }

    #[test]
    fn edges_are_round() {
        for (ms, text) in [(0.000, "0 ms"), (0.125, "0.125 ms"), (1.25, "1.25 ms"), (10.0, "10 ms"), (12.5, "12.5 ms")]
        {
            assert_eq!(edge(ms), text);
        }
        assert_eq!([edge(100.0), edge(1500.0), edge(86_400_000.0)], ["100 ms", "1.5 s", "86400 s"]);
    }
}
