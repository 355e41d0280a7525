//! `elo completions`: a shell's tab completion.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::{Failure, OK};
use super::{App, Cli};

const AFTER_HELP: &str = "\
Examples:
  source <(elo completions bash)                                  in ~/.bashrc
  elo completions zsh > ~/.zfunc/_elo
  elo completions fish > ~/.config/fish/completions/elo.fish";

/// Print a shell's completion script
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(app: &App, args: CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "elo", &mut script);
    app.out.block(&String::from_utf8_lossy(&script))?;
    Ok(OK)
}
