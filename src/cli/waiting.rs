//! A sign of life while a command waits: one line on stderr, for a person alone, gone when the waiting is over.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{App, output, text};

/// How long a person waits without a word.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Line {
    what: String,
    start: Instant,
    /// When something was last seen to happen.
    since: Instant,
    shown: bool,
}

impl Line {
    fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            output::clear_note();
        }
    }
}

/// What is waited for. Dropping it takes the line away.
#[derive(Debug)]
pub(super) struct Waiting {
    line: Option<Arc<Mutex<Line>>>,
    _shows: Option<AbortOnDropHandle<()>>,
}

fn with<R>(line: &Mutex<Line>, act: impl FnOnce(&mut Line) -> R) -> R {
    act(&mut line.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Waiting {
    /// Begins to wait; nothing is shown where nobody looks.
    pub(super) fn start(app: &App, what: &str) -> Self {
        if app.out.json || app.quiet || !std::io::stderr().is_terminal() {
            return Self { line: None, _shows: None };
        }
        let now = Instant::now();
        let line = Arc::new(Mutex::new(Line { what: what.to_owned(), start: now, since: now, shown: false }));
        let shown = Arc::clone(&line);
        let shows = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PATIENCE / 4).await;
                with(&shown, |line| {
                    if line.since.elapsed() >= PATIENCE {
                        line.shown = true;
                        output::waiting_note(&format!(
                            "{} ({})",
                            text::line(&line.what),
                            text::span(line.start.elapsed().as_secs())
                        ));
                    }
                });
            }
        });
        Self { line: Some(line), _shows: Some(AbortOnDropHandle::new(shows)) }
    }

    /// Whether anybody looks.
    pub(super) fn is_seen(&self) -> bool {
        self.line.is_some()
    }

    /// What is waited for from now on.
    pub(super) fn say(&self, what: String) {
        if let Some(line) = &self.line {
            with(line, |line| line.what = what);
        }
    }

    /// Makes room for something else to be printed, which is a sign of life itself.
    pub(super) fn hide(&self) {
        if let Some(line) = &self.line {
            with(line, |line| {
                line.hide();
                line.since = Instant::now();
            });
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            with(&line, |line| {
                line.hide();
                // The task that shows it may be at work still: let it find nothing to show.
                line.since = Instant::now() + Duration::from_secs(3600);
            });
        }
    }
}
