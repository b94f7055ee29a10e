//! `router check`: all problems of a configuration in one pass. Reading and checking is one function here, which every
//! command that needs routes calls.

mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Global, out};
use crate::config::check::Loaded;
use crate::config::resolve::{Process, resolve};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, Severity, human, json, sort};
use crate::files::{Files, Location};
use target::Target;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration folders, or files and folders of one; without any, the configuration of `-C` or the current folder
    pub paths: Vec<PathBuf>,
    /// How problems are written: human or json
    #[arg(long, value_name = "FORMAT", default_value = "human", value_parser = format)]
    pub format: Format,
    /// Warnings fail, too
    #[arg(long)]
    pub strict: bool,
    /// Look for every variable and secret file that the configuration names
    #[arg(long)]
    pub env: bool,
    /// Leave out the warnings of this code (R042 or literal-secret); may be repeated
    #[arg(long, value_name = "CODE", value_parser = warning)]
    pub allow: Vec<Code>,
    #[arg(long, hide = true)]
    pub fix: bool,
    #[arg(long, hide = true)]
    pub watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "human" => Ok(Format::Human),
        "json" => Ok(Format::Json),
        "sarif" | "github" | "junit" => {
            Err(format!("`{text}` is not built yet; there are human and json"))
        }
        _ => Err("there are human and json".to_owned()),
    }
}

fn warning(text: &str) -> Result<Code, String> {
    match Code::find(text) {
        Some(code) if code.severity() == Severity::Warning => Ok(code),
        Some(code) => Err(format!(
            "{} {} is an error; only warnings can be allowed",
            code.as_str(),
            code.name()
        )),
        None => Err("there is no such code; problems show theirs in brackets, as in warning[R042]"
            .to_owned()),
    }
}

/// Reads and checks a configuration. A problem of reading joins the others; where it would only make them echo, they are
/// left out.
pub fn load(location: &Location) -> Loaded {
    let (files, unread) = Files::read(location);
    let hides_others = unread.iter().any(|diagnostic| {
        let name = &files.get(diagnostic.span.file).name;
        diagnostic.severity == Severity::Error && !name.starts_with("routes/")
    });
    let mut loaded = match hides_others {
        true => Loaded { files, set: None, diagnostics: Vec::new() },
        false => crate::config::check::load(files),
    };
    if unread.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        loaded.set = None;
    }
    loaded.diagnostics.extend(unread);
    sort(&loaded.files, &mut loaded.diagnostics);
    loaded
}

/// Prints problems to stderr with their count: what a command that does something else says of a configuration.
pub fn complain(files: &Files, diagnostics: &[Diagnostic]) {
    super::err(&human::render(files, diagnostics, super::colour(&std::io::stderr())));
    if let Some(summary) = human::summary(diagnostics) {
        super::err(&format!("{summary}\n"));
    }
}

#[expect(clippy::unused_async, reason = "every command has this signature")]
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    for (given, name) in [(args.fix, "--fix"), (args.watch, "--watch")] {
        if given {
            return Ok(super::usage(&format!("`{name}` is not built yet")));
        }
    }
    let targets = match target::targets(&args.paths, global) {
        Ok(targets) => targets,
        Err(message) => return Ok(super::usage(&message)),
    };
    if args.format == Format::Json && targets.len() > 1 {
        return Ok(super::usage(
            "`--format json` prints one object, so it takes one configuration",
        ));
    }
    let mut failed = false;
    for target in &targets {
        match check(target, &args, targets.len() > 1) {
            Ok(clean) => failed |= !clean,
            Err(message) => return Ok(super::usage(&message)),
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Whether the target is clean; an error where the target names nothing.
fn check(target: &Target, args: &Args, named: bool) -> Result<bool, String> {
    let Loaded { files, set, mut diagnostics } = load(&target.location);
    if let Some(set) = set.as_ref().filter(|_| args.env) {
        diagnostics.extend(resolve(set, &Process).1);
        sort(&files, &mut diagnostics);
    }
    target.keep(&files, &mut diagnostics)?;
    diagnostics.retain(|diagnostic| {
        !(diagnostic.severity == Severity::Warning && args.allow.contains(&diagnostic.code))
    });
    let clean =
        !diagnostics.iter().any(|diagnostic| args.strict || diagnostic.severity == Severity::Error);
    if args.format == Format::Json {
        out(&json::render(&files, &diagnostics));
        return Ok(clean);
    }
    out(&human::render(&files, &diagnostics, super::colour(&std::io::stdout())));
    let summary = human::summary(&diagnostics).unwrap_or_else(|| match &set {
        Some(set) => {
            let routes = human::plural(set.routes.len(), "route");
            format!("ok: {routes}, {}", human::plural(set.sources.len(), "source"))
        }
        None => "ok: nothing wrong in what was named".to_owned(),
    });
    match named {
        true => out(&format!("{}: {summary}\n", files.root.display())),
        false => out(&format!("{summary}\n")),
    }
    Ok(clean)
}
