//! `elo serve`: runs a node.

mod answer;
mod console;
mod doors;
mod hand_over;
mod jobs;
mod prompt;
#[cfg(feature = "webhook")]
mod webhook;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access_file;
use crate::agent::reach;
#[cfg(not(unix))]
use crate::control::DoorError;
use crate::control::{Door, Shared};
use crate::discovery::remembered;
use crate::identity::{Identity, IdentityError, NodeId};
use crate::node::{Builder, Dht, Lan, Node, keys};
use crate::service::{Current, Offer, Service};

use super::doors::DoorArgs;
use super::failure::{Failure, INTERRUPTED, OK};
use super::settings::{self, Settings};
use super::signals::Signals;
use super::{App, unlock, values};
use answer::Agents;

const AFTER_HELP: &str = "\
Examples:
  elo serve --agent echo                          answers with what it is asked
  elo serve --agent sum --exec ./sum.py           a program answers
  elo serve --peer 10.0.0.5 --tool count --exec 'wc -c'
  elo serve --tracker                             a meeting point and relay
  elo serve --tracker --private --allow ID        for those named only
  elo serve --agent sum --serve-only ID           for that caller only
  elo serve --dht 10.0.0.5:7878,10.0.0.6:7878     joins their DHT, no peer
  elo serve --no-listen --peer box.example.org    behind a router

Nodes on one local network find each other by themselves (--no-lan: not this one), and peers of \
earlier runs are dialled again, with and without --peer (--no-remember: not by this one). `elo status` shows how that goes.

On a terminal there is a prompt (`help` lists its commands). Otherwise the node runs until it is told to stop, and \
`elo call`, `elo peers` and the others talk to it from other terminals.

