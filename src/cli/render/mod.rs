//! Answers as text for people. Whatever comes from other nodes is made harmless here.

mod activity;
mod bench;
mod status;
mod wake;

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value;

use crate::agent::reach;
use crate::control::{Progress, Stage};

use super::text;

pub(super) use activity::activity;
pub(super) use bench::{bench, bench_node, bench_progress};
pub(super) use status::{admission, status};
pub(super) use wake::wake;

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

/// The capabilities of a node, each with how its agent is reached, as its node saw it, and how long ago that was.
fn capabilities(list: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let reach = |cap: &Value| {
        let reach = &cap["details"][reach::DETAIL];
        let Some(by) = reach["by"].as_str() else { return String::new() };
        // Of a clock ahead of ours: as if it was now.
        let ago = reach["at"].as_u64().map_or(0, |at| now.saturating_sub(at));
        if by == "process" {
            // It is there for as long as its node is.
            return String::new();
        }
        let failed = if reach["ok"] == false && by != "nobody" { " fails" } else { "" };
        format!(" ({}{failed}, {} ago)", text::line(by), text::span(ago))
    };
    let names: Vec<String> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|cap| match text_of(cap, "kind") {
            "agent" => format!("{}{}", text_of(cap, "name"), reach(cap)),
            kind => format!("{kind}:{}{}", text_of(cap, "name"), reach(cap)),
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
        way => {
            let layer = match peer["encrypted"].as_bool() {
                Some(true) => ", TLS",
                Some(false) => ", plain text",
                None => "",
            };
            format!("{way} {addr}{layer}")
        }
    }
}

/// The connected peers, the nodes reached through trackers, and the configured peers that are not connected.
pub(super) fn peers(terminal: bool, peers: &[Value]) -> String {
    let (away, peers): (Vec<&Value>, Vec<&Value>) = peers.iter().partition(|peer| peer["connected"] == false);
    let mut text = match peers.is_empty() {
        true => "no peers are connected\n".to_owned(),
        false => connected(terminal, &peers),
    };
    if !away.is_empty() {
        text.push('\n');
        text.push_str(&not_connected(terminal, &away));
    }
    text
}

/// Configured peers that are not connected: why, and when they are dialled next.
fn not_connected(terminal: bool, peers: &[&Value]) -> String {
    let rows = peers.iter().map(|peer| {
        let next = match peer["next_dial_ms"].as_u64() {
            Some(ms) => format!("in {}", text::span(ms.div_ceil(1000))),
            None if text_of(peer, "reason") == "SELF" => "never".to_owned(),
            None => "now".to_owned(),
        };
        let why = match (text_of(peer, "reason"), text_of(peer, "message")) {
            (_, "") => "not tried yet".to_owned(),
            (reason, message) if message.contains(reason) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        };
        vec![text_of(peer, "peer").to_owned(), next, why]
    });
    table(terminal, &["NOT CONNECTED", "NEXT DIAL", "WHY"], rows)
}

fn connected(terminal: bool, peers: &[&Value]) -> String {
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

/// Who is allowed and denied, and below who was followed to a new id and who was revoked. An id is never broken: it is to
/// be copied.
pub(super) fn access(entries: &[Value]) -> String {
    let of = |what: &str| -> Vec<&Value> { entries.iter().filter(|e| text_of(e, "access") == what).collect() };
    let is_other = |entry: &&Value| text_of(entry, "share") == "other";
    let (other_new, new): (Vec<_>, Vec<_>) = of("replaced").into_iter().partition(is_other);
    let (other_void, void): (Vec<_>, Vec<_>) = of("revoked").into_iter().partition(is_other);
    let listed: Vec<_> = entries.iter().filter(|e| matches!(text_of(e, "access"), "allow" | "deny")).collect();
    let mut lines: Vec<String> = listed.iter().map(|entry| access_entry(entry)).collect();
    if listed.is_empty() {
        lines.push("nobody is allowed or denied by name".to_owned());
    }
    if !new.is_empty() {
        lines.push("followed to a new id; what names the old one means the new one:".to_owned());
        for step in new {
            lines.push(format!("  {} is now", text_of(step, "node_id")));
            lines.push(format!("  {}", text_of(step, "new")));
        }
    }
    if !void.is_empty() {
        lines.push("revoked by their owners, refused for good:".to_owned());
    }
    for one in void {
        let reason = match text_of(one, "reason") {
            "" => String::new(),
            reason => format!("  # {reason}"),
        };
        lines.push(format!("  {}{reason}", text_of(one, "node_id")));
    }
    let others = other_new.len() + other_void.len();
    if others > 0 {
        let what = if others == 1 { "statement is" } else { "statements are" };
        lines.push(format!("{others} {what} kept of ids that mean nothing to this node (--json lists them)"));
    }
    lines.iter().map(|line| text::line(line) + "\n").collect()
}

/// One line of who is allowed or denied.
fn access_entry(entry: &Value) -> String {
    let place = match entry["line"].as_u64() {
        Some(line) => format!("line {line}"),
        None => text_of(entry, "source").to_owned(),
    };
    let note = match text_of(entry, "note") {
        "" => String::new(),
        note => format!("  # {note}"),
    };
    format!("{:<5}  {}  {place}{note}", text_of(entry, "access"), text_of(entry, "node_id"))
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

/// A node by its name and id, or by its id alone when its name is not known yet.
fn named(value: &Value, id: &str) -> String {
    let (name, id) = (who(value, id), short(text_of(value, id)));
    if name == id { id } else { format!("{name} ({id})") }
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
        let sealed = if outcome["sealed"] == true { ", sealed" } else { ", which can read it" };
        let via = outcome["via"].as_str().map(|via| format!(" via {}{sealed}", short(via))).unwrap_or_default();
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
    fn who_was_followed_and_who_was_revoked_stand_below_the_lists() {
        let entries = [
            json!({"access": "replaced", "node_id": "old", "new": "new", "share": "named"}),
            json!({"access": "revoked", "node_id": "void", "reason": "lo\u{1b}st", "share": "met"}),
            json!({"access": "revoked", "node_id": "stranger", "reason": "", "share": "other"}),
            json!({"access": "deny", "node_id": "abc", "source": "settings", "line": null, "note": ""}),
        ];
        let text = access(&entries);
        assert!(text.starts_with("deny   abc  settings\n"), "{text}");
        assert!(text.contains("  old is now\n  new\n") && text.contains("  void  # lo\u{fffd}st\n"), "{text}");
        assert!(text.contains("1 statement is kept") && !text.contains("stranger"), "{text}");
        assert_eq!(access(&[]), "nobody is allowed or denied by name\n");
    }

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
    fn where_there_is_no_room_each_row_is_a_list() {
        let rows = [["a", "x\u{1b}y", ""], ["b", "z", "note"]].map(|row| row.map(str::to_owned).to_vec());
        let text = list(&["NAME", "PROVIDES", ""], rows);
        assert_eq!(text, "NAME      a\nPROVIDES  x\u{fffd}y\n\nNAME      b\nPROVIDES  z\n          note\n");
    }
}
