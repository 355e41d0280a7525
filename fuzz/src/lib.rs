//! What is done with the bytes that the fuzzer makes up: a function for each target, which panics when something is
//! wrong.
//!
//! The crate's own unit tests include these files too (`src/lib.rs`, `fuzz_cases`): there every seed and every case that
//! was ever found runs again on each `cargo test`, with a stable compiler and without cargo-fuzz.

mod batch;
mod canonical;
mod codec;
mod handshake;
mod keys;
mod message;
mod record;
mod reference;
mod state;

/// The targets by name: [`run`] takes one of them.
pub const TARGETS: [&str; 8] = ["lines", "frames", "canonical", "message", "batch", "record", "handshake", "state"];

/// Gives one input to one target; `false`: there is none of that name.
pub fn run(target: &str, data: &[u8]) -> bool {
    match target {
        "lines" => lines(data),
        "frames" => frames(data),
        "canonical" => canonical(data),
        "message" => message(data),
        "batch" => batch(data),
        "record" => record(data),
        "handshake" => handshake(data),
        "state" => state(data),
        _ => return false,
    }
    true
}

/// A stream of lines: whatever the pieces it comes in, it gives the same messages and the same end.
pub fn lines(data: &[u8]) {
    codec::stream(elo::wire::Framing::Line, data);
}

/// The same for frames with a length before them.
pub fn frames(data: &[u8]) {
    codec::stream(elo::wire::Framing::Length, data);
}

/// JSON: refused or put into canonical form exactly as [`reference`] does it.
pub fn canonical(data: &[u8]) {
    canonical::text(data);
}

/// A message: understood or refused whatever its spelling, and believed only when its author signed it.
pub fn message(data: &[u8]) {
    message::text(data);
}

/// Signatures over many messages: believed only as they were made.
pub fn batch(data: &[u8]) {
    batch::play(data);
}

/// What nodes say of themselves: records, and what stands in the DHT.
pub fn record(data: &[u8]) {
    record::text(data);
}

/// Handshakes between honest nodes, and somebody who sends anything to anybody.
pub fn handshake(data: &[u8]) {
    handshake::play(data);
}

/// One node's state, and whatever peers, the clock and its owner do to it.
pub fn state(data: &[u8]) {
    state::play(data);
}
