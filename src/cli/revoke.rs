//! `elo revoke --self`: says that a key is void; `--statement`: publishes what was said before; with ids: takes back what
//! was allowed or denied.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::control::{RevokeArgs as Request, op};
use crate::identity::NodeId;
use crate::node::keys;
use crate::private_file::{read_bounded, write_new};
use crate::wire::Revocation;

use super::App;
use super::failure::{Failure, NOT_DELIVERED, OK};
use super::{access, mesh, output, unlock, values};

/// The most bytes of a file with a statement.
const MAX_FILE: u64 = 16 * 1024;

/// How long a command's own node looks for peers.
const CONNECT: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Examples:
  elo revoke ID                                 takes back allow or deny
  elo revoke --self --reason 'laptop stolen'    tells everybody, for good
  elo revoke --self --out revocation.json       makes it, and tells nobody
  elo revoke --statement revocation.json        tells all, without the key
  elo revoke --self --key identity.seed.bak-1   ends a key rotated away

With ids: their lines are taken out of HOME/access, and a running node takes that at once.

With --self: who hears of it lets nobody in with that id any more, whatever it signs. Nothing takes it back. It goes through the node \
that runs in this home, else through a short-lived one. A node whose own id was revoked stops; `elo init --force` gives \
it a new one.

Make a statement now with --out and keep it elsewhere: it works when the key is lost. Who has it can publish it.

Exit codes: 0 told, 1 failed, 2 wrong usage, 3 nobody could be told, 5 wrong passphrase, or none to be had.";

/// Take back what was allowed or denied; with --self: declare a key void, for good
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RevokeArgs {
    /// The nodes that are to be neither allowed nor denied any more, by their full ids
    #[arg(value_name = "ID", value_parser = values::node_id,
        conflicts_with_all = ["own", "statement", "yes", "peer"])]
    ids: Vec<NodeId>,
    /// Revoke this home's key
    #[arg(long = "self", conflicts_with = "statement")]
    own: bool,
    /// Publish a statement that was made before
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
    /// Why: a line that others are shown, at most 128 characters
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, requires = "own")]
    reason: String,
    /// Write the statement to a new file, and tell nobody
    #[arg(long, value_name = "FILE", requires = "own")]
    out: Option<PathBuf>,
    /// Revoke the key in this file, such as a backup [default: HOME/identity.seed]
    #[arg(long, value_name = "FILE", requires = "own")]
    key: Option<PathBuf>,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Tell it through this peer, by a short-lived node; may be repeated
    #[arg(long, value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, allow_hyphen_values = true)]
    peer: Vec<String>,
}

pub(super) fn run(app: &App, args: RevokeArgs) -> Result<u8, Failure> {
    if !args.ids.is_empty() {
        return access::take_back(app, &args.ids);
    }
    if !args.own && args.statement.is_none() {
        return Err(Failure::usage("revoke what?").hint(
            "`elo revoke ID` takes back allow or deny; `elo revoke --self` ends this home's key for good; `elo revoke \
             --statement FILE` publishes a statement made before",
        ));
    }
    let text = match &args.statement {
        Some(path) => read(path)?,
        None => {
            let identity = match &args.key {
                Some(path) => unlock::key_file(path)?,
                None => unlock::identity(app)?,
            };
            identity.revocation(&args.reason)
        }
    };
    let revocation = keys::read_revocation(&text).map_err(|e| Failure::new(e.to_string()))?;
    if let Some(path) = &args.out {
        return keep(app, path, &text, &revocation);
    }
    confirm(app, &revocation, args.yes)?;
    app.block_on(publish(app, &args.peer, &text, &revocation))
}

fn read(path: &std::path::Path) -> Result<String, Failure> {
    let wrong = |why: String| Failure::new(format!("can't read {}: {why}", path.display()));
    let bytes = read_bounded(path, MAX_FILE).map_err(|e| wrong(e.to_string()))?;
    let bytes = bytes.ok_or_else(|| wrong("there is no such file".to_owned()))?;
    String::from_utf8(bytes).map_err(|_| wrong("it is not text".to_owned()))
}

fn keep(app: &App, path: &std::path::Path, text: &str, revocation: &Revocation) -> Result<u8, Failure> {
    write_new(path, format!("{text}\n").as_bytes()).map_err(|e| {
        let failure = Failure::new(format!("can't write {}: {e}", path.display()));
        match e.kind() {
            io::ErrorKind::AlreadyExists => failure.hint("no file is overwritten: name a new one"),
            _ => failure,
        }
    })?;
    if app.out.json {
        app.out.json(&json!({ "node_id": revocation.node_id, "file": path.display().to_string() }))?;
    } else {
        app.out.line(&format!("the statement that {} is void is in {}", revocation.node_id, path.display()))?;
        app.out.line("nobody was told; whoever has the file can tell, so keep it where the key is not")?;
    }
    Ok(OK)
}

fn confirm(app: &App, revocation: &Revocation, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || app.out.json {
        return Err(Failure::usage("a revocation can't be taken back: nobody was asked, and nothing was done")
            .hint("say --yes, or --out FILE to make the statement only"));
    }
    output::complain(&format!(
        "{} will be refused by everybody who hears of it. This can't be taken back.",
        revocation.node_id
    ));
    output::complain("Type yes to go on:");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("can't read the answer: {e}")))?;
    if line.trim() == "yes" { Ok(()) } else { Err(Failure::new("nothing was done")) }
}

async fn publish(app: &App, peers: &[String], text: &str, revocation: &Revocation) -> Result<u8, Failure> {
    let request = Request { statement: text.to_owned() };
    let mut way = match mesh::running_or_none(app).await? {
        Some(way) => way,
        None => {
            // Before anybody is told: this home must know, whatever comes of the telling.
            let path = app.home.join(keys::NAME);
            if app.home.is_dir() {
                keys::note(&path, revocation)
                    .map_err(|e| Failure::new(format!("can't write {}: {e}; nothing was done", path.display())))?;
            }
            mesh::any(app, peers, CONNECT).await?
        }
    };
    let told = way.ask(op::REVOKE, &request, |_| Ok(())).await;
    way.close().await;
    let told = mesh::value(&told?)?["told"].as_u64().unwrap_or_default();
    if told == 0 {
        return Err(Failure::new(format!(
            "{} is revoked here, but nobody is connected who could be told",
            revocation.node_id
        ))
        .exit(NOT_DELIVERED)
        .hint("say whom to tell: --peer HOST:PORT; a running node tells those that connect later"));
    }
    if app.out.json {
        app.out.json(&json!({ "node_id": revocation.node_id, "told": told }))?;
    } else {
        let peers = if told == 1 {
            "1 peer was told, and tells".to_owned()
        } else {
            format!("{told} peers were told, and tell")
        };
        app.out.line(&format!("{} is revoked; {peers} others", revocation.node_id))?;
    }
    Ok(OK)
}
