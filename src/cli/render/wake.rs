//! What came of a wake, for people.

use serde_json::Value;

use crate::cli::text;

use super::{named, short, table, text_of};

/// Each step with its time.
pub(in crate::cli) fn wake(terminal: bool, woken: &Value) -> String {
    let time = |value: &Value| text::millis(value.as_f64().unwrap_or_default());
    let via = woken["via"].as_str().map(|via| format!(" via {}", short(via))).unwrap_or_default();
    let node = named(&serde_json::json!({ "name": woken["responder_name"], "id": woken["responder"] }), "id");
    let (agent, timings) = (&woken["agent"], &woken["timings"]);
    let rows = [
        ("found and sent", &timings["sent_ms"], format!("{}{via}", text_of(woken, "route"))),
        ("first sign", &timings["first_sign_ms"], text::line(&node)),
        ("agent asked", &agent["agent_ms"], agent_of(agent)),
        ("total", &timings["total_ms"], String::new()),
    ];
    let rows = rows.map(|(step, ms, what)| vec![step.to_owned(), time(ms), what]);
    table(terminal, &["STEP", "TIME", "WHAT"], rows)
}

/// How an agent is reached, and whether it is there.
fn agent_of(agent: &Value) -> String {
    let reach = &agent["reach"];
    let by = match text_of(reach, "by") {
        "process" => "in the node itself",
        "exec" => "a program",
        "webhook" => "a web hook",
        "poll" => "comes for its tasks",
        "a2a" => "speaks A2A",
        "nobody" => "nobody",
        other => other,
    };
    let there = match (text_of(reach, "by"), reach["ok"].as_bool()) {
        ("nobody", _) | (_, Some(false)) => "away",
        (_, Some(true)) => "there",
        (_, None) => "not known whether there",
    };
    let note =
        reach["note"].as_str().filter(|note| !note.is_empty()).map(|note| format!(": {note}")).unwrap_or_default();
    text::line(&format!("{by}, {there}{note}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_has_its_time() {
        let woken = json!({
            "responder": "bbbbbbbbbbbbbbbb", "responder_name": "box", "route": "direct", "via": null,
            "timings": { "sent_ms": 0.5, "first_sign_ms": 12.0, "total_ms": 13.0 },
            "agent": { "capability": "review", "agent_ms": 3.0, "reach": { "by": "exec", "ok": true, "at": 1, "note": "" } },
        });
        let shown = wake(false, &woken);
        for part in ["found and sent", "0.50 ms", "direct", "box", "a program, there", "13 ms"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert_eq!(
            agent_of(&json!({"reach": {"by": "webhook", "ok": false, "note": "refused\u{1b}"}})),
            "a web hook, away: refused\u{fffd}"
        );
        assert_eq!(agent_of(&json!({"reach": {"by": "nobody"}})), "nobody, away");
        assert_eq!(agent_of(&json!({"reach": {"by": "a2a"}})), "speaks A2A, not known whether there");
    }
}
