//! `elo bench`: how fast another node answers, and which way.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::control::{BenchArgs as Request, op};
use crate::limits::{MAX_BENCH, MAX_BENCH_CALLS, MAX_BENCH_IN_FLIGHT, MAX_BENCH_WARM_UP};

use super::App;
use super::call::BUILT_IN;
use super::failure::{FAILED, Failure, OK, UNANSWERED};
use super::signals::Signals;
use super::waiting::Waiting;
use super::{mesh, output, render, text, values};

const AFTER_HELP: &str = "\
Examples:
  elo bench mybox                            one call at a time: the latency
  elo bench mybox --in-flight 64             64 calls at a time: the rate
  elo bench --peer 10.0.0.5 --duration 10s   a node by its address
  elo bench mybox --via tracker --size 10kB  through a tracker, larger payloads
  elo bench mybox --capability add --payload '[1, 2]' --calls 1000
  elo bench mybox --json | jq .latency_ms.p99

The calls are made by the node that runs here, so over the connections that it has; with --peer by a \
short-lived node connected to that peer. Each of the calls in flight is followed by the next as soon as it is \
answered, or a moment after it failed. It ends when its time is over, when all calls were made, with Ctrl-C, \
or early when nothing but failures comes; what was measured is printed in each case. Every call is real work \
for the other side: `ping`, the default, sends the payload back and is let in as any task is.

Exit codes: 0 every call was answered, 1 some failed, 2 wrong usage, 3 the node was not reached, \
4 none was answered in time, 130 interrupted (what was measured is printed).";

/// Measure how fast another node answers: latencies, rate, errors, route
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct BenchArgs {
    /// The node: its name, its id or the beginning of it [default: the one named by --peer]
    #[arg(value_parser = values::node, allow_hyphen_values = true)]
    node: Option<String>,
    /// What to ask for: a capability's name
    #[arg(long, value_name = "NAME", value_parser = values::name, default_value = "ping")]
    capability: String,
    /// How many calls are under way at a time (at most 4096)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = in_flight)]
    in_flight: usize,
    /// How long to make calls: 500ms, 10s, 2m (at most 10m) [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "calls")]
    duration: Option<Duration>,
    /// Make so many calls, however long they take (at most 10m)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_BENCH_CALLS))]
    calls: Option<u64>,
    /// How long to make calls before that, which don't count; 0: none [default: 500ms; with --calls: 0]
    #[arg(long, value_name = "TIME", value_parser = warm_up)]
    warm_up: Option<Duration>,
    /// The payload's size, as JSON text: 350B, 10kB, 64KiB [default: 100B; other capabilities: null]
    #[arg(long, value_name = "SIZE", value_parser = values::size, conflicts_with = "payload")]
    size: Option<usize>,
    /// The payload: JSON, else text; - reads stdin
    #[arg(long, allow_negative_numbers = true)]
    payload: Option<String>,
    /// Send through this tracker: its name, its id or the beginning of it
    #[arg(long, value_name = "TRACKER", value_parser = values::node, allow_hyphen_values = true)]
    via: Option<String>,
    /// Go through a short-lived node connected to this peer; may be repeated
    #[arg(long, value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, value_delimiter = ',',
        allow_hyphen_values = true)]
    peer: Vec<String>,
    /// How long each answer may take: 500ms, 10s, 2m or seconds [default: 10s]
    #[arg(long, env = "ELO_TIMEOUT", value_name = "TIME", value_parser = values::duration)]
    timeout: Option<Duration>,
}

fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_BENCH_IN_FLIGHT).contains(&number) => Ok(number),
        _ => Err(format!("1 to {MAX_BENCH_IN_FLIGHT} calls may be in flight")),
    }
}

