//! The commands of the prompt: each runs beside the others, its answer scrolls above the prompt.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::task::JoinSet;

use crate::control::{CallArgs, FindArgs, NoArgs, Progress, PublishArgs, Shared, op};

use crate::cli::failure::Failure;
use crate::cli::output::{Lines, Output};
use crate::cli::{access, call, mesh, render, text, values};

/// How many commands may run at once: a person doesn't wait for more.
const MAX_JOBS: usize = 16;

/// How long a call from the prompt may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call may look around before that is told.
const QUIET: Duration = Duration::from_secs(1);

/// How long a search from the prompt asks the mesh.
const FIND_WAIT: Duration = Duration::from_secs(2);

/// The commands there are.
pub(super) const COMMANDS: &[&str] =
    &["access", "allow", "call", "caps", "deny", "find", "help", "id", "peers", "publish", "quit", "revoke", "status"];

const HELP: &str = "\
peers                  who is connected
find [CAPABILITY]      who provides it
call CAPABILITY [--to NODE] [PAYLOAD]
                       hand over a task; PAYLOAD is the rest of the line, JSON or text
publish TYPE [DATA]    tell those who are interested; DATA is the rest of the line, JSON or text
allow ID [# NOTE]      let a node in; deny ID [# NOTE] shuts it out, revoke ID takes either back
access                 who is allowed and denied
caps                   what this node provides
status                 this node's state
id                     this node's id
quit                   stop the node
";

/// The commands at work. Dropping it ends them; calls among them are cancelled.
pub(super) struct Jobs {
    shared: Shared,
    out: Output,
    lines: Lines,
    running: JoinSet<()>,
}

impl Jobs {
    pub(super) fn new(shared: Shared, out: Output, lines: Lines) -> Self {
        Self { shared, out, lines, running: JoinSet::new() }
    }

    /// Starts a command; `false`: the node is to stop.
    pub(super) fn start(&mut self, line: &str) -> bool {
        let (command, rest) = first_word(line);
        if matches!(command, "quit" | "exit") {
            return false;
        }
        if self.running.len() >= MAX_JOBS {
            self.lines.print("too many commands are running; wait for one to end".to_owned());
            return true;
        }
        let (command, rest) = (command.to_owned(), rest.to_owned());
        let (shared, out, lines) = (self.shared.clone(), self.out.clone(), self.lines.clone());
        self.running.spawn(async move {
            match perform(&shared, &out, &lines, &command, &rest).await {
                Ok(answer) => lines.print(answer),
                Err(failure) => {
                    let hint = failure.hint.map(|hint| format!("\n     {}", text::line(&hint))).unwrap_or_default();
                    lines.print(format!("elo: {}{hint}", text::block(&failure.message)));
                }
            }
        });
        true
    }

    /// Completes when one of them has ended.
    pub(super) async fn ended(&mut self) {
        if self.running.join_next().await.is_none() {
            std::future::pending().await
        }
    }
}

fn first_word(line: &str) -> (&str, &str) {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

/// Where the node's lists stand.
fn access_file(shared: &Shared) -> Result<PathBuf, Failure> {
    let file = shared.node.get().status().access.file;
    file.map(|file| PathBuf::from(file.path)).ok_or_else(|| Failure::new("this node has no access file"))
}

async fn perform(shared: &Shared, out: &Output, lines: &Lines, command: &str, rest: &str) -> Result<String, Failure> {
    let terminal = out.terminal;
    let mut way = mesh::inside(shared);
    Ok(match command {
        "help" | "?" => HELP.to_owned(),
        "id" => shared.node.get().id().to_string(),
        "peers" => {
            let peers = way.list(op::PEERS, &NoArgs {}).await?;
            if peers.is_empty() { "no peers are connected".to_owned() } else { render::peers(terminal, &peers) }
        }
        "status" => render::status(terminal, &mesh::value(&way.ask(op::STATUS, &NoArgs {}, |_| Ok(())).await?)?),
        "caps" => {
            let status = mesh::value(&way.ask(op::STATUS, &NoArgs {}, |_| Ok(())).await?)?;
            render::provided(terminal, &status["capabilities"])
        }
        "find" => {
            let wait_ms = u64::try_from(FIND_WAIT.as_millis()).unwrap_or(u64::MAX);
            let found = way.list(op::FIND, &FindArgs { capability: rest.to_owned(), wait_ms }).await?;
            if found.is_empty() {
                format!("nobody provides {}", text::line(rest))
            } else {
                render::nodes(terminal, &found)
            }
        }
        "access" => access::list_at_prompt(&mut way, &access_file(shared)?).await?,
        "allow" | "deny" | "revoke" => access::at_prompt(&mut way, &access_file(shared)?, command, rest).await?,
        "publish" => {
            let (event_type, data) = first_word(rest);
            let event_type =
                values::name(event_type).map_err(|e| Failure::usage(format!("publish TYPE [DATA]: {e}")))?;
            let published = way
                .ask(op::PUBLISH, &PublishArgs { event_type, data: payload(data)?, to: Vec::new() }, |_| Ok(()))
                .await?;
            format!("published {}", text::line(mesh::value(&published)?["id"].as_str().unwrap_or_default()))
        }
        "call" => {
            let request = parse_call(rest)?;
            let outcome = patiently(&mut way, &request, lines).await?;
            let answer = out.payload_text(&call::payload_of(&outcome)?, true);
            format!("{answer}{}", render::trace(&mesh::value(&outcome)?).lines().next().unwrap_or_default())
        }
        unknown => {
            let near = text::closest(unknown, COMMANDS).map(|c| format!("did you mean {c:?}? ")).unwrap_or_default();
            return Err(Failure::usage(format!("unknown command {:?}", text::line(unknown)))
                .hint(format!("{near}`help` lists the commands")));
        }
    })
}

/// Calls; a silence of more than a moment is explained above the prompt.
async fn patiently(way: &mut mesh::Way, request: &CallArgs, lines: &Lines) -> Result<Box<RawValue>, Failure> {
    let start = Instant::now();
    let latest = Mutex::new(None);
    let tell = |progress: &Progress| lines.print(text::line(&render::progress(&request.capability, progress)));
    let watch = |progress: Progress| {
        if start.elapsed() >= QUIET {
            tell(&progress);
        }
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    };
    let mut asked = pin!(way.ask_and_watch(op::CALL, request, |_| Ok(()), watch));
    match tokio::time::timeout(QUIET, &mut asked).await {
        Ok(asked) => asked,
        Err(_) => {
            let late = latest.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(progress) = &late {
                tell(progress);
            }
            asked.await
        }
    }
}

fn payload(text: &str) -> Result<Box<serde_json::value::RawValue>, Failure> {
    // `-` is stdin for the command line; here a person types into that very stdin.
    match text {
        "" => values::payload(None),
        "-" => Err(Failure::usage("the prompt reads no payload from stdin").hint("use `elo call` in another terminal")),
        text => values::payload(Some(text)),
    }
}

fn parse_call(rest: &str) -> Result<CallArgs, Failure> {
    let usage = |e: String| Failure::usage(format!("call CAPABILITY [--to NODE] [PAYLOAD]: {e}"));
    let (capability, mut rest) = first_word(rest);
    let mut to = None;
    if let ("--to", more) = first_word(rest) {
        let (node, more) = first_word(more);
        if node.is_empty() {
            return Err(usage("after --to stands a node's name or id".to_owned()));
        }
        to = Some(node.to_owned());
        rest = more;
    }
    let named = to.is_some();
    Ok(CallArgs {
        capability: values::name(capability).map_err(usage)?,
        payload: payload(rest)?,
        to,
        via: None,
        once: false,
        timeout_ms: u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        stream: false,
        local: named || !call::BUILT_IN.contains(&capability),
        progress: true,
        wait_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_the_rest_of_the_line() {
        let call = parse_call("sum --to box  {\"a\": 1, \"b\":  2}").unwrap();
        assert_eq!((call.capability.as_str(), call.to.as_deref()), ("sum", Some("box")));
        assert_eq!(call.payload.get(), "{\"a\": 1, \"b\":  2}");
        let call = parse_call("say hello  world").unwrap();
        assert_eq!(call.payload.get(), "\"hello  world\"");
        assert_eq!(parse_call("say").unwrap().payload.get(), "null");
        for bad in ["", "say --to", "say -"] {
            assert_eq!(parse_call(bad).unwrap_err().exit, 2, "{bad}");
        }
    }
}
