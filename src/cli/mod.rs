//! The `elo` command: what it can be asked, and the way from there to the file that does it.

mod access;
mod bench;
mod call;
mod completions;
mod config;
mod demo;
mod doors;
mod events;
mod failure;
mod find;
mod id;
mod init;
mod limits;
mod logging;
#[cfg(feature = "mcp")]
mod mcp;
mod mesh;
mod output;
mod passphrase;
mod peers;
mod pubkey;
mod publish;
mod render;
mod revoke;
mod rotate;
mod rules;
mod serve;
mod settings;
mod signals;
mod status;
mod stop;
mod text;
mod unlock;
mod values;
mod waiting;
mod wake;

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use failure::Failure;
use output::Output;

const AFTER_HELP: &str = "\
Two commands to begin with:
  elo demo                                  see the mesh work, on this machine
  elo serve --agent summarise --exec ./run  offer an agent that runs a program

Settings: a flag wins over an environment variable ELO_*, that over HOME/elo.toml, that over the \
default.

Exit codes: 0 success, 1 failed, 2 wrong usage, 3 not delivered, 4 delivered but unanswered in time, \
5 the key is under a passphrase that was wrong or not given, 130 interrupted.";

/// A peer-to-peer mesh for AI agents: find one by what it can do, hand it a task, get a signed result.
#[derive(Debug, Parser)]
#[command(name = "elo", bin_name = "elo", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Folder of the key, the settings and the control socket [default: ~/.elo]
    #[arg(long, global = true, env = "ELO_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Settings file [default: HOME/elo.toml, if there is one]
    #[arg(long, global = true, env = "ELO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: one object a line on stdout; an error is one object on stderr
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr (-v what happens, -vv everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say only errors on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Call(call::CallArgs),
    Find(find::FindArgs),
    Wake(wake::WakeArgs),
    #[cfg(feature = "mcp")]
    Mcp(Box<mcp::McpArgs>),
    Bench(bench::BenchArgs),
    Peers(peers::PeersArgs),
    Access(access::AccessListArgs),
    Allow(access::AllowArgs),
    Deny(access::DenyArgs),
    Events(events::EventsArgs),
    Publish(publish::PublishArgs),
    Status(status::StatusArgs),
    Stop(stop::StopArgs),
    Init(init::InitArgs),
    Id(id::IdArgs),
    Pubkey(pubkey::PubkeyArgs),
    Passphrase(passphrase::PassphraseArgs),
    Rotate(rotate::RotateArgs),
    Revoke(revoke::RevokeArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
}

/// `elo serve` without the other commands: a node that idles for weeks needn't have laid out the arguments of all of them, half a
/// megabyte of program and heap.
#[derive(Debug, Parser)]
#[command(name = "elo", bin_name = "elo", version)]
struct ServeAlone {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: OnlyServe,
}

#[derive(Debug, Subcommand)]
enum OnlyServe {
    Serve(Box<serve::ServeArgs>),
}

/// Reads the arguments.
fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let args = access::with_blanks(args);
    // What isn't plainly that, help and faults too, is for the whole of it.
    if args.iter().any(|arg| arg == "serve")
        && let Ok(ServeAlone { global, command: OnlyServe::Serve(args) }) = ServeAlone::try_parse_from(&args)
    {
        return Ok(Cli { global, command: Command::Serve(args) });
    }
    Cli::try_parse_from(args)
}

/// What every command has at hand.
struct App {
    home: PathBuf,
    config: Option<PathBuf>,
    quiet: bool,
    out: Output,
}

impl App {
    /// The settings file's content; empty if there is none.
    fn file(&self) -> Result<config::FileSettings, Failure> {
        config::FileSettings::load(&self.home, self.config.as_deref())
    }

    /// Runs a future to its end on a runtime of its own.
    fn block_on<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(format!("can't start the runtime: {e}")))?;
        let mut result = None;
        // One kind of future for all commands: what tokio makes of each kind is 7 kB of program and more.
        let running: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(async { result = Some(future.await) });
        runtime.block_on(running);
        // A thread may hang in a write to a terminal that is stopped: it doesn't hold up the end.
        runtime.shutdown_background();
        result.expect("it ran to its end")
    }
}

