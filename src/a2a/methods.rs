//! What may be asked for, whichever the binding.

use std::sync::Arc;
use std::time::SystemTime;

use ::a2a::{
    A2AError, AgentCard, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest, GetTaskRequest, ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse, ListTasksRequest, ListTasksResponse, Role, SendMessageRequest,
    SubscribeToTaskRequest, Task, TaskPushNotificationConfig, TaskState,
};
use axum::http::HeaderMap;
use serde_json::value::to_raw_value;

use super::fault::{from_mesh, no_task};
use super::stream::Follow;
use super::target::{Target, asked};
use super::view::{About, state_of};
use super::{Gateway, cards, parts};
use crate::service::StartCall;

/// The longest id of a message or a context, in bytes.
const MAX_ID: usize = 256;

/// The most tasks of a page, and how many there are unless it is said.
const MAX_PAGE: i32 = 100;
const PAGE: i32 = 50;

impl Gateway {
    /// Calls the agent. Waits for the end, unless the client won't.
    pub(super) async fn send(&self, target: &Target, request: SendMessageRequest) -> Result<Task, A2AError> {
        let configuration = request.configuration.clone();
        let at_once = configuration.as_ref().and_then(|c| c.return_immediately).unwrap_or(false);
        let history = configuration.and_then(|c| c.history_length);
        let (about, timeout) = self.begin(target, request).await?;
        if !at_once {
            // A call ends in its time; what is known of one that goes on for longer than anybody waits is told.
            self.service.calls().end_of(&about.id, timeout).await.map_err(|fault| from_mesh(&fault))?;
        }
        self.snapshot(&about, history, true)
    }

    /// The same, followed from the beginning.
    pub(super) async fn send_streaming(
        &self,
        target: &Target,
        request: SendMessageRequest,
    ) -> Result<Follow, A2AError> {
        let history = request.configuration.as_ref().and_then(|c| c.history_length);
        let (about, _) = self.begin(target, request).await?;
        self.follow(about, history)
    }

    fn follow(&self, about: About, history: Option<i32>) -> Result<Follow, A2AError> {
        let id = about.id.clone();
        Follow::new(Arc::clone(self.service.calls()), about, history, self.stopping.clone()).ok_or_else(|| no_task(&id))
    }

    async fn begin(
        &self,
        target: &Target,
        request: SendMessageRequest,
    ) -> Result<(About, std::time::Duration), A2AError> {
        let SendMessageRequest { mut message, configuration, metadata, .. } = request;
        if let Some(id) = message.task_id.as_deref().filter(|id| !id.is_empty()) {
            self.tasks.get(&target.to_string(), id).ok_or_else(|| no_task(id))?;
            let why = "a task takes one message: send the next one without a taskId, in the same context";
            return Err(A2AError::unsupported_operation(why));
        }
        let context_id = message.context_id.take().filter(|id| !id.is_empty()).unwrap_or_else(::a2a::new_context_id);
        if message.message_id.is_empty() || message.message_id.len() > MAX_ID || context_id.len() > MAX_ID {
            let why = format!("messageId has 1 to {MAX_ID} bytes, contextId as many at most");
            return Err(A2AError::invalid_params(why));
        }
        if message.role == Role::Agent {
            return Err(A2AError::invalid_params("a message to an agent has the role ROLE_USER"));
        }
        let configuration = configuration.unwrap_or(NOTHING_SAID);
        check_history(configuration.history_length)?;
        check_modes(configuration.accepted_output_modes.as_deref().unwrap_or_default())?;
        let hook = configuration.task_push_notification_config;
        let hook = hook.map(|config| self.sender.checked(config)).transpose()?;
        let payload = parts::to_payload(&message.parts).map_err(A2AError::invalid_params)?;
        let payload = to_raw_value(&payload).map_err(|e| A2AError::invalid_params(e.to_string()))?;
        let node = self.service.node();
        let asked = asked(&node, target, message.metadata.as_ref(), metadata.as_ref()).await?;
        let call = StartCall {
            capability: asked.capability,
            payload,
            to: asked.node,
            via: None,
            once: false,
            local: true,
            timeout: asked.timeout,
            wait: asked.wait,
        };
        let calls = self.service.calls();
        let id = calls.start(&node, call).await.map_err(|fault| from_mesh(&fault))?;
        message.context_id = Some(context_id.clone());
        message.task_id = Some(id.clone());
        let about = About { id: id.clone(), context_id, message: Some(message) };
        let about = self.tasks.keep(&target.to_string(), about, |id| calls.head(id).is_some());
        if let Some(mut config) = hook {
            config.task_id = id;
            self.add_hook(&config)?;
        }
        Ok((about, asked.timeout))
    }

