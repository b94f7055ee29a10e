//! `router try`: a dry run. Shows the event, the fields and every request as it would be sent; sends nothing.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use url::{Position, Url};

use super::sample::{self, SampleArgs};
use super::{Global, check, out};
use crate::config::resolve::{Environment, Process, resolve};
use crate::config::{Destination, DestinationUrl, Resolved, Route, RouteSet};
use crate::delivery::state::IdempotencyKey;
use crate::envelope::Envelope;
use crate::extract::{Input, map_fields};
use crate::ingress::event::{Refused, new_events};
use crate::name::{DeliveryId, Uid};
use crate::render::context::event_context;
use crate::render::key::{derived_key, explicit_key};
use crate::render::{self, Shown};
use crate::secret::{SecretRef, SecretValue};
use crate::simulate::provider::Provider;
use crate::simulate::stand_in;
use crate::store::NewEvent;
use crate::verify::{About, Keys, Received, verify};
use crate::world::World;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    pub sample: SampleArgs,
    /// Print one JSON object; where the source splits its POSTs, one with the list `events`
    #[arg(long)]
    pub json: bool,
}

/// What would happen. `refused` is why it would go to review, or why no route takes it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct DryRun {
    route: String,
    event_id: String,
    event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Json>,
    steps: Vec<DryStep>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DryStep {
    name: String,
    needs: Vec<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Shown>,
}

/// Valid as text, as hex and as base64, so that it can stand for any secret that is not set here.
const STAND_IN: &str = "00112233445566778899aabbccddeeff";

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = check::load(&global.location());
    let Some(set) = loaded.set else {
        check::complain(&loaded.files, &loaded.diagnostics);
        return Ok(ExitCode::from(1));
    };
    let (dry, splits) = dry_runs(&args.sample, &loaded.files.root, &set, &World::real())?;
    out(&match args.json {
        true => json(&dry, splits)? + "\n",
        false => texts(&dry, splits),
    });
    let fails = |dry: &DryRun| dry.status == "failed" || dry.status == "malformed";
    Ok(ExitCode::from(u8::from(dry.iter().any(fails))))
}

/// One for each event of the sample, and whether its source splits: then one POST is any number of events.
fn dry_runs(
    args: &SampleArgs,
    root: &Path,
    set: &RouteSet,
    world: &World,
) -> anyhow::Result<(Vec<DryRun>, bool)> {
    let (route, source) = sample::find(set, &args.route)?;
    let sample = sample::compose(args, root, route, source, world)?;
    let (resolved, _unset) = resolve(set, &StandIns { set });

    // The envelope is made only of what proved itself, here too: so the sample is signed and verified.
    let base = Url::parse("http://source.invalid").context("a plain URL")?;
    let url = base.join(&sample.target).context("the source's path makes no URL")?;
    let scheme = stand_in::scheme(&source.verify.scheme);
    let (signs, verifies) = stand_in::vaults(&scheme, &resolved.vault);
    let captured = [SecretValue::new(STAND_IN)];
    let (private, fetched) = stand_in::fetched(&scheme);
    let provider = Provider {
        scheme: &scheme,
        keys: Keys { captured: &captured, private: private.as_ref(), ..Keys::of(&signs) },
        body: source.body.as_ref(),
        public_url: url.clone(),
        to: url,
        clock: Arc::clone(&world.clock),
    };
    let signed = provider.sign(&sample.notification, 0)?;
    let query = signed
        .url
        .query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let received = Received {
        method: signed.method,
        target: signed.url[Position::BeforePath..].to_owned(),
        path: sample.path,
        query,
        headers: signed.headers,
        body: signed.body,
        received_at: world.clock.now(),
    };
    let keys = Keys { captured: &captured, fetched: &fetched, ..Keys::of(&verifies) };
    let mut public_url = provider.public_url.clone();
    public_url.set_query(None);
    let verified = verify(
        &scheme,
        received,
        keys,
        About { public_url: Some(&public_url), body: source.body.as_ref() },
        world.clock.now(),
    );
    let verified = match verified {
        Ok(verified) => verified,
        Err(rejection) => bail!(
            "the signed sample does not verify ({}): this is a bug of the router",
            rejection.as_str()
        ),
    };
    let uid = || Uid(world.random.uuid_v7(world.clock.now()));
    let split_max = set.server.limits.split;
    let routes: Vec<Arc<Route>> =
        set.routes.values().filter(|other| other.name == route.name).cloned().collect();
    let events = match new_events(source, &routes, &verified, split_max, uid) {
        Ok(events) => events,
        Err(Refused::Malformed(why)) => bail!("the source would answer 400: {why}"),
        Err(Refused::MissingId) => bail!("the source would answer 400: its rules find no event id"),
        Err(Refused::TooMany(count)) => bail!(
            "the source would answer 413: the sample has {count} events, and `limits.split` is {split_max}"
        ),
    };
    if let (Some(split), []) = (&source.event.split, events.as_slice()) {
        bail!(
            "`{}` (`event.split`) finds no event in the sample: the source would answer {} and store nothing; a sample is a whole POST as the provider sends it",
            split.text,
            source.respond.status.as_u16()
        );
    }
    let dry = events.into_iter().map(|event| dry_run(route, event, &resolved));
    Ok((dry.collect::<anyhow::Result<_>>()?, source.event.split.is_some()))
}

