//! `router providers`: the presets that this configuration knows, its own before the built-in ones.

mod show;

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::{Global, out};
use crate::config::preset::BUILT_IN;
use crate::diag::{FileId, suggest};
use crate::files::{FileKind, Files};
use crate::syntax::parse;
use show::Card;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Every preset with how it proves its sender
    List {
        /// Only those with this in their name or title
        search: Option<String>,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// What a preset proves, what to configure at the provider and in the route, and how to try it
    Show {
        /// As `verify: { provider: NAME }` has it
        name: String,
        /// The preset's YAML alone
        #[arg(long, conflicts_with = "json")]
        yaml: bool,
        /// For machines
        #[arg(long)]
        json: bool,
    },
}

struct Preset {
    yaml: String,
    title: String,
    strength: String,
    docs: String,
    own: bool,
}

#[expect(clippy::unused_async, reason = "every command has this signature")]
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let presets = presets(global);
    match args.command {
        Command::List { search, json } => {
            let found = matching(&presets, search.as_deref());
            if let (Some(search), true) = (&search, found.is_empty()) {
                anyhow::bail!(
                    "no provider has `{search}` in its name or title; `router providers list` prints all"
                );
            }
            out(&if json { as_json(&found) } else { as_table(&found) });
        }
        Command::Show { name, yaml, json } => match presets.get(&name) {
            Some(preset) if yaml => out(&preset.yaml),
            Some(preset) => {
                let card = Card::of(&name, preset)?;
                out(&if json { card.for_machines() } else { card.for_people() });
            }
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

type Found<'a> = Vec<(&'a String, &'a Preset)>;

fn matching<'a>(presets: &'a BTreeMap<String, Preset>, search: Option<&str>) -> Found<'a> {
    let wanted = search.unwrap_or_default().to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    presets.iter().filter(|(name, preset)| has(name) || has(&preset.title)).collect()
}

fn as_json(found: &Found<'_>) -> String {
    let list: Vec<_> = found
        .iter()
        .map(|(name, preset)| {
            let (id, needs) = in_short(name, preset);
            serde_json::json!({
                "name": name, "title": preset.title, "strength": preset.strength, "docs": preset.docs, "builtIn": !preset.own,
                "id": id, "needs": needs,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(list))
}

fn as_table(found: &Found<'_>) -> String {
    let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let title_width = found.iter().map(|(_, preset)| preset.title.chars().count()).max();
    let title_width = title_width.unwrap_or(0).min(36);
    let line = |(name, preset): &(&String, &Preset)| {
        let own = if preset.own { "  (providers/)" } else { "" };
        let (id, needs) = in_short(name, preset);
        let needs = needs.join(", ");
        let strength = Card::of(name, preset).map(|card| card.strength()).unwrap_or_default();
        let title = &preset.title;
        let line =
            format!("{name:width$}  {title:title_width$}  {strength:8}  {id:10}  {needs}{own}");
        format!("{}\n", line.trim_end())
    };
    found.iter().map(line).collect()
}

/// One that cannot be read is listed, too; `check` says what is wrong with it.
fn in_short(name: &str, preset: &Preset) -> (&'static str, Vec<&'static str>) {
    Card::of(name, preset).map(|card| card.in_short()).unwrap_or_default()
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
    Preset {
        yaml: yaml.to_owned(),
        title: text("title"),
        strength: text("strength"),
        docs: text("docs"),
        own,
    }
}
