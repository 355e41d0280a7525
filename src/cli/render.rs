//! Answers as text for people. Whatever comes from other nodes is made harmless here.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value;

use crate::control::{Progress, Stage};

use super::output::Tone;
use super::text;

/// The narrowest terminal that tables are fitted into; on a narrower one each row is a list.
const NARROWEST: u16 = 60;

/// The longest cell that is never put on two lines: ids, times.
const UNBROKEN: usize = 14;
/// The longest word that isn't broken to make a table fit: an address.
const WORD: usize = 21;

/// A member as text; empty if it isn't one.
fn text_of<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_default()
}

/// The first 12 characters of a node id, which is what people compare.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn who(value: &Value, id: &str) -> String {
    match text_of(value, "name") {
        "" => short(text_of(value, id)),
        name => name.to_owned(),
    }
}

fn table(terminal: bool, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    // A terminal that doesn't tell its size says 0.
    let width = Table::new().width().filter(|width| terminal && *width > 0);
    fitted(width, header, rows.into_iter().collect())
}

/// A table that fits this width without breaking an id, a time or an address; else each row is a list.
fn fitted(width: Option<u16>, header: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let mut header = header.to_vec();
    if header.starts_with(&["NAME", "ID"]) && rows.iter().all(|row| row[0] == row[1]) {
        // Nobody has a name of its own.
        header.remove(0);
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
    }
    let least = |column: usize| -> usize {
        let least = |cell: &str| match cell.chars().count() {
            short if short <= UNBROKEN => short,
            _ => cell.split(' ').map(|word| word.chars().count().min(WORD)).max().unwrap_or_default(),
        };
        rows.iter().map(|row| least(&row[column])).chain([header[column].len()]).max().unwrap_or_default() + 2
    };
    let least: Vec<u16> = (0..header.len()).map(|column| u16::try_from(least(column)).unwrap_or(u16::MAX)).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        if width < NARROWEST || least.iter().map(|l| u32::from(*l)).sum::<u32>() > u32::from(width) {
            return list(&header, rows);
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| text::line(cell)));
    }
    for (column, least) in table.column_iter_mut().zip(least) {
        column.set_padding((0, 2));
        if width.is_some() {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Rows one below the other, for which there is no room beside each other.
fn list(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let widest = header.iter().map(|name| name.len()).max().unwrap_or_default();
    let row = |row: Vec<String>| -> String {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        cells.map(|(name, cell)| format!("{name:<widest$}  {}\n", text::line(&cell))).collect()
    };
    rows.into_iter().map(row).collect::<Vec<_>>().join("\n")
}

fn capabilities(list: &Value) -> String {
    let names: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|cap| match text_of(cap, "kind") {
            "agent" => text_of(cap, "name").to_owned(),
            kind => format!("{kind}:{}", text_of(cap, "name")),
        })
        .collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn strings(list: &Value) -> String {
    let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// How a peer is connected, or reached, and where.
fn way(peer: &Value) -> String {
    let addr = text_of(peer, "addr");
    match text_of(peer, "way") {
        "relay" => {
            let tracker = match text_of(peer, "via_name") {
                "" => short(text_of(peer, "via")),
                name => name.to_owned(),
            };
            let note = text_of(peer, "note");
            format!("relay via {tracker}{}{note}", if note.is_empty() { "" } else { ", " })
        }
        way => format!("{way} {addr}"),
    }
}

/// The connected peers, and the nodes reached through trackers.
pub(super) fn peers(terminal: bool, peers: &[Value]) -> String {
    let rows = peers.iter().map(|peer| {
        let mut notes = Vec::new();
        if peer["capabilities"].as_array().is_some_and(|list| !list.is_empty()) {
            notes.push(capabilities(&peer["capabilities"]));
        }
        if text_of(peer, "tracker") != "none" {
            notes.push(format!("{} tracker", text_of(peer, "tracker")));
        }
        if peer["proven"] == false {
            notes.push("unproven".to_owned());
        }
        vec![
            who(peer, "node_id"),
            short(text_of(peer, "node_id")),
            text_of(peer, "found").to_owned(),
            way(peer),
            peer["rtt_ms"].as_f64().map_or_else(|| "-".to_owned(), text::millis),
            text::span(number(peer, "connected_s")),
            if notes.is_empty() { "-".to_owned() } else { notes.join("; ") },
        ]
    });
    table(terminal, &["NAME", "ID", "FOUND", "WAY", "RTT", "SINCE", "PROVIDES"], rows)
}

/// Nodes found.
pub(super) fn nodes(terminal: bool, nodes: &[Value]) -> String {
    let rows = nodes.iter().map(|node| {
        let mut reach = Vec::new();
        if node["connected"] == true {
            reach.push("connected".to_owned());
        }
        let addrs = strings(&node["addrs"]);
        if addrs != "-" {
            reach.push(addrs);
        }
        let trackers: Vec<String> =
            node["trackers"].as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
        if !trackers.is_empty() {
            reach.push(format!("via {}", trackers.join(", ")));
        }
        let mut found = text_of(node, "found").to_owned();
        if let Some(hops) = node["hops"].as_u64() {
            found = format!("{found}, {hops} hop{}", if hops == 1 { "" } else { "s" });
        }
        if node["proven"] == false {
            found.push_str(", unproven");
        }
        vec![
            who(node, "node_id"),
            short(text_of(node, "node_id")),
            capabilities(&node["capabilities"]),
            reach.join(", "),
            found,
        ]
    });
    table(terminal, &["NAME", "ID", "PROVIDES", "REACHED", "FOUND"], rows)
}

/// What a node provides.
pub(super) fn provided(terminal: bool, list: &Value) -> String {
    let rows = list.as_array().into_iter().flatten().map(|cap| {
        let details = cap.get("details").map(Value::to_string).unwrap_or_default();
        vec![text_of(cap, "kind").to_owned(), text_of(cap, "name").to_owned(), details]
    });
    table(terminal, &["KIND", "NAME", "DETAILS"], rows)
}

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

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The state of a node, its lines broken at the width of a terminal.
pub(super) fn status(terminal: bool, status: &Value) -> String {
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
        (
            "peers",
            format!(
                "{} proven, {} unproven, {}",
                number(m, "peers"),
                number(m, "unproven_peers"),
                counted(number(m, "connections"), "connection")
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
        ("refused", counts("refused")),
        ("closed", counts("closed")),
    ];
    let discovery = discovery(&status["discovery"]).into_iter().enumerate();
    let discovery = discovery.map(|(n, line)| (if n == 0 { "discovery" } else { "" }, line));
    rows.into_iter().chain(discovery).map(|(name, value)| text::hung(name, &text::line(&value), 11, width)).collect()
}

/// How each way of finding nodes is doing, one a line; those that are not in use come last.
fn discovery(list: &Value) -> Vec<String> {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let off = |one: &&Value| text_of(one, "state") == "off";
    let shown = |one: &Value| {
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

/// A node by its name and id, or by its id alone when its name is not known yet.
fn named(value: &Value, id: &str) -> String {
    let (name, id) = (who(value, id), short(text_of(value, id)));
    if name == id { id } else { format!("{name} ({id})") }
}

/// One thing that happened to the node, without the time.
pub(super) fn activity(what: &Value) -> (Tone, String) {
    let id = |member: &str| short(text_of(what, member));
    match text_of(what, "event") {
        "peer_connected" => {
            let direction = if what["inbound"] == true { "from" } else { "to" };
            let unproven = if what["proven"] == false { ", unproven" } else { "" };
            let line =
                format!("peer {} connected {direction} {}{unproven}", named(what, "node_id"), text_of(what, "addr"));
            (Tone::Good, line)
        }
        "peer_lost" => {
            let reason = what["reason"].as_str().map(|r| format!(": {r}")).unwrap_or_default();
            (Tone::Dim, format!("peer {} left{reason}", named(what, "node_id")))
        }
        "refused" => {
            let line =
                format!("refused {}: {} {}", text_of(what, "addr"), text_of(what, "reason"), text_of(what, "message"));
            (Tone::Bad, line)
        }
        "dial_failed" => {
            let retry = text::millis(what["retry_in_ms"].as_f64().unwrap_or_default());
            (
                Tone::Dim,
                format!("can't reach {}: {} (again in {retry})", text_of(what, "peer"), text_of(what, "message")),
            )
        }
        "task_received" => {
            let via = what["via"].as_str().map(|via| format!(" via {}", short(via))).unwrap_or_default();
            (
                Tone::Plain,
                format!("task {} from {}{via} ({})", text_of(what, "capability"), id("caller"), text_of(what, "id")),
            )
        }
        "task_finished" => {
            let took = match number(what, "took_ms") {
                0 => "less than 1 ms".to_owned(),
                took => text::millis(took as f64),
            };
            let task = format!("task {} for {}", text_of(what, "capability"), id("caller"));
            match what["error"].as_str() {
                Some(error) => (Tone::Bad, format!("{task} failed in {took}: {error}")),
                None => (Tone::Plain, format!("{task} done in {took}")),
            }
        }
        "published" => (Tone::Plain, format!("event {}", event(what))),
        other => (Tone::Plain, format!("{other} {what}")),
    }
}

/// A published event.
pub(super) fn event(event: &Value) -> String {
    let unproven = if event["proven"] == false { ", unproven" } else { "" };
    text::line(&format!(
        "{} from {}{unproven}: {}",
        text_of(event, "event_type"),
        short(text_of(event, "origin")),
        event["data"]
    ))
}

/// How far a call is.
pub(super) fn progress(capability: &str, progress: &Progress) -> String {
    let what = match (progress.stage, progress.with.as_deref()) {
        (Stage::Looking, Some(with)) => format!("looking for {with}, or for a sign of it"),
        (Stage::Looking, None) => "looking for a provider, or for a sign of one".to_owned(),
        (Stage::Sent, Some(with)) => format!("sent to {with}, no sign of it yet"),
        (Stage::Sent, None) => "sent, no sign of it yet".to_owned(),
        (Stage::Accepted, Some(with)) => format!("accepted by {with}, no result yet"),
        (Stage::Accepted, None) => "accepted, no result yet".to_owned(),
    };
    format!("{capability}: {what}")
}

/// How a call went: `--trace`.
pub(super) fn trace(outcome: &Value) -> String {
    let mut lines = String::new();
    if outcome["route"].is_string() {
        let responder = serde_json::json!({ "name": outcome["responder_name"], "id": outcome["responder"] });
        let via = outcome["via"].as_str().map(|via| format!(" via {}", short(via))).unwrap_or_default();
        let hops = number(outcome, "hops");
        let signature = if outcome["verified"] == true { "signature verified" } else { "NOT VERIFIED" };
        let t = |member: &str| text::millis(outcome["timings"][member].as_f64().unwrap_or_default());
        lines.push_str(&format!(
            "route      {}{via}, {hops} hop{}\nresponder  {}, {signature}\ntimes      sent {}, first sign {}, total {}\n",
            text_of(outcome, "route"),
            if hops == 1 { "" } else { "s" },
            text::line(&named(&responder, "id")),
            t("sent_ms"),
            t("first_sign_ms"),
            t("total_ms"),
        ));
    } else if let Some(delivery) = outcome["delivery"].as_str() {
        lines.push_str(&format!("delivery   {delivery}\n"));
    }
    let tried = outcome["tried"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !tried.is_empty() {
        let rows = tried.iter().map(|step| {
            vec![
                text::millis(step["at_ms"].as_f64().unwrap_or_default()),
                text_of(step, "step").to_owned(),
                step["node"].as_str().map(short).unwrap_or_default(),
                text_of(step, "result").to_owned(),
            ]
        });
        lines.push_str(&table(false, &["AT", "TRIED", "NODE", "RESULT"], rows));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_from_other_nodes_are_harmless() {
        let evil = "ev\u{1b}[31mil\nname";
        let peer = json!({"node_id": "abcdefghijklmnop", "name": evil, "proven": false, "addr": "1.2.3.4:5", "inbound": true,
            "tracker": "public", "capabilities": [{"kind": "tool", "name": evil}], "rtt_ms": 0.5, "connected_s": 70});
        let text = peers(false, std::slice::from_ref(&peer));
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("abcdefghijkl") && text.contains("1 min 10 s") && text.contains("unproven"), "{text}");
        let text = nodes(false, &[peer]);
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text}");
        let text = event(&json!({"event_type": evil, "origin": "abc", "data": {"x": evil}}));
        assert!(!text.contains(|c: char| c.is_control()), "{text}");
        let text = trace(&json!({"route": "relay", "responder_name": evil, "hops": 2, "verified": true,
            "tried": [{"step": "table", "result": evil}]}));
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn where_there_is_no_room_each_row_is_a_list() {
        let rows = [["a", "x\u{1b}y", ""], ["b", "z", "note"]].map(|row| row.map(str::to_owned).to_vec());
        let text = list(&["NAME", "PROVIDES", ""], rows);
        assert_eq!(text, "NAME      a\nPROVIDES  x\u{fffd}y\n\nNAME      b\nPROVIDES  z\n          note\n");
    }

    #[test]
    fn a_table_on_a_terminal_breaks_no_id_and_no_address() {
        let (one, two) = ("rrDoCjJJDJ4q", "0eEvL9LQyZuR");
        let peer = |id: &str, name: &str, way: &str, tracker: &str| {
            let row = [name, id, "remembered", way, "12.59 ms", "1 min 10 s", tracker];
            row.map(str::to_owned).to_vec()
        };
        let header = ["NAME", "ID", "FOUND", "WAY", "RTT", "SINCE", "PROVIDES"];
        let relay = "relay via 0eEvL9LQyZuR, punching failed: no answer within 5 s (a NAT with changing ports?)";
        for names in [[one, two], ["render", "box"], ["a-machine-of-mine", "another"]] {
            let rows = vec![
                peer(one, names[0], "inbound 203.0.113.210:42319", "render"),
                peer(two, names[1], relay, "render; public tracker"),
            ];
            for width in [60, 80, 100, 200] {
                let text = fitted(Some(width), &header, rows.clone());
                for whole in [one, two, "203.0.113.210:42319", "12.59 ms", "1 min 10 s", "changing"] {
                    assert!(text.contains(whole), "{width}: {text}");
                }
                let list = text.starts_with("NAME      ") && text.contains("\n\n") || text.starts_with("ID        ");
                assert!(list || text.lines().all(|l| l.chars().count() <= width.into()), "{width}: {text}");
            }
            let text = fitted(Some(80), &header, rows);
            assert!(names[0] != one || !text.contains("NAME"), "{text}");
        }
    }

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
    fn a_status_names_refusals_by_reason() {
        let text =
            status(false, &json!({"name": "box", "metrics": {"refused": {"BAD_SIGNATURE": 2}, "bytes_in": 2048}}));
        assert!(text.contains("refused    2 BAD_SIGNATURE"), "{text}");
        assert!(text.contains("2.0 kB"), "{text}");
    }
}