fn dry_run(route: &Route, event: NewEvent, resolved: &Resolved) -> anyhow::Result<DryRun> {
    let envelope = event.envelope;
    let mut dry = DryRun {
        route: route.name.to_string(),
        event_id: envelope.event_id.to_string(),
        event_type: envelope.event_type.clone(),
        occurred_at: envelope.occurred_at.map(|at| at.to_string()),
        ..DryRun::default()
    };
    if let Some(why) = &envelope.malformed {
        (dry.status, dry.reason) = ("malformed", Some(why.clone()));
    } else if let Some(delivery) = event.deliveries.first() {
        steps(&mut dry, route, &envelope, resolved, &delivery.key_base)?;
    } else {
        let why = format!("the route's `on` does not take the type `{}`", envelope.event_type);
        (dry.status, dry.reason) = ("unrouted", Some(why));
    }
    Ok(dry)
}

/// `when`, fields and every step in order. What an earlier step would save stands as `[saved NAME]`.
fn steps(
    dry: &mut DryRun,
    route: &Route,
    envelope: &Envelope,
    resolved: &Resolved,
    key_base: &str,
) -> anyhow::Result<()> {
    let payload = envelope.body_kind.payload(&envelope.body).map_err(anyhow::Error::msg)?;
    let id = DeliveryId { uid: envelope.uid, route: route.name.clone() };
    let mut context = event_context(
        envelope,
        &payload,
        route,
        resolved,
        &id.to_string(),
        1,
        envelope.received_at,
    );
    if let Some(when) = &route.when {
        match when.holds(&context) {
            Ok(true) => {}
            Ok(false) => {
                (dry.status, dry.reason) =
                    ("ignored", Some("the route's `when` is false".to_owned()));
                return Ok(());
            }
            Err(error) => {
                (dry.status, dry.reason) = ("failed", Some(format!("the route's `when`: {error}")));
                return Ok(());
            }
        }
    }
    let form = envelope.body_kind.fields(&envelope.body, &payload);
    let input = Input {
        payload: &payload,
        envelope_headers: &envelope.headers,
        query: &envelope.query,
        path: &envelope.path,
        form: form.as_deref(),
        context: &context,
    };
    match map_fields(&route.fields, &input) {
        Ok(mapped) => dry.fields = mapped.fields,
        Err(fault) => {
            (dry.status, dry.reason) = ("failed", Some(fault.to_string()));
            return Ok(());
        }
    }
    context.set("fields", &Json::Object(dry.fields.clone()));
    let saved: Map<String, Json> = route
        .steps
        .iter()
        .map(|step| {
            let names = step
                .save
                .iter()
                .map(|(name, _)| (name.clone(), Json::from(format!("[saved {name}]"))));
            let mut names: Map<String, Json> = names.collect();
            names.insert("status".to_owned(), Json::from("succeeded"));
            (step.name.to_string(), Json::Object(names))
        })
        .collect();
    context.set("steps", &Json::Object(saved));

    dry.status = "succeeded";
    for step in &route.steps {
        let needs = step.needs.iter().map(|index| route.steps[*index].name.to_string()).collect();
        let mut context = context.with_uuid_seed(&format!("{id}/{}/1", step.name));
        let mut shown = DryStep {
            name: step.name.to_string(),
            needs,
            status: "succeeded",
            reason: None,
            idempotency_key: None,
            request: None,
        };
        let rendered = match step.when.as_ref().map(|when| when.holds(&context)) {
            Some(Ok(false)) => {
                (shown.status, shown.reason) = ("skipped", Some("its `when` is false".to_owned()));
                dry.steps.push(shown);
                continue;
            }
            Some(Err(error)) => Err(error),
            None | Some(Ok(true)) => explicit_key(step, &context).and_then(|key| {
                let key = key.or_else(|| {
                    (step.call.method != http::Method::GET).then(|| IdempotencyKey {
                        text: derived_key(key_base, &route.name, &step.name, None, 1),
                        explicit: false,
                    })
                });
                if let Some(key) = &key {
                    context.set("idempotency_key", &Json::String(key.text.clone()));
                    shown.idempotency_key = Some(key.text.clone());
                }
                render::render_call(step, route, &context, key.as_ref(), &envelope.body, resolved)
            }),
        };
        match rendered {
            Ok(request) => shown.request = Some(request.shown),
            Err(error) => {
                (shown.status, shown.reason) = ("failed", Some(error.to_string()));
                dry.status = "failed";
            }
        }
        dry.steps.push(shown);
    }
    Ok(())
}

