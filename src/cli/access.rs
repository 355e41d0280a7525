//! `elo allow`, `elo deny`, `elo revoke ID`, `elo access`: who is let in.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::access_file::{self, Edit, Fault, Verb};
use crate::control::{AccessArgs, op};
use crate::identity::NodeId;
use crate::node::keys;

use super::App;
use super::failure::{Failure, OK};
use super::{mesh, render, text, values};

const AFTER_ALLOW: &str = "\
Examples:
  elo allow ID                          lets a node in that `elo id` names so
  elo allow ID ID --note 'machines of mine'
  elo allow                             lists who is allowed and denied

The line stands in HOME/access from then on, and a running node takes it at once. On a private node \
(`elo serve --private`) only those allowed are let in. On a public one everybody is who isn't denied.

Exit codes: 0 done, 1 the file can't be used or the running node did not take it, 2 wrong usage.";

const AFTER_DENY: &str = "\
Examples:
  elo deny ID
  elo deny ID --note 'floods us'

A running node closes the denied node's connection with NOT_ALLOWED, answers and stops its running tasks, forgets what it \
knows of it, and refuses what it says through others as well. The line stands in HOME/access from then on.

Exit codes: 0 done, 1 the file can't be used or the running node did not take it, 2 wrong usage.";

const AFTER_ACCESS: &str = "\
Examples:
  elo access
  elo access --json | jq -r 'select(.access == \"deny\").node_id'
  elo access --json | jq 'select(.access == \"replaced\")'

HOME/access may be edited by hand: a line is `allow ID  # note` or `deny ID  # note`. A running node takes a change within \
seconds; a file that can't be used changes nothing, and `elo status` says so.

Below the lists stand the nodes that were followed to a new id (`elo rotate`; what names the old id means the new one), and \
those whose ids their owners revoked. In JSON their \"access\" is \"replaced\", with \"new\", or \"revoked\". Those that mean \
nothing to this node (\"share\": \"other\") are only counted.

Exit codes: 0 success, 1 the file can't be used.";

/// Let nodes in: write them into HOME/access
#[derive(Debug, Args)]
#[command(after_help = AFTER_ALLOW)]
pub(super) struct AllowArgs {
    /// The nodes, by their full ids; without any, those allowed and denied are listed
    #[arg(value_name = "ID", value_parser = values::node_id)]
    ids: Vec<NodeId>,
    /// What is to stand behind them in the file
    #[arg(long, value_name = "TEXT", value_parser = note, requires = "ids")]
    note: Option<String>,
}

/// Shut nodes out: write them into HOME/access
#[derive(Debug, Args)]
#[command(after_help = AFTER_DENY)]
pub(super) struct DenyArgs {
    /// The nodes, by their full ids
    #[arg(value_name = "ID", value_parser = values::node_id, required = true)]
    ids: Vec<NodeId>,
    /// What is to stand behind them in the file
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

/// List who is allowed, denied, followed to a new id, and revoked
#[derive(Debug, Args)]
#[command(after_help = AFTER_ACCESS)]
pub(super) struct AccessListArgs {}

/// One id in 64 begins with a hyphen, as flags do. With a blank before it, which its parser passes over, it is none.
pub(super) fn with_blanks(mut args: Vec<OsString>) -> Vec<OsString> {
    let commands = ["allow", "deny", "revoke"];
    let begin = args.iter().position(|arg| commands.iter().any(|c| arg == c)).unwrap_or(args.len());
    for arg in args.iter_mut().skip(begin) {
        if let Some(text) = arg.to_str()
            && text.starts_with('-')
            && text.parse::<NodeId>().is_ok()
        {
            *arg = format!(" {text}").into();
        }
    }
    args
}

fn note(text: &str) -> Result<String, String> {
    /// A line that fits on a screen, twice over.
    const MOST: usize = 160;
    match text.chars().count() {
        ..=MOST => Ok(text.to_owned()),
        _ => Err(format!("a note has at most {MOST} characters")),
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::new(format!("the access file can't be used: {fault}")).code("ACCESS_FILE")
    }
}

pub(super) fn allow(app: &App, args: AllowArgs) -> Result<u8, Failure> {
    match args.ids.as_slice() {
        [] => list(app, AccessListArgs {}),
        ids => change(app, ids, Edit::Set(Verb::Allow, args.note.as_deref())),
    }
}

pub(super) fn deny(app: &App, args: DenyArgs) -> Result<u8, Failure> {
    change(app, &args.ids, Edit::Set(Verb::Deny, args.note.as_deref()))
}

/// Takes back what was allowed or denied.
pub(super) fn take_back(app: &App, ids: &[NodeId]) -> Result<u8, Failure> {
    change(app, ids, Edit::Remove)
}

/// What an edit came to.
struct Changed {
    before: Vec<(NodeId, Option<Verb>)>,
    now: Option<Verb>,
    /// What the running node says, if there is one.
    node: Option<Value>,
}

/// Edits the file, and has the running node read it.
async fn edit(path: &Path, ids: &[NodeId], edit: Edit<'_>, way: Option<&mut mesh::Way>) -> Result<Changed, Failure> {
    let before = access_file::edit(path, ids, edit)?;
    let now = match edit {
        Edit::Set(verb, _) => Some(verb),
        Edit::Remove => None,
    };
    let node = match way {
        Some(way) => {
            let asked = AccessArgs { reload: true, list: false, ids: ids.to_vec() };
            let taken = way.ask(op::ACCESS, &asked, |_| Ok(())).await.map_err(|failure| Failure {
                message: format!(
                    "it stands in {}, but the running node did not take it: {}",
                    path.display(),
                    failure.message
                ),
                ..failure
            })?;
            Some(mesh::value(&taken)?)
        }
        None => None,
    };
    Ok(Changed { before, now, node })
}

impl Changed {
    /// For people.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.before.iter().map(|(id, was)| said(id, *was, self.now)).collect();
        match &self.node {
            None => lines.push("no node is running here: it counts from the next start".to_owned()),
            Some(node) => {
                lines.push("the running node has taken it".to_owned());
                lines.extend(surprises(node, self.now));
            }
        }
        lines
    }
}