--exec: stdin is one line of JSON, {\"capability\", \"caller\", \"id\", \"payload\", \"timestamp\", \"ttl_s\"}; \
environment ELO_TASK_ID, ELO_CAPABILITY, ELO_CALLER; exit 0 and stdout is the result (JSON, else text), \
anything else and the end of stderr is the error. The program is killed when the caller cancels or stops waiting.

--json: the first line of stdout is {\"event\":\"ready\",...}, then one line for each thing that happens.

`elo allow ID` and `elo deny ID` change who is let in while the node runs. Who may ask for what, and how often, stands in \
the settings file, the first rule that covers a capability decides:

  [[policy]]
  capability = \"deploy*\"     # * at the end covers every ending
  allow = [\"ID\"]             # and deny = [..]
  rate = \"10/min\"            # per caller; also /s, /h and /day
  max_in_flight = 2

Every option also stands in the settings file under the flag's name (`peer = [\"10.0.0.5\"]`), and in an \
environment variable (ELO_PEER=a,b). Four are two settings there: `tls` (ELO_TLS) and `sealed` (ELO_SEALED), each required, \
preferred or off.

Exit codes: 0 stopped, 1 could not start, 2 wrong usage, 130 stopped at once by a second signal.";

/// How long programs at work are waited for, which were told to end.
const LAST_PROGRAMS: Duration = Duration::from_millis(500);

/// How long the lines of the last moments are waited for.
const LAST_EVENTS: Duration = Duration::from_millis(200);

/// Run a node
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    /// The name shown to people, by which the node can be called [default: the beginning of its id]
    #[arg(long, env = "ELO_NAME", value_name = "NAME", value_parser = values::name)]
    pub(super) name: Option<String>,
    /// TCP port; 0 takes any free one [default: 7878]
    #[arg(long, env = "ELO_PORT")]
    pub(super) port: Option<u16>,
    /// Address to listen on [default: 0.0.0.0]
    #[arg(long, env = "ELO_BIND", value_name = "IP")]
    pub(super) bind: Option<IpAddr>,
    /// Don't listen: reached over its own connections and through trackers
    #[arg(long, env = "ELO_NO_LISTEN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) no_listen: Option<bool>,
    /// Publish this address instead of those found out; may be repeated
    #[arg(long, env = "ELO_ADVERTISE", value_name = "IP[:PORT]", value_parser = values::advertised, value_delimiter = ',')]
    pub(super) advertise: Vec<SocketAddr>,
    /// Keep connected to this peer; may be repeated
    #[arg(long, env = "ELO_PEER", value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, value_delimiter = ',',
        allow_hyphen_values = true)]
    pub(super) peer: Vec<String>,
    /// Provide an agent of this name; may be repeated
    #[arg(long, env = "ELO_AGENT", value_name = "NAME", value_parser = values::name, value_delimiter = ',')]
    pub(super) agent: Vec<String>,
    /// Provide a tool of this name; may be repeated
    #[arg(long, env = "ELO_TOOL", value_name = "NAME", value_parser = values::name, value_delimiter = ',')]
    pub(super) tool: Vec<String>,
    /// Provide a model of this name; may be repeated
    #[arg(long, env = "ELO_MODEL", value_name = "NAME", value_parser = values::name, value_delimiter = ',')]
    pub(super) model: Vec<String>,
    /// Hear of capabilities and events of this name (* at the end covers every ending); may be repeated
    #[arg(long, env = "ELO_INTEREST", value_name = "PATTERN", value_parser = values::name, value_delimiter = ',')]
    pub(super) interest: Vec<String>,
    /// Answer tasks with this program [default: send the payload back]
    #[arg(long, env = "ELO_EXEC", value_name = "CMD")]
    pub(super) exec: Option<String>,
    /// Each line of the program's output is a part of the answer, sent as it appears
    #[arg(long, env = "ELO_EXEC_STREAM", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) exec_stream: Option<bool>,
    /// Let a shell read CMD
    #[arg(long, env = "ELO_EXEC_SHELL", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) exec_shell: Option<bool>,
    /// How many programs run at once; more tasks wait [default: the number of cores]
    #[arg(long, env = "ELO_MAX_TASKS", value_name = "N", value_parser = settings::max_tasks)]
    pub(super) max_tasks: Option<usize>,
    /// Be a tracker: others register here, find each other and are relayed
    #[arg(long, env = "ELO_TRACKER", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) tracker: Option<bool>,
    /// Let only those nodes in that are named with --allow or by `elo allow`
    #[arg(long, env = "ELO_PRIVATE", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) private: Option<bool>,
    /// Let this node in, beside those in HOME/access; may be repeated
    #[arg(long, env = "ELO_ALLOW", value_name = "ID", value_parser = values::node_id, value_delimiter = ',',
        allow_hyphen_values = true)]
    pub(super) allow: Vec<NodeId>,
    /// Shut this node out, beside those in HOME/access; may be repeated
    #[arg(long, env = "ELO_DENY", value_name = "ID", value_parser = values::node_id, value_delimiter = ',',
        allow_hyphen_values = true)]
    pub(super) deny: Vec<NodeId>,
    /// Answer the tasks of this node, and of no others than those said so; may be repeated
    #[arg(long, env = "ELO_SERVE_ONLY", value_name = "ID", value_parser = values::node_id, value_delimiter = ',',
        allow_hyphen_values = true)]
    pub(super) serve_only: Vec<NodeId>,
    /// Don't find others on the local network, nor be found there [default: multicast DNS on all interfaces but loopback]
    #[arg(long, env = "ELO_NO_LAN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) no_lan: Option<bool>,
    /// Find others on this interface and no other, loopback included (lo); may be repeated
    #[arg(long, env = "ELO_LAN_INTERFACE", value_name = "NAME|IP", value_parser = values::interface,
        value_delimiter = ',')]
    pub(super) lan_interface: Vec<String>,
    /// Don't keep peers in HOME/peers.json, nor dial those met in earlier runs [default: do]
    #[arg(long, env = "ELO_NO_REMEMBER", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) no_remember: Option<bool>,
    /// Ask the router for a port that leads to this node, by PCP, NAT-PMP or UPnP
    #[arg(long, env = "ELO_PORT_MAP", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) port_map: Option<bool>,
    /// Admit nodes of the Python package elo-node, whose connections prove nothing
    #[arg(long, env = "ELO_LEGACY", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(super) legacy: Option<bool>,
    /// Refuse tasks that a tracker could read, and send none [default: seal for all that can; also ELO_SEALED=required]
    #[arg(long, conflicts_with = "no_sealed")]
    pub(super) require_sealed: bool,
    /// Seal nothing: trackers can read what they relay [also ELO_SEALED=off]
    #[arg(long)]
    pub(super) no_sealed: bool,
    /// Refuse peers that can't encrypt, whoever connects [default: encrypt with all that can; also ELO_TLS=required]
    #[arg(long)]
    pub(super) require_tls: bool,
    /// Encrypt nothing [also ELO_TLS=off]
    #[arg(long)]
    pub(super) no_tls: bool,
    /// The Kademlia DHT to take part in: mesh (the peers' own), off, public (BitTorrent's: shows your address to the
    /// world), or HOST:PORT,... of nodes in one of your own [default: mesh]
    #[arg(long, env = "ELO_DHT", value_name = "MODE", value_parser = values::dht)]
    pub(super) dht: Option<Dht>,
    #[command(flatten)]
    pub(super) doors: DoorArgs,
    /// UDP port of the DHT; 0 takes any free one [default: the number of the TCP port]
    #[arg(long, env = "ELO_DHT_PORT", value_name = "PORT")]
    pub(super) dht_port: Option<u16>,
}

