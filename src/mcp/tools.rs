//! Which tools there are, and what they take.

use std::time::Duration;

use rmcp::handler::server::tool::schema_for_type;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::Refusal;
use crate::service::Offer;

/// The longest wait in one tool call, in seconds.
pub(super) const MAX_WAIT_S: f64 = 600.0;

/// The longest time for a task, in seconds.
pub(super) const MAX_TIME_S: f64 = crate::limits::MAX_TTL_S as f64;

/// Who is looked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindAgents {
    /// The capability that is needed. Leave it out to see everybody.
    pub(super) capability: Option<String>,
}

/// A call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CallAgent {
    /// What is asked for, as find_agents shows it. May be left out when `node` offers one thing only.
    pub(super) capability: Option<String>,
    /// Whom to ask: a node's name, id, or the beginning of its id. Left out, the mesh chooses a provider.
    pub(super) node: Option<String>,
    /// What is handed over: any JSON that the agent understands.
    #[serde(default)]
    pub(super) payload: Value,
    /// The payload as JSON text instead, for numbers of more than 64 bits.
    pub(super) payload_json: Option<String>,
    /// How long the answer may take, in seconds. Default: 60, or a minute more than wait_for_agent_s.
    #[schemars(range(min = 0.001, max = 86400))]
    pub(super) timeout_s: Option<f64>,
    /// false: return at once with an id for check_call. Default: true.
    pub(super) wait: Option<bool>,
    /// How long to wait for an agent that is away, in seconds. Default: not at all.
    #[schemars(range(min = 0, max = 86400))]
    pub(super) wait_for_agent_s: Option<f64>,
}

/// Which call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckCall {
    /// The id that call_agent gave.
    pub(super) id: String,
    /// How long to wait for news, in seconds. Default: 0.
    #[schemars(range(min = 0, max = 600))]
    pub(super) wait_s: Option<f64>,
    /// Give only parts of the answer from this number on: the `next` of the last check. Default: 0, all that are kept.
    pub(super) after: Option<u64>,
}

/// Which call is taken back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelCall {
    /// The id that call_agent gave.
    pub(super) id: String,
}

/// What is offered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferTool {
    /// What you can do for others from now on.
    #[serde(default)]
    pub(super) capabilities: Vec<Offer>,
    /// Names that are offered no longer.
    #[serde(default)]
    pub(super) withdraw: Vec<String>,
}

/// Which task is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NextTask {
    /// How long to wait for a task, in seconds. Default: 45.
    #[schemars(range(min = 0, max = 600))]
    pub(super) wait_s: Option<f64>,
    /// How long you have until you reply or report progress, in seconds; then it goes to another agent. Default: 300.
    #[schemars(range(min = 1, max = 86400))]
    pub(super) lease_s: Option<f64>,
    /// Only tasks of these capabilities. Default: all that are offered.
    #[serde(default)]
    pub(super) capabilities: Vec<String>,
}

/// The answer to a task: `result`, `result_json` or `error`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyTool {
    /// The task, by the task_id that next_task gave.
    pub(super) task_id: String,
    /// The result: any JSON.
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
    /// The result as JSON text instead, for numbers of more than 64 bits.
    pub(super) result_json: Option<String>,
    /// Why there is no result, for the caller to read.
    pub(super) error: Option<String>,
}

/// How far a task is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProgressTool {
    /// The task, by the task_id that next_task gave.
    pub(super) task_id: String,
    /// How far you are, for the caller to read.
    pub(super) text: String,
}

/// An event.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishTool {
    /// What happened, such as build.failed.
    pub(super) event_type: String,
    /// What is to be known of it: any JSON.
    #[serde(default)]
    pub(super) data: Value,
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NextEvents {
    /// The type of event; * at the end covers every ending: build.* or *.
    pub(super) pattern: String,
    /// How long to wait for the first one, in seconds. Default: 45.
    #[schemars(range(min = 0, max = 600))]
    pub(super) wait_s: Option<f64>,
    /// Go on after this place, the `next` of an earlier answer. Default: where this session was with this pattern.
    pub(super) after: Option<String>,
}

/// Nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// That something stands there, `null` too.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// The arguments of a tool; what can't be read is told to the model, which can put it right.
pub(super) fn read<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(arguments.unwrap_or_default()))
        .map_err(|e| Refusal::bad_request(format!("the arguments don't fit this tool: {e}")))
}

