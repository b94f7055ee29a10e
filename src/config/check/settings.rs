//! `config` of a verification: what a provider needs beside the secret. The preset declares the names.

use super::context::{Checker, text};
use super::scheme::first_key;
use super::text::{Config, ConfigValue};
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::diag::suggest;
use crate::syntax::{Node, Pair};

impl Checker {
    /// Reads `config` of a source's `verify` for the texts of its scheme and handshakes. `None`: it cannot be used, which is
    /// reported.
    pub(super) fn configure(&mut self, verify: &Node, preset: Option<&Node>) -> Option<()> {
        self.config = Config::new();
        let given = verify.get("config").and_then(Node::as_map).unwrap_or_default();
        let declared =
            preset.map(|preset| preset.get("config").and_then(Node::as_map).unwrap_or_default());
        let mut faulty = false;
        for pair in given {
            if declared.is_some_and(|declared| !declared.iter().any(|it| is(it, pair))) {
                self.unknown_setting(pair, declared.unwrap_or_default());
                faulty = true;
                continue;
            }
            let value = match pair.value.as_text() {
                Some(text) => Some(ConfigValue::Text(text.text.clone())),
                None => self.secret_ref(&pair.value).map(ConfigValue::Secret),
            };
            match value {
                Some(value) => drop(self.config.insert(pair.key.text.clone(), value)),
                None => faulty = true,
            }
        }
        // A misspelt name is the one that is missing: one message for it.
        let misspelt = faulty;
        for setting in declared.unwrap_or_default() {
            let name = &setting.key.text;
            if given.iter().any(|it| is(it, setting)) {
                continue;
            }
            let about = match setting.value.as_text() {
                Some(about) => about,
                None => text(&setting.value, "about")?,
            };
            if let Some(default) = text(&setting.value, "default") {
                let known = default.text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
                // A setting that stood for itself would never end.
                let known = known.filter(|name| !name.starts_with("config."));
                let value = match known {
                    Some(known) => ConfigValue::Name(known.to_owned()),
                    None => ConfigValue::Text(default.text.clone()),
                };
                self.config.insert(name.clone(), value);
                continue;
            }
            faulty = true;
            if misspelt {
                continue;
            }
            let place = verify.pair("config").map_or(first_key(verify), |pair| pair.key_span);
            let message = format!("the provider needs `config.{name}`: {}", about.text);
            self.push(
                Diagnostic::new(Code::MissingKey, place, message)
                    .help(format!("add `config: {{ {name}: … }}` to `verify`")),
            );
        }
        (!faulty).then_some(())
    }

    /// `{config.N}` in a text of the scheme itself is what the source gives for it. `None`: it gives a secret, which is only
    /// known when requests come, or nothing; reported.
    pub(super) fn with_config(&mut self, text: &str, node: &Node) -> Option<String> {
        let mut written = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{config.") {
            written.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let problem = match self.config.get(name) {
                Some(ConfigValue::Text(value)) => {
                    written.push_str(value);
                    rest = after;
                    continue;
                }
                Some(ConfigValue::Secret(_)) => {
                    format!("`config.{name}` is a secret, and the scheme itself needs the text")
                }
                Some(ConfigValue::Name(_)) => {
                    format!("`config.{name}` is of a request, and the scheme itself needs the text")
                }
                None => format!("`config` has no `{name}`"),
            };
            self.error(
                Code::InvalidValue,
                node.span,
                problem,
                format!("write the text itself: `config: {{ {name}: … }}`"),
            );
            return None;
        }
        written.push_str(rest);
        Some(written)
    }

    fn unknown_setting(&mut self, pair: &Pair, declared: &[Pair]) {
        let known: Vec<&str> = declared.iter().map(|pair| pair.key.text.as_str()).collect();
        let help = suggest::help(&pair.key.text, known.iter().copied()).unwrap_or_else(|| {
            match known.is_empty() {
                true => "remove `config`".to_owned(),
                false => format!("there are {}", crate::config::shape::check::listed(&known)),
            }
        });
        let message = format!("the provider has no setting `{}`", pair.key.text);
        self.push(Diagnostic::new(Code::UnknownKey, pair.key_span, message).help(help));
    }
}

fn is(one: &Pair, other: &Pair) -> bool {
    one.key.text == other.key.text
}
