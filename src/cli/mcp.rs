//! `elo mcp`: the mesh as tools for an MCP client.

use std::net::SocketAddr;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::mcp::{HttpServer, HttpSettings, Link, serve_stdio};

use super::failure::{Failure, OK};
use super::serve::{self, ServeArgs};
use super::signals::Signals;
use super::{App, mesh};

const AFTER_HELP: &str = "\
Examples:
  claude mcp add elo -- elo mcp              for Claude Code
  elo mcp --peer 10.0.0.5                    a node of its own, if none runs
  elo mcp --http 127.0.0.1:7890              for clients that connect by HTTP

The tools go through the node that runs in this home (`elo serve`). If none runs one is started, with the flags below, \
which are those of `elo serve`; other commands use it as well, and it stops with this one. Its own HTTP API is --node-http here, \
and so on: --http is for MCP.

Over stdin and stdout, unless --http is given: then clients connect to http://IP:PORT/mcp with the header \
`Authorization: Bearer TOKEN`; the token is in HOME/mcp.token. docs/mcp.md has the tools, and the settings for Claude Code, Codex \
and Cursor.

Exit codes: 0 the client hung up or it was stopped, 1 could not start, 2 wrong usage.";

/// Let an MCP client (Claude Code, Codex, Cursor) use the mesh, and serve in it
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct McpArgs {
    /// Serve MCP over HTTP here, such as 127.0.0.1:7890 (port 0: any free one), not over stdin and stdout
    #[arg(id = "mcp_http", long = "http", env = "ELO_MCP_HTTP", value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// A name by which that may be called, beside localhost and its address; may be repeated
    #[arg(
        id = "mcp_http_host",
        long = "http-host",
        env = "ELO_MCP_HTTP_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "mcp_http"
    )]
    http_host: Vec<String>,
    /// Serve it beyond this machine, without TLS: whoever listens on the way has its token
    #[arg(id = "mcp_http_insecure", long = "http-insecure", requires = "mcp_http")]
    http_insecure: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// The flags of `elo serve`; those of its HTTP API under other names.
#[derive(Debug)]
struct NodeArgs(ServeArgs);

/// The flags that have other names here.
const RENAMED: &[(&str, &str)] = &[
    ("http", "node-http"),
    ("http_host", "node-http-host"),
    ("http_cert", "node-http-cert"),
    ("http_key", "node-http-key"),
    ("http_insecure", "node-http-insecure"),
];

impl FromArgMatches for NodeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ServeArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for NodeArgs {
    fn augment_args(command: Command) -> Command {
        let command = command.next_help_heading("Of the node that is started if none runs");
        let command = ServeArgs::augment_args(command);
        RENAMED.iter().fold(command, |command, (id, long)| command.mut_arg(id, |arg| arg.long(*long)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

pub(super) fn run(app: &App, args: McpArgs) -> Result<u8, Failure> {
    let McpArgs { http, http_host, http_insecure, node: NodeArgs(node) } = args;
    if let Some(listen) = http
        && !listen.ip().is_loopback()
        && !http_insecure
    {
        let message =
            format!("--http {listen} is not on this machine alone, and has no TLS: its token could be read on the way");
        return Err(Failure::usage(message).hint("listen on 127.0.0.1, or say --http-insecure"));
    }
    let http = http.map(|listen| HttpSettings { listen, hosts: http_host, tls: None });
    app.block_on(start(app, node, http))
}

async fn start(app: &App, node: ServeArgs, http: Option<HttpSettings>) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let serving = async {
        match mesh::running_or_none(app).await? {
            Some(way) => {
                way.close().await;
                serve(app, http, &stop).await
            }
            None => match with_a_node(app, node, http.clone(), &stop).await {
                // Another one took the home in this moment.
                Err(failure) if failure.detail.get("code").is_some_and(|code| code == "ALREADY_RUNNING") => {
                    serve(app, http, &stop).await
                }
                done => done,
            },
        }
    };
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served,
        () = signals.next() => {
            stop.cancel();
            // What is under way has a moment; a second signal ends it.
            tokio::select! {
                served = &mut serving => served,
                () = signals.next() => Err(Failure::interrupted()),
            }
        }
    }
}

/// Runs a node in this home beside the server, and stops it with that.
async fn with_a_node(
    app: &App,
    node: ServeArgs,
    http: Option<HttpSettings>,
    stop: &CancellationToken,
) -> Result<u8, Failure> {
    let settings = serve::prepare(app, node)?;
    let (ready, is_ready) = oneshot::channel();
    let node_stop = CancellationToken::new();
    let running = serve::beside(app, settings, serve::Beside { ready, stop: node_stop.clone() });
    tokio::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended,
        _ = is_ready => {}
    }
    tracing::info!("no node ran in {}: started one", app.home.display());
    let mut ended = None;
    let served = {
        let serving = serve(app, http, stop);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                served = &mut serving => break served,
                // The tools say from now on that none runs.
                node = &mut running, if ended.is_none() => ended = Some(node),
            }
        }
    };
    node_stop.cancel();
    let node = match ended {
        Some(node) => node,
        None => running.await,
    };
    served.and(node)
}

/// Serves MCP until the client hangs up, or it is told to stop.
async fn serve(app: &App, http: Option<HttpSettings>, stop: &CancellationToken) -> Result<u8, Failure> {
    let link = Link::new(&app.home);
    let Some(settings) = http else {
        serve_stdio(link, stop.clone()).await.map_err(|e| Failure::new(format!("the MCP client: {e}")))?;
        return Ok(OK);
    };
    let server =
        HttpServer::start(&app.home, &settings, link).await.map_err(|e| Failure::new(format!("--http: {e}")))?;
    let token = app.home.join(crate::mcp::TOKEN);
    if app.out.json {
        app.out.json(&serde_json::json!({ "event": "ready", "url": server.url(), "token_file": token }))?;
    } else {
        app.out.line(&format!("MCP at {}, with the token in {}", server.url(), token.display()))?;
    }
    stop.cancelled().await;
    server.close().await;
    Ok(OK)
}
