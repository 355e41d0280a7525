//! The state of a node: `elo status`.

use comfy_table::Table;
use serde_json::Value;

use super::{NARROWEST, capabilities, number, strings, text_of, who};
use crate::cli::text;

/// Whether others can dial a node.
fn reachable(reach: &Value) -> String {
    let names = |list: &Value| -> String {
        let names: Vec<String> = list.as_array().into_iter().flatten().map(|t| who(t, "node_id")).collect();
        names.join(", ")
    };
    let via = match names(&reach["trackers"]) {
        via if via.is_empty() => "not reached through any tracker".to_owned(),
        via => format!("reached via {via}"),
    };
    match text_of(reach, "state") {
        "dialable" => {
            let addrs = reach["addrs"].as_array().into_iter().flatten();
            let addrs = addrs.map(|a| format!("{} (verified by {})", text_of(a, "addr"), names(&a["by"])));
            format!("dialable at {}", addrs.collect::<Vec<_>>().join(", "))
        }
        "nat" => format!("behind NAT, {via} ({})", text_of(reach, "why")),
        "unknown" if names(&reach["trackers"]).is_empty() => format!("not known: {}", text_of(reach, "why")),
        "unknown" => format!("not known: {}; {via}", text_of(reach, "why")),
        _ => "-".to_owned(),
    }
}

/// The port on the router.
fn router(map: &Value) -> String {
    match text_of(map, "state") {
        "mapped" => format!("{} leads here, by {}", text_of(map, "external"), text_of(map, "protocol")),
        "failed" => format!("no port: {}", text_of(map, "why")),
        "looking" => "is being asked for a port".to_owned(),
        _ => "not asked for a port (--port-map)".to_owned(),
    }
}

/// The part in the DHT, in a line.
fn dht(dht: &Value) -> String {
    let port = dht["port"].as_u64().map_or_else(String::new, |port| format!(" on UDP port {port}"));
    let last = dht["last_announce_s"].as_u64().map_or_else(String::new, |s| format!(", last {} ago", text::span(s)));
    let (found, nobody) = (number(dht, "lookups_found"), number(dht, "lookups_failed"));
    let announced = match number(dht, "announced") {
        0 => String::new(),
        n => format!("; {n} announced{last}"),
    };
    let looked = match found + nobody {
        0 => String::new(),
        all => format!("; {found} of {all} lookups found somebody"),
    };
    let (state, nodes) = (text_of(dht, "state"), counted(number(dht, "nodes"), "node"));
    format!("dht {state}{port}: {}; {nodes} known{announced}{looked}", text_of(dht, "detail"))
}

