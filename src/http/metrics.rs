//! What monitors read: Prometheus' text format, 0.0.4. The names are documented in docs/http-api.md.

use std::fmt::{Display, Write as _};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::Api;

/// The format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A metric: its name, its kind, what it says, and its values by their labels.
    fn metric<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    ) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP elo_{name} {help}\n# TYPE elo_{name} {kind}\n");
        for (labels, value) in values {
            let labels: Vec<String> =
                labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "elo_{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help, [(Vec::new(), value)]);
    }

    fn gauges<V: Display>(&mut self, name: &str, help: &str, label: &'static str, values: &[(&str, V)]) {
        let values = values.iter().map(|(text, value)| (vec![(label, (*text).to_owned())], value));
        self.metric(name, "gauge", help, values);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help, [(Vec::new(), value)]);
    }

    fn counters<S: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (S, u64)>,
    ) {
        let values = values.into_iter().map(|(text, value)| (vec![(label, text.as_ref().to_owned())], value));
        self.metric(name, "counter", help, values);
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Counters and gauges for Prometheus, as text of version 0.0.4.
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let mut page = Page::default();
    of_node(&mut page, &api);
    of_agents(&mut page, &api);
    of_http(&mut page, &api);
    ([(CONTENT_TYPE, FORMAT)], page.0).into_response()
}

fn of_node(page: &mut Page, api: &Api) {
    let status = api.service().node().status();
    let m = status.metrics;
    let version = (vec![("version", status.version)], 1);
    page.metric("build_info", "gauge", "Always 1; the version is a label.", [version]);
    page.gauge("uptime_seconds", "Since when the node runs.", status.uptime_s);
    let peers = [("true", m.peers), ("false", m.unproven_peers)];
    page.gauges("peers", "Peers connected, by whether their connection proves their key.", "proven", &peers);
    page.gauge("peers_encrypted", "Peers whose connection is encrypted.", m.encrypted_peers);
    page.gauge("connections", "Connections, those in the handshake included.", m.connections);
    page.gauge("connections_half_open", "Connections made by others that have not proven who they are.", m.half_open);
    page.gauge("records", "Records of other nodes that are kept.", m.records);
    page.gauge("tasks_running", "Tasks for this node that are running.", m.tasks_running);
    let tasks = [("done", m.tasks_done), ("failed", m.tasks_failed)];
    page.counters("tasks_total", "Tasks this node answered, by result.", "result", tasks);
    page.gauge("calls_running", "Calls of this node that are under way.", m.calls_running);
    let calls = [("done", m.calls_done), ("failed", m.calls_failed)];
    page.counters("calls_total", "Calls of this node that ended, by result.", "result", calls);
    let messages = [("in", m.messages_in), ("out", m.messages_out)];
    page.counters("messages_total", "Messages after the handshake, by direction.", "direction", messages);
    let bytes = [("in", m.bytes_in), ("out", m.bytes_out)];
    page.counters("traffic_bytes_total", "Bytes after the handshake, by direction.", "direction", bytes);
    page.counter("relayed_frames_total", "Frames relayed for others.", m.relayed);
    page.counter("flooded_messages_total", "Queries and events passed on for others.", m.flooded);
    page.counter("dial_backs_total", "Dials made for peers that asked whether they can be dialled.", m.dial_backs);
    page.counters("refused_total", "What was refused or dropped, by reason.", "reason", m.refused);
    page.counters("connections_closed_total", "Connections that were closed, by reason.", "reason", m.closed);
    page.gauge("memory_budget_bytes", "How much may be held for peers.", m.memory.budget);
    let held = &m.memory;
    let held = [
        ("connections", held.connections),
        ("outboxes", held.outboxes),
        ("input", held.input),
        ("tasks", held.tasks),
        ("answers", held.answers),
        ("chunks", held.chunks),
        ("records", held.records),
    ];
    page.gauges("memory_held_bytes", "How much is held for peers, by what for.", "what", &held);
    page.counters("memory_shed_total", "What was given up to stay within the budget.", "what", m.memory.shed);
}

fn of_agents(page: &mut Page, api: &Api) {
    let service = api.service();
    let (waiting, leased, agents) = service.desk().counts();
    let tasks = [("waiting", waiting), ("leased", leased)];
    page.gauges("desk_tasks", "Tasks that wait for an agent, and those that agents have.", "state", &tasks);
    page.gauge("desk_agents_waiting", "Agents that wait for a task.", agents);
    page.gauge("desk_offers", "Capabilities that agents offer.", service.desk().offers().len());
    let reaches = service.reaches().all();
    let labels = |name: &str, by: &str| vec![("capability", name.to_owned()), ("by", by.to_owned())];
    let there = reaches.iter().filter_map(|(name, reach)| {
        let there = reach.ok.map(u8::from)?;
        Some((labels(name, reach.by.as_str()), there))
    });
    page.metric("agent_reachable", "gauge", "Whether a capability's agent was there when it was last seen.", there);
    let seen = reaches.iter().map(|(name, reach)| (labels(name, reach.by.as_str()), reach.at));
    page.metric("agent_seen_timestamp_seconds", "gauge", "When that was.", seen);
    let (running, kept) = service.calls().counts();
    let calls = [("running", running), ("ended", kept.saturating_sub(running))];
    page.gauges("kept_calls", "Calls whose outcome can be asked for.", "state", &calls);
    page.gauge("event_feeds", "Patterns of events that are listened to.", service.feeds().count());
}

fn of_http(page: &mut Page, api: &Api) {
    let (answered, running) = api.counts().all();
    let answered = answered.into_iter().map(|(key, n)| {
        let labels = vec![("route", key.route), ("method", key.method.to_owned()), ("status", key.status.to_string())];
        (labels, n)
    });
    page.metric("http_requests_total", "counter", "Requests to this API that were answered.", answered);
    page.gauge("http_requests_in_flight", "Requests to this API that are being answered.", running);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.metric("x", "gauge", "X.", [(vec![("name", "a\"b\\c\nd".to_owned())], 1)]);
        assert_eq!(page.0, "# HELP elo_x X.\n# TYPE elo_x gauge\nelo_x{name=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