    fn about(&self, target: &Target, id: &str) -> Result<About, A2AError> {
        self.tasks.get(&target.to_string(), id).ok_or_else(|| no_task(id))
    }

    fn snapshot(&self, about: &About, history: Option<i32>, artifacts: bool) -> Result<Task, A2AError> {
        let after = if artifacts { 0 } else { u64::MAX };
        let progress = self.service.calls().look(&about.id, after).ok_or_else(|| no_task(&about.id))?;
        Ok(about.task(&progress, history, artifacts))
    }

    /// How a task is now.
    pub(super) fn get(&self, target: &Target, request: &GetTaskRequest) -> Result<Task, A2AError> {
        check_history(request.history_length)?;
        self.snapshot(&self.about(target, &request.id)?, request.history_length, true)
    }

    /// Tasks of the agent, those that changed last first.
    pub(super) fn list(&self, target: &Target, request: &ListTasksRequest) -> Result<ListTasksResponse, A2AError> {
        check_history(request.history_length)?;
        let size = request.page_size.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&size) {
            return Err(A2AError::invalid_params(format!("pageSize is 1 to {MAX_PAGE}")));
        }
        let from = match request.page_token.as_deref().unwrap_or_default() {
            "" => None,
            token => {
                Some(Place::parse(token).ok_or_else(|| A2AError::invalid_params("pageToken is none of this list"))?)
            }
        };
        let calls = self.service.calls();
        let is_wanted = |state: &TaskState, since: SystemTime, about: &About| {
            let status = request.status.as_ref().filter(|status| **status != TaskState::Unspecified);
            let context = request.context_id.as_ref().filter(|context| !context.is_empty());
            status.is_none_or(|status| status == state)
                && context.is_none_or(|context| *context == about.context_id)
                && request.status_timestamp_after.is_none_or(|after| SystemTime::from(after) <= since)
        };
        let mut found: Vec<(Place, About)> = Vec::new();
        for (number, about) in self.tasks.of(&target.to_string()) {
            if let Some(head) = calls.head(&about.id)
                && is_wanted(&state_of(head.state, head.error.as_ref()), head.since, &about)
            {
                found.push((Place::new(head.since, number), about));
            }
        }
        let total = found.len();
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        found.retain(|(place, _)| from.is_none_or(|from| *place < from));
        let size = usize::try_from(size).unwrap_or_default();
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|(place, _)| place.token());
        let artifacts = request.include_artifacts.unwrap_or(false);
        // One may have been forgotten meanwhile.
        let tasks: Vec<Task> = found
            .iter()
            .filter_map(|(_, about)| self.snapshot(about, request.history_length, artifacts).ok())
            .collect();
        Ok(ListTasksResponse {
            page_size: i32::try_from(tasks.len()).unwrap_or(i32::MAX),
            tasks,
            next_page_token: next.unwrap_or_default(),
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
        })
    }

    /// Takes a task back.
    pub(super) async fn cancel(&self, target: &Target, request: &CancelTaskRequest) -> Result<Task, A2AError> {
        let about = self.about(target, &request.id)?;
        let calls = self.service.calls();
        let ended = || {
            let why = format!("task {:?} has ended: it stays as it is", about.id);
            A2AError::new(::a2a::error_code::TASK_NOT_CANCELABLE, why)
        };
        if calls.head(&about.id).is_none_or(|head| head.state.is_over()) {
            return Err(ended());
        }
        calls.cancel(&about.id).await.map_err(|_| no_task(&about.id))?;
        let task = self.snapshot(&about, None, true)?;
        // It may have ended by itself in that moment.
        if task.status.state == TaskState::Canceled { Ok(task) } else { Err(ended()) }
    }

    /// What happens to a task from now on.
    pub(super) fn subscribe(&self, target: &Target, request: &SubscribeToTaskRequest) -> Result<Follow, A2AError> {
        let about = self.about(target, &request.id)?;
        let head = self.service.calls().head(&about.id).ok_or_else(|| no_task(&about.id))?;
        if head.state.is_over() {
            let why = "the task has ended: nothing more will happen to it, GetTask tells how it ended";
            return Err(A2AError::unsupported_operation(why));
        }
        self.follow(about, None)
    }

    /// Posts news of a task to a web hook from now on.
    pub(super) fn set_hook(
        &self,
        target: &Target,
        config: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.about(target, &config.task_id)?;
        let config = self.sender.checked(config)?;
        self.add_hook(&config)?;
        Ok(config)
    }

    fn add_hook(&self, config: &TaskPushNotificationConfig) -> Result<(), A2AError> {
        let added = self.tasks.add_hook(config, |about| self.sender.start(about, config.clone()));
        added.map_err(A2AError::invalid_params)
    }

    /// A web hook of a task.
    pub(super) fn get_hook(
        &self,
        target: &Target,
        request: &GetTaskPushNotificationConfigRequest,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.about(target, &request.task_id)?;
        let mut hooks = self.tasks.hooks(&request.task_id).into_iter();
        hooks.find(|config| config.id.as_deref() == Some(request.id.as_str())).ok_or_else(|| {
            let shown: String = request.id.chars().take(64).collect();
            A2AError::new(::a2a::error_code::TASK_NOT_FOUND, format!("the task has no web hook {shown:?}"))
        })
    }

    /// The web hooks of a task: few enough for one page.
    pub(super) fn list_hooks(
        &self,
        target: &Target,
        request: &ListTaskPushNotificationConfigsRequest,
    ) -> Result<ListTaskPushNotificationConfigsResponse, A2AError> {
        self.about(target, &request.task_id)?;
        let configs = self.tasks.hooks(&request.task_id);
        Ok(ListTaskPushNotificationConfigsResponse { configs, next_page_token: None })
    }

    /// Posts there no longer. That it isn't there is what was wanted.
    pub(super) fn delete_hook(
        &self,
        target: &Target,
        request: &DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2AError> {
        self.about(target, &request.task_id)?;
        self.tasks.remove_hook(&request.task_id, &request.id);
        Ok(())
    }

    /// What is told to who has the token.
    pub(super) async fn extended_card(&self, target: &Target, headers: &HeaderMap) -> Result<AgentCard, A2AError> {
        let nothing = || A2AError::invalid_params(format!("nobody in the mesh offers {:?}", target.to_string()));
        cards::extended(self, target, headers).await.ok_or_else(nothing)
    }
}

