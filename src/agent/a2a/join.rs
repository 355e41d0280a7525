//! An outside agent's skills as capabilities of this node, for as long as its card names them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::card::{About, Skill};
use super::client::{Line, Missed, Speaker};
use super::tokens::Tokens;
use super::work;
use crate::a2a::CARD_PATH;
use crate::agent::gate::Gate;
use crate::agent::reach::{By, DETAIL, Reach, Reaches};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::node::{Context, Node, Task, TaskError};
use crate::service::{Current, Service};
use crate::wire::Capability;

/// Tasks that are with an agent at once, and those that wait for their turn.
const AT_ONCE: usize = 64;
const MAX_WAITING: usize = 256;

/// How often a card is read again, and how long its reading may take.
const AGAIN: Duration = Duration::from_secs(120);
const READING: Duration = Duration::from_secs(10);

/// The first pause before an agent that is not there is looked for again, and the longest. Each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The agents that have joined; dropped, they have left.
#[derive(Debug, Default)]
pub(crate) struct Joined(#[expect(dead_code, reason = "held for their drop")] Vec<AbortOnDropHandle<()>>);

/// Which capability is whose: the first that offers it has it.
type Owners = Arc<Mutex<BTreeMap<String, String>>>;

/// An agent outside of the mesh.
#[derive(Debug)]
pub(super) struct Outside {
    /// As it was given.
    name: String,
    card: Url,
    speaker: Speaker,
    pub(super) gate: Gate,
    current: Current,
    reaches: Arc<Reaches>,
    owners: Owners,
    about: Mutex<Option<Arc<About>>>,
    /// Somebody found that it is not there.
    missed: Notify,
}

/// Has these agents join the node of a service. The error says which URL is wrong, and why.
pub(crate) fn join(urls: &[String], tokens: &Tokens, service: &Arc<Service>) -> Result<Joined, String> {
    let owners = Owners::default();
    let mut agents = Vec::new();
    for (number, name) in urls.iter().enumerate() {
        if urls[..number].contains(name) {
            return Err(format!("{name} is named twice"));
        }
        let card = card_url(name)?;
        let speaker =
            Speaker::new(card.scheme() == "https", tokens.of(name)).map_err(|why| format!("{name}: {why}"))?;
        agents.push(Outside {
            name: name.clone(),
            card,
            speaker,
            gate: Gate::new(AT_ONCE, MAX_WAITING),
            current: service.current().clone(),
            reaches: Arc::clone(service.reaches()),
            owners: Arc::clone(&owners),
            about: Mutex::new(None),
            missed: Notify::new(),
        });
    }
    let running = agents.into_iter().map(|agent| AbortOnDropHandle::new(tokio::spawn(Arc::new(agent).run())));
    Ok(Joined(running.collect()))
}

/// Where the card of an agent is.
fn card_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|e| format!("{text:?} is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("a token stands in HOME/{}, where nobody else sees it, not in the URL", super::TOKENS));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not the URL of an agent: http://HOST/.. or https://HOST/.."));
    }
    url.set_fragment(None);
    if !url.path().ends_with(".json") {
        url.set_path(&format!("{}{CARD_PATH}", url.path().trim_end_matches('/')));
    }
    Ok(url)
}

impl Outside {
    fn about(&self) -> MutexGuard<'_, Option<Arc<About>>> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where tasks go; `None` until the card was read.
    pub(super) fn line(&self) -> Option<Line> {
        let about = self.about().clone()?;
        Some(Line { speaker: self.speaker.clone(), url: about.url.clone(), binding: about.binding })
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.about().as_ref().is_some_and(|about| about.streaming)
    }

    pub(super) fn observed(&self, capability: &str, ok: bool, note: &str) {
        // Not one that it offers no longer.
        if self.reaches.of(capability).is_some_and(|reach| reach.by == By::A2a) {
            self.reaches.observed(capability, By::A2a, Some(ok), note);
        }
    }

    /// It was not reached: once it is there again it may be another one, whose card is read then.
    pub(super) fn was_missed(&self) {
        self.missed.notify_one();
    }

    async fn read_card(&self) -> Result<About, String> {
        let reading = tokio::time::timeout(READING, self.speaker.card(&self.card)).await;
        let card = match reading {
            Ok(Ok(card)) => card,
            Ok(Err(missed @ (Missed::Refused(..) | Missed::Nonsense(_)))) => {
                return Err(format!("{} ({})", missed.why(), self.card));
            }
            Ok(Err(missed)) => return Err(missed.why().to_owned()),
            Err(_) => return Err(format!("its card was not there within {} s", READING.as_secs())),
        };
        About::read(&card, &self.card)
    }