/// The process's own environment, and stand-ins for what is not set here: a dry run needs no secret.
struct StandIns<'a> {
    set: &'a RouteSet,
}

impl StandIns<'_> {
    fn is_url(&self, reference: &SecretRef) -> bool {
        let url = |destination: &Arc<Destination>| match &destination.url {
            DestinationUrl::Secret(secret) => secret == reference,
            DestinationUrl::Plain(_) => false,
        };
        self.set.destinations.values().any(url)
    }

    fn stand_in(&self, reference: &SecretRef) -> String {
        if self.is_url(reference) {
            "https://destination.invalid".to_owned()
        } else {
            STAND_IN.to_owned()
        }
    }
}

impl Environment for StandIns<'_> {
    fn var(&self, name: &str) -> Option<String> {
        let reference = SecretRef::Env(name.to_owned());
        if self.set.references.secrets.contains_key(&reference) {
            return Process.var(name).or_else(|| Some(self.stand_in(&reference)));
        }
        Process.var(name).or_else(|| {
            (!self.set.references.optional_variables.contains(name))
                .then(|| format!("[env {name}]"))
        })
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        Process.read(path).or_else(|_| Ok(self.stand_in(&SecretRef::File(path.to_owned()))))
    }
}

fn text(dry: &DryRun) -> String {
    let mut text = format!("event   {}  {}", dry.event_id, dry.event_type);
    if let Some(at) = &dry.occurred_at {
        text += &format!("  occurred {at}");
    }
    text += &format!("\nroute   {}  would end as {}", dry.route, dry.status);
    if let Some(reason) = &dry.reason {
        text += &format!(": {reason}");
    }
    text.push('\n');
    if !dry.fields.is_empty() {
        let width = dry.fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        text += "\nfields\n";
        for (name, value) in &dry.fields {
            text += &format!("  {name:width$}  {value}\n");
        }
    }
    for step in &dry.steps {
        text += &format!("\nstep {}", step.name);
        if !step.needs.is_empty() {
            text += &format!("  (after {})", step.needs.join(", "));
        }
        if let Some(reason) = &step.reason {
            text += &format!("  {}: {reason}", step.status);
        }
        text.push('\n');
        if let Some(request) = &step.request {
            text += &format!("  {} {}\n", request.method, request.url);
            for (name, value) in &request.headers {
                text += &format!("  {name}: {value}\n");
            }
            if !request.body.is_empty() {
                text.push('\n');
                for line in pretty(&request.body).lines() {
                    text += &format!("  {line}\n");
                }
            }
        }
    }
    text
}

/// One object for the one event; where the source splits one with a list of them, however many they are.
fn json(dry: &[DryRun], splits: bool) -> serde_json::Result<String> {
    match dry {
        [only] if !splits => serde_json::to_string_pretty(only),
        events => serde_json::to_string_pretty(&serde_json::json!({ "events": events })),
    }
}

fn texts(dry: &[DryRun], splits: bool) -> String {
    let mut all = String::new();
    for (dry, number) in dry.iter().zip(1..) {
        if splits {
            all += &format!("{}event {number} of the POST\n", if number > 1 { "\n" } else { "" });
        }
        all += &text(dry);
    }
    all + "\nNothing was sent.\n"
}

fn pretty(body: &str) -> String {
    let json = serde_json::from_str::<Json>(body)
        .ok()
        .and_then(|json| serde_json::to_string_pretty(&json).ok());
    json.unwrap_or_else(|| body.to_owned())
}
