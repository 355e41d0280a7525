//! `elo` on the machines of a little internet.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::common::{Home, Ran, Serve, run};
use super::net::Host;
use super::spaces::inside;

/// The most that an answer over the control socket is waited for: beyond the time of any call made here.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a node starts with besides its arguments: nothing finds others by itself but what the row is about.
const QUIET: [(&str, &str); 2] = [("ELO_NO_LAN", "true"), ("ELO_DHT", "off")];

/// An `elo serve` on a machine. Killed when dropped; when its test fails, what it said is printed.
pub struct Elo {
    pub name: String,
    pub home: Home,
    space: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    serve: Option<Serve>,
}

impl Elo {
    /// Starts a node that is named after its machine's role in the row; it listens on the usual port.
    #[track_caller]
    pub fn start(host: &Host, name: &str, args: &[&str]) -> Self {
        Self::start_with(host, name, args, &QUIET)
    }

    /// The same with another environment.
    #[track_caller]
    pub fn start_with(host: &Host, name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            home: Home::new(),
            space: host.space.clone(),
            args: ["serve", "--json", "--name", name].iter().chain(args).map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            serve: None,
        };
        node.restart();
        node
    }

    /// Starts it (again): the same key, the same arguments.
    #[track_caller]
    pub fn restart(&mut self) {
        self.serve = None;
        self.serve = Some(Serve::start(self.command(&self.args)));
    }

    /// Stops it as a person does, and starts it with other arguments.
    #[track_caller]
    pub fn restart_with(&mut self, args: &[&str]) {
        self.run(&["stop"]).ok();
        drop(self.serve.take().unwrap().ended());
        self.args.truncate(4);
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self.restart();
    }

    /// `elo` on this machine, in this home.
    pub fn command(&self, args: &[impl AsRef<str>]) -> Command {
        let mut command = inside(&self.space, &self.home.command(args.iter().map(AsRef::as_ref)));
        // What other tests switch off is on here, unless the row says otherwise.
        for key in ["ELO_NO_LAN", "ELO_DHT", "ELO_NO_REMEMBER"] {
            command.env_remove(key);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs `elo` on this machine, in this home, to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    fn serve(&self) -> &Serve {
        self.serve.as_ref().unwrap()
    }

    pub fn id(&self) -> String {
        self.serve().id()
    }

    /// Ends it as a power cut would: nothing is said to anybody.
    pub fn kill(&mut self) {
        self.serve().signal(Signal::KILL);
        drop(self.serve.take().unwrap().ended());
    }

    /// Its door for commands; it works from any network.
    pub fn door(&self) -> Door {
        Door(self.home.file("node.sock"))
    }

    pub fn status(&self) -> Value {
        self.door().ask("status", &json!({})).unwrap().1
    }

    pub fn peers(&self) -> Vec<Value> {
        self.door().ask("peers", &json!({})).unwrap().0
    }

    /// The peer with this id, if it is connected or otherwise listed.
    pub fn peer(&self, id: &str) -> Option<Value> {
        self.peers().into_iter().find(|peer| peer["node_id"] == id)
    }

    /// `elo call` on this machine, as a person types it; the outcome, or what went wrong.
    pub fn elo_call(&self, capability: &str, payload: &str) -> Result<Value, String> {
        let ran = self.run(&["call", capability, payload, "--json"]);
        if ran.code == 0 { Ok(serde_json::from_str(&ran.stdout).unwrap()) } else { Err(ran.stderr) }
    }

    /// Calls a capability over the control socket, as `elo call` does; the outcome, or what went wrong.
    pub fn call(&self, capability: &str, payload: &Value) -> Result<Value, String> {
        self.door().call(capability, payload, Duration::from_secs(20)).map_err(|error| error.to_string())
    }
}

impl Drop for Elo {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(serve) = self.serve.take()
        {
            let told = ["status", "peers"].map(|what| match self.door().ask(what, &json!({})) {
                Ok((items, done)) => json!([items, done]).to_string(),
                Err(error) => error.to_string(),
            });
            serve.signal(Signal::KILL);
            eprintln!("--- {}: {}\n{}", self.name, told.join("\n"), serve.ended().1);
        }
    }
}

/// The control socket of a node: what `elo call` and the others talk through.
#[derive(Clone)]
pub struct Door(PathBuf);

impl Door {
    /// Asks; the items that came, and the end. An error is the node's own, with `code` and `message`.
    pub fn ask(&self, op: &str, args: &Value) -> Result<(Vec<Value>, Value), Value> {
        let broken = |e: std::io::Error| json!({"code": "NO_ANSWER", "message": e.to_string()});
        let mut stream = UnixStream::connect(&self.0).map_err(broken)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        let request = json!({"v": 1, "op": op, "args": args});
        stream.write_all(format!("{request}\n").as_bytes()).map_err(broken)?;
        let mut items = Vec::new();
        for line in BufReader::new(stream).lines() {
            let mut answer: Value = serde_json::from_str(&line.map_err(broken)?).unwrap();
            let data = answer["data"].take();
            match answer["type"].as_str() {
                Some("item") => items.push(data),
                Some("done") => return Ok((items, data)),
                Some("error") => return Err(data),
                _ => {}
            }
        }
        Err(json!({"code": "NO_ANSWER", "message": "the node hung up"}))
    }

    /// Calls a capability.
    pub fn call(&self, capability: &str, payload: &Value, ttl: Duration) -> Result<Value, Value> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap();
        let args = json!({"capability": capability, "payload": payload, "timeout_ms": ttl});
        self.ask("call", &args).map(|(_, outcome)| outcome)
    }
}
