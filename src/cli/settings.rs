//! What `serve` is to do: flags and environment over the file over the defaults, checked as a whole.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::identity::NodeId;
use crate::info::Sealing;
use crate::limits::Limits;
use crate::mesh::access::Access;
use crate::mesh::handshake::Tls;
use crate::mesh::policy::Policy;
use crate::node::{Dht, Tracker};
use crate::wire::Capability;

use super::config::FileSettings;
use super::doors::Doors;
use super::failure::Failure;
use super::serve::ServeArgs;
use super::values;

/// How tasks to this node's capabilities are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The payload goes back as it came.
    Echo,
    /// Agents come for the tasks.
    Poll,
    /// Tasks are posted to a URL.
    Webhook {
        /// Where.
        url: String,
        /// The file of the secret that signs them.
        secret: Option<PathBuf>,
    },
    /// A program answers.
    Exec {
        /// The command line.
        command: String,
        /// Whether a shell reads it.
        shell: bool,
        /// Whether each line of its output is a chunk.
        stream: bool,
        /// How many run at once; `None`: as many as there are cores.
        max_tasks: Option<usize>,
    },
}

/// The settings of a node to be run.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: Option<String>,
    /// `None`: it doesn't listen.
    pub(super) listen: Option<SocketAddr>,
    pub(super) advertise: Vec<SocketAddr>,
    pub(super) peers: Vec<String>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) interests: Vec<String>,
    pub(super) answer: Answer,
    /// How agents of other languages join.
    pub(super) doors: Doors,
    pub(super) tracker: Tracker,
    /// Who is let in, by name; what stands in the access file comes on top.
    pub(super) access: Access,
    /// Whom everything is served for; empty: everybody.
    pub(super) serve_only: Vec<NodeId>,
    /// Who may ask for what.
    pub(super) policies: Vec<Policy>,
    pub(super) legacy: bool,
    /// Whether what trackers pass on is sealed.
    pub(super) sealing: Sealing,
    /// Whether connections are encrypted.
    pub(super) tls: Tls,
    /// Whether the router is asked for a port.
    pub(super) port_map: bool,
    /// The interfaces to find others on; empty: the usual ones. `None`: the local network is left alone.
    pub(super) lan: Option<Vec<String>>,
    /// Whether peers are remembered from one run to the next.
    pub(super) remember: bool,
    pub(super) dht: Dht,
    pub(super) dht_port: Option<u16>,
    pub(super) limits: Limits,
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a port (0 to 65535)"))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// The flag's list if one was given, else the file's: a list replaces, it doesn't add.
fn list<T>(flag: Vec<T>, file: Result<Vec<T>, Failure>) -> Result<Vec<T>, Failure> {
    let file = file?;
    Ok(if flag.is_empty() { file } else { flag })
}

/// The settings file may hold the nodes to join through as one text or as a list.
fn dht_of(file: &FileSettings) -> Result<Option<Dht>, Failure> {
    let nodes = file.list("dht", |text| values::dht(text).map(|_| text.to_owned()))?;
    if nodes.is_empty() {
        return Ok(None);
    }
    values::dht(&nodes.join(",")).map(Some).map_err(|e| Failure::usage(format!("dht in the settings file: {e}")))
}

/// Whether what trackers pass on is sealed: `ELO_SEALED`, else what the settings file says.
pub(super) fn sealing(file: &FileSettings) -> Result<Sealing, Failure> {
    match std::env::var("ELO_SEALED") {
        Ok(text) if !text.is_empty() => values::sealing(&text).map_err(|e| Failure::usage(format!("ELO_SEALED: {e}"))),
        _ => Ok(file.value("sealed", values::sealing)?.unwrap_or_default()),
    }
}

/// Whether connections are encrypted, as the environment says, else the file; for short-lived nodes too.
pub(super) fn configured_tls(file: &FileSettings) -> Result<Tls, Failure> {
    let said = file.value("tls", values::tls)?;
    match std::env::var("ELO_TLS") {
        Ok(mode) if !mode.is_empty() => values::tls(&mode).map_err(|e| Failure::usage(format!("ELO_TLS: {e}"))),
        _ => Ok(said.unwrap_or_default()),
    }
}

/// How many tasks at once.
pub(super) fn max_tasks(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err(format!("{text:?} is not a number from 1 to 4096")),
    }
}