fn change(app: &App, ids: &[NodeId], what: Edit<'_>) -> Result<u8, Failure> {
    let path = app.home.join(access_file::NAME);
    app.block_on(async {
        let mut way = mesh::running_or_none(app).await?;
        let done = edit(&path, ids, what, way.as_mut()).await?;
        if app.out.json {
            let (now, node) = (done.now.map(Verb::as_str), &done.node);
            let changes: Vec<Value> = done
                .before
                .iter()
                .map(|(id, was)| json!({ "node_id": id, "before": was.map(Verb::as_str), "now": now }))
                .collect();
            app.out
                .json(&json!({ "file": path.display().to_string(), "changes": changes, "running": node.is_some(),
                "access": node.as_ref().map(|n| &n["access"]), "decisions": node.as_ref().map(|n| &n["decisions"]) }))?;
            return Ok(OK);
        }
        done.lines().iter().try_for_each(|line| app.out.line(line))?;
        Ok(OK)
    })
}

/// `allow`, `deny` and `revoke` at the prompt of the node itself: `COMMAND ID.. [# NOTE]`.
pub(super) async fn at_prompt(way: &mut mesh::Way, path: &Path, command: &str, rest: &str) -> Result<String, Failure> {
    let usage = |why: String| Failure::usage(format!("{command} ID [# NOTE]: {why}"));
    let (ids, text) = match rest.split_once('#') {
        Some((ids, text)) => (ids, Some(note(text.trim()).map_err(usage)?)),
        None => (rest, None),
    };
    let ids: Result<Vec<NodeId>, _> = ids.split_whitespace().map(values::node_id).collect();
    let ids = ids.map_err(usage)?;
    if ids.is_empty() {
        return Err(usage("which node? `elo id` there prints its id".to_owned()));
    }
    let what = match command {
        "allow" => Edit::Set(Verb::Allow, text.as_deref()),
        "deny" => Edit::Set(Verb::Deny, text.as_deref()),
        _ => Edit::Remove,
    };
    Ok(edit(path, &ids, what, Some(way)).await?.lines().join("\n"))
}

/// The lists at the prompt.
pub(super) async fn list_at_prompt(way: &mut mesh::Way, path: &Path) -> Result<String, Failure> {
    let mut entries = in_file(path)?;
    let asked = AccessArgs { list: true, ..AccessArgs::default() };
    let done = way
        .ask(op::ACCESS, &asked, |item| {
            entries.push(mesh::value(&item)?);
            Ok(())
        })
        .await?;
    Ok(format!("{}\n{}", text::line(&render::admission(&mesh::value(&done)?["access"])), render::access(&entries)))
}

/// What became of one id's line.
fn said(id: &NodeId, was: Option<Verb>, now: Option<Verb>) -> String {
    let word = |verb| if verb == Verb::Allow { "allowed" } else { "denied" };
    match (was, now) {
        (was, Some(now)) if was == Some(now) => format!("{id} is {} already", word(now)),
        (Some(was), Some(now)) => format!("{} {id}, which was {}", word(now), word(was)),
        (None, Some(now)) => format!("{} {id}", word(now)),
        (Some(was), None) => format!("{id} is no longer {}", word(was)),
        (None, None) => format!("{id} was neither allowed nor denied in the file"),
    }
}

