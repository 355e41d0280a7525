//! The only place that prints.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::failure::{Failure, OK, USAGE};
use super::text;

/// How many lines may wait for a slow reader of a running node's output; later ones are dropped.
const WAITING_LINES: usize = 1024;

/// How long the end of a node waits for its last lines to be read.
const LAST_LINES: Duration = Duration::from_millis(500);

/// A line to print, or `None`: print no more.
type Line = Option<String>;

static LOG: OnceLock<Lines> = OnceLock::new();

fn colours(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether the log may be coloured.
pub(super) fn colours_on_stderr() -> bool {
    colours(io::stderr().is_terminal())
}

/// How a line is to look where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Dim,
}

/// A question on stderr: the answer is typed behind it.
pub(super) fn ask(what: &str) {
    let mut err = io::stderr().lock();
    drop(write!(err, "{what}").and_then(|()| err.flush()));
}

/// A line on stderr for a person who is being asked something.
pub(super) fn complain(line: &str) {
    // Whoever closed stderr doesn't want to be told.
    drop(writeln!(io::stderr().lock(), "{}", text::line(line)));
}

/// Where results and errors go, and in which form.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// Whether everything is to be JSON.
    pub(super) json: bool,
    /// Whether stdout is a terminal.
    pub(super) terminal: bool,
    colour: bool,
}

impl Output {
    /// For this process's stdout and stderr.
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, colour: colours(terminal) && !json }
    }

    fn write(text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed_output(),
            _ => Failure::new(format!("can't write to stdout: {e}")),
        })
    }

    /// A line's text with its tone, made harmless.
    pub(super) fn toned(&self, tone: Tone, line: &str) -> String {
        let line = text::line(line);
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Plain => return line,
        };
        if self.colour { format!("\x1b[{code}m{line}\x1b[0m") } else { line }
    }

    /// One line for people, made harmless.
    pub(super) fn line(&self, line: &str) -> Result<(), Failure> {
        Self::write(&format!("{}\n", text::line(line)))
    }

    /// One line for people in a tone, made harmless.
    pub(super) fn toned_line(&self, tone: Tone, line: &str) -> Result<(), Failure> {
        Self::write(&format!("{}\n", self.toned(tone, line)))
    }

    /// Lines that `render` made, and cleaned.
    pub(super) fn block(&self, block: &str) -> Result<(), Failure> {
        if block.is_empty() || block.ends_with('\n') { Self::write(block) } else { Self::write(&format!("{block}\n")) }
    }

    /// One JSON object as a line.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|e| Failure::new(format!("can't write it as JSON: {e}")))?;
        let text = if self.terminal { text::escaped_json(&text) } else { text };
        Self::write(&format!("{text}\n"))
    }

    /// A payload: text as text, everything else as JSON; on a terminal harmless and spread over lines.
    pub(super) fn payload(&self, payload: &RawValue) -> Result<(), Failure> {
        Self::write(&self.payload_text(payload, self.terminal))
    }

    /// A payload on one line each, for streams.
    pub(super) fn payload_line(&self, payload: &RawValue) -> Result<(), Failure> {
        Self::write(&self.payload_text(payload, false))
    }

    /// The text of a payload, ended by a line end.
    pub(super) fn payload_text(&self, payload: &RawValue, pretty: bool) -> String {
        let mut text = match serde_json::from_str::<String>(payload.get()) {
            Ok(text) if self.terminal => text::block(&text),
            Ok(text) => text,
            Err(_) => {
                let json = text::readable_json(payload.get());
                let json = if pretty { text::pretty_json(&json) } else { json };
                if self.terminal { text::escaped_json(&json) } else { json }
            }
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// Something for people beside the result, on stderr.
    pub(super) fn note(&self, block: &str) {
        // Whoever closed stderr doesn't want to be told.
        drop(writeln!(io::stderr().lock(), "{}", block.trim_end()));
    }

    /// Reports a failure; gives the exit code.
    pub(super) fn failure(&self, failure: &Failure) -> u8 {
        if !failure.silent {
            let report = if self.json {
                failure.to_json().to_string()
            } else {
                let hint = failure.hint.as_deref().map(|h| format!("\n     {}", text::line(h))).unwrap_or_default();
                format!("elo: {}{hint}", text::block(&failure.message))
            };
            self.note(&report);
        }
        failure.exit
    }

    /// Reports what clap found wrong, or prints the help that was asked for; gives the exit code.
    pub(super) fn usage(&self, error: &clap::Error) -> u8 {
        if !error.use_stderr() {
            let help = error.render();
            let help = if self.colour { help.ansi().to_string() } else { help.to_string() };
            return match self.block(&help) {
                Ok(()) => OK,
                Err(failure) => failure.exit,
            };
        }
        let text = error.render().to_string();
        let text = text.trim_end().strip_prefix("error: ").unwrap_or(&text);
        if self.json {
            let end = ["\n\nUsage", "\n\nFor more"].iter().filter_map(|s| text.find(s)).min().unwrap_or(text.len());
            self.note(&Failure::usage(&text[..end]).to_json().to_string());
        } else if text.starts_with("A peer-to-peer mesh") {
            self.note(text);
        } else {
            self.note(&format!("elo: {}", text::block(text)));
        }
        USAGE
    }
}

/// Prints a running node's lines on a thread of its own: a reader that is slow, stopped or gone holds up nothing.
#[derive(Debug)]
pub(super) struct Printer {
    lines: Lines,
    done: Receiver<()>,
}

/// A way to a printer.
#[derive(Clone, Debug)]
pub(super) struct Lines(SyncSender<Line>);

impl Lines {
    /// Prints a line, or several; never waits.
    pub(super) fn print(&self, mut lines: String) {
        if !lines.ends_with('\n') {
            lines.push('\n');
        }
        // When the reader is far behind newer lines are lost, rather than kept without end.
        drop(self.0.try_send(Some(lines)));
    }
}

impl Printer {
    /// To stdout.
    pub(super) fn stdout() -> io::Result<Self> {
        Self::start(|line| io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()).is_ok())
    }

    /// To nobody.
    pub(super) fn nowhere() -> io::Result<Self> {
        Self::start(|_| false)
    }

    /// To stderr.
    fn stderr() -> io::Result<Self> {
        Self::start(|line| io::stderr().lock().write_all(line.as_bytes()).is_ok())
    }

    /// Above a prompt.
    pub(super) fn above(mut prompt: impl rustyline::ExternalPrinter + Send + 'static) -> io::Result<Self> {
        Self::start(move |line| prompt.print(line).is_ok())
    }

    fn start(mut print: impl FnMut(String) -> bool + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<Line>(WAITING_LINES);
        let (ended, done) = sync_channel(1);
        std::thread::Builder::new().name("elo-printer".to_owned()).spawn(move || {
            let mut open = true;
            while let Ok(Some(line)) = waiting.recv() {
                // Once it is closed the lines are taken all the same, and dropped.
                open = open && print(line);
            }
            drop(ended);
        })?;
        Ok(Self { lines: Lines(lines), done })
    }

    /// A way for others to print.
    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Lets the last lines be read, for a moment.
    pub(super) fn finish(self) {
        if self.lines.0.try_send(None).is_ok() {
            // Disconnected when the thread ended, a timeout when the reader doesn't read.
            let _ = self.done.recv_timeout(LAST_LINES);
        }
    }
}

