//! Where the rows run, and how they print.

use std::sync::Once;
use std::time::{Duration, Instant};

use super::net::{Net, sweep};
use super::spaces::{may_be_made, say};

/// What is measured on the slow and shared machines of a CI may take this many times what is promised; the figure
/// printed tells how long it took.
pub const SLOW: u32 = 3;

/// Prints what a row measured.
pub fn figure(row: &str, what: &str) {
    say(&format!("{row}: {what}"));
}

/// How long something took, as it is printed.
pub fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// A new little internet for a row, or `None` where there can't be one, having said so.
#[track_caller]
pub fn internet() -> Option<Net> {
    static SWEPT: Once = Once::new();
    if !may_be_made(&["nft", &python()]) {
        return None;
    }
    SWEPT.call_once(sweep);
    Some(Net::new())
}

/// The Python interpreter that CI made sure of.
pub fn python() -> String {
    std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// Tries until it works; how long that took. Panics with the last reason when `patience` is over.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return (value, start.elapsed()),
            Err(why) if start.elapsed() > patience => panic!("{what}: not within {patience:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
