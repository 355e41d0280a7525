//! Who is let in, and who was not.

use std::collections::BTreeMap;

use serde::Serialize;

/// Who is let in, and what became of those who were not: part of [`Status`](crate::Status).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AccessStatus {
    /// Whether only those allowed are let in.
    pub private: bool,
    /// How many are allowed.
    pub allowed: usize,
    /// How many are denied.
    pub denied: usize,
    /// Whether everything is served only for some, and for how many.
    pub serve_only: Option<usize>,
    /// How many rules there are for capabilities.
    pub policies: usize,
    /// The access file, if the node has one.
    pub file: Option<AccessFile>,
    /// Tasks refused by these lists and rules since the start, by capability. What the node doesn't provide is `(other)`.
    pub refused: BTreeMap<String, TaskRefusals>,
}

/// How the access file is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AccessFile {
    /// Where it is.
    pub path: String,
    /// How it is doing.
    pub state: AccessFileState,
    /// What is wrong with it, and what counts meanwhile; empty if nothing is.
    pub detail: String,
}

/// How the access file is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AccessFileState {
    /// What it says is what counts.
    Taken,
    /// There is none, and has been none in this run.
    Missing,
    /// It can't be used, or is gone: what it said before counts.
    Broken,
}

/// Tasks refused for one capability, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskRefusals {
    /// Told `NOT_ALLOWED`: the caller is not let in, or a rule keeps it out.
    #[serde(rename = "NOT_ALLOWED")]
    pub not_allowed: u64,
    /// Told `RATE_LIMITED`: a rule's rate or number of tasks at once was reached.
    #[serde(rename = "RATE_LIMITED")]
    pub rate_limited: u64,
}