fn at_most(text: &str, most: Duration, read: fn(&str) -> Result<Duration, String>) -> Result<Duration, String> {
    match read(text)? {
        long if long > most => Err(format!("at most {} s: it is load for somebody else", most.as_secs())),
        duration => Ok(duration),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    at_most(text, MAX_BENCH, values::duration)
}

fn warm_up(text: &str) -> Result<Duration, String> {
    at_most(text, MAX_BENCH_WARM_UP, values::pause)
}

/// A payload of so many bytes of JSON text: a string.
fn of_size(size: usize) -> Result<Box<RawValue>, Failure> {
    to_raw_value(&"x".repeat(size.saturating_sub(2))).map_err(|e| Failure::new(e.to_string()))
}

fn payload(args: &BenchArgs) -> Result<Box<RawValue>, Failure> {
    match (&args.payload, args.size) {
        (Some(payload), _) => values::payload(Some(payload)),
        (None, Some(size)) => of_size(size),
        (None, None) if args.capability == "ping" => of_size(100),
        (None, None) => values::payload(None),
    }
}

pub(super) fn run(app: &App, args: BenchArgs) -> Result<u8, Failure> {
    match (&args.node, &args.peer[..]) {
        (None, [_]) => {}
        (None, []) => {
            return Err(Failure::usage("which node? say its name or its id, or its address with --peer HOST:PORT")
                .hint("`elo find` and `elo peers` show who is there"));
        }
        (None, _) => return Err(Failure::usage("with several --peer, say which node is meant: its name or its id")),
        (Some(node), _) if node.parse::<SocketAddr>().is_ok() || node.parse::<IpAddr>().is_ok() => {
            return Err(Failure::usage(format!("{node} is an address: say --peer {node}")));
        }
        _ => {}
    }
    let timeout = args.timeout.or(app.file()?.value("timeout", values::duration)?).unwrap_or(Duration::from_secs(10));
    if args.payload.as_deref() == Some("-") && !app.out.json && !app.quiet && std::io::stdin().is_terminal() {
        app.out.note("type the payload; Ctrl-D ends it");
    }
    // Before the runtime starts: Ctrl-C while stdin is read simply ends the process.
    let payload = payload(&args)?;
    app.block_on(bench(app, args, payload, timeout))
}

async fn bench(app: &App, args: BenchArgs, payload: Box<RawValue>, timeout: Duration) -> Result<u8, Failure> {
    // The first signal asks for what was measured so far, the second doesn't wait for it.
    let (mut first, mut second) = (Signals::new()?, Signals::new()?);
    let waiting = Waiting::start(app, "looking for the way into the mesh");
    let mut way = tokio::select! {
        way = mesh::any(app, &args.peer, timeout) => way?,
        () = first.next() => return Err(Failure::interrupted()),
    };
    waiting.say("looking for the node".to_owned());
    let plan = Plan::of(&args);
    let request = Request {
        to: args.node,
        via: args.via,
        capability: args.capability,
        payload,
        in_flight: args.in_flight,
        calls: args.calls,
        duration_ms: whole_millis(plan.duration),
        warm_up_ms: whole_millis(plan.warm_up),
        timeout_ms: whole_millis(timeout),
        progress: waiting.is_seen(),
    };
    let interrupted = Cell::new(false);
    let show = Show { app, plan: &plan, waiting: RefCell::new(Some(waiting)) };
    let asked = tokio::select! {
        asked = way.ask_until(op::BENCH, &request, |news| show.news(&mesh::value(&news)?), async {
            first.next().await;
            interrupted.set(true);
        }) => asked,
        () = async { second.next().await; second.next().await } => Err(Failure::interrupted()),
    };
    drop(show);
    // In any case: hanging up cancels what is still under way, and our node says goodbye after that.
    way.close().await;
    let interrupted = interrupted.get();
    let report = asked.map_err(|failure| match interrupted {
        true => Failure::interrupted(),
        // What a call is advised has flags that are not here.
        false if failure.hint.as_ref().is_some_and(|hint| hint.contains("--trace")) => {
            failure.hint("`elo find` shows who is there")
        }
        false => failure,
    })?;
    let value = mesh::value(&report)?;
    if app.out.json {
        app.out.json(&report)?;
    } else {
        app.out.block(&render::bench(&value))?;
    }
    if interrupted { Err(Failure::interrupted()) } else { verdict(&value) }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time as it was given.
fn span(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => text::span(time.as_secs()),
        _ => text::fine_millis(time.as_secs_f64() * 1000.0),
    }
}

/// The exit code for what was measured.
fn verdict(report: &Value) -> Result<u8, Failure> {
    let number = |member: &str| report[member].as_u64().unwrap_or_default();
    let (answered, failed, cut_off) = (number("answered"), number("failed"), number("cut_off"));
    let most = &report["errors"][0];
    let code = most["code"].as_str().unwrap_or_default();
    if report["ended"] == "too_long" {
        let most = MAX_BENCH.as_secs();
        return Err(Failure::new(format!("not all calls were made within {most} s")).exit(FAILED));
    }
    match (answered, failed) {
        (0, 0) => Err(Failure::new(format!("none of the {cut_off} calls in flight was answered in the time given"))
            .exit(UNANSWERED)
            .hint("a longer --duration, or --calls, waits longer")),
        (_, 0) => Ok(OK),
        // As a call that fails so: none was sent, or none answered in time.
        (0, _) => {
            let as_one = Failure::from_reply(most.clone());
            Err(Failure::new(format!("{} calls failed, none was answered: {code}", text::count(failed)))
                .code(code)
                .exit(as_one.exit))
        }
        _ => Err(Failure::new(format!("{} of {} calls failed", text::count(failed), text::count(answered + failed)))
            .code(code)),
    }
}

/// What is going to be done.
struct Plan {
    capability: String,
    in_flight: usize,
    calls: Option<u64>,
    duration: Duration,
    warm_up: Duration,
}

impl Plan {
    fn of(args: &BenchArgs) -> Self {
        let (duration, warm_up) = match args.calls {
            Some(_) => (MAX_BENCH, Duration::ZERO),
            None => (Duration::from_secs(5), Duration::from_millis(500)),
        };
        Self {
            capability: args.capability.clone(),
            in_flight: args.in_flight,
            calls: args.calls,
            duration: args.duration.unwrap_or(duration),
            warm_up: args.warm_up.unwrap_or(warm_up),
        }
    }

    fn how_much(&self) -> String {
        match self.calls {
            Some(1) => "1 call".to_owned(),
            Some(calls) => format!("{} calls", text::count(calls)),
            None => span(self.duration),
        }
    }

    /// For a person, before it begins.
    fn told(&self, target: &Value) -> String {
        let who = render::bench_node(target, "name", "node_id");
        let capability = &self.capability;
        let how_much = match self.calls {
            Some(_) => self.how_much(),
            None => format!("calls for {}", self.how_much()),
        };
        let warm_up = match self.warm_up {
            Duration::ZERO => String::new(),
            warm_up => format!(" after {} of warm-up", span(warm_up)),
        };
        let mut told = format!("asking {who} for {capability}: {how_much}{warm_up}, {} in flight", self.in_flight);
        if !BUILT_IN.contains(&capability.as_str()) {
            told.push_str("; each call is real work there");
        }
        told.push_str(" (Ctrl-C ends it)");
        text::hung("", &text::line(&told), 0, Some(79))
    }
}

/// Shows a person what is done.
struct Show<'a> {
    app: &'a App,
    plan: &'a Plan,
    waiting: RefCell<Option<Waiting>>,
}

