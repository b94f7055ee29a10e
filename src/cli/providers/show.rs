//! `router providers show NAME`: what a preset proves and what it takes to use it, for people and for machines. All of it is
//! read out of the preset's YAML; nothing here knows a provider.

mod proof;
mod words;

use serde_json::{Value as Json, json};

use super::Preset;
use crate::config::check::load;
use crate::files::Files;
use proof::{Key, Needs};
use words::{many, place, text};

/// Widest line of prose.
const WIDTH: usize = 100;

/// What is said of a preset.
pub(super) struct Card<'a> {
    name: &'a str,
    preset: &'a Preset,
    /// The whole preset, with the defaults of its settings where they are used.
    all: Json,
    needs: Needs,
}

/// A setting of `config`.
struct Setting<'a> {
    name: &'a str,
    about: &'a str,
    default: Option<&'a str>,
}

impl<'a> Card<'a> {
    pub(super) fn of(name: &'a str, preset: &'a Preset) -> anyhow::Result<Self> {
        let all: Json = serde_yaml::from_str(&preset.yaml).map_err(|error| {
            anyhow::anyhow!("the preset `{name}` is no YAML that can be read: {error}; `router check` shows the place, and `--yaml` prints it as it stands")
        })?;
        let needs = Needs::of(&all);
        let defaults: Vec<(String, String)> = all["config"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, setting)| {
                let default = setting["default"].as_str().filter(|it| !it.starts_with('{'))?;
                Some((format!("{{config.{name}}}"), default.to_owned()))
            })
            .collect();
        let all = with_defaults(all, &defaults);
        Ok(Self { name, preset, all, needs })
    }

    fn title(&self) -> &str {
        if self.preset.title.is_empty() { self.name } else { &self.preset.title }
    }

    /// The comment at the head of the preset: what its author tells its users.
    fn notes(&self) -> String {
        let lines = self.preset.yaml.lines().take_while(|line| line.starts_with('#'));
        lines.map(|line| line.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ")
    }

    fn settings(&self) -> Vec<Setting<'_>> {
        let pairs = self.all["config"].as_object();
        pairs
            .into_iter()
            .flatten()
            .map(|(name, setting)| Setting {
                name,
                about: setting.as_str().or(setting["about"].as_str()).unwrap_or_default(),
                default: setting["default"].as_str(),
            })
            .collect()
    }

    /// The variable that holds what the source verifies by.
    fn variable(&self) -> String {
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        match self.needs.key {
            Key::Public(_) => format!("{name}_WEBHOOK_PUBLIC_KEY"),
            Key::Shared | Key::Captured | Key::Fetched(_) | Key::None => {
                format!("{name}_WEBHOOK_SECRET")
            }
        }
    }

    /// `source:` of a route, ready to be taken over.
    pub(super) fn source(&self) -> String {
        let mut yaml = format!("source:\n  path: /hooks/{}\n", self.name);
        yaml += &format!("  verify:\n    provider: {}\n", self.name);
        match self.needs.key {
            Key::Shared | Key::Public(_) => {
                yaml += &format!("    secret: {{ env: {} }}\n", self.variable());
            }
            Key::Captured => yaml += "    secret: { captured: true }\n",
            Key::Fetched(_) | Key::None => {}
        }
        let settings = self.settings();
        if settings.iter().any(|setting| setting.default.is_none()) {
            yaml += "    config:\n";
        } else if !settings.is_empty() {
            yaml += "    # config:\n";
        }
        for Setting { name, about, default } in settings {
            for line in wrapped(about, WIDTH - 10) {
                yaml += &format!("      # {line}\n");
            }
            yaml += &match default {
                Some(default) => format!(
                    "      # {name}: {}    # unless you say otherwise\n",
                    Json::from(default)
                ),
                None => format!("      {name}: \"FILL IN\"\n"),
            };
        }
        if self.needs.url {
            yaml += "  # The URL as the provider calls it, to the letter: it is signed.\n";
            yaml += &format!("  public_url: https://YOUR-HOST.example/hooks/{}\n", self.name);
        }
        if self.all["event"]["id"].is_null() {
            yaml +=
                "  # The preset knows no id: where this provider's events have one of their own.\n";
            yaml += "  event: { id: $.id }\n";
        }
        yaml
    }

    /// As the preset says, or as its scheme proves by itself.
    pub(super) fn strength(&self) -> String {
        if !self.preset.strength.is_empty() {
            return self.preset.strength.clone();
        }
        let mut files = Files::new("/");
        files.add(format!("providers/{}.yaml", self.name), self.preset.yaml.as_str());
        let steps = "steps: [ { name: step, call: { get: https://a.example/ } } ]";
        files.add("routes/route.yaml", format!("route: route\n{}{steps}\n", self.source()));
        let set = load(files).set;
        let source = set.as_ref().and_then(|set| set.sources.values().next());
        let word = source.and_then(|source| serde_json::to_value(source.verify.strength).ok());
        word.and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
    }

    fn proof(&self) -> Vec<String> {
        let mut lines = vec![match &*self.strength() {
            "signed" => "Strength `signed`: it proves who sends, and every byte of the body.",
            "partial" => "Strength `partial`: it proves who sends; the body is not covered, or not all of it.",
            "token" => "Strength `token`: it proves who sends by a shared text. What is sent is covered by TLS alone.",
            "open" => "Strength `open`: nothing is proved. Whoever knows the URL can send.",
            _ => "What it proves `router check` says of a source that takes it.",
        }.to_owned()];
        lines.extend(proof::words(&self.all["verify"], 0));
        if !self.needs.timed && self.needs.key != Key::None {
            lines.push("No time is looked at: what was sent once verifies for ever. A copy has the same id and causes nothing a second time, as long as the id is remembered (`dedupe`).".to_owned());
        }
        lines
    }

    fn at_the_provider(&self) -> Vec<String> {
        // A secret that stands in the query is given by the URL.
        let query = match text(&self.all["verify"]["token"]["query"]) {
            Some(name) => format!("?{name}=SECRET"),
            None => String::new(),
        };
        let mut lines = vec![format!(
            "URL: https://YOUR-HOST.example/hooks/{}{query}, where the router is reached from outside.",
            self.name
        )];
        let variable = self.variable();
        lines.push(match &self.needs.key {
            Key::Shared if self.needs.token => format!(
                "Secret: the text that both sides know. Where you may choose it, take a long random one (`openssl rand -hex 32`). The router reads it from {variable}."
            ),
            Key::Shared => format!(
                "Secret: the one that {} shows for this webhook. The router reads it from {variable}{}.",
                self.title(),
                match self.needs.encoding.as_deref() {
                    Some("base64") => " and decodes it as base64",
                    Some("hex") => " and decodes it as hexadecimal",
                    Some(_) => ", as it stands",
                    None => "",
                }
            ),
            Key::Public(_) => format!(
                "Key: the public key that {} shows, {}or as PEM. It is no secret. The router reads it from {variable}.",
                self.title(),
                match self.needs.encoding.as_deref() {
                    Some("base64") => "in base64 ",
                    Some("hex") => "in hexadecimal ",
                    _ => "",
                }
            ),
            Key::Captured => format!(
                "Secret: {} makes it and sends it once, when the webhook is made. Let the router wait for it first: `router sources arm ROUTE`, then make the webhook.",
                self.title()
            ),
            Key::Fetched(_) => "Secret: none. The router fetches the provider's public keys by itself.".to_owned(),
            Key::None => "Secret: none.".to_owned(),
        });
        if self.all["handshake"].is_null() {
            return lines;
        }
        lines.push(
            "Start the router before you enter the URL: it is asked at once (see \"Handshakes\")."
                .to_owned(),
        );
        lines
    }

    fn event(&self) -> Vec<String> {
        let event = &self.all["event"];
        let mut lines = Vec::new();
        if let Some(split) = event["split"].as_str() {
            lines.push(format!(
                "One POST holds several events, the elements at `{split}`. `$` is the element."
            ));
        }
        lines.push(match &event["id"] {
            Json::Null => "id    none known here: give the source an `event.id`.".to_owned(),
            id => format!("id    {}", words::id(id)),
        });
        lines.push(match &event["type"] {
            Json::Null => {
                "type  none: give the source an `event.type` if a route's `on` is to choose."
                    .to_owned()
            }
            rule => format!("type  {}", place(rule)),
        });
        lines.push(match &event["occurred_at"] {
            Json::Null => "time  none: events have the time of receipt alone.".to_owned(),
            rule => format!("time  {}", place(rule)),
        });
        lines
    }

    fn answer(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "Accepted: {}.{}",
            words::respond(&self.all["respond"]),
            match self.all["respond"]["unverified"].as_u64() {
                Some(status) => format!(" Not believed: {status}."),
                None => " Not believed: 401.".to_owned(),
            }
        )];
        let retries = &self.all["retries"];
        lines.push(match text(&retries["timeout"]) {
            Some(timeout) => format!("{} waits {timeout} for it.", self.title()),
            None => "How long it is waited for is not known here.".to_owned(),
        });
        lines.push(match text(&retries["span"]) {
            Some(span) => format!("What is not accepted is sent again for {span}. Then it is lost: look there after a longer outage."),
            None => "For how long what was not accepted is sent again is not known here.".to_owned(),
        });
        lines
    }

    fn handshakes(&self) -> Vec<String> {
        many(&self.all["handshake"]).iter().map(words::handshake).collect()
    }

    /// Commands to try it by.
    fn commands(&self) -> Vec<String> {
        let variable = match self.needs.key {
            Key::Shared => format!("{}=… ", self.variable()),
            Key::Public(_) | Key::Captured | Key::Fetched(_) | Key::None => String::new(),
        };
        let key = match self.needs.key {
            Key::Public(_) | Key::Fetched(_) => " --key test.pem",
            Key::Captured => " --key secret.txt",
            Key::Shared | Key::None => "",
        };
        let mut commands = Vec::new();
        if let Key::Public(algorithm) | Key::Fetched(algorithm) = self.needs.key {
            commands.push(format!("openssl genpkey {algorithm} -out test.pem"));
            commands.push("openssl pkey -in test.pem -pubout -out test.pub.pem".to_owned());
        }
        commands.push(format!("{variable}router send ROUTE --payload sample.json{key}"));
        if self.needs.key != Key::None {
            commands
                .push(format!("{variable}router send ROUTE --payload sample.json --bad-signature"));
        }
        if !self.all["handshake"].is_null() {
            let signs = many(&self.all["handshake"]).iter().any(|it| it["verify"] != json!(false));
            let brings = self.needs.key == Key::Captured;
            let key = if signs || brings { key } else { "" };
            commands.push(format!("{variable}router send ROUTE --handshake{key}"));
        }
        commands
    }

    fn why_keys(&self) -> Option<&'static str> {
        match self.needs.key {
            Key::Public(_) => Some(
                "Only the provider has the private key, so a test needs a pair of your own: its public key stands in the source while you try (`secret: { file: ../test.pub.pem }`, seen from routes/).",
            ),
            Key::Fetched(_) => Some(
                "Only the provider has the private key, so a test needs a pair of your own: its public key stands in the source while you try (`key: { file: ../test.pub.pem }`, seen from routes/), in the place of what would be fetched.",
            ),
            Key::Captured => Some("`secret.txt` holds the secret that you let be captured."),
            Key::Shared | Key::None => None,
        }
    }

    pub(super) fn for_people(&self) -> String {
        let mut page = String::new();
        let own = if self.preset.own { ", of providers/" } else { "" };
        page += &format!("{} (`{}`{own})\n", self.title(), self.name);
        if !self.preset.docs.is_empty() {
            page += &format!("{}\n", self.preset.docs);
        }
        let notes = self.notes();
        if !notes.is_empty() {
            page.push('\n');
            push_prose(&mut page, &notes, "");
        }
        section(&mut page, "What it proves", &self.proof());
        section(&mut page, "At the provider", &self.at_the_provider());
        page += "\nIn the route\n\n";
        page += &indented(&self.source());
        section(&mut page, "Where the event's parts are", &self.event());
        section(&mut page, "The answer", &self.answer());
        let handshakes = self.handshakes();
        if !handshakes.is_empty() {
            section(&mut page, "Handshakes", &handshakes);
        }
        page += "\nTo try it, beside a router that runs\n\n";
        for command in self.commands() {
            page += &format!("    {command}\n");
        }
        if let Some(why) = self.why_keys() {
            page.push('\n');
            push_prose(&mut page, why, "  ");
        }
        page += "\nThe preset\n\n";
        page += &indented(&self.preset.yaml);
        page
    }

    pub(super) fn for_machines(&self) -> String {
        let settings: Vec<Json> = self
            .settings()
            .iter()
            .map(|it| json!({ "name": it.name, "about": it.about, "default": it.default }))
            .collect();
        let card = json!({
            "name": self.name,
            "title": self.title(),
            "docs": self.preset.docs,
            "strength": self.strength(),
            "builtIn": !self.preset.own,
            "notes": self.notes(),
            "proof": self.proof(),
            "atTheProvider": self.at_the_provider(),
            "source": self.source(),
            "settings": settings,
            "signsUrl": self.needs.url,
            "secret": self.needs.key.as_str(),
            "idIsDerived": words::is_derived(&self.all["event"]["id"]),
            "event": self.all["event"],
            "respond": self.all["respond"],
            "retries": self.all["retries"],
            "handshakes": self.handshakes(),
            "commands": self.commands(),
            "yaml": self.preset.yaml,
        });
        format!("{card:#}\n")
    }

    /// What the table has of it beside its strength: `(id, needs)`.
    pub(super) fn in_short(&self) -> (&'static str, Vec<&'static str>) {
        let id = match &self.all["event"]["id"] {
            Json::Null => "no id",
            id if words::is_derived(id) => "derived id",
            _ => "own id",
        };
        let required = self.settings().iter().any(|setting| setting.default.is_none());
        let needs = [
            (matches!(self.needs.key, Key::Public(_)), "public key"),
            (matches!(self.needs.key, Key::Fetched(_)), "fetched keys"),
            (self.needs.key == Key::Captured, "captured secret"),
            (self.needs.url, "public_url"),
            (required, "config"),
            (!self.all["handshake"].is_null(), "handshake"),
        ];
        let needs = needs.into_iter().filter(|(is, _)| *is).map(|(_, word)| word);
        (id, needs.collect())
    }
}

