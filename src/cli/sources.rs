//! `router sources`: sources of a running router, and the secrets that their providers' handshakes bring, through its API.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::Table;
use serde_json::{Value as Json, json};

use super::remote::{RemoteArgs, connect, moment, path_part, text};
use super::sample::assignment;
use super::{Global, out};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List sources, and the secrets that handshakes brought
    List,
    /// Take the secret that the next handshake brings; one, and until the time is over or the router ends
    Arm {
        name: String,
        /// How long to wait for it, at most 24h
        #[arg(long = "for", value_name = "TIME", default_value = "10m")]
        time: String,
        /// A `{name}` part of the path that it must come to; may be repeated [default: any]
        #[arg(long = "path", value_name = "NAME=VALUE", value_parser = assignment)]
        path: Vec<(String, String)>,
    },
    /// Take no secret after all
    Disarm { name: String },
    /// Print a captured secret, for a provider that wants back what it sent (Notion); needs an admin's token, and is logged
    Reveal {
        name: String,
        /// As `sources list` shows it
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        id: String,
    },
    /// Take a captured secret away: what it signs is refused from now on
    Drop {
        name: String,
        /// As `sources list` shows it
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        id: String,
    },
}

pub async fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    let Some(api) = connect(args.remote.url)? else { return Ok(ExitCode::from(2)) };
    let shown = match args.command {
        Command::List => {
            let listed = api.get("/api/v1/sources", &[]).await?;
            if args.remote.json { format!("{listed:#}\n") } else { tables(&listed) }
        }
        Command::Arm { name, time, path: parts } => {
            let parts: BTreeMap<String, String> = parts.into_iter().collect();
            let wish = json!({ "for": time, "path": parts });
            let armed = api.post(&format!("{}/arm", path(&name)), &wish).await?;
            if args.remote.json { format!("{armed:#}\n") } else { what_next(&armed) }
        }
        Command::Disarm { name } => {
            let disarmed = api.post(&format!("{}/disarm", path(&name)), &json!({})).await?;
            match (args.remote.json, disarmed["wasArmed"].as_bool()) {
                (true, _) => format!("{disarmed:#}\n"),
                (false, Some(true)) => format!("{} is disarmed\n", text(&disarmed["name"])),
                (false, _) => format!("{} was not armed\n", text(&disarmed["name"])),
            }
        }
        Command::Reveal { name, id } => {
            let place = format!("{}/secrets/{}/reveal", path(&name), path_part(&id));
            let revealed = api.post(&place, &json!({})).await?;
            match args.remote.json {
                true => format!("{revealed:#}\n"),
                false => format!("{}\n", text(&revealed["secret"])),
            }
        }
        Command::Drop { name, id } => {
            api.delete(&format!("{}/secrets/{}", path(&name), path_part(&id))).await?;
            let dropped = json!({ "name": name, "id": id });
            match args.remote.json {
                true => format!("{dropped:#}\n"),
                false => format!(
                    "the secret {} of {} is gone: what it signs is refused from now on\n",
                    text(&dropped["id"]),
                    text(&dropped["name"]),
                ),
            }
        }
    };
    out(&shown);
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("/api/v1/sources/{}", path_part(name))
}

fn what_next(armed: &Json) -> String {
    format!(
        "{} is armed until {}: make the webhook at the provider now, with the URL that ends in {}.\nThe first secret that comes is kept and disarms the source; `router sources list` shows it. A restart disarms, too.\n",
        text(&armed["name"]),
        moment(&armed["armedUntil"]),
        text(&armed["path"]),
    )
}

fn tables(listed: &Json) -> String {
    let sources = listed["sources"].as_array().map_or(&[][..], Vec::as_slice);
    if sources.is_empty() {
        return "no sources\n".to_owned();
    }
    let mut shown = Table::new();
    shown.load_style(comfy_table::presets::NOTHING);
    shown.set_header(["SOURCE", "PATH", "PROVIDER", "ARMED UNTIL", "SECRETS"]);
    let mut secrets = Table::new();
    secrets.load_style(comfy_table::presets::NOTHING);
    secrets.set_header(["SOURCE", "SECRET", "CAPTURED", "ARMED BY", "FINGERPRINT", "PATH PARTS"]);
    let mut captured = 0;
    for source in sources {
        let kept = source["secrets"].as_array().map_or(&[][..], Vec::as_slice);
        let count = match source["captures"].as_bool() {
            Some(true) => kept.len().to_string(),
            _ if !kept.is_empty() => format!("{}, and nothing takes any", kept.len()),
            _ => "-".to_owned(),
        };
        shown.add_row([
            text(&source["name"]),
            text(&source["path"]),
            text(&source["provider"]),
            moment(&source["armedUntil"]),
            count,
        ]);
        for secret in kept {
            captured += 1;
            let parts: Vec<String> = secret["path"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|part| format!("{}={}", text(&part["name"]), text(&part["value"])))
                .collect();
            secrets.add_row([
                text(&source["name"]),
                text(&secret["id"]),
                moment(&secret["capturedAt"]),
                text(&secret["armedBy"]),
                text(&secret["fingerprint"]),
                if parts.is_empty() { "-".to_owned() } else { parts.join(" ") },
            ]);
        }
    }
    match captured {
        0 => format!("{shown}\n"),
        _ => format!("{shown}\n\n{secrets}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_sources_and_what_tells_secrets_apart() {
        let listed = json!({ "sources": [
            { "name": "orders", "path": "/hooks/orders", "provider": "stripe", "captures": false,
              "armedUntil": null, "secrets": [] },
            { "name": "tasks", "path": "/hooks/{team}", "provider": null, "captures": true,
              "armedUntil": "2026-11-24T08:10:00.5Z", "secrets": [
                { "id": "01", "path": [{ "name": "team", "value": "a\u{1b}[2J" }], "armedBy": "ann",
                  "capturedAt": "2026-11-24T08:00:00Z", "fingerprint": "0a1b2c3d" }] },
            { "name": "gone", "path": null, "provider": null, "captures": false, "armedUntil": null,
              "secrets": [{ "id": "02", "path": [], "armedBy": "ann",
                "capturedAt": "2026-11-24T07:00:00Z", "fingerprint": "ffffffff" }] },
        ] });
        let lines: Vec<String> = tables(&listed)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "SOURCE PATH PROVIDER ARMED UNTIL SECRETS",
                "orders /hooks/orders stripe - -",
                "tasks /hooks/{team} - 2026-11-24T08:10:00.500Z 1",
                "gone - - - 1, and nothing takes any",
                "",
                "SOURCE SECRET CAPTURED ARMED BY FINGERPRINT PATH PARTS",
                "tasks 01 2026-11-24T08:00:00.000Z ann 0a1b2c3d team=a\\u{1b}[2J",
                "gone 02 2026-11-24T07:00:00.000Z ann ffffffff -",
            ]
        );
        assert_eq!(tables(&json!({ "sources": [] })), "no sources\n");
    }
}
