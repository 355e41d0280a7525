//! Getting at the home's key, which may be under a passphrase.
//!
//! The passphrase comes from `ELO_PASSPHRASE`, from the file that `ELO_PASSPHRASE_FILE` names, or from the person at the
//! terminal, in this order. It is wiped from memory after use, as far as that goes; the environment is not.

use std::io::{self, IsTerminal};
use std::path::Path;

use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityError, NodeId};
use crate::private_file::read_bounded;

use super::App;
use super::failure::{Failure, LOCKED};

/// The most bytes of a file with a passphrase.
const MAX_FILE: u64 = 16 * 1024;

/// How often a person may mistype.
const TRIES: usize = 3;

pub(super) type Passphrase = Zeroizing<String>;

/// The home's key, or what to do to have one.
pub(super) fn identity(app: &App) -> Result<Identity, Failure> {
    open(&app.home).map_err(|e| match e {
        Refused::Identity(e @ IdentityError::Missing { .. }) => Failure::from(e).hint("make one with `elo init`"),
        e => e.into(),
    })
}

/// The home's key; `None`: there is none yet.
pub(super) fn identity_if_any(home: &Path) -> Result<Option<Identity>, Failure> {
    match open(home) {
        Ok(identity) => Ok(Some(identity)),
        Err(Refused::Identity(IdentityError::Missing { .. })) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whose key is in the home, or what to do to have one. No passphrase is needed for that.
pub(super) fn id(app: &App) -> Result<NodeId, Failure> {
    match Identity::peek(&app.home) {
        Ok((id, _)) => Ok(id),
        Err(e @ IdentityError::Missing { .. }) => Err(Failure::from(e).hint("make one with `elo init`")),
        Err(e) => Err(e.into()),
    }
}

/// The passphrase of the home's key, checked against it; `None`: it is under none.
pub(super) fn passphrase(home: &Path) -> Result<Option<Passphrase>, Failure> {
    if Identity::peek(home)?.1 {
        let (passphrase, _) = try_open(|passphrase| Identity::unlock(home, passphrase))?;
        return Ok(Some(passphrase));
    }
    Ok(None)
}

/// A key in a file of its own.
pub(super) fn key_file(path: &Path) -> Result<Identity, Failure> {
    match Identity::open(path, None) {
        Err(IdentityError::Locked { .. }) => {
            try_open(|passphrase| Identity::open(path, Some(passphrase))).map(|(_, identity)| identity)
        }
        opened => Ok(opened?),
    }
}

enum Refused {
    Identity(IdentityError),
    Failure(Failure),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Identity(e) => e.into(),
            Refused::Failure(failure) => failure,
        }
    }
}

fn open(home: &Path) -> Result<Identity, Refused> {
    match Identity::load(home) {
        Err(IdentityError::Locked { .. }) => {
            let (_, identity) = try_open(|passphrase| Identity::unlock(home, passphrase)).map_err(Refused::Failure)?;
            Ok(identity)
        }
        loaded => loaded.map_err(Refused::Identity),
    }
}

/// Opens a key with the passphrase that is given; a person may try some times.
fn try_open(open: impl Fn(&str) -> Result<Identity, IdentityError>) -> Result<(Passphrase, Identity), Failure> {
    if let Some(given) = given("ELO_PASSPHRASE")? {
        let identity = open(&given)?;
        return Ok((given, identity));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new("the key is under a passphrase, and there is nobody to ask for it")
            .exit(LOCKED)
            .code("LOCKED")
            .hint("put it into a file that only you can read, and name that with ELO_PASSPHRASE_FILE"));
    }
    let mut last = None;
    for _ in 0..TRIES {
        let typed = ask("Passphrase: ")?;
        match open(&typed) {
            Ok(identity) => return Ok((typed, identity)),
            Err(e @ IdentityError::WrongPassphrase { .. }) => {
                super::output::complain("wrong passphrase");
                last = Some(e);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(last.map_or_else(|| Failure::new("no passphrase"), Failure::from))
}

/// The passphrase in an environment variable, or in the file that the variable with `_FILE` behind its name names; `None`:
/// neither is set. Of a file the first line counts.
pub(super) fn given(variable: &str) -> Result<Option<Passphrase>, Failure> {
    if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        let text = value.into_string().map_err(|_| Failure::usage(format!("{variable} is not valid UTF-8")))?;
        return Ok(Some(Zeroizing::new(text)));
    }
    let by_file = format!("{variable}_FILE");
    let Some(path) = std::env::var_os(&by_file).filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = Path::new(&path);
    let wrong = |why: String| Failure::new(format!("{by_file}: {}: {why}", path.display())).exit(LOCKED).code("LOCKED");
    let bytes = read_bounded(path, MAX_FILE).map_err(|e| wrong(e.to_string()))?;
    let bytes = Zeroizing::new(bytes.ok_or_else(|| wrong("there is no such file".to_owned()))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text".to_owned()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(wrong("its first line is empty".to_owned()));
    }
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// A new passphrase: from the environment, or typed twice.
pub(super) fn new_passphrase(variable: &str) -> Result<Passphrase, Failure> {
    if let Some(given) = given(variable)? {
        return Ok(given);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask for the new passphrase")
            .hint(format!("name a file with it in its first line: {variable}_FILE=FILE")));
    }
    for _ in 0..TRIES {
        let first = ask("New passphrase: ")?;
        let second = ask("The same again: ")?;
        if first == second {
            return Ok(first);
        }
        super::output::complain("these were two different ones");
    }
    Err(Failure::new("the new passphrase was not typed twice alike; nothing was changed"))
}

fn ask(what: &str) -> Result<Passphrase, Failure> {
    // Before the prompt is there: who types at once is not to see it either.
    #[cfg(unix)]
    let _unseen = Unseen::start();
    super::output::ask(what);
    rpassword::read_password()
        .map(Zeroizing::new)
        .map_err(|e| Failure::new(format!("can't ask for the passphrase: {e}")).exit(LOCKED).code("LOCKED"))
}

/// The terminal shows nothing of what is typed, until this is dropped.
#[cfg(unix)]
struct Unseen(rustix::termios::Termios);

#[cfg(unix)]
impl Unseen {
    fn start() -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok()?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &now).ok()?;
        Some(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}
