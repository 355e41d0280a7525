//! Doors for the fuzz targets and the replay of what they found: in no other build, and not part of the API.

pub use crate::info::Source;
pub use crate::mesh::handshake;
pub use crate::mesh::{
    Action, Arrival, CallEvent, CallSpec, ChunkRefused, Config, ConnId, How, LookupId, Now, OnFull, Purpose, Scope,
    State, TaskId, TaskKey, Wanted, What,
};
pub use crate::wire::TrackerRole;
pub use crate::wire::dialback::{ProbeNonce, dial_back, dial_back_result};
pub use crate::wire::draft::{
    announce, bye, heartbeat, punch, punch_error, punch_start, query_resp, relay, relay_error,
};
pub use crate::wire::{Message, ResultDraft, TaskDraft};

/// Every role.
pub const ROLES: [TrackerRole; 3] = [TrackerRole::None, TrackerRole::Public, TrackerRole::Private];

/// The member in which a message names its author, and the members that its signature doesn't cover; `None` for what
/// nobody signs, or somebody inside of it.
pub fn author_members(message: &Message) -> Option<(&'static str, &'static [&'static str])> {
    match message {
        Message::Task(_) | Message::ChunkAck(_) | Message::Cancel(_) => Some(("caller", &[])),
        Message::Accepted(_) | Message::Chunk(_) | Message::Result(_) => Some(("responder", &[])),
        Message::Query(_) | Message::Event(_) => Some(("origin", &["ttl"])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use crate::fuzz_targets::{TARGETS, run};

    /// The files of a folder, in a certain order.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
    }

    /// Runs every kept input of a target again; what a panic says is preceded by the file's name.
    fn replay(target: &str) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let seeds = files(&fuzz.join("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        let found = fuzz.join("found").join(target);
        let found = if found.exists() { files(&found) } else { Vec::new() };
        for path in seeds.into_iter().chain(found) {
            println!("{}", path.display());
            assert!(run(target, &fs::read(&path).unwrap()));
        }
    }

    #[test]
    fn every_target_is_replayed() {
        let listed = ["lines", "frames", "canonical", "message", "batch", "record", "handshake", "state"];
        assert_eq!(TARGETS, listed);
        for target in TARGETS {
            let source = format!("{}/fuzz/fuzz_targets/{target}.rs", env!("CARGO_MANIFEST_DIR"));
            assert!(Path::new(&source).exists(), "{source}");
        }
        assert!(!run("another", b""));
    }

    macro_rules! replays {
        ($($target:ident)*) => {$(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*};
    }

    replays! { lines frames canonical message batch record handshake state }
}
