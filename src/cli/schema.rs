//! `router schema`: the JSON Schema of a kind of file, for editors.

use std::process::ExitCode;

use super::{Global, out};
use crate::config::schema::{Document, text};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of file
    pub document: Kind,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Kind {
    /// routes/**/*.yaml
    Route,
    /// sources/*.yaml
    Source,
    /// router.yaml
    Config,
    /// providers/*.yaml
    Provider,
}

#[expect(clippy::unused_async, reason = "every command has this signature")]
pub async fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    out(&text(match args.document {
        Kind::Route => Document::Route,
        Kind::Source => Document::Source,
        Kind::Config => Document::Config,
        Kind::Provider => Document::Provider,
    }));
    Ok(ExitCode::SUCCESS)
}
