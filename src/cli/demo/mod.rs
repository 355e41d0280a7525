//! `elo demo`
use clap::Args;
use super::App;
use super::failure::Failure;
/// See the mesh work, on this machine alone
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  elo demo")]
pub(super) struct DemoArgs {}
pub(super) fn run(_: &App, _: DemoArgs) -> Result<u8, Failure> {
    Ok(0)
}
