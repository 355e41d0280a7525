//! The socket in the node's home, and the lock that makes the node the only one there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::session::{Shared, answer, turn_away};

/// The most clients at once: agents that wait for tasks and events, each with a connection of its own, beside a person's
/// commands. Each holds a task and a buffer of 8 kB, and a program may have 1024 files open where nobody set more.
const MAX_CLIENTS: usize = 256;

/// The most bytes of a socket's path; the operating system's bound is 108 with the zero at the end, 104 on some.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Why the home could not be taken, or its node not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// Another node runs here.
    #[error("a node is already running in this home{}", .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Running {
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// No node runs here.
    #[error("no node is running in this home")]
    NotRunning,
    /// The socket's path is too long for the operating system.
    #[error("the path of the control socket, {}, has {} bytes; the operating system allows {MAX_PATH}", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// The operating system refused.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl DoorError {
    /// Whether it is only that nothing can be written here: a disk that is full, or may be read only.
    pub(crate) fn is_unwritable(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let unwritable = |e: &io::Error| matches!(e.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull);
        matches!(self, Self::Io { source, .. } if unwritable(source))
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DoorError + 'a {
    move |source| DoorError::Io { what, path: path.to_owned(), source }
}

fn socket_path(home: &Path) -> Result<PathBuf, DoorError> {
    let path = home.join("node.sock");
    if path.as_os_str().len() > MAX_PATH { Err(DoorError::PathTooLong(path)) } else { Ok(path) }
}

/// Connects to the node running in a home.
pub(crate) async fn connect(home: &Path) -> Result<Client, DoorError> {
    let path = socket_path(home)?;
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Client::over(stream)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(DoorError::NotRunning)
        }
        Err(e) => Err(io_error("can't connect to the node at", &path)(e)),
    }
}

/// The home, taken: its lock and its listening socket. Dropping it gives both back.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    // Held open: the lock ends with it, however the process ends.
    _lock: File,
    listener: Arc<UnixListener>,
}

impl Door {
    /// Takes the home: makes the folder if it is missing, locks it, and puts the socket there in place of one that
    /// a dead node left.
    pub(crate) fn open(home: &Path) -> Result<Self, DoorError> {
        let path = socket_path(home)?;
        let home_fault = |e| io_error("can't make the home folder", home)(e);
        DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(home_fault)?;
        let lock = take_lock(home)?;
        // The lock says that nobody is here, unless somebody removed its file; a socket that answers knows better.
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(DoorError::Running { pid: None });
        }
        let listener = bind_private(home, &path)?;
        Ok(Self { path, _lock: lock, listener: Arc::new(listener) })
    }

    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers clients from now on, until the handle is dropped.
    pub(crate) fn serve(&self, shared: Shared) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(accept(Arc::clone(&self.listener), shared)))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // While the lock is held the path is ours.
        drop(std::fs::remove_file(&self.path));
    }
}

fn take_lock(home: &Path) -> Result<File, DoorError> {
    let path = home.join("node.lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io_error("can't open the lock", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            drop((&mut file).take(16).read_to_string(&mut pid));
            return Err(DoorError::Running { pid: pid.trim().parse().ok() });
        }
        Err(e) => return Err(io_error("can't lock", &path)(e.into())),
    }
    // For people; the lock itself needs no room on the disk, which may be full.
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::warn!(%error, "can't write this process's number into {}", path.display());
    }
    Ok(file)
}

/// Binds where nobody else can look in, then moves the socket to its place: no moment with wider permissions.
fn bind_private(home: &Path, path: &Path) -> Result<UnixListener, DoorError> {
    // Shorter than the path it ends at, so its length is covered by the same check.
    let room = home.join(".door");
    let fault = |e| io_error("can't make the control socket", path)(e);
    drop(std::fs::remove_dir_all(&room));
    DirBuilder::new().mode(0o700).create(&room).map_err(fault)?;
    let inside = room.join("s");
    let bound = (|| {
        let listener = UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    })();
    drop(std::fs::remove_dir_all(&room));
    bound.map_err(fault)
}

async fn accept(listener: Arc<UnixListener>, shared: Shared) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    // Sessions end with this task.
    let mut sessions = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!("the control socket can't accept: {e}");
                    // Out of file descriptors, most likely: it passes when some connection ends.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = sessions.join_next() => continue,
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let shared = shared.clone();
                sessions.spawn(async move {
                    answer(stream, shared).await;
                    drop(place);
                });
            }
            // One line into an empty socket buffer: that never waits.
            Err(_) => turn_away(stream, MAX_CLIENTS).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_home_has_one_door() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("deep/home");
        assert!(matches!(connect(&home).await, Err(DoorError::NotRunning)));
        let door = Door::open(&home).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(door.path()), 0o600);
        assert_eq!(mode(&home), 0o700);
        assert_eq!(mode(&home.join("node.lock")), 0o600);
        match Door::open(&home) {
            Err(DoorError::Running { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        assert!(connect(&home).await.is_ok());
        drop(door);
        assert!(!home.join("node.sock").exists());
        assert!(matches!(connect(&home).await, Err(DoorError::NotRunning)));
    }

    #[tokio::test]
    async fn what_a_dead_node_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(matches!(connect(dir.path()).await, Err(DoorError::NotRunning)));
        let _door = Door::open(dir.path()).unwrap();
        assert!(connect(dir.path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_live_socket_is_respected_without_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("node.lock")).unwrap();
        assert!(matches!(Door::open(dir.path()), Err(DoorError::Running { .. })));
        drop(door);
    }

    #[tokio::test]
    async fn a_path_too_long_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("x".repeat(100));
        assert!(matches!(Door::open(&home), Err(DoorError::PathTooLong(_))));
        assert!(matches!(connect(&home).await, Err(DoorError::PathTooLong(_))));
        assert!(!home.exists());
    }
}
