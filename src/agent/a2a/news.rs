//! What is known of a task that an outside agent works on.

use std::collections::VecDeque;

use ::a2a::{
    Artifact, Message, Part, PartContent, SendMessageResponse, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState,
};
use serde_json::{Value, json};

use super::card::cut;
use crate::a2a::{CHUNKS, parts};
use crate::limits::MAX_PAYLOAD;

/// The most artifacts, and bytes of them, that are kept for the result.
const MAX_ARTIFACTS: usize = 256;
const MAX_KEPT: usize = 4 * MAX_PAYLOAD;

/// Most characters of what an agent says that are told.
const MAX_TOLD: usize = 500;

/// A task, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Its id, once it is known.
    pub(super) task_id: Option<String>,
    state: TaskState,
    said: Option<Message>,
    artifacts: Vec<Artifact>,
    kept: usize,
    /// An agent may answer with a message, and no task.
    answer: Option<Message>,
    chunks: VecDeque<Value>,
}

/// How it ended, or where it stands.
#[derive(Debug, PartialEq)]
pub(super) enum Stand {
    /// It is worked on.
    Open,
    /// It is done: the result.
    Done(Value),
    /// It failed.
    Failed(String),
    /// It was refused.
    Rejected(String),
    /// It was taken back by the agent.
    Canceled(String),
    /// The agent wants something that nobody here can give: what.
    Wants(String),
}

impl News {
    /// An event of a stream. The error says what is wrong about it.
    pub(super) fn event(&mut self, event: Value) -> Result<(), String> {
        let event = serde_json::from_value(event).map_err(|e| format!("an event of its stream can't be read: {e}"))?;
        match event {
            StreamResponse::Task(task) => self.task(task),
            StreamResponse::Message(message) => {
                self.answer = Some(message);
                Ok(())
            }
            StreamResponse::StatusUpdate(update) => {
                self.known_as(update.task_id);
                (self.state, self.said) = (update.status.state, update.status.message);
                Ok(())
            }
            StreamResponse::ArtifactUpdate(update) => {
                self.known_as(update.task_id.clone());
                self.artifact(update)
            }
        }
    }

    /// The answer to a message.
    pub(super) fn response(&mut self, response: Value) -> Result<(), String> {
        match serde_json::from_value(response).map_err(|e| format!("its answer can't be read: {e}"))? {
            SendMessageResponse::Task(task) => self.task(task),
            SendMessageResponse::Message(message) => {
                self.answer = Some(message);
                Ok(())
            }
        }
    }

    /// The task as it was asked for.
    pub(super) fn polled(&mut self, task: Value) -> Result<(), String> {
        self.task(serde_json::from_value(task).map_err(|e| format!("its task can't be read: {e}"))?)
    }

    fn known_as(&mut self, id: String) {
        if self.task_id.is_none() && !id.is_empty() {
            self.task_id = Some(id);
        }
    }

    fn task(&mut self, task: Task) -> Result<(), String> {
        self.known_as(task.id);
        (self.state, self.said) = (task.status.state, task.status.message);
        if let Some(artifacts) = task.artifacts {
            self.artifacts.clear();
            self.kept = 0;
            artifacts.into_iter().try_for_each(|artifact| self.keep(artifact))?;
        }
        Ok(())
    }

    fn keep(&mut self, artifact: Artifact) -> Result<(), String> {
        self.grow(&artifact.parts)?;
        if self.artifacts.len() >= MAX_ARTIFACTS {
            return Err(format!("its answer has more than {MAX_ARTIFACTS} artifacts"));
        }
        self.artifacts.push(artifact);
        Ok(())
    }

    fn grow(&mut self, parts: &[Part]) -> Result<(), String> {
        self.kept += serde_json::to_vec(parts).map_or(0, |json| json.len());
        if self.kept > MAX_KEPT { Err(format!("its answer has more than {MAX_KEPT} bytes")) } else { Ok(()) }
    }

    fn artifact(&mut self, update: TaskArtifactUpdateEvent) -> Result<(), String> {
        let TaskArtifactUpdateEvent { artifact, append, last_chunk, .. } = update;
        let append = append.unwrap_or(false);
        // What is whole at once is the result, and no part of it.
        let whole = !append && last_chunk.unwrap_or(false);
        if !whole && !artifact.parts.is_empty() {
            self.chunks.push_back(reduced(&artifact.parts));
        }
        let at = self.artifacts.iter().position(|known| known.artifact_id == artifact.artifact_id);
        match at {
            Some(at) if append => {
                self.grow(&artifact.parts)?;
                self.artifacts[at].parts.extend(artifact.parts);
                Ok(())
            }
            Some(at) => {
                self.grow(&artifact.parts)?;
                self.artifacts[at] = artifact;
                Ok(())
            }
            None => self.keep(artifact),
        }
    }

    /// A part of the answer that was not taken yet.
    pub(super) fn chunk(&mut self) -> Option<Value> {
        self.chunks.pop_front()
    }

    /// Where it stands.
    pub(super) fn stand(&self) -> Stand {
        if let Some(message) = &self.answer {
            return Stand::Done(reduced(&message.parts));
        }
        let said = || self.said.as_ref().map(|message| text_of(&message.parts)).filter(|text| !text.is_empty());
        let why = |short: &str| match said() {
            Some(said) => format!("{short}: {said}"),
            None => short.to_owned(),
        };
        match self.state {
            TaskState::Unspecified | TaskState::Submitted | TaskState::Working => Stand::Open,
            TaskState::Completed => Stand::Done(self.result()),
            TaskState::Failed => Stand::Failed(why("the A2A agent says that it failed")),
            TaskState::Rejected => Stand::Rejected(why("the A2A agent rejects it")),
            TaskState::Canceled => Stand::Canceled(why("the A2A agent has cancelled it")),
            TaskState::InputRequired => Stand::Wants(why(
                "the A2A agent asks for more input (INPUT_REQUIRED), and a task of the mesh is one message: say it all at once",
            )),
            TaskState::AuthRequired => Stand::Wants(why(
                "the A2A agent asks for authentication (AUTH_REQUIRED), which its owner has to arrange",
            )),
        }
    }

