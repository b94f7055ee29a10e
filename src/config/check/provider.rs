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

    /// A preset of `providers/` that no source takes is compiled for none, so that what is wrong in it is told.
    pub(super) fn untaken_presets(&mut self) {
        let untaken: Vec<(String, Arc<Node>)> = self
            .presets
            .iter()
            .filter(|(name, _)| !self.taken.contains(*name))
            .filter_map(|(name, preset)| match preset {
                Preset::Read(Some(node)) => Some((name.clone(), Arc::clone(node))),
                Preset::Read(None) | Preset::BuiltIn(_) => None,
            })
            .collect();
        for (name, preset) in untaken {
            // With a secret of the source, and with what the preset itself says of keys.
            let mut faults: Vec<Diagnostic> = Vec::new();
            let has_own = preset.get("verify").is_some_and(|verify| verify.get("secret").is_some());
            let secrets: &[&str] = if has_own { &[""] } else { &["", "secret: { env: A }, "] };
            for secret in secrets {
                for fault in self.faults_of(&name, &preset, secret) {
                    let known = |it: &Diagnostic| it.span == fault.span && it.code == fault.code;
                    if !faults.iter().any(known) {
                        faults.push(fault);
                    }
                }
            }
            self.diagnostics.extend(faults);
        }
    }

    /// The errors that stand in the preset where a source takes it.
    fn faults_of(&mut self, name: &str, preset: &Node, secret: &str) -> Vec<Diagnostic> {
        let settings = preset.get("config").and_then(Node::as_map).unwrap_or_default();
        let settings: Vec<String> =
            settings.iter().map(|setting| format!("{}: x", setting.key.text)).collect();
        let settings = settings.join(", ");
        let source = format!(
            "path: /untaken\nverify: {{ provider: {name}, {secret}config: {{ {settings} }} }}\n"
        );
        let shown = format!("a source by {name}");
        let file = self.files.add_as(FileKind::Attachment, shown, source);
        let (found, references) = (self.diagnostics.len(), self.references.clone());
        if let Some(node) = self.tree(file, &shape::source::SOURCE) {
            self.compiled_source(&node, "untaken", Some(&[]));
        }
        self.references = references;
        let told = self.diagnostics.split_off(found);
        // What is missing in the made-up source is nobody's fault, and what a source may want or not, such as a derived id,
        // is said where one takes the preset.
        told.into_iter()
            .filter(|it| it.span.file == preset.span.file)
            .filter(|it| it.severity == crate::diag::Severity::Error)
            .collect()
    }

    fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|it| it.severity == crate::diag::Severity::Error).count()
    }

    /// The preset that a source names. `Err`: it names one that does not exist or is broken; reported.
    pub(super) fn preset(&mut self, wanted: &Text, node: &Node) -> Result<Arc<Node>, ()> {
        self.taken.insert(wanted.text.clone());
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