/// What the running node makes of it, where that may not be what was meant.
fn surprises(node: &Value, now: Option<Verb>) -> Vec<String> {
    let private = node["access"]["private"] == true;
    let mut lines = Vec::new();
    for one in node["decisions"].as_array().into_iter().flatten() {
        let id = one["node_id"].as_str().unwrap_or_default();
        match (one["decision"].as_str().unwrap_or_default(), now) {
            ("denied", Some(Verb::Allow) | None) => {
                lines.push(format!("{id} is denied by the node's own settings still"))
            }
            ("admitted", None) if private => lines.push(format!("{id} is allowed by the node's own settings still")),
            _ => {}
        }
    }
    if !private && now == Some(Verb::Allow) {
        lines.push(
            "the node is public: whoever isn't denied is let in anyway (`elo serve --private` changes that)".to_owned(),
        );
    }
    lines
}

/// The lines of the file.
fn in_file(path: &Path) -> Result<Vec<Value>, Failure> {
    let source = access_file::read(path)?.map(|(text, _)| text).unwrap_or_default();
    let entry = |e: access_file::Entry| json!({ "access": e.verb.as_str(), "node_id": e.node, "source": "file", "line": e.line, "note": e.note });
    Ok(access_file::parse(&source, path)?.into_iter().map(entry).collect())
}

pub(super) fn list(app: &App, _args: AccessListArgs) -> Result<u8, Failure> {
    let path = app.home.join(access_file::NAME);
    let mut entries = in_file(&path)?;
    app.block_on(async {
        let mut node = None;
        if let Some(mut way) = mesh::running_or_none(app).await? {
            let asked = AccessArgs { list: true, ..AccessArgs::default() };
            let done = way
                .ask(op::ACCESS, &asked, |item| {
                    entries.push(mesh::value(&item)?);
                    Ok(())
                })
                .await?;
            node = Some(mesh::value(&done)?);
        } else {
            let known = app.home.join(keys::NAME);
            match keys::listed_in(&known) {
                Ok(statements) => entries.extend(statements),
                Err(e) => tracing::warn!("who was followed or revoked can't be read from {}: {e}", known.display()),
            }
        }
        if app.out.json {
            entries.iter().try_for_each(|entry| app.out.json(entry))?;
            return Ok(OK);
        }
        let head = node.as_ref().map(|node| render::admission(&node["access"]));
        app.out.line(&head.unwrap_or_else(|| "no node is running here".to_owned()))?;
        app.out.block(&render::access(&entries))?;
        Ok(OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_begin_with_a_hyphen_and_flags_may_come_after() {
        use clap::Parser as _;
        let ids = (0..=u8::MAX).map(|n| crate::identity::Identity::from_seed([n; 32]).id().to_string());
        let id = ids.into_iter().find(|id| id.starts_with('-')).unwrap();
        for line in [["elo", "deny", &id, "--note", "x"], ["elo", "allow", "--note", "x", &id]] {
            let args = with_blanks(line.iter().map(OsString::from).collect());
            crate::cli::Cli::try_parse_from(args).unwrap();
        }
    }

    #[test]
    fn it_is_said_what_an_edit_came_to() {
        let id = crate::identity::Identity::from_seed([1; 32]).id();
        let (allow, deny) = (Some(Verb::Allow), Some(Verb::Deny));
        assert_eq!(said(&id, None, allow), format!("allowed {id}"));
        assert_eq!(said(&id, allow, allow), format!("{id} is allowed already"));
        assert_eq!(said(&id, allow, deny), format!("denied {id}, which was allowed"));
        assert_eq!(said(&id, deny, None), format!("{id} is no longer denied"));
        assert!(said(&id, None, None).contains("neither"));
    }

    #[test]
    fn what_the_settings_say_still_is_told() {
        let node = |private, decision| json!({"access": {"private": private}, "decisions": [{"node_id": "x", "decision": decision}]});
        assert!(surprises(&node(true, "denied"), Some(Verb::Allow))[0].contains("denied by the node's own settings"));
        assert!(surprises(&node(true, "admitted"), None)[0].contains("allowed by the node's own settings"));
        assert!(surprises(&node(false, "admitted"), Some(Verb::Allow))[0].contains("public"));
        assert!(surprises(&node(true, "admitted"), Some(Verb::Allow)).is_empty());
        assert!(surprises(&node(false, "denied"), Some(Verb::Deny)).is_empty());
    }
}
