//! The log on stderr, for whoever looks for a fault.

use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::builder()
        .parse(&directives)
        .map_err(|e| Failure::usage(format!("ELO_LOG (or RUST_LOG) {directives:?} can't be read: {e}")))?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::LogWriter::default)
        .with_ansi(output::colours_on_stderr())
        .with_target(verbosity == Verbosity::Debug)
        .try_init();
    // A second logger in one process (tests) changes nothing.
    drop(started);
    Ok(())
}
