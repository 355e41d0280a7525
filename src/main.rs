//! The `elo` command: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    elo::cli::main(std::env::args_os().collect())
}
