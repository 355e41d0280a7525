//! The owner's lists while the node runs: set by the program, or kept in a file that is watched.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::Node;
use super::driver::{Shared, lock};
use crate::access_file::{self, Fault, Stamp};
use crate::error::Error;
use crate::info::{AccessFile, AccessFileState, AccessStatus, Activity};
use crate::mesh::access::Access;

/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);

/// How many may wait at once for the file to be read.
const MAX_WAITING: usize = 32;

/// A file to be watched.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// What it said last.
    entries: Access,
    state: AccessFileState,
    detail: String,
}

/// All lists of a node.
#[derive(Debug, Default)]
struct Lists {
    /// What the program set.
    base: Access,
    file: Option<Watched>,
    /// Both together.
    effective: Access,
}

impl Lists {
    fn join(&mut self) {
        self.effective = match &self.file {
            Some(file) => self.base.and(&file.entries),
            None => self.base.clone(),
        };
    }
}

/// Somebody who waits until the file was read.
type Waiting = oneshot::Sender<Result<(), String>>;

/// The node's part that knows who is let in.
#[derive(Debug, Default)]
pub(crate) struct AccessPart {
    lists: Mutex<Lists>,
    /// A private tracker stays private: it says so in its record.
    stays_private: bool,
    /// Where to ask for the file to be read; `None`: there is none.
    reader: Option<mpsc::Sender<Waiting>>,
}

/// What the task that watches the file begins with.
pub(crate) struct Watch {
    path: PathBuf,
    taken: Option<Stamp>,
    again: bool,
    asked: mpsc::Receiver<Waiting>,
}

/// Reads the file.
fn load(path: &std::path::Path) -> Result<Option<(Access, Stamp)>, Fault> {
    let Some((text, stamp)) = access_file::read(path)? else { return Ok(None) };
    let (allowed, denied) = access_file::sets(&access_file::parse(&text, path)?);
    Ok(Some((Access::of(false, allowed, denied), stamp)))
}

impl AccessPart {
    /// With what the program set, and the file if there is to be one: one that can't be used keeps the node from
    /// starting.
    pub(crate) async fn new(
        base: Access,
        stays_private: bool,
        file: Option<PathBuf>,
    ) -> Result<(Self, Option<Watch>), Error> {
        let base = base.private_if(stays_private);
        let mut lists = Lists { base, file: None, effective: Access::default() };
        let (mut reader, mut watch) = (None, None);
        if let Some(path) = file {
            let from = path.clone();
            let loaded = tokio::task::spawn_blocking(move || load(&from)).await;
            let loaded = loaded.map_err(|e| Error::Config(format!("the access file was not read: {e}")))?;
            let loaded = loaded.map_err(|fault| Error::Config(format!("the access file can't be used: {fault}")))?;
            let state = if loaded.is_some() { AccessFileState::Taken } else { AccessFileState::Missing };
            let (entries, taken) = loaded.map_or((Access::default(), None), |(access, stamp)| (access, Some(stamp)));
            lists.file = Some(Watched { path: path.clone(), entries, state, detail: String::new() });
            let (sender, asked) = mpsc::channel(MAX_WAITING);
            reader = Some(sender);
            let again = taken.as_ref().is_some_and(|stamp| stamp.is_fresh(SystemTime::now()));
            watch = Some(Watch { path, taken, again, asked });
        }
        lists.join();
        Ok((Self { lists: Mutex::new(lists), stays_private, reader }, watch))
    }

    /// What counts now.
    pub(crate) fn effective(&self) -> Access {
        lock(&self.lists).effective.clone()
    }

    /// What the program set, without the file.
    #[cfg(feature = "cli")]
    pub(crate) fn base(&self) -> Access {
        lock(&self.lists).base.clone()
    }

    fn file(&self) -> Option<AccessFile> {
        let lists = lock(&self.lists);
        let shown = |file: &Watched| AccessFile {
            path: file.path.display().to_string(),
            state: file.state,
            detail: file.detail.clone(),
        };
        lists.file.as_ref().map(shown)
    }
}

impl Shared {
    /// Brings the state what counts now.
    fn apply_access(&self) {
        self.with(|state, now, out| {
            // Looked at under the state's lock: of two changes at once the later one stays.
            let access = self.access.effective();
            if *state.access() != access {
                state.set_access(access, now, out);
            }
        });
        self.access_changed.send_modify(|n| *n += 1);
    }

    fn access_note(&self, problem: Option<String>) {
        let access = self.access.effective();
        let (private, allowed, denied) = (access.is_private(), access.allowed().len(), access.denied().len());
        self.tell(Activity::AccessChanged { private, allowed, denied, problem });
    }

