//! The command line. One file per command; the only place that prints.

pub mod backup;
pub mod check;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod export;
pub mod import;
mod place;
pub mod providers;
mod remote;
pub mod restore;
pub mod running;
pub mod sample;
pub mod schema;
pub mod send;
pub mod serve;
pub mod sources;
pub mod try_route;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::files::Location;

/// Webhooks become finished business actions, exactly once, and provably so.
#[derive(Parser, Debug)]
#[command(name = "router", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Global {
    /// The configuration folder [default: the current folder]
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// A file that stands for router.yaml; its folder is the configuration folder
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "directory")]
    pub config: Option<PathBuf>,
    /// How log lines are written [default: human on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Validate a configuration: every problem with its place and the way out
    Check(check::Args),
    /// Run the router
    Serve(serve::Args),
    /// See it work on this machine, with no set-up
    Demo(demo::Args),
    /// Sign a sample with a route's own scheme and POST it
    Send(send::Args),
    /// Show the fields and requests of a payload as they would be sent; sends nothing
    Try(try_route::Args),
    /// Look at the events of a running router and replay them
    Events(events::Args),
    /// List sources, and take the secrets that their providers' handshakes bring
    Sources(sources::Args),
    /// Look through the data folder, and repair what is damaged
    Doctor(doctor::Args),
    /// Copy the store, of a running router too; a second time only what is new
    Backup(backup::Args),
    /// Put a backup into an empty data folder
    Restore(restore::Args),
    /// Write the store out as JSON lines: events with all that happened to them
    Export(export::Args),
    /// Take in what `router export` wrote
    Import(import::Args),
    /// Print the JSON Schema of a kind of file, for editors
    Schema(schema::Args),
    /// List the provider presets, or print one
    Providers(providers::Args),
}

impl Global {
    /// The configuration that `-C`, `--config` or the current folder names.
    pub fn location(&self) -> Location {
        match (&self.config, &self.directory) {
            (Some(file), _) => Location::File(file.clone()),
            (None, Some(folder)) => Location::Folder(folder.clone()),
            (None, None) => Location::Folder(PathBuf::from(".")),
        }
    }

    /// Sends log lines to stderr from now on, in the form that was asked for.
    pub fn start_log(&self) {
        use crate::telemetry::log::{Format, init};
        init(match self.log_format {
            Some(LogFormat::Human) => Format::Human,
            Some(LogFormat::Json) => Format::Json,
            None if std::io::stderr().is_terminal() => Format::Human,
            None => Format::Json,
        });
    }
}

/// Runs one command: 0 done, 1 what was asked for failed, 2 wrong use of the command line.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Check(args) => check::run(args, global).await,
        Command::Serve(args) => serve::run(args, global).await,
        Command::Demo(args) => demo::run(args, global).await,
        Command::Send(args) => send::run(args, global).await,
        Command::Try(args) => try_route::run(args, global).await,
        Command::Events(args) => events::run(args, global).await,
        Command::Sources(args) => sources::run(args, global).await,
        Command::Doctor(args) => doctor::run(args, global).await,
        Command::Backup(args) => backup::run(args, global).await,
        Command::Restore(args) => restore::run(args, global).await,
        Command::Export(args) => export::run(args, global).await,
        Command::Import(args) => import::run(args, global).await,
        Command::Schema(args) => schema::run(args, global).await,
        Command::Providers(args) => providers::run(args, global).await,
    }
}

/// Prints `error` with its causes.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    err(&format!("error: {error:#}\n"));
    ExitCode::from(1)
}

/// Says what is wrong with the command line.
pub fn usage(message: &str) -> ExitCode {
    err(&format!("error: {message}\n\nFor more information, try '--help'.\n"));
    ExitCode::from(2)
}

/// Prints to stdout. A reader that went away (`router check | head`) is no error; a full disk is, and silence would hide
/// it.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        err(&format!("error: cannot write the output: {error}\n"));
        std::process::exit(1);
    }
}

/// Prints to stderr; where that fails nobody is left to be told.
pub fn err(text: &str) {
    let mut stderr = std::io::stderr().lock();
    drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
}

/// Whether this output takes colours: a terminal does, unless `NO_COLOR` is set.
pub fn colour(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse =
            |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        assert_eq!(
            parse("router check -C x").unwrap().global.location(),
            Location::Folder(PathBuf::from("x"))
        );
        assert_eq!(
            parse("router -C x check").unwrap().global.location(),
            Location::Folder(PathBuf::from("x"))
        );
        assert_eq!(
            parse("router check --config a/b.yaml").unwrap().global.location(),
            Location::File("a/b.yaml".into())
        );
        assert!(parse("router check -C x --config y").is_err());
        assert!(parse("router check --format sarif").is_ok());
        assert!(parse("router check --format xml").unwrap_err().contains("sarif"));
        assert!(
            parse("router check --allow R012")
                .unwrap_err()
                .contains("only warnings can be allowed")
        );
        assert!(parse("router check --allow R042 --allow unverified-source").is_ok());
    }
}
