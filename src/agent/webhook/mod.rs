//! Tasks posted to a URL: whatever answers there is the agent.
//!
//! Each task is one POST, by [Standard Webhooks](https://www.standardwebhooks.com): an id that stays the same over all
//! attempts, the time, and signatures over both and the body. The response is the result. See `docs/webhooks.md`.

mod answer;
mod attempts;
mod body;
mod later;
mod post;
#[cfg(test)]
#[path = "../../../tests/hook/receiver.rs"]
pub(crate) mod receiver;
mod secret;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use answer::quoted;
pub(crate) use attempts::Webhook;
pub(crate) use later::{Hold, Later};
pub(crate) use post::Poster;
pub(crate) use secret::Secrets;
pub(crate) use time::iso8601;
