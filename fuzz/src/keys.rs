//! A few real keys, made once.

use std::sync::OnceLock;

use elo::{Identity, NodeId};

/// How many there are.
pub(super) const KEYS: usize = 8;

/// All of them, with their ids.
pub(super) fn all() -> &'static [(Identity, NodeId); KEYS] {
    static ALL: OnceLock<[(Identity, NodeId); KEYS]> = OnceLock::new();
    ALL.get_or_init(|| {
        std::array::from_fn(|n| {
            let key = Identity::from_seed([n as u8 + 1; 32]);
            let id = key.id();
            (key, id)
        })
    })
}

/// One of them.
pub(super) fn key(n: usize) -> &'static Identity {
    &all()[n % KEYS].0
}

/// Its id.
pub(super) fn id(n: usize) -> NodeId {
    all()[n % KEYS].1
}