impl Settings {
    /// Puts the flags over the file, and says what doesn't go together.
    pub(super) fn merge(args: ServeArgs, file: &FileSettings) -> Result<Self, Failure> {
        let flag = |given: Option<bool>, key: &str| -> Result<bool, Failure> {
            Ok(given.or(file.flag(key)?).unwrap_or(false))
        };
        let no_listen = flag(args.no_listen, "no-listen")?;
        let given_port = args.port.or(file.value("port", port)?);
        let given_bind = args.bind.or(file.value("bind", ip)?);
        let advertise = list(args.advertise, file.list("advertise", values::advertised))?;
        let tracker = flag(args.tracker, "tracker")?;
        let private = flag(args.private, "private")?;
        let port_map = flag(args.port_map, "port-map")?;
        let allow = list(args.allow, file.list("allow", values::node_id))?;
        let deny = list(args.deny, file.list("deny", values::node_id))?;
        let serve_only = list(args.serve_only, file.list("serve-only", values::node_id))?;
        let no_lan = flag(args.no_lan, "no-lan")?;
        let interfaces = list(args.lan_interface, file.list("lan-interface", values::interface))?;
        let command = args.exec.or(file.value("exec", any)?);
        let stream = flag(args.exec_stream, "exec-stream")?;
        let shell = flag(args.exec_shell, "exec-shell")?;
        let max = args.max_tasks.or(file.value("max-tasks", max_tasks)?);
        let mut capabilities: Vec<Capability> = Vec::new();
        capabilities.extend(list(args.agent, file.list("agent", values::name))?.into_iter().map(Capability::agent));
        capabilities.extend(list(args.model, file.list("model", values::name))?.into_iter().map(Capability::model));
        capabilities.extend(list(args.tool, file.list("tool", values::name))?.into_iter().map(Capability::tool));

        let wrong = |message: &str, hint: &str| Err(Failure::usage(message).hint(hint));
        if no_listen && (given_port.is_some() || given_bind.is_some() || !advertise.is_empty()) {
            return wrong(
                "--no-listen doesn't go with --port, --bind or --advertise",
                "a node that doesn't listen has no address of its own; leave one of them out",
            );
        }
        if no_listen && port_map {
            return wrong(
                "--no-listen doesn't go with --port-map",
                "a port on the router leads nowhere then; leave one out",
            );
        }
        if no_listen && tracker {
            return wrong(
                "--no-listen doesn't go with --tracker",
                "others register with a tracker by connecting to it; leave one out",
            );
        }
        if !allow.is_empty() && !private {
            return wrong(
                "--allow needs --private",
                "a node that isn't private lets everybody in who isn't denied: say `--private --allow ID`, or leave --allow out",
            );
        }
        if let Some(both) = allow.iter().find(|id| deny.contains(id)) {
            return wrong(&format!("--allow and --deny both name {both}"), "leave one of them out");
        }
        if no_lan && !interfaces.is_empty() {
            return wrong(
                "--lan-interface doesn't go with --no-lan",
                "leave --no-lan out (also ELO_NO_LAN and `no-lan` in the settings file) to be found on that interface",
            );
        }
        if command.is_none() && (stream || shell || max.is_some()) {
            return wrong(
                "--exec-stream, --exec-shell and --max-tasks need --exec",
                "say which program answers the tasks: `--exec CMD`",
            );
        }
        if command.as_deref().is_some_and(|c| c.trim().is_empty()) {
            return wrong("--exec is empty", "say which program answers the tasks: `--exec ./run`");
        }
        if command.is_some() && capabilities.is_empty() {
            return wrong(
                "--exec without a capability would never run",
                "say what the program offers: `--agent NAME`, `--tool NAME` or `--model NAME`",
            );
        }

        let doors = Doors::merge(args.doors, file, command.is_some(), !capabilities.is_empty())?;
        let given_dht = args.dht.or(dht_of(file)?);
        let dht_port = args.dht_port.or(file.value("dht-port", port)?);
        if given_dht == Some(Dht::Off) && dht_port.is_some_and(|p| p != 0) {
            return wrong("--dht-port doesn't go with --dht off", "leave one of them out");
        }
        let dht = given_dht.unwrap_or(Dht::Mesh);

        let tls = match (args.require_tls, args.no_tls) {
            (true, true) => return wrong("--require-tls doesn't go with --no-tls", "leave one of them out"),
            (true, false) => Tls::Required,
            (false, true) => Tls::Off,
            (false, false) => configured_tls(file)?,
        };
        let legacy = flag(args.legacy, "legacy")?;
        if legacy && tls == Tls::Required {
            return wrong(
                "--legacy doesn't go with --require-tls",
                "nodes of the Python package can't encrypt: leave one of them out (also in ELO_TLS and the settings file)",
            );
        }

        let address = SocketAddr::new(
            given_bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            given_port.unwrap_or(values::DEFAULT_PORT),
        );
        Ok(Self {
            name: args.name.or(file.value("name", values::name)?),
            listen: (!no_listen).then_some(address),
            advertise,
            peers: list(args.peer, file.list("peer", values::peer))?,
            capabilities,
            interests: list(args.interest, file.list("interest", values::name))?,
            answer: match command {
                None if doors.poll => Answer::Poll,
                None => match &doors.webhook {
                    None => Answer::Echo,
                    Some(url) => Answer::Webhook { url: url.clone(), secret: doors.webhook_secret.clone() },
                },
                Some(command) => Answer::Exec { command, shell, stream, max_tasks: max },
            },
            doors,
            tracker: match (tracker, private) {
                (false, _) => Tracker::Off,
                (true, false) => Tracker::Public,
                (true, true) => Tracker::Private { allow: Vec::new() },
            },
            sealing: match (args.require_sealed, args.no_sealed) {
                (true, _) => Sealing::Required,
                (_, true) => Sealing::Off,
                _ => sealing(file)?,
            },
            legacy,
            tls,
            access: {
                let access = if private { Access::private() } else { Access::public() };
                let access = allow.into_iter().fold(access, Access::allow);
                deny.into_iter().fold(access, Access::deny)
            },
            serve_only,
            policies: file.policies().to_vec(),
            port_map,
            lan: (!no_lan).then_some(interfaces),
            remember: !flag(args.no_remember, "no-remember")?,
            dht,
            dht_port,
            limits: file.limits(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn merge(line: &str, file: &str) -> Result<Settings, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elo.toml");
        std::fs::write(&path, file).unwrap();
        let file = FileSettings::load(Path::new("/nowhere"), Some(&path))?;
        let args = Line::parse_from(std::iter::once("elo").chain(line.split_whitespace())).args;
        Settings::merge(args, &file)
    }

    #[test]
    fn defaults() {
        let s = merge("", "").unwrap();
        assert_eq!(s.listen, Some("0.0.0.0:7878".parse().unwrap()));
        assert_eq!((s.name, s.answer, s.tracker, s.legacy), (None, Answer::Echo, Tracker::Off, false));
        assert_eq!((s.lan, s.remember), (Some(Vec::new()), true));
        assert!(s.peers.is_empty() && s.capabilities.is_empty() && s.advertise.is_empty());
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "name = 'file'\nport = 1\nbind = '127.0.0.1'\npeer = ['a', 'b']\nagent = 'x'\ntracker = true\n";
        let s = merge("", file).unwrap();
        assert_eq!(s.name.as_deref(), Some("file"));
        assert_eq!(s.listen, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(s.peers, ["a:7878", "b:7878"]);
        assert_eq!(s.tracker, Tracker::Public);
        let s = merge("--name flag --port 2 --peer c --agent y,z --tracker=false", file).unwrap();
        assert_eq!(s.name.as_deref(), Some("flag"));
        assert_eq!(s.listen, Some("127.0.0.1:2".parse().unwrap()));
        assert_eq!(s.peers, ["c:7878"]);
        assert_eq!(s.capabilities, [Capability::agent("y"), Capability::agent("z")]);
        assert_eq!(s.tracker, Tracker::Off);
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        let id = (0..=u8::MAX).map(|n| crate::identity::Identity::from_seed([n; 32]).id());
        let id = id.into_iter().find(|id| id.to_string().starts_with('-')).unwrap();
        let s = merge(&format!("--tracker --private --allow {id} --peer {id}@box --legacy"), "").unwrap();
        assert_eq!((s.tracker, s.peers), (Tracker::Private { allow: vec![] }, vec![format!("{id}@box:7878")]));
        assert_eq!(s.access, Access::private().allow(id));
        assert!(s.legacy);
        let s = merge(&format!("--deny {id} --serve-only {id}"), "").unwrap();
        assert_eq!((s.access, s.serve_only), (Access::public().deny(id), vec![id]));
    }

    #[test]
    fn who_is_let_in_and_served_may_stand_in_the_file() {
        let [one, two] = [1, 2].map(|n| crate::identity::Identity::from_seed([n; 32]).id());
        let file = format!(
            "private = true\nallow = ['{one}']\ndeny = ['{two}']\nserve-only = ['{one}']\n[[policy]]\ncapability = 'a'"
        );
        let s = merge("", &file).unwrap();
        assert_eq!(s.access, Access::private().allow(one).deny(two));
        assert_eq!((s.serve_only, s.policies, s.tracker), (vec![one], vec![Policy::new("a")], Tracker::Off));
        let s = merge(&format!("--private=false --allow {two}"), &file).unwrap_err();
        assert!(s.message.contains("--allow needs --private"), "{}", s.message);
        let s = merge(&format!("--allow {two}"), &file).unwrap_err();
        assert!(s.message.contains("both name"), "{}", s.message);
    }

    #[test]
    fn the_local_network_and_the_memory_can_be_left_alone() {
        let s = merge("--no-lan --no-remember", "").unwrap();
        assert_eq!((s.lan, s.remember), (None, false));
        let s = merge("", "no-lan = true\nno-remember = true").unwrap();
        assert_eq!((s.lan, s.remember), (None, false));
        let s = merge("--no-lan=false --lan-interface lo,eth0", "no-lan = true\nlan-interface = ['wlan0']").unwrap();
        assert_eq!(s.lan, Some(vec!["lo".to_owned(), "eth0".to_owned()]));
        assert_eq!(merge("", "lan-interface = '10.0.0.1'").unwrap().lan, Some(vec!["10.0.0.1".to_owned()]));
    }

    #[test]
    fn a_program_has_its_settings() {
        let s = merge("--exec cat --tool t --exec-stream --max-tasks 3", "exec-shell = true").unwrap();
        let answer = Answer::Exec { command: "cat".into(), shell: true, stream: true, max_tasks: Some(3) };
        assert_eq!(s.answer, answer);
    }

    #[test]
    fn the_dht_is_the_meshs_unless_said_otherwise() {
        let nodes = |list: &[&str]| Dht::Bootstrap(list.iter().map(|&n| n.to_owned()).collect());
        for (line, file, dht) in [
            ("", "", Dht::Mesh),
            ("--dht off", "dht = 'public'", Dht::Off),
            ("", "dht = 'off'", Dht::Off),
            ("--dht public", "", Dht::Public),
            ("--dht 10.0.0.1:1,box:2", "", nodes(&["10.0.0.1:1", "box:2"])),
            ("--dht 10.0.0.1", "", nodes(&["10.0.0.1:7878"])),
            ("", "dht = ['10.0.0.1:1', 'box:2']", nodes(&["10.0.0.1:1", "box:2"])),
        ] {
            assert_eq!(merge(line, file).unwrap().dht, dht, "{line} {file}");
        }
        assert_eq!(merge("--dht-port 5", "dht-port = 6").unwrap().dht_port, Some(5));
        assert_eq!(merge("", "dht-port = 6").unwrap().dht_port, Some(6));
    }

    #[test]
    fn connections_are_encrypted_as_the_flags_say_else_the_file() {
        for (line, file, tls) in [
            ("", "", Tls::Preferred),
            ("--require-tls", "", Tls::Required),
            ("--no-tls", "tls = 'required'", Tls::Off),
            ("", "tls = 'required'", Tls::Required),
            ("", "tls = 'off'", Tls::Off),
            ("--require-tls", "tls = 'off'", Tls::Required),
        ] {
            assert_eq!(merge(line, file).unwrap().tls, tls, "{line} {file}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (line, file, said) in [
            ("--no-listen --port 1", "", "--no-listen"),
            ("--no-listen", "bind = '::1'", "--no-listen"),
            ("--no-listen --port-map", "", "--port-map"),
            ("--no-listen", "port-map = true", "--port-map"),
            ("--no-lan --lan-interface lo", "", "--lan-interface"),
            ("--no-lan", "lan-interface = 'lo'", "--lan-interface"),
            ("", "lan-interface = 'a b'", "elo.toml:1: lan-interface"),
            ("--exec-stream", "", "need --exec"),
            ("--max-tasks 2", "", "need --exec"),
            ("--exec cat", "", "without a capability"),
            ("", "port = 70000", "elo.toml:1: port"),
            ("", "peer = ['http://x']", "elo.toml:1: peer"),
            ("", "max-tasks = 0", "elo.toml:1: max-tasks"),
            ("", "dht = 'http://x'", "elo.toml:1: dht"),
            ("", "dht = ['off', 'box:1']", "off, mesh and public stand alone"),
            ("--dht-port 5 --dht off", "", "--dht-port doesn't go"),
            ("--require-tls --no-tls", "", "--require-tls doesn't go with --no-tls"),
            ("--require-tls --legacy", "", "--legacy doesn't go with --require-tls"),
            ("--legacy", "tls = 'required'", "--legacy doesn't go with --require-tls"),
            ("", "tls = 'on'", "elo.toml:1: tls"),
            ("", "require-tls = true", "say tls = \"required\""),
            ("", "no-sealed = true", "say sealed = \"required\" or"),
        ] {
            let failure = merge(line, file).unwrap_err();
            assert_eq!(failure.exit, 2, "{line} {file}");
            assert!(failure.message.contains(said), "{line} {file}: {}", failure.message);
        }
    }
}
