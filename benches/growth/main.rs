//! How a mesh grows: what a query costs in all of it, what a change of what a node provides, and what a node keeps, at 10,
//! 100, 1,000 (real nodes in this machine, and the simulator) and 10,000 nodes (the simulator).
//!
//! `cargo bench --bench growth -- [--short] [--max NODES] [--json FILE] [--svg DIR]`
//!
//! `--from FILE` measures nothing: it takes the figures of an earlier run's JSON.

mod plan;
mod plot;
mod real;
mod report;
mod sim;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use plan::{Case, Point, Shape};

/// Trackers of a federation.
const TRACKERS: usize = 10;

/// Numbers of trackers for so many nodes.
const MORE_TRACKERS: [usize; 5] = [4, 10, 20, 40, 80];
const THEIR_NODES: usize = 200;

/// The most real nodes: two sockets for each link are open in one process.
const MOST_REAL: usize = 1000;

#[derive(Default)]
struct Options {
    /// Small numbers, for a check that it runs.
    short: bool,
    max: Option<usize>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
    from: Option<PathBuf>,
    /// A mesh of real nodes to be measured in this process.
    point: Option<String>,
}

impl Options {
    /// How many nodes there are where trackers are counted.
    fn nodes(&self) -> usize {
        if self.short { THEIR_NODES / 10 } else { THEIR_NODES }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--short" => options.short = true,
            "--max" => options.max = Some(value()?.parse::<usize>().map_err(|e| format!("--max: {e}"))?),
            "--json" => options.json = Some(value()?.into()),
            "--svg" => options.svg = Some(value()?.into()),
            "--from" => options.from = Some(value()?.into()),
            "--point" => options.point = Some(value()?),
            // What cargo says to every bench.
            "--bench" => {}
            other => return Err(format!("unknown option {other}; there are --short, --max, --json, --svg and --from")),
        }
    }
    Ok(options)
}

fn cases(sizes: &[usize], most: usize) -> Vec<Case> {
    let shapes = [(Shape::Tracker, 1), (Shape::Federation, TRACKERS), (Shape::Mesh, 0)];
    let sizes = sizes.iter().filter(|n| **n <= most);
    sizes.flat_map(|nodes| shapes.map(|(shape, trackers)| Case { shape, nodes: *nodes, trackers })).collect()
}

/// Each mesh of real nodes in a process of its own: memory that was freed would be counted for the next one otherwise.
fn real_in_child(case: &Case) -> Result<Point, String> {
    let case = serde_json::to_string(case).map_err(|e| e.to_string())?;
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(this);
    let output = command.args(["--point", &case]).stderr(Stdio::inherit()).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let point = text.lines().find(|line| line.starts_with('{'));
    let point = point.ok_or_else(|| format!("{case}: it ended with {} and no figures", output.status))?;
    serde_json::from_str(point).map_err(|e| e.to_string())
}

/// Measures everything, prints it as it comes, and writes it down.
fn measure(options: &Options) -> Result<Vec<Point>, String> {
    let (sizes, counts): (&[usize], &[usize]) =
        if options.short { (&[10, 30], &MORE_TRACKERS[..2]) } else { (&[10, 100, 1000, 10_000], &MORE_TRACKERS) };
    let most = options.max.unwrap_or(usize::MAX);
    let mut points = Vec::new();
    for case in cases(sizes, most.min(MOST_REAL)) {
        let point = real_in_child(&case)?;
        println!("{}", report::row(&point));
        points.push(point);
    }
    let mut simulated = cases(sizes, most);
    let nodes = options.nodes();
    if nodes <= most {
        simulated.extend(counts.iter().map(|trackers| Case { shape: Shape::Federation, nodes, trackers: *trackers }));
    }
    sim::measure(&simulated, |point| {
        println!("{}", report::row(&point));
        points.push(point);
    })?;
    let json = options.json.clone().unwrap_or_else(|| report::folder().join("growth.json"));
    report::write(&json, &points)?;
    println!("\n{}", json.display());
    Ok(points)
}

fn run() -> Result<(), String> {
    let options = options()?;
    if let Some(case) = &options.point {
        let case = serde_json::from_str(case).map_err(|e| format!("--point: {e}"))?;
        let point = real::measure(case)?;
        println!("{}", serde_json::to_string(&point).map_err(|e| e.to_string())?);
        return Ok(());
    }
    println!("{}", report::HEAD);
    let points = match &options.from {
        Some(file) => {
            let points = report::read(file)?;
            points.iter().for_each(|point| println!("{}", report::row(point)));
            points
        }
        None => measure(&options)?,
    };
    let Some(folder) = &options.svg else { return Ok(()) };
    // Those with another number of trackers are there for that number's curve.
    let is_usual =
        |p: &&Point| p.case.nodes != options.nodes() && (p.case.trackers <= 1 || p.case.trackers == TRACKERS);
    let by_nodes: Vec<Point> = points.iter().filter(is_usual).cloned().collect();
    let by_trackers: Vec<Point> = points.iter().filter(|p| p.case.nodes == options.nodes()).cloned().collect();
    for file in plot::all(folder, &by_nodes, &by_trackers).map_err(|e| format!("{}: {e}", folder.display()))? {
        println!("{}", file.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {error}");
            ExitCode::FAILURE
        }
    }
}
