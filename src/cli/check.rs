//! `router check`: all problems of a configuration in one pass.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Global;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A configuration folder, or files and folders of one to look at
    pub paths: Vec<PathBuf>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let _ = (args, global);
    todo!()
}
