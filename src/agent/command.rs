//! From a command line to a program that exists and its arguments.

use std::path::{Path, PathBuf};

/// Why a command can't be run for tasks. Found when the node starts, not when the first task comes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// There is no word in it.
    #[error("the command is empty: name the program to run for each task")]
    Empty,
    /// A quote was opened and not closed.
    #[error("the command has an unbalanced {quote} (opened at character {at}): {command}")]
    UnbalancedQuote {
        /// Which quote, `'` or `"`.
        quote: char,
        /// Where it was opened, in characters from 1.
        at: usize,
        /// The command.
        command: String,
    },
    /// A backslash at the very end, with nothing to quote.
    #[error("the command ends in a backslash that quotes nothing: {command}")]
    TrailingBackslash {
        /// The command.
        command: String,
    },
    /// A NUL character, which no argument can hold.
    #[error("the command contains a NUL character")]
    Nul,
    /// No such program.
    #[error("program not found: {program} ({searched})")]
    NotFound {
        /// As written in the command.
        program: String,
        /// Where it was looked for.
        searched: String,
    },
    /// It is there, but this user may not run it, or it isn't a file.
    #[error("{path} can't be run: {why}", path = path.display())]
    NotExecutable {
        /// What was found.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Splits a command line into words as a POSIX shell does, and does nothing else a shell does: no variables, no
/// globs, no pipes. On Windows a backslash is an ordinary character, as paths are full of them.
pub fn split(command: &str) -> Result<Vec<String>, ExecError> {
    let mut words = Vec::new();
    // None between words; Some("") inside a word that is empty so far, such as ''.
    let mut word: Option<String> = None;
    let mut chars = command.chars().zip(1..);
    while let Some((c, at)) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' if !cfg!(windows) => match chars.next() {
                Some(('\n', _)) => {}
                Some((c, _)) => word.get_or_insert_default().push(c),
                None => {
                    let command = command.to_owned();
                    return Err(ExecError::TrailingBackslash { command });
                }
            },
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())
                .ok_or_else(|| ExecError::UnbalancedQuote { quote: c, at, command: command.to_owned() })?,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Appends what stands between quotes; `None` if they aren't closed.
fn quoted(quote: char, chars: &mut impl Iterator<Item = (char, usize)>, word: &mut String) -> Option<()> {
    loop {
        match chars.next()?.0 {
            c if c == quote => return Some(()),
            '\\' if quote == '"' && !cfg!(windows) => match chars.next()?.0 {
                '\n' => {}
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                // Inside double quotes a backslash before anything else stands for itself.
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

/// Finds the program as the system would, so that a typing error shows at the start. The path is absolute: it stays
/// right if the working directory changes.
pub fn find_program(program: &str) -> Result<PathBuf, ExecError> {
    if program.is_empty() {
        return Err(ExecError::Empty);
    }
    let not_found = |searched: &str| ExecError::NotFound { program: program.to_owned(), searched: searched.to_owned() };
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if program.contains(std::path::is_separator) {
        let path = absolute(PathBuf::from(program));
        let path = candidates(path).find(|path| path.exists());
        let path = path.ok_or_else(|| not_found("no such file"))?;
        return match obstacle(&path) {
            None => Ok(path),
            Some(why) => Err(ExecError::NotExecutable { path, why }),
        };
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut unusable = None;
    for folder in std::env::split_paths(&search) {
        // An empty entry in PATH means the working directory; joining gives just that.
        for path in candidates(absolute(folder.join(program))) {
            match obstacle(&path) {
                None => return Ok(path),
                Some(why) if path.is_file() => unusable = unusable.or(Some((path, why))),
                Some(_) => {}
            }
        }
    }
    Err(match unusable {
        Some((path, why)) => ExecError::NotExecutable { path, why },
        None => not_found("looked in every folder of PATH"),
    })
}

/// What stands in the way of running this file.
pub(super) fn obstacle(path: &Path) -> Option<&'static str> {
    if !path.is_file() {
        return Some("it is not a file");
    }
    #[cfg(unix)]
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        return Some("it is not executable (chmod +x it, or name its interpreter)");
    }
    None
}

/// The names a program may go by: on Windows, `agent` may be `agent.exe`.
fn candidates(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    let endings: &[&str] = if cfg!(windows) { &[".exe", ".cmd", ".bat"] } else { &[] };
    let with_ending = {
        let path = path.clone();
        endings.iter().map(move |ending| {
            let mut name = path.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        })
    };
    std::iter::once(path).chain(with_ending)
}
