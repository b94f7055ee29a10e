//! `router events`: looks events of a running router up and replays them, through its API.

mod show;

use std::process::ExitCode;

use comfy_table::Table;
use serde_json::{Value as Json, json};

use super::remote::{Api, RemoteArgs, connect, field_long, moment, path_part, text};
use super::{Global, err, out};
use crate::call::api::ApiError;
use crate::telemetry::log::field;
use crate::world::World;

/// Rows that the API gives per page.
const PAGE_ROWS: usize = 500;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List events, newest first
    List(ListArgs),
    /// What happened to an event: its deliveries, attempts and results
    Show {
        /// Event id, or uid
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        id: String,
        /// The source, where two use the same id
        #[arg(long)]
        source: Option<String>,
    },
    /// Failed deliveries by route and cause, most first
    Causes,
    /// Put failed deliveries back in the queue; finished steps stay finished
    Replay(ReplayArgs),
}

#[derive(clap::Args, Clone, Debug, Default)]
struct Filter {
    /// queued, processing, succeeded, failed, ignored, unrouted or malformed
    #[arg(long)]
    status: Option<String>,
    /// Events that this route took
    #[arg(long)]
    route: Option<String>,
    /// Events of this source
    #[arg(long)]
    source: Option<String>,
    /// Event type
    #[arg(long = "type")]
    event_type: Option<String>,
    /// A time, or how long ago: 2h, 7d
    #[arg(long)]
    since: Option<String>,
    /// A time, or how long ago
    #[arg(long)]
    until: Option<String>,
    /// Event id
    #[arg(long)]
    id: Option<String>,
    /// Correlation id
    #[arg(long)]
    correlation_id: Option<String>,
    /// Cause of a failed delivery, as `events causes` names it
    #[arg(long)]
    cause: Option<String>,
    /// A field of the route, and its whole value
    #[arg(long, value_name = "NAME=VALUE", requires = "route", value_parser = name_and_value)]
    field: Option<(String, String)>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => {
            Err("write a field's name and its value, such as order_id=1001".to_owned())
        }
    }
}

