//! What connections cost the side that takes them: handshakes a second, and memory of idle ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Bench;
use crate::bare::{self, Connection};
use crate::command::Serve;
use crate::figures::{Figure, Round, Row, Series};
use crate::nats::Server;
use crate::process::{Process, resident_kb};
use crate::{Fault, load};

/// How many handshakes are under way at once.
const AT_ONCE: usize = 8;

/// From how many addresses of loopback connections are made: each has 28,000 ports, and those of ended connections
/// can't be had again for a minute.
const SOURCES: u32 = 64;

/// How long a server may settle before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// Who takes the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Nats,
}

impl Kind {
    fn of(bench: &Bench) -> Vec<Self> {
        let mut kinds = vec![Self::Plain, Self::Tls];
        if bench.nats {
            kinds.push(Self::Nats);
        }
        kinds
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "elo, plain",
            Self::Tls => "elo, encrypted",
            Self::Nats => "NATS",
        }
    }

    fn series(kinds: &[Self]) -> Vec<Series> {
        kinds.iter().map(|kind| Series { name: kind.name().to_owned(), rounds: Vec::new() }).collect()
    }

    async fn connect(self, from: IpAddr, to: SocketAddr) -> Result<Connection, Fault> {
        match self {
            Self::Nats => bare::connect_nats(from, to).await,
            Self::Plain | Self::Tls => bare::connect(from, to, self == Self::Tls).await,
        }
    }
}

/// A server that has just been started.
enum Target {
    Elo(Serve),
    Nats(Server),
}

impl Target {
    async fn start(kind: Kind) -> Result<Self, Fault> {
        if kind == Kind::Nats {
            Server::start().await.map(Self::Nats)
        } else {
            Serve::tracker(true).await.map(Self::Elo)
        }
    }

    fn process(&self) -> &Process {
        match self {
            Self::Elo(serve) => &serve.process,
            Self::Nats(server) => &server.process,
        }
    }

    fn addr(&self) -> Result<SocketAddr, Fault> {
        Ok(match self {
            Self::Elo(serve) => serve.addr.parse()?,
            Self::Nats(server) => server.url.parse()?,
        })
    }
}

/// Another source address each time.
#[derive(Clone, Default)]
struct Sources(Arc<AtomicU32>);

impl Sources {
    fn next(&self) -> IpAddr {
        let number = self.0.fetch_add(1, Ordering::Relaxed) % SOURCES;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 1)) + number).into()
    }
}

/// Connections made, proven and ended, as fast as it goes.
pub async fn handshakes(bench: &Bench) -> Result<Row, Fault> {
    let kinds = Kind::of(bench);
    let mut series = Kind::series(&kinds);
    let mut targets = Vec::new();
    for kind in &kinds {
        targets.push(Target::start(*kind).await?);
    }
    let sources = Sources::default();
    for round in 0..bench.args.rounds {
        for at in 0..kinds.len() {
            let at = (at + round) % kinds.len();
            let (kind, addr, sources) = (kinds[at], targets[at].addr()?, sources.clone());
            let connect = move || {
                let from = sources.next();
                async move { kind.connect(from, addr).await.map(drop) }
            };
            let measured = load::run(AT_ONCE, bench.args.window, &[targets[at].process().id()], connect).await;
            series[at].rounds.push(measured.map_err(|fault| format!("{}: {fault}", kind.name()))?);
        }
    }
    Ok(Row {
        name: "handshakes",
        about: format!("handshakes with one server, {AT_ONCE} under way, each connection ended at once"),
        unit: "",
        figure: Figure::Rate,
        bases: &["NATS"],
        series,
        notes: vec!["elo's prove both keys; NATS' are a CONNECT and a PING without any".to_owned()],
    })
}

/// Memory for each of so many idle connections to one server, started anew for each round.
pub async fn idle(bench: &Bench, name: &'static str, wanted: usize) -> Result<Row, Fault> {
    let room = raise_descriptors();
    // The server has some of its own besides.
    let count = wanted.min(room.saturating_sub(256));
    let count = if bench.args.short { count.min(200) } else { count };
    let kinds = Kind::of(bench);
    let mut series = Kind::series(&kinds);
    for round in 0..bench.args.rounds.min(3) {
        for at in 0..kinds.len() {
            let at = (at + round) % kinds.len();
            let measured =
                idle_once(kinds[at], count).await.map_err(|fault| format!("{}: {fault}", kinds[at].name()))?;
            series[at].rounds.push(measured);
        }
    }
    let mut notes = Vec::new();
    if count < wanted && !bench.args.short {
        notes.push(format!("{count} and not {wanted}: a process may have {room} files open (ulimit -n)"));
    }
    let about = format!("resident memory of the server for each of {count} idle connections");
    Ok(Row { name, about, unit: "kB each", figure: Figure::Value, bases: &["NATS"], series, notes })
}

async fn idle_once(kind: Kind, count: usize) -> Result<Round, Fault> {
    let target = Target::start(kind).await?;
    let (addr, sources) = (target.addr()?, Sources::default());
    // What the first connections need once and for all is not what each costs.
    let mut held = connected(kind, 16, addr, &sources).await?;
    tokio::time::sleep(SETTLE).await;
    let before = resident_kb(target.process().id())?;
    held.extend(connected(kind, count, addr, &sources).await?);
    tokio::time::sleep(SETTLE).await;
    let after = resident_kb(target.process().id())?;
    drop(held);
    Ok(Round::of((after - before) / count as f64))
}

async fn connected(kind: Kind, count: usize, to: SocketAddr, sources: &Sources) -> Result<Vec<Connection>, Fault> {
    let left = Arc::new(AtomicU32::new(u32::try_from(count)?));
    let mut makers = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (left, sources) = (Arc::clone(&left), sources.clone());
        makers.spawn(async move {
            let mut made = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                made.push(kind.connect(sources.next(), to).await?);
            }
            Ok::<_, Fault>(made)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(made) = makers.join_next().await {
        all.extend(made??);
    }
    Ok(all)
}

/// Takes as many file descriptors as the system lets this process, and those it starts, have.
#[cfg(unix)]
fn raise_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |room| usize::try_from(room).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn raise_descriptors() -> usize {
    512
}
