//! The `elo` command.
fn main() {}
