//! What the demo shows: counts from both ends and from the journal, held against what was to happen.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use super::cast::{Webhook, text};
use crate::delivery::state::{Entry, Status, What};
use crate::simulate::downstream::Downstream;
use crate::store::{Budget, EventView, Query, Store};

/// Counted after the fact.
pub(super) struct Report {
    events_sent: usize,
    received: u32,
    events_stored: usize,
    duplicates: u64,
    unfinished: usize,
    calls: usize,
    retries: u32,
    actions: usize,
    /// Done more than once, or though nobody asked.
    actions_too_many: usize,
    actions_lost: usize,
    /// The event with the most attempts.
    eventful: Option<EventView>,
}

impl Report {
    pub(super) async fn of(
        store: &dyn Store,
        downstream: &Downstream,
        webhooks: &[Webhook],
        received: u32,
    ) -> anyhow::Result<Self> {
        let budget = Budget { rows_max: 1000, examined_max: 10_000 };
        let page = store.list(Query::default(), None, budget).await?;
        let mut events = Vec::new();
        for row in &page.events {
            events.extend(store.event(row.uid).await?);
        }
        let deliveries = || events.iter().flat_map(|event| &event.deliveries);
        let steps = || deliveries().flat_map(|delivery| &delivery.state.steps);

        let mut wanted: BTreeMap<(String, String), usize> = BTreeMap::new();
        for action in webhooks.iter().flat_map(|webhook| &webhook.actions) {
            *wanted.entry(action.clone()).or_default() += 1;
        }
        let mut done: BTreeMap<(String, String), usize> = BTreeMap::new();
        for action in downstream.actions() {
            let reference = text(&action.json()["reference"]);
            *done.entry((action.path, reference)).or_default() += 1;
        }
        let excess = |of: &BTreeMap<_, usize>, over: &BTreeMap<_, usize>| -> usize {
            of.iter().map(|(key, n)| n.saturating_sub(over.get(key).copied().unwrap_or(0))).sum()
        };
        Ok(Self {
            events_sent: webhooks.len(),
            received,
            events_stored: events.len(),
            duplicates: events.iter().map(|event| event.duplicates).sum(),
            unfinished: deliveries()
                .filter(|delivery| delivery.state.status != Status::Succeeded)
                .count(),
            calls: downstream.requests().len(),
            retries: steps().map(|step| step.attempts.saturating_sub(1)).sum(),
            actions: done.values().sum(),
            actions_too_many: excess(&done, &wanted),
            actions_lost: excess(&wanted, &done),
            eventful: events.into_iter().max_by_key(|event| {
                event.deliveries.iter().map(|delivery| delivery.state.attempts()).sum::<u32>()
            }),
        })
    }

    /// Everything was done once, and every delivery knows it.
    pub(super) fn is_right(&self) -> bool {
        self.actions_too_many == 0
            && self.actions_lost == 0
            && self.unfinished == 0
            && self.events_stored == self.events_sent
            && u64::from(self.received) == self.events_stored as u64 + self.duplicates
    }

    /// The id of the event whose timeline is shown.
    pub(super) fn event_id(&self) -> &str {
        self.eventful.as_ref().map_or("", |event| event.envelope.event_id.as_str())
    }

    pub(super) fn text(&self, took: Duration) -> String {
        let mut text = String::new();
        for (what, number) in [
            ("events sent", self.events_sent.to_string()),
            ("webhooks received", self.received.to_string()),
            ("duplicates refused", self.duplicates.to_string()),
            ("calls made", self.calls.to_string()),
            ("retries", self.retries.to_string()),
            ("actions done", self.actions.to_string()),
            ("actions done twice", self.actions_too_many.to_string()),
            ("actions lost", self.actions_lost.to_string()),
        ] {
            line(&mut text, &format!("  {what:<20}{number:>6}"));
        }
        if self.unfinished > 0 {
            line(&mut text, &format!("  {:<20}{:>6}", "not finished", self.unfinished));
        }
        line(
            &mut text,
            &format!("\n{:.1} s, from the first webhook to the last action.", took.as_secs_f64()),
        );
        if let Some(event) = &self.eventful {
            timeline(&mut text, event);
        }
        text
    }
}

fn timeline(text: &mut String, event: &EventView) {
    let envelope = &event.envelope;
    line(text, &format!("\nWhat happened to {} ({}):\n", envelope.event_id, envelope.event_type));
    let start = envelope.received_at;
    let mut rows = vec![(
        start,
        format!("received, verified, stored ({} more times: duplicate)", event.duplicates),
    )];
    for delivery in &event.deliveries {
        rows.extend(delivery.entries.iter().filter_map(|entry| Some((entry.at, said(entry)?))));
        let status = delivery.state.status;
        let last = delivery.entries.last().map_or(start, |entry| entry.at);
        rows.push((last, format!("{}: {status}", delivery.state.id.route)));
    }
    for (at, what) in rows {
        line(text, &format!("  {:>8}  {what}", after(start, at)));
    }
}

/// One line of the journal in words. An intent needs none: its attempt follows.
fn said(entry: &Entry) -> Option<String> {
    match &entry.what {
        What::Intended { .. } => None,
        What::Attempted { step, attempt } => {
            let answer = match attempt.status {
                Some(status) => format!("answered {status}"),
                None => format!("no answer ({})", attempt.detail),
            };
            let next = attempt.next.map(|next| format!("; again {} later", after(entry.at, next)));
            Some(format!(
                "{step}, attempt {}: {answer}{}",
                attempt.number,
                next.unwrap_or_default()
            ))
        }
        What::StepDecided { step, status, why } => {
            Some(format!("{step}: {} ({why})", status.as_str()))
        }
        What::Decided { why } => Some(why.clone()),
        What::Operated { actor, action, .. } => Some(format!("{actor}: {action}")),
    }
}

fn after(start: Timestamp, at: Timestamp) -> String {
    format!("{} ms", at.duration_since(start).as_millis().max(0))
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes everything");
}
