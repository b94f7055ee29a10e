//! Provider presets: the built-in ones and those of `providers/`, found by name.

use std::sync::Arc;

use super::context::{Checker, name, string, text};
use crate::config::preset::BUILT_IN;
use crate::config::shape;
use crate::config::units;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::files::FileKind;
use crate::syntax::{Node, Text};

/// A preset as it stands; its parts are compiled where a source takes them.
#[derive(Clone, Debug)]
pub(super) enum Preset {
    /// Not read yet: the position in the built-in table.
    BuiltIn(usize),
    /// Read; `None` where its file is broken, which was reported.
    Read(Option<Arc<Node>>),
}

impl Checker {
    /// Knows all presets; a team's own file wins over a built-in of the same name.
    pub(super) fn providers(&mut self) {
        for (position, (name, _)) in BUILT_IN.iter().enumerate() {
            self.presets.insert((*name).to_owned(), Preset::BuiltIn(position));
        }
        let mut places = std::collections::BTreeMap::new();
        for file in self.files.of(FileKind::Provider) {
            let before = self.errors();
            let Some(node) = self.tree(file, &shape::provider::PROVIDER) else { continue };
            let sound = self.errors() == before;
            let Some((name, span)) = name(&node, "provider") else { continue };
            if let Some(first) = places.insert(name.clone(), span) {
                self.push(
                    Diagnostic::new(
                        Code::DuplicateName,
                        span,
                        format!("a second preset is called `{name}`"),
                    )
                    .related(first, "the first is here"),
                );
            }
            self.presets.insert(name, Preset::Read(sound.then(|| Arc::new(node))));
        }
    }

    fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|it| it.severity == crate::diag::Severity::Error).count()
    }

    /// The preset that a source names. `Err`: it names one that does not exist or is broken; reported.
    pub(super) fn preset(&mut self, wanted: &Text, node: &Node) -> Result<Arc<Node>, ()> {
        match self.presets.get(&wanted.text).cloned() {
            Some(Preset::Read(read)) => read.ok_or(()),
            Some(Preset::BuiltIn(position)) => {
                let (name, yaml) = BUILT_IN[position];
                let shown = format!("built-in providers/{name}.yaml");
                let file = self.files.add_as(FileKind::Attachment, shown, yaml);
                let read = self.tree(file, &shape::provider::PROVIDER).map(Arc::new);
                self.presets.insert(name.to_owned(), Preset::Read(read.clone()));
                read.ok_or(())
            }
            None => {
                let known: Vec<&str> = self.presets.keys().map(String::as_str).collect();
                let help = crate::diag::suggest::help(&wanted.text, known.iter().copied())
                    .unwrap_or_else(|| format!("there are {}", shape::check::listed(&known)));
                self.push(
                    Diagnostic::new(
                        Code::UnknownReference,
                        node.span,
                        format!("there is no provider preset `{}`", wanted.text),
                    )
                    .label("no such preset")
                    .help(help),
                );
                Err(())
            }
        }
    }
}

/// How long the provider goes on resending.
pub(super) fn retry_span(preset: &Node) -> Option<std::time::Duration> {
    units::duration(&text(preset.get("retries")?, "span")?.text).ok()
}

pub(super) fn title(preset: &Node) -> Option<String> {
    string(preset, "title").or_else(|| string(preset, "provider"))
}