/// The texts say what is so unless the source says otherwise.
fn with_defaults(json: Json, defaults: &[(String, String)]) -> Json {
    match json {
        Json::String(text) => Json::String(
            defaults.iter().fold(text, |text, (name, default)| text.replace(name, default)),
        ),
        Json::Array(items) => items.into_iter().map(|item| with_defaults(item, defaults)).collect(),
        Json::Object(map) => {
            map.into_iter().map(|(name, value)| (name, with_defaults(value, defaults))).collect()
        }
        other => other,
    }
}

fn section(page: &mut String, title: &str, lines: &[String]) {
    *page += &format!("\n{title}\n\n");
    for line in lines {
        // What stands under another is one step in.
        let depth = line.chars().take_while(|c| *c == ' ').count();
        push_prose(page, line.trim_start(), &" ".repeat(depth + 2));
    }
}

fn push_prose(page: &mut String, text: &str, indent: &str) {
    for (number, line) in wrapped(text, WIDTH - indent.len()).iter().enumerate() {
        let hang = if number > 0 && !indent.is_empty() { "  " } else { "" };
        *page += &format!("{indent}{hang}{line}\n");
    }
}

fn indented(yaml: &str) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    yaml.lines().map(line).collect()
}

/// Lines of at most `width`, broken at blanks outside of `…`, so that what is to be copied stays whole. A column of blanks
/// stays.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut in_code = false;
    let mut word = String::new();
    let mut take = |word: &mut String, line: &mut String| {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(line).trim_end().to_owned());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        word.clear();
    };
    for letter in text.chars() {
        match letter {
            '`' => {
                in_code = !in_code;
                word.push(letter);
            }
            ' ' if !in_code => take(&mut word, &mut line),
            _ => word.push(letter),
        }
    }
    take(&mut word, &mut line);
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::super::preset;
    use super::*;
    use crate::config::preset::BUILT_IN;
    use crate::diag::Severity;

    #[test]
    fn every_snippet_is_a_source_that_the_check_lets_through() {
        for (name, yaml) in BUILT_IN {
            let preset = preset(yaml, false);
            let source = Card::of(name, &preset).unwrap().source();
            let mut files = Files::new("/nowhere");
            let source = source.replace("\"FILL IN\"", "filled");
            files.add(
                "routes/r.yaml",
                format!("route: r\n{source}steps: [ {{ name: s, call: {{ get: https://a.example/ }} }} ]\n"),
            );
            let loaded = load(files);
            let errors: Vec<_> = loaded
                .diagnostics
                .iter()
                .filter(|it| it.severity == Severity::Error)
                .map(|it| &it.message)
                .collect();
            assert!(errors.is_empty(), "{name}: {errors:?}\n{source}");
            // What a source verifies by is what is said of it.
            let set = loaded.set.unwrap();
            let scheme = &set.sources.values().next().unwrap().verify.scheme;
            let card = Card::of(name, &preset).unwrap();
            let is = |key: bool, has: bool| assert_eq!(key, has, "{name}");
            is(matches!(card.needs.key, Key::Public(_)), !scheme.public_keys().is_empty());
            is(matches!(card.needs.key, Key::Fetched(_)), scheme.fetched_key().is_some());
            is(card.needs.key == Key::Captured, scheme.uses_captured());
        }
    }

    #[test]
    fn lines_are_broken_outside_of_code() {
        assert_eq!(wrapped("a bb `c d e f` g", 8), ["a bb", "`c d e f`", "g"]);
        assert_eq!(wrapped("id    x", 20), ["id    x"]);
        assert_eq!(wrapped("", 20), [""]);
    }
}