    /// Watches the access file until the node closes.
    pub(crate) async fn run_access(self: Arc<Self>, watch: Watch) {
        let Watch { path, mut taken, mut again, mut asked } = watch;
        // What was seen the last time, and not taken yet: somebody may be in the middle of writing it.
        let mut seen: Option<Option<Stamp>> = None;
        // What is wrong with it was said already.
        let mut failed: Option<Option<Stamp>> = None;
        loop {
            let waiting = tokio::select! {
                () = self.closing.cancelled() => return,
                asked = asked.recv() => asked,
                () = tokio::time::sleep(LOOK) => None,
            };
            let at = path.clone();
            let Ok(stamp) = tokio::task::spawn_blocking(move || access_file::stamp(&at).ok().flatten()).await else {
                return;
            };
            let settled = seen.as_ref() == Some(&stamp);
            seen = Some(stamp.clone());
            let is_news = match &failed {
                Some(failed) => *failed != stamp,
                None => again || taken != stamp,
            };
            if waiting.is_none() && !(is_news && settled) {
                continue;
            }
            let at = path.clone();
            let Ok(loaded) = tokio::task::spawn_blocking(move || load(&at)).await else { return };
            let result = match loaded {
                Ok(Some((access, stamp))) => {
                    // A change in the same tick of the file system's clock would look like this one.
                    again = stamp.is_fresh(SystemTime::now());
                    (taken, failed) = (Some(stamp), None);
                    self.took_access(access);
                    Ok(())
                }
                Ok(None) if self.has_no_access_file() => Ok(()),
                Ok(None) => Err("it is gone".to_owned()),
                Err(fault) => Err(fault.to_string()),
            };
            if let Err(why) = &result {
                let is_new = failed.as_ref() != Some(&stamp);
                failed = Some(stamp);
                self.access_broken(why, is_new);
            }
            if let Some(waiting) = waiting {
                let _ = waiting.send(result);
            }
        }
    }

    /// Whether the file was never there in this run.
    fn has_no_access_file(&self) -> bool {
        lock(&self.access.lists).file.as_ref().is_some_and(|file| file.state == AccessFileState::Missing)
    }

    fn took_access(&self, access: Access) {
        let changed = {
            let mut lists = lock(&self.access.lists);
            let Some(file) = &mut lists.file else { return };
            let mended = file.state != AccessFileState::Taken;
            (file.state, file.detail) = (AccessFileState::Taken, String::new());
            let changed = file.entries != access;
            file.entries = access;
            lists.join();
            changed || mended
        };
        if changed {
            self.apply_access();
            tracing::info!("the access file was taken");
            self.access_note(None);
        }
    }

    fn access_broken(&self, why: &str, is_new: bool) {
        let detail = format!("{why}; what it said before counts until it is mended");
        if let Some(file) = &mut lock(&self.access.lists).file {
            (file.state, file.detail) = (AccessFileState::Broken, detail.clone());
        }
        if is_new {
            tracing::warn!("the access file can't be used: {detail}");
            self.access_note(Some(format!("the access file can't be used: {detail}")));
        }
    }

    /// Who is let in, and what was refused.
    pub(crate) fn access_status(&self) -> AccessStatus {
        let access = self.access.effective();
        let (policies, serve_only, refused) = self.read(|state, _| state.task_refusals());
        AccessStatus {
            private: access.is_private(),
            allowed: access.allowed().len(),
            denied: access.denied().len(),
            serve_only,
            policies,
            file: self.access.file(),
            refused,
        }
    }
}

impl Node {
    /// Who is let in now: what was set, and what the access file says.
    pub fn access(&self) -> Access {
        self.inner.shared.access.effective()
    }

    /// Who was followed to a new id, and who was revoked, as far as it knows.
    #[cfg(feature = "cli")]
    pub(crate) fn statements(&self) -> Vec<serde_json::Value> {
        super::keys::listed(&self.inner.shared.read(|state, _| state.statements()))
    }

    /// What the program set, without the file.
    #[cfg(feature = "cli")]
    pub(crate) fn set_by_program(&self) -> Access {
        self.inner.shared.access.base()
    }

    /// Other lists from now on, in place of those set before. Who is no longer let in is told `NOT_ALLOWED` and closed at once,
    /// its running tasks are answered and stopped; who is denied is also forgotten. What the
    /// [access file](crate::Builder::access_file) says counts on top, and a private tracker stays private.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), elo::Error> {
    /// # let node = elo::Node::builder().no_listen().start().await?;
    /// # let flooder = elo::Identity::generate().id();
    /// node.set_access(node.access().deny(flooder))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The node is stopped, or a list has more than [`MAX_ACCESS_ENTRIES`](crate::limits::MAX_ACCESS_ENTRIES) ids.
    pub fn set_access(&self, access: Access) -> Result<(), Error> {
        let shared = self.running()?;
        check(&access)?;
        {
            let mut lists = lock(&shared.access.lists);
            lists.base = access.private_if(shared.access.stays_private);
            lists.join();
        }
        shared.apply_access();
        shared.access_note(None);
        Ok(())
    }

    /// Reads the [access file](crate::Builder::access_file) now, without waiting for the next look at it.
    ///
    /// # Errors
    ///
    /// It can't be used ([`Error::Config`] says why), the node has none, or is stopped.
    pub async fn reload_access(&self) -> Result<(), Error> {
        let shared = self.running()?;
        let none = || Error::Config("this node has no access file".to_owned());
        let reader = shared.access.reader.as_ref().ok_or_else(none)?;
        let (sender, read) = oneshot::channel();
        let asked = async {
            reader.send(sender).await.ok()?;
            read.await.ok()
        };
        tokio::select! {
            result = asked => match result {
                Some(result) => result.map_err(|why| Error::Config(format!("the access file can't be used: {why}"))),
                None => Err(Error::Stopped),
            },
            () = shared.closing.cancelled() => Err(Error::Stopped),
        }
    }
}

/// Whether a node can work with these lists.
pub(crate) fn check(access: &Access) -> Result<(), Error> {
    let most = crate::limits::MAX_ACCESS_ENTRIES;
    if access.allowed().len().max(access.denied().len()) > most {
        return Err(Error::Config(format!("at most {most} nodes can be allowed, and as many denied")));
    }
    Ok(())
}
