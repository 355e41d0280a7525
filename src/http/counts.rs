//! What is counted of the requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;

/// Which requests are counted together. All three are of a few: routes that exist, methods of HTTP, statuses in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The route as it is written, or `none`.
    pub(super) route: String,
    /// The method, or `other`.
    pub(super) method: &'static str,
    /// The status of the answer.
    pub(super) status: u16,
}

/// Requests that were answered, and those being answered.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<(BTreeMap<Key, u64>, u64)>);

impl Counts {
    fn with<T>(&self, look: impl FnOnce(&mut (BTreeMap<Key, u64>, u64)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One is being answered, until what is given is dropped.
    pub(super) fn begin(&self) -> Running<'_> {
        self.with(|(_, running)| *running += 1);
        Running(self)
    }

    /// One was answered.
    pub(super) fn answered(&self, route: Option<&str>, method: &Method, status: u16) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            Method::PATCH => "PATCH",
            _ => "other",
        };
        let key = Key { route: route.unwrap_or("none").to_owned(), method, status };
        self.with(|(answered, _)| *answered.entry(key).or_default() += 1);
    }

    /// All of them, and how many are being answered.
    pub(super) fn all(&self) -> (Vec<(Key, u64)>, u64) {
        self.with(|(answered, running)| (answered.iter().map(|(key, n)| (key.clone(), *n)).collect(), *running))
    }
}

/// A request that is being answered.
pub(super) struct Running<'a>(&'a Counts);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.with(|(_, running)| *running = running.saturating_sub(1));
    }
}
