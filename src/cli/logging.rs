//! The log on stderr, for whoever looks for a fault.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::failure::Failure;
use super::output;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// Errors only.
    Quiet,
    /// What the environment says (`ELO_LOG`, `RUST_LOG`), else warnings.
    Default,
    /// What happens.
    Info,
    /// Everything.
    Debug,
}

impl Verbosity {
    /// From the flags.
    pub(super) fn new(verbose: u8, quiet: bool) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (_, 0) => Self::Default,
            (_, 1) => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Sends the log to stderr from now on.
pub(super) fn start(verbosity: Verbosity) -> Result<(), Failure> {
    let directives = match verbosity {
        // mainline calls it an error when nobody answers, again and again; `elo status` tells it once.
        Verbosity::Quiet => "error,mainline=off".to_owned(),
        Verbosity::Info => "warn,elo=info,mainline=off".to_owned(),
        Verbosity::Debug => "info,elo=debug".to_owned(),
        Verbosity::Default => ["ELO_LOG", "RUST_LOG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.trim().is_empty()))
            .unwrap_or_else(|| "warn,mainline=off".to_owned()),
    };
    let filter = filter(&directives)
        .map_err(|e| Failure::usage(format!("ELO_LOG (or RUST_LOG) {directives:?} can't be read: {e}")))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(output::LogWriter::default)
        .with_ansi(output::colours_on_stderr())
        .with_target(verbosity == Verbosity::Debug);
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    // A second logger in one process (tests) changes nothing.
    drop(started);
    Ok(())
}

/// Directives as tracing-subscriber's `EnvFilter` has them, but for those about spans, of which elo has none: its parser and
/// the regular expressions that it brings along are 0.4 MB of program.
fn filter(directives: &str) -> Result<Targets, String> {
    let mut filter = Targets::new().with_default(LevelFilter::ERROR);
    let mut said = directives.split(',').map(str::trim).filter(|d| !d.is_empty()).peekable();
    if said.peek().is_some() {
        filter = filter.with_default(LevelFilter::OFF);
    }
    for directive in said {
        let is_target =
            |text: &str| text.starts_with(|c: char| c.is_alphanumeric() || "-:_".contains(c)) && !text.contains('[');
        let level = |text: &str| match text {
            "" => Ok(LevelFilter::TRACE),
            _ => text.parse::<LevelFilter>().map_err(|_| format!("{text:?} is no level")),
        };
        filter = match directive.split_once('=') {
            Some((target, said)) if is_target(target) => filter.with_target(target, level(said)?),
            None if is_target(directive) => match directive.parse::<LevelFilter>() {
                Ok(level) => filter.with_default(level),
                // All of it.
                Err(_) => filter.with_target(directive, LevelFilter::TRACE),
            },
            _ => return Err(format!("{directive:?} is neither a level nor TARGET=LEVEL")),
        };
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn directives_are_read() {
        let enabled = |directives: &str, target: &str| {
            let filter = filter(directives).unwrap();
            let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
            levels.iter().filter(|level| filter.would_enable(target, level)).count()
        };
        for (directives, elo, mainline, other) in [
            ("warn,mainline=off", 2, 0, 2),
            ("error,mainline=off", 1, 0, 1),
            ("info,elo=debug", 4, 3, 3),
            ("elo=debug", 4, 0, 0),
            ("elo", 5, 0, 0),
            ("elo=", 5, 0, 0),
            ("elo::mesh=trace,info", 3, 3, 3),
            (" WARN , elo=4 ,", 4, 2, 2),
            ("trace,off", 0, 0, 0),
            (",", 1, 1, 1),
        ] {
            let found =
                [enabled(directives, "elo::node"), enabled(directives, "mainline"), enabled(directives, "other")];
            assert_eq!(found, [elo, mainline, other], "{directives}");
        }
        for wrong in ["=", "elo=loud", "elo=debug=info", "[call]=debug", "elo[{peer}]=debug", "+elo", "=warn"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
