//! The pages of reference, made from the tables: one section a mapping, one row a key that works.

use std::collections::BTreeSet;

use super::shape::check::in_words;
use super::shape::{Key, Mapping, Names, Shape, provider, route, server, source};

/// Which kinds of files a page tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `routes/`, with the sources and verifications that stand in them.
    Route,
    /// `router.yaml`, `sources/`, `providers/`.
    Config,
}

/// The keys of a page's files, mapping by mapping, in the order in which they are met.
pub fn keys_page(page: Page) -> String {
    let (title, tables): (&str, &[&'static Mapping]) = match page {
        Page::Route => ("Keys of a route", &[&route::ROUTE]),
        Page::Config => (
            "Keys of router.yaml, shared sources and provider presets",
            &[&server::CONFIG, &source::SOURCE_FILE, &provider::PROVIDER],
        ),
    };
    let mut text = format!(
        "# {title}\n\nMade from the tables that `router check` holds files against. ✱ marks a key that must be there.\n"
    );
    let mut seen = BTreeSet::new();
    for table in tables {
        section(table, &mut seen, &mut text);
    }
    text
}

fn section(table: &'static Mapping, seen: &mut BTreeSet<&'static str>, text: &mut String) {
    if !seen.insert(table.name) {
        return;
    }
    text.push_str(&format!("\n## {}\n\n", heading(table)));
    if !table.one_of.is_empty() {
        text.push_str(&format!(
            "Exactly one of {} is there.\n\n",
            super::shape::check::listed(table.one_of)
        ));
    }
    text.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in table.keys.iter().filter(|key| key.built) {
        text.push_str(&row(key));
    }
    for key in table.keys.iter().filter(|key| key.built) {
        below(&key.shape, seen, text);
    }
}

/// The mappings that a value holds get their own sections.
fn below(shape: &Shape, seen: &mut BTreeSet<&'static str>, text: &mut String) {
    match shape {
        Shape::Mapping(table) => section(table, seen, text),
        Shape::List(item) | Shape::Many(item) => below(item, seen, text),
        Shape::Names(names) => {
            // Mappings by name; sections that were told are not told again, so `each` in `each` ends.
            below(&names.value, seen, text);
        }
        Shape::Any(alternatives) => alternatives.iter().for_each(|shape| below(shape, seen, text)),
        _ => {}
    }
}

fn heading(table: &Mapping) -> String {
    let name = table.name.strip_prefix("an ").or(table.name.strip_prefix("a "));
    let name = name.unwrap_or(table.name);
    let mut chars = name.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn row(key: &Key) -> String {
    let mut meaning = key.doc.to_owned();
    if let Some(words) = words(&key.shape) {
        meaning = format!("{meaning} {words}");
    }
    let default = if key.default.is_empty() { String::new() } else { cell(key.default) };
    let mark = if key.required { " ✱" } else { "" };
    format!(
        "| `{}`{mark} | {} | {default} | {} |\n",
        key.name,
        cell(&value(&key.shape)),
        cell(&meaning)
    )
}

fn value(shape: &Shape) -> String {
    match shape {
        Shape::Names(Names { what, value: inner, .. }) => {
            format!(
                "{}s by name: {}",
                what.split_once(' ').map_or(*what, |(_, noun)| noun),
                in_words(inner)
            )
        }
        Shape::Count(least, most) => format!("a whole number from {least} to {most}"),
        other => in_words(other),
    }
}

/// What each word means, where that is said.
fn words(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Word(words) => {
            let told: Vec<String> = words
                .iter()
                .filter(|word| word.built && !word.doc.is_empty())
                .map(|word| format!("`{}`: {}", word.text, word.doc))
                .collect();
            (!told.is_empty()).then(|| format!("{}.", told.join("; ")))
        }
        Shape::List(item) | Shape::Many(item) => words(item),
        Shape::Any(alternatives) => alternatives.iter().find_map(words),
        _ => None,
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