/// A time in seconds, within bounds.
pub(super) fn seconds(name: &str, given: Option<f64>, default: f64, most: f64) -> Result<Duration, Refusal> {
    let seconds = given.unwrap_or(default);
    if !(0.0..=most).contains(&seconds) {
        return Err(Refusal::bad_request(format!("{name} is {seconds}: it may be 0 to {most} seconds")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time as it stands on the control socket.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a tool does to the world, as hints for a client that asks its user.
#[derive(Clone, Copy)]
enum Touches {
    /// Looks only.
    Nothing,
    /// Changes what was there before only in ways that can be done again or undone.
    Gently,
    /// Has others do something.
    Others,
    /// Takes something back.
    Ends,
}

fn tool<T: JsonSchema + 'static>(name: &'static str, title: &str, touches: Touches, description: &'static str) -> Tool {
    let (read_only, destructive, idempotent) = match touches {
        Touches::Nothing => (true, false, true),
        Touches::Gently => (false, false, true),
        Touches::Others => (false, false, false),
        Touches::Ends => (false, true, true),
    };
    let hints = ToolAnnotations::with_title(title)
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(true);
    Tool::new(name, description, schema_for_type::<T>()).with_title(title).with_annotations(hints)
}

/// All of them.
pub(super) fn all() -> Vec<Tool> {
    vec![
        tool::<FindAgents>(
            "find_agents",
            "Find agents",
            Touches::Nothing,
            "Who in the mesh can do something: names, what each offers, and whether its agent was there when last seen.",
        ),
        tool::<CallAgent>(
            "call_agent",
            "Call an agent",
            Touches::Others,
            "Hand a task to an agent and get its answer. Name the capability, or the node, or both. For work of minutes \
             use wait=false, then check_call.",
        ),
        tool::<CheckCall>(
            "check_call",
            "Check a call",
            Touches::Nothing,
            "How far a call is that was made with wait=false: its state, parts of the answer, and the outcome when it is done.",
        ),
        tool::<CancelCall>(
            "cancel_call",
            "Cancel a call",
            Touches::Ends,
            "Take back a call that was made with wait=false.",
        ),
        tool::<OfferTool>(
            "offer",
            "Offer capabilities",
            Touches::Gently,
            "Offer what you can do, so that other agents find and call you. Then take the tasks with next_task.",
        ),
        tool::<NextTask>(
            "next_task",
            "Take the next task",
            Touches::Others,
            "Wait for a task of what you offer, and take it. Do what its payload asks for, then reply with its task_id. \
             No task in time: call it again.",
        ),
        tool::<ReplyTool>(
            "reply",
            "Answer a task",
            Touches::Others,
            "Answer a task from next_task: its result, or an error that says why not.",
        ),
        tool::<ProgressTool>(
            "progress",
            "Report progress",
            Touches::Others,
            "Tell the caller of a task how far you are. Your lease on the task begins anew: use it in long work.",
        ),
        tool::<PublishTool>(
            "publish",
            "Publish an event",
            Touches::Others,
            "Tell every agent that is interested in this type of event what happened. Nobody answers.",
        ),
        tool::<NextEvents>(
            "next_events",
            "Hear events",
            Touches::Nothing,
            "Events of a pattern since you asked last. The first call begins to listen; nothing from before is heard.",
        ),
        tool::<Nothing>("peers", "Connected peers", Touches::Nothing, "The nodes that this one is connected to."),
        tool::<Nothing>(
            "status",
            "This node",
            Touches::Nothing,
            "This node: its name and id, what it offers, how it is connected, and how many tasks wait here.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_reads_every_tool_in_little_time() {
        let tools = all();
        assert_eq!(tools.len(), 12);
        for tool in &tools {
            let text = tool.description.as_deref().unwrap_or_default();
            assert!((20..300).contains(&text.len()), "{}: {text:?}", tool.name);
            assert_eq!(tool.input_schema["type"], "object", "{}", tool.name);
            assert_eq!(tool.input_schema["additionalProperties"], false, "{}", tool.name);
            let properties = tool.input_schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                assert!(property["description"].is_string(), "{}.{name} is not described", tool.name);
            }
        }
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(seconds("wait_s", None, 45.0, 600.0), Ok(Duration::from_secs(45)));
        for wrong in [-1.0, 600.1, f64::NAN, f64::INFINITY] {
            assert!(seconds("wait_s", Some(wrong), 45.0, 600.0).is_err(), "{wrong}");
        }
    }
}