pub(super) fn run(app: &App, args: ServeArgs) -> Result<u8, Failure> {
    let settings = Settings::merge(args, &app.file()?)?;
    // A person may have to be asked: while signals still end the program.
    let identity = match Identity::peek(&app.home) {
        Ok((_, true)) => Some(unlock::identity(app)?),
        _ => None,
    };
    app.block_on(serve(app, settings, identity))
}

/// The home's key; a new one if there is none, under the passphrase that is given, if one is.
fn key(app: &App) -> Result<(Identity, bool), Failure> {
    match unlock::given("ELO_PASSPHRASE")? {
        Some(passphrase) => match Identity::create_locked(&app.home, false, &passphrase) {
            Ok((identity, _)) => Ok((identity, true)),
            Err(IdentityError::Exists { .. }) => Ok((unlock::identity(app)?, false)),
            Err(e) => Err(e.into()),
        },
        None => Ok(Identity::load_or_create(&app.home)?),
    }
}

async fn serve(app: &App, mut settings: Settings, identity: Option<Identity>) -> Result<u8, Failure> {
    // Before anything else, so that Ctrl-C during the start is heeded as well.
    let mut signals = Signals::new()?;
    // A fault of the settings is told before anything is made or taken.
    let agents = Agents::default();
    let builder = builder(&app.home, settings.clone(), &agents)?;
    let door = open_door(app)?;
    let (identity, created) = match identity {
        Some(identity) => (identity, false),
        None => key(app)?,
    };
    let id = identity.id();
    let mut node = builder.identity(identity).start().await?;
    // Where it is from now on, also when it was to be any port.
    settings.listen = settings.listen.and(node.listen_addrs().first().copied());
    let current = Current::new(node.clone());
    let mut console = match console::Console::start(app, &current) {
        Ok(console) => console,
        Err(e) => {
            node.shutdown().await;
            return Err(Failure::new(format!("can't start the output: {e}")));
        }
    };
    let (rotations, mut rotate) = mpsc::channel(1);
    let service = Service::new(current.clone(), Arc::clone(&agents.reaches));
    if settings.answer == settings::Answer::Poll {
        let offers: Vec<Offer> = settings.capabilities.iter().map(Offer::from).collect();
        service.desk().expect(&offers).map_err(|fault| Failure::new(fault.to_string()))?;
    }
    let open = match doors::open(&app.home, &settings.doors, &service, &agents).await {
        Ok(open) => open,
        Err(failure) => {
            node.shutdown().await;
            return Err(failure);
        }
    };
    let shared = Shared {
        node: current.clone(),
        service: Arc::clone(&service),
        rotations: Some(rotations),
        stop: CancellationToken::new(),
        stopped: CancellationToken::new(),
    };
    let clients = door.as_ref().map(|door| door.serve(shared.clone()));
    if created {
        console.note(&format!("made a new identity in {}", app.home.display()));
    }
    if node.access().is_private() && node.access().allowed().len() == 0 {
        console.note("this node is private and lets nobody in yet: `elo allow ID` does (`elo id` prints a node's id)");
    }
    console.ready(&node, id, door.as_ref(), &open.told());
    let mut printing = console.follow(&node);

    let mut lost = None;
    let mut jobs = jobs::Jobs::new(shared.clone(), app.out.clone(), console.lines());
    loop {
        tokio::select! {
            Some(rotation) = rotate.recv() => {
                let done = hand_over::to_a_new_key(app, &settings, &agents, &node, rotation.passphrase).await;
                let done = match done {
                    Ok((successor, report)) => {
                        node = successor;
                        current.put(node.clone());
                        service.succeeded(&node);
                        // The last lines of the one before are printed first.
                        drop(tokio::time::timeout(LAST_EVENTS, printing).await);
                        console.rotated(&report);
                        printing = console.follow(&node);
                        Ok(report)
                    }
                    Err((failure, going)) => {
                        let told = (hand_over::code(&failure), failure.message.clone());
                        if !going {
                            drop(rotation.done.send(Err(told)));
                            lost = Some(failure);
                            break;
                        }
                        Err(told)
                    }
                };
                drop(rotation.done.send(done));
            }
            () = signals.next() => break,
            () = shared.stop.cancelled() => break,
            () = node.stopped() => break,
            entered = console.entered() => if !jobs.start(&entered) { break },
            () = jobs.ended() => {}
        }
    }
    console.stopping();
    drop(jobs);
    open.close().await;
    let code = tokio::select! {
        () = node.shutdown() => OK,
        () = signals.next() => INTERRUPTED,
        () = console.quit_again() => INTERRUPTED,
    };
    if code == INTERRUPTED {
        // Programs at work are killed by their handlers, which hear of it on threads of their own: not after this process is gone.
        node.end();
        drop(tokio::time::timeout(LAST_PROGRAMS, node.stopped()).await);
    }
    drop(tokio::time::timeout(LAST_EVENTS, printing).await);
    // The port is free; now the home, and only then those who asked for the stop are told.
    drop(door);
    shared.stopped.cancel();
    if clients.is_some() {
        // Their sessions have one line to write, into a socket that has room for it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(clients);
    console.finish();
    match lost {
        Some(failure) => Err(failure),
        None => Ok(code),
    }
}

/// Takes the home; where the system has no Unix sockets, or nothing can be written, does without.
fn open_door(app: &App) -> Result<Option<Door>, Failure> {
    match Door::open(&app.home) {
        Ok(door) => Ok(Some(door)),
        #[cfg(not(unix))]
        Err(e @ DoorError::Unsupported) => {
            tracing::warn!("{e}");
            Ok(None)
        }
        #[cfg(unix)]
        Err(e) if e.is_unwritable() => {
            tracing::warn!(
                "{e}: the node runs without a control socket, so that no command can talk to it, and nothing is saved; see \
                 that no other node runs with this key"
            );
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

fn builder(home: &Path, settings: Settings, agents: &Agents) -> Result<Builder, Failure> {
    let mut builder = Node::builder()
        .tracker(settings.tracker)
        .legacy(settings.legacy)
        .tls(settings.tls)
        .sealing(settings.sealing)
        .dht(settings.dht)
        .port_map(settings.port_map)
        .limits(settings.limits);
    if let Some(port) = settings.dht_port {
        builder = builder.dht_port(port);
    }
    builder = match settings.listen {
        Some(addr) => builder.listen(addr),
        None => builder.no_listen(),
    };
    if let Some(name) = settings.name {
        builder = builder.name(name);
    }
    for addr in settings.advertise {
        builder = builder.advertise(addr);
    }
    for peer in settings.peers {
        builder = builder.peer(peer);
    }
    let names: Vec<String> = settings.capabilities.iter().map(|capability| capability.name.clone()).collect();
    builder = answer::install(builder, settings.answer, agents, &names)?;
    for capability in settings.capabilities {
        // How it is reached is told with the first record: a second one would follow at once otherwise.
        builder = builder.capability(match agents.reaches.of(&capability.name) {
            Some(reach) => capability.detail(reach::DETAIL, reach.told()),
            None => capability,
        });
    }
    for pattern in settings.interests {
        builder = builder.interest(pattern);
    }
    builder = builder.access(settings.access).access_file(home.join(access_file::NAME));
    if !settings.serve_only.is_empty() {
        builder = builder.serve_only(settings.serve_only);
    }
    for policy in settings.policies {
        builder = builder.policy(policy);
    }
    if let Some(interfaces) = settings.lan {
        builder = builder.lan(interfaces.into_iter().fold(Lan::new(), Lan::interface));
    }
    if settings.remember {
        builder = builder.remember(home.join(remembered::NAME));
    }
    Ok(builder.remember_keys(home.join(keys::NAME)))
}
