//! The doors of a served node: how agents of other languages join it. Their flags, and what they come to.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::config::FileSettings;
use super::failure::Failure;

/// The flags.
#[derive(Debug, Args)]
pub(super) struct DoorArgs {
    /// Agents come for their tasks, by `elo mcp` or the HTTP API; nobody there: AGENT_AWAY
    #[arg(long, env = "ELO_POLL", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) poll: Option<bool>,
    /// Answer tasks by posting them to this URL
    #[arg(long, env = "ELO_WEBHOOK", value_name = "URL", value_parser = web_url)]
    pub(super) webhook: Option<String>,
    /// Sign what is posted with the secret in this file (whsec_…), by Standard Webhooks
    #[arg(long, env = "ELO_WEBHOOK_SECRET", value_name = "FILE")]
    pub(super) webhook_secret: Option<PathBuf>,
    /// Post events of this pattern to that URL; may be repeated
    #[arg(long, env = "ELO_EVENT_HOOK", value_name = "PATTERN=URL", value_parser = event_hook, value_delimiter = ',')]
    pub(super) event_hook: Vec<(String, String)>,
    /// Serve the local HTTP API here, such as 127.0.0.1:7880 (port 0: any free one); its token is in HOME/http.token
    #[arg(long, env = "ELO_HTTP", value_name = "IP:PORT", value_parser = http_addr)]
    pub(super) http: Option<SocketAddr>,
    /// A name by which the HTTP API may be called, beside localhost and its address; may be repeated
    #[arg(long, env = "ELO_HTTP_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(super) http_host: Vec<String>,
    /// The certificate chain (PEM) that the HTTP API shows: HTTPS, also beyond this machine
    #[arg(long, env = "ELO_HTTP_CERT", value_name = "FILE")]
    pub(super) http_cert: Option<PathBuf>,
    /// The key (PEM) of that certificate
    #[arg(long, env = "ELO_HTTP_KEY", value_name = "FILE")]
    pub(super) http_key: Option<PathBuf>,
    /// Serve the HTTP API beyond this machine without TLS: whoever listens on the way has its token
    #[arg(long, env = "ELO_HTTP_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) http_insecure: Option<bool>,
    /// Provide what the A2A agent at this URL offers; may be repeated
    #[arg(long, env = "ELO_A2A_AGENT", value_name = "URL", value_parser = web_url, value_delimiter = ',')]
    pub(super) a2a_agent: Vec<String>,
}

/// Which doors are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Doors {
    /// Whether agents come for the tasks of the node's capabilities.
    pub(super) poll: bool,
    /// Where tasks are posted to.
    pub(super) webhook: Option<String>,
    /// The file of the secret that signs what is posted.
    pub(super) webhook_secret: Option<PathBuf>,
    /// Which events are posted where.
    pub(super) event_hooks: Vec<(String, String)>,
    /// The HTTP API.
    pub(super) http: Option<HttpDoor>,
    /// A2A agents outside of the mesh.
    pub(super) a2a_agents: Vec<String>,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpDoor {
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// By which names it may be called.
    pub(super) hosts: Vec<String>,
    /// The certificate chain and its key.
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    /// Whether it may listen beyond this machine without one.
    pub(super) insecure: bool,
}

fn web_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !text.contains(char::is_whitespace) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is not a URL: it begins with http:// or https:// and names a host")),
    }
}

fn event_hook(text: &str) -> Result<(String, String), String> {
    let Some((pattern, url)) = text.split_once('=') else {
        return Err(format!("{text:?} is not PATTERN=URL, such as task.*=http://127.0.0.1:9000/events"));
    };
    Ok((super::values::name(pattern)?, web_url(url)?))
}

fn http_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not IP:PORT, such as 127.0.0.1:7880 or [::1]:7880"))
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path is missing".to_owned()) } else { Ok(PathBuf::from(text)) }
}

impl Doors {
    /// Puts the flags over the file, and says what doesn't go together.
    pub(super) fn merge(args: DoorArgs, file: &FileSettings, has_exec: bool, provides: bool) -> Result<Self, Failure> {
        let flag = |given: Option<bool>, key: &str| -> Result<bool, Failure> {
            Ok(given.or(file.flag(key)?).unwrap_or(false))
        };
        let list = |flag: Vec<String>, key: &str, check: fn(&str) -> Result<String, String>| {
            if flag.is_empty() { file.list(key, check) } else { Ok(flag) }
        };
        let poll = flag(args.poll, "poll")?;
        let webhook = args.webhook.or(file.value("webhook", web_url)?);
        let webhook_secret = args.webhook_secret.or(file.value("webhook-secret", path)?);
        let hooks = file.list("event-hook", |text| event_hook(text).map(|_| text.to_owned()))?;
        let event_hooks = match args.event_hook.is_empty() {
            true => hooks.iter().filter_map(|text| event_hook(text).ok()).collect(),
            false => args.event_hook,
        };
        let listen = args.http.or(file.value("http", http_addr)?);
        let hosts = list(args.http_host, "http-host", |text| Ok(text.to_owned()))?;
        let cert = args.http_cert.or(file.value("http-cert", path)?);
        let key = args.http_key.or(file.value("http-key", path)?);
        let insecure = flag(args.http_insecure, "http-insecure")?;
        let a2a_agents = list(args.a2a_agent, "a2a-agent", web_url)?;

        let wrong = |message: &str, hint: &str| Err(Failure::usage(message).hint(hint));
        if usize::from(poll) + usize::from(webhook.is_some()) + usize::from(has_exec) > 1 {
            return wrong(
                "--poll, --webhook and --exec don't go together",
                "each says who answers the tasks: leave one",
            );
        }
        if (poll || webhook.is_some()) && !provides {
            return wrong(
                "--poll and --webhook without a capability would never be used",
                "say what is offered: `--agent NAME`, `--tool NAME` or `--model NAME`",
            );
        }
        if webhook_secret.is_some() && webhook.is_none() && event_hooks.is_empty() {
            return wrong("--webhook-secret needs --webhook or --event-hook", "there is nothing to sign without");
        }
        if listen.is_none() && (!hosts.is_empty() || cert.is_some() || key.is_some() || insecure) {
            return wrong(
                "--http-host, --http-cert, --http-key and --http-insecure need --http",
                "say where: --http IP:PORT",
            );
        }
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return wrong("--http-cert and --http-key belong together", "give both, or neither"),
        };
        if let Some(listen) = listen
            && !listen.ip().is_loopback()
            && tls.is_none()
            && !insecure
        {
            return wrong(
                &format!(
                    "--http {listen} is not on this machine alone, and has no TLS: its token could be read on the way"
                ),
                "listen on 127.0.0.1, give --http-cert and --http-key, or say --http-insecure",
            );
        }
        let http = listen.map(|listen| HttpDoor { listen, hosts, tls, insecure });
        Ok(Self { poll, webhook, webhook_secret, event_hooks, http, a2a_agents })
    }
}