/// Runs the command; gives its exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let json = args.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json");
    let out = Output::new(json);
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(out.usage(&error)),
    };
    ExitCode::from(match run(cli, &out) {
        Ok(code) => code,
        Err(failure) => out.failure(&failure),
    })
}

fn run(cli: Cli, out: &Output) -> Result<u8, Failure> {
    let Global { home, config, json: _, verbose, quiet } = cli.global;
    let home = match home {
        Some(home) if home.as_os_str().is_empty() => None,
        Some(home) => Some(home),
        None => std::env::home_dir().filter(|h| !h.as_os_str().is_empty()).map(|h| h.join(".elo")),
    };
    let home = home.ok_or_else(|| Failure::usage("there is no home folder to be found: say --home DIR"))?;
    let app = App { home, config, quiet, out: out.clone() };
    logging::start(logging::Verbosity::new(verbose, quiet))?;
    match cli.command {
        Command::Serve(args) => serve::run(&app, *args),
        Command::Call(args) => call::run(&app, args),
        Command::Find(args) => find::run(&app, args),
        Command::Wake(args) => wake::run(&app, args),
        #[cfg(feature = "mcp")]
        Command::Mcp(args) => mcp::run(&app, *args),
        Command::Bench(args) => bench::run(&app, args),
        Command::Peers(args) => peers::run(&app, args),
        Command::Access(args) => access::list(&app, args),
        Command::Allow(args) => access::allow(&app, args),
        Command::Deny(args) => access::deny(&app, args),
        Command::Events(args) => events::run(&app, args),
        Command::Publish(args) => publish::run(&app, args),
        Command::Status(args) => status::run(&app, args),
        Command::Stop(args) => stop::run(&app, args),
        Command::Init(args) => init::run(&app, args),
        Command::Id(args) => id::run(&app, args),
        Command::Pubkey(args) => pubkey::run(&app, args),
        Command::Passphrase(args) => passphrase::run(&app, args),
        Command::Rotate(args) => rotate::run(&app, args),
        Command::Revoke(args) => revoke::run(&app, args),
        Command::Demo(args) => demo::run(&app, args),
        Command::Completions(args) => completions::run(&app, args),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_arguments_are_declared_soundly() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn serve_by_itself_is_read_as_among_all_commands() {
        super::ServeAlone::command().debug_assert();
        for line in [
            "elo serve",
            "elo -v serve --json --agent serve --bind 127.0.0.1 --port 0 --dht off",
            "elo --home serve serve --no-lan -q",
            "elo --home serve status",
            "elo call serve --agent x",
            "elo find serve",
            "elo serve serve",
            "elo serve status",
            "elo serve --help",
            "elo help serve",
            "elo serve --version",
            "elo --version serve",
            "elo -- serve",
            "elo serve -q -v",
            "elo serve --port x",
        ] {
            let args = || line.split(' ').map(std::ffi::OsString::from).collect::<Vec<_>>();
            let (said, whole) = (super::parse(args()), super::Cli::try_parse_from(args()));
            let shown = |read: Result<super::Cli, clap::Error>| match read {
                Ok(cli) => format!("{cli:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown(said), shown(whole), "{line}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        for command in super::Cli::command().get_subcommands() {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "elo {name} --help has no example");
            assert!(command.get_about().is_some(), "elo {name} has no description");
        }
    }

    /// Help is wrapped to the terminal: a paragraph that is broken by hand as well ends up as long and short lines by turns.
    #[test]
    fn help_is_broken_by_hand_only_where_it_fits_80_columns() {
        let command = super::Cli::command();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for paragraph in help.split("\n\n").filter(|paragraph| paragraph.contains('\n')) {
                for line in paragraph.lines() {
                    assert!(line.chars().count() < 80, "{}: {line}", command.get_name());
                }
            }
        }
    }
}