const NOTHING_SAID: ::a2a::SendMessageConfiguration = ::a2a::SendMessageConfiguration {
    accepted_output_modes: None,
    task_push_notification_config: None,
    history_length: None,
    return_immediately: None,
};

fn check_history(length: Option<i32>) -> Result<(), A2AError> {
    match length {
        Some(length) if length < 0 => Err(A2AError::invalid_params("historyLength is 0 or more")),
        _ => Ok(()),
    }
}

/// An answer is JSON or text: whoever takes neither can't be served.
fn check_modes(accepted: &[String]) -> Result<(), A2AError> {
    let fits = |mode: &String| {
        let mode = mode.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        ["text", "text/plain", "text/*", "data", "application/json", "application/*", "*/*", "*"]
            .contains(&mode.as_str())
    };
    if accepted.is_empty() || accepted.iter().any(fits) {
        return Ok(());
    }
    let why = "agents of the mesh answer with application/json or text/plain: acceptedOutputModes has neither";
    Err(A2AError::new(::a2a::error_code::CONTENT_TYPE_NOT_SUPPORTED, why))
}

/// Where a task stands in a list: by the time of its last change, then by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128, u64);

impl Place {
    fn new(since: SystemTime, number: u64) -> Self {
        Self(since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros()), number)
    }

    fn token(self) -> String {
        format!("{}-{}", self.0, self.1)
    }

    fn parse(token: &str) -> Option<Self> {
        let (since, number) = token.split_once('-')?;
        Some(Self(since.parse().ok()?, number.parse().ok()?))
    }
}