    /// Looks at the card, again and again.
    async fn run(self: Arc<Self>) {
        let mut provided: BTreeSet<String> = BTreeSet::new();
        let mut of: Option<NodeId> = None;
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        loop {
            let node = self.current.get();
            if of != Some(node.id()) {
                // Its successor provides nothing of this agent's yet.
                of = Some(node.id());
                provided.clear();
                self.provide(&node, &mut provided, false);
            }
            let next = match self.read_card().await {
                Ok(about) => {
                    let changed = self.take(about);
                    self.provide(&node, &mut provided, changed);
                    (pause, told) = (PAUSE_MIN, String::new());
                    AGAIN
                }
                Err(why) => {
                    for name in &provided {
                        self.observed(name, false, &why);
                    }
                    if why != told {
                        tracing::warn!(agent = self.name, why, "the A2A agent is not reached: it is looked for again");
                        told = why;
                    }
                    let next = pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                    next
                }
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                // One that is looked for already has its own pauses.
                () = self.missed.notified(), if told.is_empty() => {}
                _ = self.current.successor(&node) => {}
            }
        }
    }

    /// Notes what the card says; whether that is new.
    fn take(&self, about: About) -> bool {
        let mut known = self.about();
        let changed = known.as_deref() != Some(&about);
        *known = Some(Arc::new(about));
        changed
    }

    /// Provides what the card names, and nothing else.
    fn provide(self: &Arc<Self>, node: &Node, provided: &mut BTreeSet<String>, changed: bool) {
        let Some(about) = self.about().clone() else { return };
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> =
            provided.iter().filter(|name| !about.skills.iter().any(|skill| skill.name == **name)).cloned().collect();
        for name in gone {
            provided.remove(&name);
            owners.remove(&name);
            self.reaches.forget(&name);
            if let Err(error) = node.unregister(&name) {
                tracing::debug!(%error, "the node is stopped");
            }
        }
        let mut left_out = about.left_out.clone();
        for skill in &about.skills {
            let is_own = owners.get(&skill.name) == Some(&self.name);
            if provided.contains(&skill.name) && !changed {
                self.observed(&skill.name, true, "");
                continue;
            }
            let taken = !is_own && node.status().capabilities.iter().any(|cap| cap.name == skill.name);
            if taken || (!is_own && owners.contains_key(&skill.name)) {
                left_out.push(format!("{:?}: this node provides that already", skill.name));
                continue;
            }
            match self.offer(node, skill) {
                Ok(()) => {
                    owners.insert(skill.name.clone(), self.name.clone());
                    provided.insert(skill.name.clone());
                }
                Err(error) => left_out.push(format!("{:?}: {error}", skill.name)),
            }
        }
        if changed {
            let names: Vec<&str> = provided.iter().map(String::as_str).collect();
            tracing::info!(
                agent = self.name,
                name = about.name,
                provides = names.join(", "),
                "an A2A agent has joined"
            );
            if !left_out.is_empty() {
                let what = left_out.join("; ");
                tracing::warn!(agent = self.name, what, "not all of the A2A agent's skills are provided");
            }
        }
    }

    fn offer(self: &Arc<Self>, node: &Node, skill: &Skill) -> Result<(), crate::error::Error> {
        let reach = Reach::now(By::A2a, Some(true), "");
        let mut capability = Capability::agent(skill.name.as_str()).detail(DETAIL, reach.told());
        if !skill.description.is_empty() {
            capability = capability.detail("description", skill.description.as_str());
        }
        // First who answers, then the name: nobody is to find one that nobody answers.
        let agent = Arc::downgrade(self);
        node.handle(skill.name.as_str(), move |task: Task, context: Context| {
            let agent = agent.upgrade();
            async move {
                match agent {
                    Some(agent) => work::run(&agent, task, context).await,
                    None => Err(TaskError::with_code(ErrorCode::AgentAway, "the node is going down").not_run()),
                }
            }
        })?;
        node.register(capability)?;
        self.reaches.observed(&skill.name, By::A2a, Some(true), "");
        let agent = Arc::downgrade(self);
        let name = skill.name.clone();
        let probe = move || -> std::pin::Pin<Box<dyn Future<Output = Result<String, String>> + Send>> {
            let (agent, name) = (agent.upgrade(), name.clone());
            Box::pin(async move {
                let about = agent.ok_or("the node is going down")?.read_card().await?;
                match about.skills.iter().any(|skill| skill.name == name) {
                    true => Ok(format!("it shows its card: {}", about.name)),
                    false => Err("its card doesn't name that skill any more".to_owned()),
                }
            })
        };
        self.reaches.probe_with(&skill.name, Arc::new(probe));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_looked_for_where_the_agent_is() {
        for (given, card) in [
            ("http://127.0.0.1:9", "http://127.0.0.1:9/.well-known/agent-card.json"),
            ("https://h/a2a/sum/", "https://h/a2a/sum/.well-known/agent-card.json"),
            ("http://h/cards/mine.json", "http://h/cards/mine.json"),
        ] {
            assert_eq!(card_url(given).unwrap().as_str(), card);
        }
        for wrong in ["", "h", "http://", "ftp://h/", "http://user@h/", "http://:token@h/"] {
            assert!(card_url(wrong).is_err(), "{wrong}");
        }
    }
}
