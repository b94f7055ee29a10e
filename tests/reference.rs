//! The pages of `docs/` that are made from the tables of keys are fresh. `UPDATE_DOCS=1 cargo test --test reference`
//! writes them anew.

use std::fs;
use std::path::Path;

use router::config::preset::BUILT_IN;
use router::config::reference::{Page, keys_page};
use router::files::Files;
use router::syntax::parse;

fn fresh(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).expect("docs/ is there and writable");
    }
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == made,
        "docs/{name} is stale: run `UPDATE_DOCS=1 cargo test --test reference` and look at the change"
    );
}

#[test]
fn pages_are_fresh() {
    fresh("reference/route.md", &keys_page(Page::Route));
    fresh("reference/config.md", &keys_page(Page::Config));
}

/// The table of the built-in presets.
fn providers_page() -> String {
    let mut page = "# Provider presets\n\n`verify: { provider: NAME, secret: … }` takes one. `router providers show NAME` prints it.\n\n\
        | name | provider | strength | `config` | events of one POST | event id | time covered | resends for | waits for |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (name, yaml) in BUILT_IN {
        let file = Files::new("/nowhere").add("providers/a.yaml", *yaml);
        let node = parse(file, yaml).node.expect("a preset is YAML");
        let text = |path: &[&str]| {
            let found = path.iter().try_fold(&node, |node, key| node.get(key));
            found.and_then(|node| node.as_text()).map_or("", |text| &text.text).to_owned()
        };
        let strength = match &*text(&["strength"]) {
            "signed" => "the body is signed",
            "partial" => "the origin is proved, the body not or in part",
            "token" => "a shared token, nothing is signed",
            _ => "nothing is proved",
        };
        let event = yaml.split_once("\nevent:\n").map_or("", |(_, rest)| rest);
        let of_event = |key: &str| event.lines().find_map(|line| line.strip_prefix(key));
        let id = of_event("  id: ").map(|id| format!("`{id}`")).unwrap_or_default();
        let split = of_event("  split: ")
            .map(|path| format!("`{}`", path.trim_matches('"')))
            .unwrap_or_default();
        let config = node.get("config").and_then(|config| config.as_map()).unwrap_or_default();
        let config: Vec<String> =
            config.iter().map(|pair| format!("`{}`", pair.key.text)).collect();
        let config = config.join(", ");
        let timed = if yaml.contains("tolerance:") { "yes" } else { "no" };
        let (title, span, wait) =
            (text(&["title"]), text(&["retries", "span"]), text(&["retries", "timeout"]));
        page += &format!(
            "| `{name}` | {title} | {strength} | {config} | {split} | {id} | {timed} | {span} | {wait} |\n"
        );
    }
    page
}

#[test]
fn the_page_of_presets_is_fresh() {
    fresh("providers.md", &providers_page());
}
