//! `router serve`
//!
//! Once both listeners accept, it logs one line `listening` with the fields `ingress` and `admin` (the addresses bound).
//! `tests/support` reads that line.

use std::process::ExitCode;

use super::Global;

#[derive(clap::Args, Debug)]
pub struct Args {}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let _ = (args, global);
    todo!()
}
