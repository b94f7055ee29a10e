//! `router check`: all problems of a configuration in one pass. Reading and checking is one function here, which every
//! command that needs routes calls.

mod target;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Global, out};
use crate::config::check::Loaded;
use crate::config::resolve::{Process, resolve};
use crate::diag::code::Code;
use crate::diag::repository::Repository;
use crate::diag::{Diagnostic, Severity, github, human, json, junit, sarif, sort};
use crate::files::{Files, Location};
use target::Target;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration folders, or files and folders of one; without any, the configuration of `-C` or the current folder
    pub paths: Vec<PathBuf>,
    /// How problems are written; github: annotations of a workflow, sarif: code scanning, junit: a test report
    #[arg(long, value_name = "FORMAT", default_value = "human")]
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

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
    Sarif,
    Github,
    Junit,
}

impl Format {
    /// What the format makes of a configuration, where that is one whole: two of them in one output would be nothing that
    /// a reader takes.
    fn whole(self) -> Option<&'static str> {
        match self {
            Format::Human | Format::Github => None,
            Format::Json => Some("`--format json` prints one object"),
            Format::Sarif => Some("`--format sarif` prints one log"),
            Format::Junit => Some("`--format junit` prints one report"),
        }
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
    if let Some(prints) = args.format.whole().filter(|_| targets.len() > 1) {
        return Ok(super::usage(&format!(
            "{prints}, so it takes one configuration; run it once for each"
        )));
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
    let repository = || repository(&files.root);
    let text = match args.format {
        Format::Human => human::render(&files, &diagnostics, super::colour(&std::io::stdout())),
        Format::Json => json::render(&files, &diagnostics),
        Format::Sarif => sarif::render(&files, &diagnostics, &repository()),
        Format::Github => github::render(&files, &diagnostics, &repository()),
        Format::Junit => {
            let checked = target.checked(&files);
            junit::render(&files, &checked, &diagnostics, args.strict, &repository())
        }
    };
    out(&text);
    let summary = human::summary(&diagnostics).unwrap_or_else(|| match &set {
        Some(set) => {
            let routes = human::plural(set.routes.len(), "route");
            format!("ok: {routes}, {}", human::plural(set.sources.len(), "source"))
        }
        None => "ok: nothing wrong in what was named".to_owned(),
    });
    let line = match named {
        true => format!("{}: {summary}\n", files.root.display()),
        false => format!("{summary}\n"),
    };
    match args.format {
        Format::Human => out(&line),
        // The object has its counts.
        Format::Json => {}
        // Beside the output, which a file or a machine takes: the job's log says how it went.
        Format::Sarif | Format::Github | Format::Junit => super::err(&line),
    }
    Ok(clean)
}

/// Where a configuration lies in its repository: in the nearest folder above it with `.git`, which is a file in a second
/// work tree. Without any, the configuration is all there is.
fn repository(folder: &Path) -> Repository {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let folder = folder
        .canonicalize()
        .or_else(|_| std::path::absolute(folder))
        .unwrap_or_else(|_| folder.to_owned());
    let root = folder.ancestors().find(|above| above.join(".git").exists()).unwrap_or(&folder);
    Repository { root: root.to_owned(), folder: folder.clone() }
}
