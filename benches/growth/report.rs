//! The table, and the file with all figures.

use std::path::{Path, PathBuf};

use crate::plan::{Cost, Point, Shape};

/// Above the rows.
pub const HEAD: &str = "\
Messages and bytes in the whole mesh; limits for connections and records are lifted, signs of life put off.

| mesh | nodes | links | | query, rare | query, common | change, of no interest | change, of interest | records of a node, of a tracker | memory of a node, of a tracker |
|---|---:|---:|---|---:|---:|---:|---:|---:|---:|";

/// What a shape is called.
pub fn name(shape: Shape, trackers: usize) -> String {
    match shape {
        Shape::Tracker => "one tracker".into(),
        Shape::Federation => format!("{trackers} trackers"),
        Shape::Mesh => "no tracker".into(),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        b if b < 10_000.0 => format!("{b:.0} B"),
        b if b < 10_000_000.0 => format!("{:.0} kB", b / 1e3),
        b => format!("{:.0} MB", b / 1e6),
    }
}

fn cost(cost: Cost) -> String {
    let messages =
        if cost.messages < 100.0 { format!("{:.1}", cost.messages) } else { format!("{:.0}", cost.messages) };
    format!("{messages}, {}", bytes(cost.bytes))
}

/// One mesh. What real nodes take in memory is their share of the process, what simulated ones take is what they know of
/// others.
pub fn row(point: &Point) -> String {
    let of_node = point.resident.or(point.knowledge).map_or("?".into(), bytes);
    let of_tracker = point.tracker_knowledge.map_or(String::new(), |b| format!(", {}", bytes(b as f64)));
    let records = point.tracker_records.map_or(String::new(), |n| format!(", {n}"));
    let found = if point.found < 1.0 { format!(" ({:.0} % found it)", 100.0 * point.found) } else { String::new() };
    format!(
        "| {} | {} | {} | {} | {}{found} | {} | {} | {} | {:.1}{records} | {of_node}{of_tracker} |",
        name(point.case.shape, point.case.trackers),
        point.case.nodes,
        point.links,
        if point.real { "real" } else { "simulated" },
        cost(point.rare),
        cost(point.common),
        cost(point.quiet),
        cost(point.wanted),
        point.records,
    )
}

/// Where builds go.
pub fn folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), Into::into)
}

/// Writes all points as a JSON list.
pub fn write(file: &Path, points: &[Point]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(points).map_err(|e| e.to_string())?;
    std::fs::write(file, text + "\n").map_err(|e| format!("{}: {e}", file.display()))
}

/// Reads what [`write`] has written.
pub fn read(file: &Path) -> Result<Vec<Point>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
}