/// How much of the memory budget is used, for what, and what gives way.
fn memory(memory: &Value) -> String {
    let bytes = |member| text::bytes(number(memory, member));
    let used = ["connections", "outboxes", "input", "tasks", "answers", "chunks", "records"];
    let used: Vec<String> =
        used.into_iter().filter(|m| number(memory, m) > 0).map(|m| format!("{} {m}", bytes(m))).collect();
    let used = if used.is_empty() { String::new() } else { format!(": {}", used.join(", ")) };
    let words = |list: &Value| {
        let words: Vec<_> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        words.join(", ")
    };
    let shedding = match words(&memory["shedding"]) {
        none if none.is_empty() => String::new(),
        what => format!("; SHORT, gives way: {what}"),
    };
    let shed = memory["shed"].as_object().into_iter().flatten();
    let shed: Vec<_> = shed.filter(|(_, n)| n.as_u64() != Some(0)).map(|(what, n)| format!("{n} {what}")).collect();
    let shed = if shed.is_empty() { String::new() } else { format!("; gave up so far: {}", shed.join(", ")) };
    format!("{} of {}{used}{shedding}{shed}", bytes("used"), bytes("budget"))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Who is let in.
pub(in crate::cli) fn admission(access: &Value) -> String {
    let who = match access["private"].as_bool() {
        Some(true) => "private, only those allowed are let in",
        _ => "public, everybody is let in who isn't denied",
    };
    let mut text = format!("{who}; {} allowed, {} denied", number(access, "allowed"), number(access, "denied"));
    let file = &access["file"];
    let path = text_of(file, "path");
    match text_of(file, "state") {
        "taken" => text.push_str(&format!("; {path}")),
        "missing" => text.push_str(&format!("; {path} isn't there yet")),
        "broken" => text.push_str(&format!("; THE FILE IS NOT USED: {}", text_of(file, "detail"))),
        _ => {}
    }
    text
}

/// Who is served, and who was refused what.
fn rules(access: &Value) -> String {
    let served = match access["serve_only"].as_u64() {
        Some(nodes) => format!("serves {} only", counted(nodes, "node")),
        None => "serves everybody let in".to_owned(),
    };
    let rules = match number(access, "policies") {
        0 => String::new(),
        n => format!(", by {}", counted(n, "rule")),
    };
    let refused: Vec<String> = access["refused"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(capability, by)| {
            let counts = by.as_object().into_iter().flatten().filter(|(_, n)| **n != 0);
            let counts: Vec<String> = counts.map(|(code, n)| format!("{n} {code}")).collect();
            format!("{capability} {}", counts.join(" and "))
        })
        .collect();
    match refused.is_empty() {
        true => format!("{served}{rules}; no task refused"),
        false => format!("{served}{rules}; tasks refused: {}", refused.join(", ")),
    }
}

/// The state of a node, its lines broken at the width of a terminal.
pub(in crate::cli) fn status(terminal: bool, status: &Value) -> String {
    let width = Table::new().width().filter(|width| terminal && *width >= NARROWEST);
    let m = &status["metrics"];
    let counts = |member: &str| {
        let counted: Vec<String> =
            m[member].as_object().into_iter().flatten().map(|(reason, n)| format!("{n} {reason}")).collect();
        if counted.is_empty() { "none".to_owned() } else { counted.join(", ") }
    };
    let rows = [
        ("node", format!("{} (elo {})", text_of(status, "name"), text_of(status, "version"))),
        ("id", text_of(status, "node_id").to_owned()),
        ("uptime", text::span(number(status, "uptime_s"))),
        ("listens", strings(&status["listen"])),
        ("published", strings(&status["addrs"])),
        ("reachable", reachable(&status["reachability"])),
        ("router", router(&status["port_map"])),
        ("tracker", text_of(status, "tracker").to_owned()),
        ("sealing", format!("{}, of what goes through trackers", text_of(status, "sealing"))),
        ("access", admission(&status["access"])),
        ("tasks for", rules(&status["access"])),
        (
            "peers",
            format!(
                "{} proven, {} unproven, {} encrypted, {} ({} half-open)",
                number(m, "peers"),
                number(m, "unproven_peers"),
                number(m, "encrypted_peers"),
                counted(number(m, "connections"), "connection"),
                number(m, "half_open")
            ),
        ),
        ("known", format!("{} of other nodes", counted(number(m, "records"), "record"))),
        ("provides", capabilities(&status["capabilities"])),
        ("interests", strings(&status["interests"])),
        (
            "tasks",
            format!(
                "{} running, {} done, {} failed",
                number(m, "tasks_running"),
                number(m, "tasks_done"),
                number(m, "tasks_failed")
            ),
        ),
        (
            "calls",
            format!(
                "{} running, {} done, {} failed",
                number(m, "calls_running"),
                number(m, "calls_done"),
                number(m, "calls_failed")
            ),
        ),
        (
            "traffic",
            format!(
                "in {} messages, {}; out {} messages, {}",
                number(m, "messages_in"),
                text::bytes(number(m, "bytes_in")),
                number(m, "messages_out"),
                text::bytes(number(m, "bytes_out"))
            ),
        ),
        ("for others", format!("{} frames relayed, {} floods passed on", number(m, "relayed"), number(m, "flooded"))),
        ("memory", memory(&m["memory"])),
        ("refused", counts("refused")),
        ("closed", counts("closed")),
    ];
    let discovery = discovery(status).into_iter().enumerate();
    let discovery = discovery.map(|(n, line)| (if n == 0 { "discovery" } else { "" }, line));
    rows.into_iter().chain(discovery).map(|(name, value)| text::hung(name, &text::line(&value), 11, width)).collect()
}

/// How each way of finding nodes is doing, one a line; those that are not in use come last.
fn discovery(status: &Value) -> Vec<String> {
    let all = status["discovery"].as_array().map(Vec::as_slice).unwrap_or_default();
    let off = |one: &&Value| text_of(one, "state") == "off";
    let shown = |one: &Value| {
        if text_of(one, "name") == "dht" && !off(&one) {
            return dht(&status["dht"]);
        }
        let mut line = format!("{} {}", text_of(one, "name"), text_of(one, "state"));
        if !text_of(one, "detail").is_empty() {
            line.push_str(&format!(": {}", text_of(one, "detail")));
        }
        let counts = ["candidates", "dialled", "proven"].map(|member| number(one, member));
        if counts != [0; 3] {
            let [known, dialled, proven] = counts;
            line.push_str(&format!(" ({known} known, {dialled} dialled, {proven} proven)"));
        }
        line
    };
    all.iter().filter(|one| !off(one)).chain(all.iter().filter(off)).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_tells_in_a_line_whether_the_node_is_reached() {
        let box1 = json!({"node_id": "abcdefghijklmnop", "name": "box"});
        let box2 = json!({"node_id": "qrstuvwxyzabcdef", "name": ""});
        for (reach, told) in [
            (
                json!({"state": "dialable", "addrs": [{"addr": "192.0.2.1:7878", "by": [box1]}]}),
                "reachable  dialable at 192.0.2.1:7878 (verified by box)\n",
            ),
            (
                json!({"state": "nat", "trackers": [box1, box2], "why": "nobody answered within 3 s"}),
                "reachable  behind NAT, reached via box, qrstuvwxyzab (nobody answered within 3 s)\n",
            ),
            (
                json!({"state": "nat", "trackers": [], "why": "x\u{1b}[31m"}),
                "reachable  behind NAT, not reached through any tracker (x\u{fffd}[31m)\n",
            ),
            (json!({"state": "unknown", "trackers": [], "why": "w"}), "reachable  not known: w\n"),
            (json!({"state": "unknown", "trackers": [box1], "why": "w"}), "reachable  not known: w; reached via box\n"),
        ] {
            let text = status(false, &json!({"reachability": reach, "metrics": {}}));
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn a_status_tells_how_discovery_is_doing() {
        let text = status(
            false,
            &json!({"discovery": [
                {"name": "dht", "state": "off", "detail": ""},
                {"name": "lan", "state": "failing", "detail": "no\u{1b} multicast", "candidates": 3, "dialled": 2, "proven": 1},
            ]}),
        );
        let line = "discovery  lan failing: no\u{fffd} multicast (3 known, 2 dialled, 1 proven)\n           dht off\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_status_tells_of_the_dht_once() {
        let text = status(
            false,
            &json!({"discovery": [{"name": "dht", "state": "on", "detail": "joined"}], "dht": {"state": "server",
            "detail": "joined", "port": 7878, "nodes": 3, "announced": 2, "last_announce_s": 70, "lookups_found": 1}}),
        );
        let line = "discovery  dht server on UDP port 7878: joined; 3 nodes known; 2 announced, last 1 min 10 s ago; \
                    1 of 1 lookups found somebody\n";
        assert!(text.contains(line), "{text}");
        assert_eq!(text.matches("dht").count(), 1, "{text}");
    }

    #[test]
    fn a_status_tells_what_the_router_gave() {
        for (map, told) in [
            (
                json!({"state": "mapped", "external": "203.0.113.7:4000", "protocol": "PCP"}),
                "router     203.0.113.7:4000 leads here, by PCP\n",
            ),
            (json!({"state": "failed", "why": "x\ny"}), "router     no port: x"),
            (json!(null), "router     not asked for a port (--port-map)\n"),
        ] {
            let text = status(false, &json!({"port_map": map, "metrics": {}}));
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn a_status_tells_of_the_memory() {
        let memory = json!({"budget": 1 << 20, "used": 800 << 10, "input": 700 << 10, "answers": 100 << 10, "records": 0,
            "shedding": ["answers", "records"], "shed": {"answers": 7, "records": 0}});
        let text = status(false, &json!({"metrics": {"memory": memory}}));
        let line = "memory     819.2 kB of 1.0 MB: 716.8 kB input, 102.4 kB answers; SHORT, gives way: answers, records; \
                    gave up so far: 7 answers\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_status_tells_who_is_let_in_and_what_was_refused() {
        let access = |private, file: Value| {
            json!({"private": private, "allowed": 2, "denied": 1, "file": file, "policies": 2,
            "serve_only": 1, "refused": {"deploy": {"NOT_ALLOWED": 3, "RATE_LIMITED": 2}, "(other)": {"NOT_ALLOWED": 1, "RATE_LIMITED": 0}}})
        };
        let text = status(false, &json!({"access": access(true, json!({"path": "/h/access", "state": "taken"}))}));
        assert!(
            text.contains("access     private, only those allowed are let in; 2 allowed, 1 denied; /h/access\n"),
            "{text}"
        );
        let refused = "tasks for  serves 1 node only, by 2 rules; tasks refused: (other) 1 NOT_ALLOWED, \
                       deploy 3 NOT_ALLOWED and 2 RATE_LIMITED\n";
        assert!(text.contains(refused), "{text}");
        let broken = json!({"path": "/h/access", "state": "broken", "detail": "/h/access:3: x\u{1b}y; z"});
        let text = status(false, &json!({"access": access(false, broken)}));
        assert!(text.contains("THE FILE IS NOT USED: /h/access:3: x\u{fffd}y; z\n"), "{text}");
        let text = status(false, &json!({"access": {}}));
        assert!(text.contains("tasks for  serves everybody let in; no task refused\n"), "{text}");
    }

    #[test]
    fn a_status_names_refusals_by_reason() {
        let text =
            status(false, &json!({"name": "box", "metrics": {"refused": {"BAD_SIGNATURE": 2}, "bytes_in": 2048}}));
        assert!(text.contains("refused    2 BAD_SIGNATURE"), "{text}");
        assert!(text.contains("2.0 kB"), "{text}");
    }
}