/// Lets the log of this process pass through a printer: above the prompt if there is one, else to stderr.
/// Gives the printer made for it, to be finished at the end.
pub(super) fn route_log(prompt: Option<&Printer>) -> io::Result<Option<Printer>> {
    let own = if prompt.is_none() { Some(Printer::stderr()?) } else { None };
    if let Some(printer) = prompt.or(own.as_ref()) {
        // Only a node that runs routes its log, and a process runs one.
        drop(LOG.set(printer.lines()));
    }
    Ok(own)
}

/// Takes away the prompt that stands on the terminal's last line.
pub(super) fn clear_line() {
    // A terminal that is gone needs no clearing.
    drop(io::stdout().lock().write_all(b"\r\x1b[K").and_then(|()| io::stdout().flush()));
}

/// Shows what is waited for, in place of what was shown before; not longer than a line of the terminal.
pub(super) fn waiting_note(line: &str) {
    let mut room = stderr_width().saturating_sub(1);
    // Letters beyond Latin may take two places.
    let fits = |c: &char| {
        let width = if *c < '\u{1100}' { 1 } else { 2 };
        let fits = width <= room;
        room = room.saturating_sub(width);
        fits
    };
    let line: String = line.chars().take_while(fits).collect();
    drop(write!(io::stderr().lock(), "\r\x1b[K{line}"));
}

/// Takes it away.
pub(super) fn clear_note() {
    drop(io::stderr().lock().write_all(b"\r\x1b[K"));
}

#[cfg(unix)]
fn stderr_width() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        // A terminal that doesn't tell its size says 0.
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => 80,
    }
}

#[cfg(not(unix))]
fn stderr_width() -> usize {
    80
}

/// Where the log goes: straight to stderr, or through the printer of a running node.
#[derive(Debug, Default)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match LOG.get() {
            Some(lines) => lines.print(String::from_utf8_lossy(line).into_owned()),
            None => io::stderr().lock().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(terminal: bool) -> Output {
        Output { json: false, terminal, colour: false }
    }

    #[test]
    fn payloads_stay_intact_for_programs_and_harmless_for_people() {
        let raw = RawValue::from_string("\"a\\u001b[31mb\\nc\"".to_owned()).unwrap();
        assert_eq!(output(false).payload_text(&raw, false), "a\u{1b}[31mb\nc\n");
        assert!(!output(true).payload_text(&raw, true).contains('\u{1b}'));
        let raw = RawValue::from_string("{\"n\":123456789012345678901}".to_owned()).unwrap();
        assert_eq!(output(false).payload_text(&raw, false), "{\"n\":123456789012345678901}\n");
        assert_eq!(output(true).payload_text(&raw, true), "{\n  \"n\": 123456789012345678901\n}\n");
    }

    #[test]
    fn a_stuck_reader_holds_up_nothing() {
        let (_hold, never) = std::sync::mpsc::channel::<()>();
        let printer = Printer::start(move |_| never.recv().is_ok()).unwrap();
        for i in 0..10_000 {
            printer.lines().print(format!("line {i}"));
        }
        let start = std::time::Instant::now();
        printer.finish();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