    fn result(&self) -> Value {
        let is_result = |artifact: &&Artifact| {
            artifact.metadata.as_ref().is_none_or(|metadata| metadata.get(CHUNKS) != Some(&json!(true)))
        };
        let artifacts: Vec<&Artifact> = self.artifacts.iter().filter(is_result).collect();
        match artifacts.as_slice() {
            [] => self.said.as_ref().map_or(Value::Null, |message| reduced(&message.parts)),
            [one] => reduced(&one.parts),
            several => {
                let all: Vec<Part> = several.iter().flat_map(|artifact| joined(&artifact.parts)).collect();
                parts::to_payload(&all).unwrap_or_default()
            }
        }
    }
}

/// Parts as a payload: text in pieces is one text.
fn reduced(parts: &[Part]) -> Value {
    parts::to_payload(&joined(parts)).unwrap_or_default()
}

fn joined(parts: &[Part]) -> Vec<Part> {
    let is_text = |part: &Part| part.as_text().is_some() && part.filename.is_none() && part.metadata.is_none();
    if parts.len() > 1 && parts.iter().all(is_text) {
        vec![Part::text(parts.iter().filter_map(Part::as_text).collect::<String>())]
    } else {
        parts.to_vec()
    }
}

fn text_of(parts: &[Part]) -> String {
    let texts: Vec<String> = parts
        .iter()
        .map(|part| match &part.content {
            PartContent::Text(text) => text.clone(),
            PartContent::Data(data) => data.to_string(),
            PartContent::Raw(_) => "a file".to_owned(),
            PartContent::Url(url) => url.clone(),
        })
        .collect();
    cut(&texts.join(" "), MAX_TOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(id: &str, parts: Value, append: bool, last: bool) -> Value {
        json!({"artifactUpdate": {"taskId": "t", "contextId": "c", "append": append, "lastChunk": last,
            "artifact": {"artifactId": id, "parts": parts}}})
    }

    fn status(state: &str) -> Value {
        json!({"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": state,
            "message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "well"}]}}}})
    }

    #[test]
    fn text_in_pieces_becomes_one_text() {
        let mut news = News::default();
        news.event(json!({"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_SUBMITTED"}}}))
            .unwrap();
        assert_eq!(news.task_id.as_deref(), Some("t"));
        news.event(update("a", json!([{"text": "Hel"}]), false, false)).unwrap();
        news.event(update("a", json!([{"text": "lo"}]), true, true)).unwrap();
        assert_eq!(news.stand(), Stand::Open);
        assert_eq!((news.chunk(), news.chunk(), news.chunk()), (Some(json!("Hel")), Some(json!("lo")), None));
        news.event(status("TASK_STATE_COMPLETED")).unwrap();
        assert_eq!(news.stand(), Stand::Done(json!("Hello")));
    }

    #[test]
    fn what_a_gateway_of_ours_says_comes_out_as_it_went_in() {
        let mut news = News::default();
        let mut chunk = update("chunks", json!([{"data": 1}]), false, false);
        chunk["artifactUpdate"]["artifact"]["metadata"] = json!({"elo.chunks": true});
        news.event(chunk).unwrap();
        news.event(update("result", json!([{"data": {"sum": 3}}]), false, true)).unwrap();
        news.event(status("TASK_STATE_COMPLETED")).unwrap();
        assert_eq!((news.chunk(), news.chunk()), (Some(json!(1)), None));
        assert_eq!(news.stand(), Stand::Done(json!({"sum": 3})));
    }

    #[test]
    fn every_end_is_told_as_it_is() {
        let stand = |state: &str| {
            let mut news = News::default();
            news.event(status(state)).unwrap();
            news.stand()
        };
        assert_eq!(stand("TASK_STATE_WORKING"), Stand::Open);
        assert_eq!(stand("TASK_STATE_COMPLETED"), Stand::Done(json!("well")));
        assert!(matches!(stand("TASK_STATE_FAILED"), Stand::Failed(why) if why.ends_with(": well")));
        assert!(matches!(stand("TASK_STATE_REJECTED"), Stand::Rejected(_)));
        assert!(matches!(stand("TASK_STATE_CANCELED"), Stand::Canceled(_)));
        assert!(matches!(stand("TASK_STATE_INPUT_REQUIRED"), Stand::Wants(why) if why.contains("INPUT_REQUIRED")));
        assert!(matches!(stand("TASK_STATE_AUTH_REQUIRED"), Stand::Wants(why) if why.contains("AUTH_REQUIRED")));
        let mut news = News::default();
        news.response(json!({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"data": [1]}]}})).unwrap();
        assert_eq!(news.stand(), Stand::Done(json!([1])));
    }

    #[test]
    fn endless_answers_are_left() {
        let mut news = News::default();
        let long = "x".repeat(1024 * 1024);
        let grown = (0..8).try_for_each(|_| news.event(update("a", json!([{"text": long}]), true, false)));
        assert!(grown.unwrap_err().contains("more than"));
        let mut news = News::default();
        let grown = (0..300).try_for_each(|n| news.event(update(&n.to_string(), json!([{"text": ""}]), false, true)));
        assert!(grown.unwrap_err().contains("artifacts"));
        for wrong in [json!(1), json!({}), json!({"task": {}}), json!({"statusUpdate": {"status": {"state": "X"}}})] {
            assert!(News::default().event(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
