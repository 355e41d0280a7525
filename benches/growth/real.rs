//! Real nodes in this process, over sockets on loopback, counted with what every node tells of itself.
//!
//! Not encrypted and not sealed, so that the bytes are those of the messages.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use elo::{Capability, Node, Sealing, Tls, Tracker};
use tokio::task::JoinSet;

use crate::plan::{COMMON, Case, Cost, Point, RARE, Shape, WANTED};

/// When nothing was sent for so long, all is over: a query waits for 200 ms at most before it is passed on.
const QUIET: Duration = Duration::from_millis(400);

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a query's answers are taken.
const ANSWERS: Duration = Duration::from_secs(3);

/// How many nodes do the same at once; and how often that is counted. Signs of life come in between, once a minute on each
/// connection, and only ever add: the least counts.
const AT_ONCE: usize = 10;
const TIMES: usize = 3;

/// Lets this process open as many files as it may, and says so when that is not enough.
fn open_files(needed: u64) -> Result<(), String> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).map_err(|e| format!("raising the number of open files: {e}"))?;
        if let Some(most) = limit.maximum.filter(|most| *most < needed) {
            return Err(format!(
                "{needed} open files are needed, and {most} allowed: raise the hard limit (ulimit -Hn) or give --max"
            ));
        }
    }
    Ok(())
}

/// This process's resident memory in bytes, where the system tells it as Linux does.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

struct Mesh {
    case: Case,
    nodes: Vec<Node>,
}

impl Mesh {
    async fn start(case: Case) -> Result<Self, String> {
        let links = case.links();
        let mut nodes: Vec<Node> = Vec::with_capacity(case.all());
        for n in 0..case.all() {
            let mut builder = Node::builder().limits(Case::limits()).tls(Tls::Off).sealing(Sealing::Off);
            builder = match case.is_tracker(n) {
                true => builder.name(format!("t{n}")).tracker(Tracker::Public),
                false => builder.name(format!("n{n}")).agent(COMMON).interest(WANTED),
            };
            if n == case.rare() {
                builder = builder.agent(RARE);
            }
            builder = match case.is_tracker(n) || case.shape == Shape::Mesh {
                true => builder.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
                false => builder.no_listen(),
            };
            for (_, to) in links.range((n, 0)..(n + 1, 0)) {
                builder = builder.peer(nodes[*to].listen_addrs()[0].to_string());
            }
            let node = builder.start().await.map_err(|e| format!("node {n}: {e}"))?;
            if links.range((n, 0)..(n + 1, 0)).next().is_some() && !node.connected(PATIENCE).await {
                return Err(format!("node {n} does not connect"));
            }
            nodes.push(node);
        }
        let mesh = Self { case, nodes };
        let began = Instant::now();
        // Each link has two ends; and what trackers know takes a while to come round.
        while mesh.ends() < 2 * links.len() || mesh.least_known() < case.all() - 1 {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "{} of {} connections, and a tracker that knows {} of {} nodes",
                    mesh.ends() / 2,
                    links.len(),
                    mesh.least_known(),
                    case.all() - 1
                ));
            }
            tokio::time::sleep(QUIET).await;
        }
        mesh.quiet().await;
        Ok(mesh)
    }

    fn ends(&self) -> usize {
        self.nodes.iter().map(|n| n.metrics().peers).sum()
    }

    fn records(&self, n: usize) -> usize {
        self.nodes[n].metrics().records
    }

    fn least_known(&self) -> usize {
        (0..self.case.trackers).map(|t| self.records(t)).min().unwrap_or(self.case.all() - 1)
    }

    /// Messages and bytes that all of them have sent.
    fn sent(&self) -> (u64, u64) {
        self.nodes.iter().map(Node::metrics).fold((0, 0), |(m, b), of| (m + of.messages_out, b + of.bytes_out))
    }

    /// Waits until nobody sends anything.
    async fn quiet(&self) {
        let began = Instant::now();
        let mut before = self.sent();
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(QUIET).await;
            let now = self.sent();
            if std::mem::replace(&mut before, now) == now {
                return;
            }
        }
    }

    /// What something costs that is done so often.
    async fn cost(&self, times: usize, act: impl AsyncFn()) -> Cost {
        let mut least: Option<Cost> = None;
        for _ in 0..TIMES {
            self.quiet().await;
            let before = self.sent();
            act().await;
            self.quiet().await;
            let after = self.sent();
            let cost = Cost::each(after.0 - before.0, after.1 - before.1, times);
            least = Some(least.filter(|l| l.messages <= cost.messages).unwrap_or(cost));
        }
        least.unwrap_or_default()
    }

    /// How many of these nodes find another one that provides something, all at once.
    async fn find(&self, who: &[usize], capability: &'static str) -> usize {
        let mut searches = JoinSet::new();
        for n in who {
            let node = self.nodes[*n].clone();
            searches.spawn(async move {
                let found = node.find(capability, Some(ANSWERS)).await.unwrap_or_default();
                found.iter().any(|other| other.node_id != node.id())
            });
        }
        searches.join_all().await.into_iter().filter(|found| *found).count()
    }

    /// What it costs when a capability of each of them comes, and when it goes.
    async fn change(&self, who: &[usize], capability: &str) -> Cost {
        self.cost(2 * who.len(), async || {
            for n in who {
                let done = self.nodes[*n].register(Capability::agent(capability));
                done.expect("there is room");
            }
            self.quiet().await;
            for n in who {
                assert!(self.nodes[*n].unregister(capability).expect("it runs"), "it was provided");
            }
        })
        .await
    }
}

/// Measures one mesh of real nodes.
pub fn measure(case: Case) -> Result<Point, String> {
    let links = case.links().len();
    open_files((2 * links + 2 * case.all() + 64) as u64)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let before = resident();
        let mesh = Mesh::start(case).await?;
        let resident = resident().zip(before).map(|(after, before)| (after - before) / case.all() as f64);
        let who = case.some(AT_ONCE);
        let records = (case.trackers..case.all()).map(|n| mesh.records(n)).sum::<usize>() as f64 / case.nodes as f64;
        let tracker_records = (0..case.trackers).map(|t| mesh.records(t)).max();
        let quiet = mesh.change(&who, "quiet.x").await;
        let found = std::sync::atomic::AtomicUsize::new(0);
        let rare = mesh.cost(who.len(), async || {
            let some = mesh.find(&who, RARE).await;
            found.fetch_add(some, std::sync::atomic::Ordering::Relaxed);
        });
        let rare = rare.await;
        let common = mesh.cost(who.len(), async || {
            mesh.find(&who, COMMON).await;
        });
        let common = common.await;
        let wanted = mesh.change(&who, "wanted.x").await;
        Ok(Point {
            case,
            real: true,
            links,
            rare,
            found: found.into_inner() as f64 / (TIMES * who.len()) as f64,
            common,
            quiet,
            wanted,
            records,
            tracker_records,
            knowledge: None,
            tracker_knowledge: None,
            resident,
        })
    })
}