impl Filter {
    fn query(&self) -> Vec<(String, String)> {
        let mut query: Vec<(String, String)> = [
            ("status", &self.status),
            ("route", &self.route),
            ("source", &self.source),
            ("type", &self.event_type),
            ("since", &self.since),
            ("until", &self.until),
            ("eventId", &self.id),
            ("correlationId", &self.correlation_id),
            ("cause", &self.cause),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect();
        query.extend(self.field.clone().map(|(name, value)| (format!("field.{name}"), value)));
        query
    }
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Events shown at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(clap::Args, Debug)]
struct ReplayArgs {
    /// Event ids or uids; without any, the filters choose
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Why, for the journal
    #[arg(long)]
    note: Option<String>,
    /// Replay all that the filters choose, without a preview
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    let Some(api) = connect(args.remote.url)? else { return Ok(ExitCode::from(2)) };
    match args.command {
        Command::List(chosen) => list(&api, &chosen, args.remote.json).await,
        Command::Show { id, source } => show(&api, &id, source.as_deref(), args.remote.json).await,
        Command::Causes => causes(&api, args.remote.json).await,
        Command::Replay(chosen) => replay(&api, &chosen, args.remote.json).await,
    }
}

/// Events that `filter` chooses, page after page, at most `limit`; and whether there are more.
async fn all_of(api: &Api, filter: &Filter, limit: usize) -> anyhow::Result<(Vec<Json>, bool)> {
    let mut events: Vec<Json> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let rows = (limit - events.len()).min(PAGE_ROWS);
        let mut query = filter.query();
        query.push(("limit".to_owned(), rows.to_string()));
        query.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        let mut page = api.get("/api/v1/events", &query).await?;
        if let Some(Json::Array(rows)) = page.get_mut("events").map(Json::take) {
            events.extend(rows);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || events.len() >= limit {
            return Ok((events, cursor.is_some()));
        }
    }
}

async fn list(api: &Api, args: &ListArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (events, more) = all_of(api, &args.filter, args.limit as usize).await?;
    if json {
        out(&format!("{:#}\n", json!({ "events": events, "more": more })));
        return Ok(ExitCode::SUCCESS);
    }
    if events.is_empty() {
        out("no events\n");
        return Ok(ExitCode::SUCCESS);
    }
    out(&format!("{}\n", table(&events)));
    if more {
        out(&format!("the newest {} are shown; --limit shows more\n", events.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(events: &[Json]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["RECEIVED", "EVENT", "TYPE", "SOURCE", "STATUS", "ATTEMPTS", "WHY"]);
    for event in events {
        let why: Vec<String> = event["deliveries"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|delivery| {
                Some(format!(
                    "{}: {}",
                    text(&delivery["route"]),
                    field(delivery["cause"].as_str()?)
                ))
            })
            .collect();
        table.add_row([
            moment(&event["receivedAt"]),
            text(&event["eventId"]),
            text(&event["eventType"]),
            text(&event["source"]),
            text(&event["processing"]["status"]),
            text(&event["processing"]["attempts"]),
            why.join(", "),
        ]);
    }
    table
}

async fn causes(api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    let causes = api.get("/api/v1/causes", &[]).await?;
    if json {
        out(&format!("{causes:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = causes.as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        out("no failed deliveries\n");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ROUTE", "CAUSE", "COUNT"]);
    for row in rows {
        table.add_row([text(&row["route"]), text(&row["cause"]), text(&row["count"])]);
    }
    out(&format!("{table}\n"));
    Ok(ExitCode::SUCCESS)
}

async fn show(api: &Api, id: &str, source: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let query: Vec<_> =
        source.map(|source| ("source".to_owned(), source.to_owned())).into_iter().collect();
    let event = api.get(&path(id), &query).await?;
    out(&if json {
        format!("{event:#}\n")
    } else {
        show::timeline(&event, World::real().clock.now())
    });
    Ok(ExitCode::SUCCESS)
}

async fn replay(api: &Api, args: &ReplayArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut targets: Vec<String> = args.ids.iter().map(|id| path(id)).collect();
    if targets.is_empty() {
        if args.filter.query().is_empty() {
            err("error: name event ids, or choose by filters, such as --status failed --route R\n");
            return Ok(ExitCode::from(2));
        }
        if args.filter.field.is_some() && args.filter.status.as_deref() == Some("unrouted") {
            err(
                "error: no field is known of an event that no route took; leave --field or --status out\n",
            );
            return Ok(ExitCode::from(2));
        }
        let (events, _) = all_of(api, &chosen(&args.filter), usize::MAX).await?;
        if events.len() > 1 && !args.yes {
            out(&format!("{}\n", table(&events)));
            err(&format!(
                "{} events; nothing was done. Repeat with --yes to replay them\n",
                events.len()
            ));
            return Ok(ExitCode::from(1));
        }
        targets = events.iter().map(|event| path(event["uid"].as_str().unwrap_or(""))).collect();
    }
    let by_id = !args.ids.is_empty();
    let body = json!({ "route": args.filter.route, "note": args.note });
    let (mut replayed, mut failed) = (0_usize, 0_usize);
    let mut results = Vec::new();
    for target in &targets {
        let target = match &args.filter.source {
            Some(source) if by_id => {
                let query = [("source".to_owned(), source.clone())];
                let event = api.get(target, &query).await?;
                path(event["uid"].as_str().unwrap_or_default())
            }
            Some(_) | None => target.clone(),
        };
        match api.post(&format!("{target}/replay"), &body).await {
            Ok(result) => {
                replayed += 1;
                let refused = result["refused"].as_array().is_some_and(|list| !list.is_empty());
                failed += usize::from(refused);
                if !json {
                    out(&replay_lines(&result));
                }
                results.push(result);
            }
            Err(error) => {
                failed += 1;
                let id = target.rsplit('/').next().unwrap_or_default();
                err(&format!("{id}: {error:#}\n"));
                results.push(json!({ "event": id, "error": format!("{error:#}") }));
                // Without a router every further try would say the same.
                if error.downcast_ref::<ApiError>().is_some() {
                    break;
                }
            }
        }
    }
    if json {
        out(&format!("{:#}\n", Json::Array(results)));
    } else if targets.len() != 1 {
        out(&format!("{replayed} replayed, {failed} with a refusal\n"));
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The events that a replay is about: failed ones unless told otherwise. Where none was routed yet, the route is the one
/// to give them to, not one that they have.
fn chosen(filter: &Filter) -> Filter {
    let status = filter.status.clone().unwrap_or_else(|| "failed".to_owned());
    let route = filter.route.clone().filter(|_| status != "unrouted");
    Filter { status: Some(status), route, ..filter.clone() }
}

fn replay_lines(result: &Json) -> String {
    let mut lines = String::new();
    let id = text(&result["eventId"]);
    for delivery in result["replayed"].as_array().into_iter().flatten() {
        lines.push_str(&format!("{id}: {} is queued again\n", text(&delivery["route"])));
    }
    for delivery in result["refused"].as_array().into_iter().flatten() {
        let why = delivery["why"].as_str().unwrap_or_default();
        lines.push_str(&format!(
            "{id}: {} was refused: {}\n",
            text(&delivery["route"]),
            field_long(why)
        ));
    }
    lines
}

fn path(id: &str) -> String {
    format!("/api/v1/events/{}", path_part(id))
}