impl Show<'_> {
    fn news(&self, news: &Value) -> Result<(), Failure> {
        if news["stage"] == "found" {
            // The line that was shown while it was looked for goes.
            drop(self.waiting.take());
            if !self.app.out.json && !self.app.quiet {
                self.app.out.note(&self.plan.told(news));
            }
        } else {
            output::waiting_note(&text::line(&render::bench_progress(news, &self.plan.how_much())));
        }
        Ok(())
    }
}

impl Drop for Show<'_> {
    fn drop(&mut self) {
        if std::io::stderr().is_terminal() && !self.app.out.json && !self.app.quiet {
            output::clear_note();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(answered: u64, failed: u64, ended: &str, code: &str, delivery: &str) -> Value {
        let errors = json!([{"code": code, "delivery": delivery, "message": "so"}]);
        json!({"answered": answered, "failed": failed, "cut_off": 1, "ended": ended, "errors": errors})
    }

    #[test]
    fn what_was_measured_decides_the_exit_code() {
        let exit = |report: Value| match verdict(&report) {
            Ok(code) => code,
            Err(failure) => failure.exit,
        };
        assert_eq!(exit(report(10, 0, "duration", "", "")), 0);
        assert_eq!(exit(report(10, 1, "duration", "TIMEOUT", "accepted")), 1);
        assert_eq!(exit(report(0, 1, "failing", "UNKNOWN_CAPABILITY", "answered")), 1);
        assert_eq!(exit(report(0, 1, "failing", "NO_PEER", "not_sent")), 3);
        assert_eq!(exit(report(0, 1, "duration", "TIMEOUT", "accepted")), 4);
        assert_eq!(exit(report(0, 0, "duration", "", "")), 4);
        assert_eq!(exit(report(10, 0, "too_long", "", "")), 1);
    }

    #[test]
    fn a_payload_of_a_size_has_that_size() {
        for size in [2, 3, 100, 10_000] {
            assert_eq!(of_size(size).unwrap().get().len(), size);
        }
    }
}
