//! The tasks that came through the gateway, and who is told of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::a2a::{Message, TaskPushNotificationConfig};
use tokio_util::task::AbortOnDropHandle;

use super::view::About;

/// The most web hooks of a task.
pub(super) const MAX_CONFIGS: usize = 8;

/// The longest message that is kept for the task's history, in bytes of JSON.
const MAX_KEPT_MESSAGE: usize = 8 * 1024;

/// A web hook, and what posts to it.
#[derive(Debug)]
struct Hook {
    config: TaskPushNotificationConfig,
    /// Dropped with it, and nothing more is posted.
    _posting: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Entry {
    /// The agent that it was sent to, as its path names it.
    agent: String,
    /// Which came after which.
    number: u64,
    about: About,
    hooks: BTreeMap<String, Hook>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    last: u64,
}

/// Tasks by their id, which is that of their call. There are no more than calls are remembered.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<Inner>);

impl Tasks {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a new one, and gives what is kept of it. Those whose call is forgotten are forgotten as well.
    pub(super) fn keep(&self, agent: &str, mut about: About, is_known: impl Fn(&str) -> bool) -> About {
        about.message = about.message.filter(is_short);
        let mut inner = self.inner();
        inner.entries.retain(|id, _| is_known(id));
        inner.last += 1;
        let number = inner.last;
        let entry = Entry { agent: agent.to_owned(), number, about: about.clone(), hooks: BTreeMap::new() };
        inner.entries.insert(about.id.clone(), entry);
        about
    }

    /// A task of an agent.
    pub(super) fn get(&self, agent: &str, id: &str) -> Option<About> {
        self.inner().entries.get(id).filter(|entry| entry.agent == agent).map(|entry| entry.about.clone())
    }

    /// All tasks of an agent, and in which order they came.
    pub(super) fn of(&self, agent: &str) -> Vec<(u64, About)> {
        let inner = self.inner();
        let those = inner.entries.values().filter(|entry| entry.agent == agent);
        those.map(|entry| (entry.number, entry.about.clone())).collect()
    }

    /// Adds a web hook, or replaces the one of its id. `Err`: there are too many.
    pub(super) fn add_hook(
        &self,
        config: &TaskPushNotificationConfig,
        start: impl FnOnce(About) -> AbortOnDropHandle<()>,
    ) -> Result<(), String> {
        let mut inner = self.inner();
        let Some(entry) = inner.entries.get_mut(&config.task_id) else {
            return Err("the task is forgotten".to_owned());
        };
        let id = config.id.clone().unwrap_or_default();
        if entry.hooks.len() >= MAX_CONFIGS && !entry.hooks.contains_key(&id) {
            return Err(format!("a task may have at most {MAX_CONFIGS} web hooks: delete one first"));
        }
        let posting = start(entry.about.clone());
        entry.hooks.insert(id, Hook { config: config.clone(), _posting: posting });
        Ok(())
    }

    /// The web hooks of a task, by their ids.
    pub(super) fn hooks(&self, id: &str) -> Vec<TaskPushNotificationConfig> {
        let inner = self.inner();
        let hooks = inner.entries.get(id).map(|entry| entry.hooks.values());
        hooks.into_iter().flatten().map(|hook| hook.config.clone()).collect()
    }

    /// Removes one; it need not be there.
    pub(super) fn remove_hook(&self, id: &str, config: &str) {
        let mut inner = self.inner();
        if let Some(entry) = inner.entries.get_mut(id) {
            entry.hooks.remove(config);
        }
    }
}

fn is_short(message: &Message) -> bool {
    serde_json::to_vec(message).is_ok_and(|json| json.len() <= MAX_KEPT_MESSAGE)
}
