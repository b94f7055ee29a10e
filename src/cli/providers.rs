//! `router providers`: the presets that this configuration knows, its own before the built-in ones.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::{Global, out};
use crate::config::preset::BUILT_IN;
use crate::diag::{FileId, suggest};
use crate::files::{FileKind, Files};
use crate::syntax::parse;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Every preset with how it proves its sender
    List {
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Print a preset as YAML
    Show {
        /// As `verify: { provider: NAME }` has it
        name: String,
    },
}

struct Preset {
    yaml: String,
    strength: String,
    docs: String,
    own: bool,
}

#[expect(clippy::unused_async, reason = "every command has this signature")]
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let presets = presets(global);
    match args.command {
        Command::List { json: true } => {
            let list: Vec<_> = presets
                .iter()
                .map(|(name, preset)| {
                    serde_json::json!({
                        "name": name, "strength": preset.strength, "docs": preset.docs, "builtIn": !preset.own,
                    })
                })
                .collect();
            out(&format!("{:#}\n", serde_json::Value::Array(list)));
        }
        Command::List { json: false } => {
            let width = presets.keys().map(|name| name.len()).max().unwrap_or(0);
            for (name, preset) in &presets {
                let own = if preset.own { "  (providers/)" } else { "" };
                let line = format!("{name:width$}  {:8}  {}{own}", preset.strength, preset.docs);
                out(&format!("{}\n", line.trim_end()));
            }
        }
        Command::Show { name } => match presets.get(&name) {
            Some(preset) => out(&preset.yaml),
            None => {
                let known = presets.keys().map(String::as_str);
                let help = suggest::help(&name, known).unwrap_or_else(|| {
                    "`router providers list` prints those that there are".to_owned()
                });
                anyhow::bail!("there is no provider `{name}`: {help}");
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn presets(global: &Global) -> BTreeMap<String, Preset> {
    let mut presets: BTreeMap<_, _> =
        BUILT_IN.iter().map(|(name, yaml)| ((*name).to_owned(), preset(yaml, false))).collect();
    let (files, _) = Files::read(&global.location());
    for id in files.of(FileKind::Provider) {
        let yaml = &files.get(id).text;
        let named = parse(id, yaml)
            .node
            .and_then(|node| Some(node.get("provider")?.as_text()?.text.clone()));
        if let Some(name) = named {
            presets.insert(name, preset(yaml, true));
        }
    }
    presets
}

fn preset(yaml: &str, own: bool) -> Preset {
    let node = parse(FileId(0), yaml).node;
    let text = |key: &str| {
        let text = node.as_ref().and_then(|node| node.get(key)?.as_text());
        text.map(|text| text.text.clone()).unwrap_or_default()
    };
    Preset { yaml: yaml.to_owned(), strength: text("strength"), docs: text("docs"), own }
}
