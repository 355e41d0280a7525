//! The prompt of `elo serve`: a line editor on its own thread, and the commands entered there.

use std::io;
use std::path::Path;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, ExternalPrinter, Helper};
use tokio::sync::mpsc;

use crate::service::Current;

use super::jobs::COMMANDS;

/// The command that stops the node; Ctrl-C and Ctrl-D stand for it.
pub(super) const QUIT: &str = "quit";

/// How many lines of history are kept.
const HISTORY: usize = 1000;

/// The line editor, seen from the node.
pub(super) struct Prompt {
    lines: mpsc::Receiver<String>,
    #[cfg(unix)]
    terminal: Option<rustix::termios::Termios>,
}

fn other(error: ReadlineError) -> io::Error {
    io::Error::other(error.to_string())
}

impl Prompt {
    /// Starts it; gives the way to print above it as well.
    pub(super) fn start(home: &Path, node: Current) -> io::Result<(Self, impl ExternalPrinter + Send + use<>)> {
        #[cfg(unix)]
        let terminal = rustix::termios::tcgetattr(io::stdin()).ok();
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(other)?
            .auto_add_history(true)
            .completion_type(rustyline::CompletionType::List)
            // A node stopped by a signal leaves the editor where it is: no mode must outlive it.
            .bracketed_paste(false)
            .build();
        let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(other)?;
        editor.set_helper(Some(Words { node }));
        let above = editor.create_external_printer().map_err(other)?;
        let history = home.join("history");
        drop(editor.load_history(&history));
        let (entered, lines) = mpsc::channel(1);
        std::thread::Builder::new().name("elo-prompt".to_owned()).spawn(move || read(editor, &history, &entered))?;
        let prompt = Self {
            lines,
            #[cfg(unix)]
            terminal,
        };
        Ok((prompt, above))
    }

    /// The next line entered; `quit` when the person pressed Ctrl-C or Ctrl-D.
    pub(super) async fn next(&mut self) -> String {
        match self.lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }

    /// Gives the terminal back as it was: the editor's thread may sit in its own mode still.
    pub(super) fn end(self) {
        #[cfg(unix)]
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, terminal);
        }
    }
}

fn read(mut editor: Editor<Words, FileHistory>, history: &Path, entered: &mpsc::Sender<String>) {
    let mut prompt = "elo> ";
    loop {
        let line = match editor.readline(prompt) {
            Ok(line) => line.trim().to_owned(),
            Err(ReadlineError::Signal(_)) => continue,
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => QUIT.to_owned(),
            Err(e) => {
                tracing::debug!("the prompt ended: {e}");
                return;
            }
        };
        if line.is_empty() {
            continue;
        }
        drop(editor.save_history(history));
        if matches!(line.as_str(), QUIT | "exit") {
            // The editor stays: the last lines are printed through it, and Ctrl-C is a key to it.
            prompt = "";
        }
        // Waits when nobody takes it, so that a terminal at its end doesn't keep this thread busy.
        if entered.blocking_send(line).is_err() {
            return;
        }
    }
}

/// What Tab completes: commands, capabilities, nodes.
struct Words {
    node: Current,
}

impl Words {
    fn capabilities(&self) -> Vec<String> {
        let node = self.node.get();
        let own = node.status().capabilities.into_iter();
        own.chain(node.peers().into_iter().flat_map(|peer| peer.capabilities)).map(|cap| cap.name).collect()
    }

    fn nodes(&self) -> Vec<String> {
        self.node.get().peers().into_iter().map(|peer| peer.name).collect()
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..pos).unwrap_or(line);
        let start = before.rfind(' ').map_or(0, |i| i + 1);
        let words: Vec<&str> = before[..start].split_whitespace().collect();
        let candidates: Vec<String> = match words.as_slice() {
            [] => COMMANDS.iter().map(|c| (*c).to_owned()).collect(),
            [.., "--to"] => self.nodes(),
            ["call" | "find"] => self.capabilities(),
            ["call", _] => vec!["--to".to_owned()],
            _ => Vec::new(),
        };
        Ok((start, matching(candidates, &before[start..])))
    }
}

/// Those that begin so, each once. A name that could act on the terminal, or has a space, is not offered.
fn matching(mut candidates: Vec<String>, begin: &str) -> Vec<String> {
    candidates.retain(|c| c.starts_with(begin) && crate::cli::text::line(c) == *c && !c.contains(' '));
    candidates.sort();
    candidates.dedup();
    candidates
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_offers_what_fits_and_is_harmless() {
        let names = ["sum", "sub", "sum", "su\u{1b}m", "su m", "other"].map(str::to_owned).to_vec();
        assert_eq!(matching(names, "su"), ["sub", "sum"]);
    }
}
