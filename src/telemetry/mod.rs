//! Counters and log lines, named once. Names, statuses and durations enter; nothing here reads a clock, and no label value
//! ever comes from a sender.

pub mod log;

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::name::{RouteName, SourceName, StepName};

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds, from a fast disk's sync to a sender's usual patience.
const ACK_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Every counter of the router. Sources, routes and steps come from the configuration, all else from fixed lists.
pub struct Metrics {
    registry: Registry,
    received: Family<Source, Counter>,
    duplicates: Family<Source, Counter>,
    handshakes: Family<Source, Counter>,
    captured: Family<Source, Counter>,
    keys_fetched: Family<Fetch, Counter>,
    conflicts: Family<Source, Counter>,
    empty_batches: Family<Source, Counter>,
    accepted: Family<Source, Counter>,
    rejected: Family<Refused, Counter>,
    succeeded: Family<Route, Counter>,
    failed: Family<Failed, Counter>,
    ignored: Family<Route, Counter>,
    retries: Family<Step, Counter>,
    attempts: Family<Attempted, Counter>,
    replays: Family<Route, Counter>,
    deliveries: Family<InStatus, Gauge>,
    events_stored: Gauge,
    backlog_age: Gauge<f64, AtomicU64>,
    calls_in_flight: Gauge,
    store_ready: Gauge,
    pages_rebuilt: Gauge,
    ack: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetch {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    source: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    route: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    route: String,
    step: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempted {
    route: String,
    step: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: &'static str,
}

/// How an attempt ended, for its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    Succeeded,
    NotSent,
    SentNoAnswer,
    /// Answered, but not as `success` wants it.
    Refused,
}

impl AttemptEnd {
    fn as_str(self) -> &'static str {
        match self {
            AttemptEnd::Succeeded => "succeeded",
            AttemptEnd::NotSent => "not_sent",
            AttemptEnd::SentNoAnswer => "sent_no_answer",
            AttemptEnd::Refused => "refused",
        }
    }
}

/// The store in numbers, as it stands at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    pub events: u64,
    pub queued: u64,
    pub processing: u64,
    pub failed: u64,
    /// Since the oldest due delivery became due.
    pub oldest_due: Duration,
    pub ready: bool,
    /// See `index_pages_rebuilt`.
    pub pages_rebuilt: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("router"),
            received: Family::default(),
            duplicates: Family::default(),
            handshakes: Family::default(),
            captured: Family::default(),
            keys_fetched: Family::default(),
            conflicts: Family::default(),
            empty_batches: Family::default(),
            accepted: Family::default(),
            rejected: Family::default(),
            succeeded: Family::default(),
            failed: Family::default(),
            ignored: Family::default(),
            retries: Family::default(),
            attempts: Family::default(),
            replays: Family::default(),
            deliveries: Family::default(),
            events_stored: Gauge::default(),
            backlog_age: Gauge::default(),
            calls_in_flight: Gauge::<i64, AtomicI64>::default(),
            store_ready: Gauge::default(),
            pages_rebuilt: Gauge::default(),
            ack: Histogram::new(ACK_BUCKETS),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let mut add = |name: &str, help: &str, family: &Family<Source, Counter>| {
            registry.register(name, help, family.clone());
        };
        add("events_received", "Verified events received, resent ones too", &self.received);
        add("events_accepted", "New events made durable", &self.accepted);
        add("events_duplicate", "Events that were known already", &self.duplicates);
        add("handshakes", "Challenges of providers that were answered", &self.handshakes);
        let captured = "Secrets that were taken out of a handshake and kept";
        add("secrets_captured", captured, &self.captured);
        add("events_conflict", "Known event ids that came with another body", &self.conflicts);
        let empty = "Requests in which `event.split` found no event: answered 2xx, nothing stored";
        add("requests_empty_batches", empty, &self.empty_batches);
        let rejected = "Requests refused before anything was stored; source is empty where the path is unknown";
        let fetched = "Fetches of providers' keys and certificates";
        registry.register("key_fetches", fetched, self.keys_fetched.clone());
        registry.register("requests_rejected", rejected, self.rejected.clone());
        let succeeded = "Deliveries that succeeded";
        registry.register("deliveries_succeeded", succeeded, self.succeeded.clone());
        let failed = "Deliveries that went to the review queue";
        registry.register("deliveries_failed", failed, self.failed.clone());
        let ignored = "Deliveries whose `when` was false";
        registry.register("deliveries_ignored", ignored, self.ignored.clone());
        let replayed = "Deliveries that an operator put back in the queue";
        registry.register("deliveries_replayed", replayed, self.replays.clone());
        let retries = "Attempts that were put off for another try";
        registry.register("step_retries", retries, self.retries.clone());
        let attempts = "Attempts of steps by how they ended";
        registry.register("step_attempts", attempts, self.attempts.clone());
        let deliveries = "Unfinished deliveries and the review queue, by status";
        registry.register("deliveries", deliveries, self.deliveries.clone());
        registry.register("events_stored", "Events in the store", self.events_stored.clone());
        let age = "Age of the oldest queued delivery that is due";
        registry.register_with_unit("backlog_age", age, Unit::Seconds, self.backlog_age.clone());
        let in_flight = "Downstream calls that are out";
        registry.register("calls_in_flight", in_flight, self.calls_in_flight.clone());
        let ready = "1 while the store takes new events";
        registry.register("store_ready", ready, self.store_ready.clone());
        let pages =
            "Pages of the index that were missing or wrong and were derived anew, since the start";
        registry.register("index_pages_rebuilt", pages, self.pages_rebuilt.clone());
        let ack = "Time from a request's first byte to its acknowledgement";
        registry.register_with_unit("ack_latency", ack, Unit::Seconds, self.ack.clone());
    }

    /// A verified event came in; before the store says whether it is new.
    pub fn received(&self, source: &SourceName) {
        self.received.get_or_create(&Source::of(source)).inc();
    }

    pub fn accepted(&self, source: &SourceName) {
        self.accepted.get_or_create(&Source::of(source)).inc();
    }

    pub fn duplicate(&self, source: &SourceName) {
        self.duplicates.get_or_create(&Source::of(source)).inc();
    }

    pub fn handshake(&self, source: &SourceName) {
        self.handshakes.get_or_create(&Source::of(source)).inc();
    }

    pub fn secret_captured(&self, source: &SourceName) {
        self.captured.get_or_create(&Source::of(source)).inc();
    }

    pub fn keys_fetched(&self, succeeded: bool) {
        let result = if succeeded { "succeeded" } else { "failed" };
        self.keys_fetched.get_or_create(&Fetch { result }).inc();
    }

    pub fn conflict(&self, source: &SourceName) {
        self.conflicts.get_or_create(&Source::of(source)).inc();
    }

    /// `event.split` found no event in a request.
    pub fn empty_batch(&self, source: &SourceName) {
        self.empty_batches.get_or_create(&Source::of(source)).inc();
    }

    /// `source` is `None` where the path is unknown.
    pub fn rejected(&self, source: Option<&SourceName>, reason: &'static str) {
        let source = source.map(ToString::to_string).unwrap_or_default();
        self.rejected.get_or_create(&Refused { source, reason }).inc();
    }

    pub fn succeeded(&self, route: &RouteName) {
        self.succeeded.get_or_create(&Route::of(route)).inc();
    }

    /// `cause` is the cause of the delivery's reason.
    pub fn failed(&self, route: &RouteName, cause: &str) {
        let cause = bounded_cause(cause);
        self.failed.get_or_create(&Failed { route: route.to_string(), cause }).inc();
    }

    pub fn ignored(&self, route: &RouteName) {
        self.ignored.get_or_create(&Route::of(route)).inc();
    }

    pub fn replayed(&self, route: &RouteName) {
        self.replays.get_or_create(&Route::of(route)).inc();
    }

    pub fn retry(&self, route: &RouteName, step: &StepName) {
        let labels = Step { route: route.to_string(), step: step.to_string() };
        self.retries.get_or_create(&labels).inc();
    }

    pub fn attempt(&self, route: &RouteName, step: &StepName, end: AttemptEnd) {
        let (route, step) = (route.to_string(), step.to_string());
        self.attempts.get_or_create(&Attempted { route, step, outcome: end.as_str() }).inc();
    }

    /// Counts a call as in flight until the guard goes.
    pub fn call_in_flight(&self) -> InFlight {
        self.calls_in_flight.inc();
        InFlight(self.calls_in_flight.clone())
    }

    pub fn calls_in_flight(&self) -> i64 {
        self.calls_in_flight.get()
    }

    pub fn ack_latency(&self, took: Duration) {
        self.ack.observe(took.as_secs_f64());
    }

    /// Every metric in the OpenMetrics text format, with the store as it is now.
    pub fn encode(&self, backlog: Backlog) -> String {
        for (status, count) in [
            ("queued", backlog.queued),
            ("processing", backlog.processing),
            ("failed", backlog.failed),
        ] {
            self.deliveries.get_or_create(&InStatus { status }).set(gauge(count));
        }
        self.events_stored.set(gauge(backlog.events));
        self.backlog_age.set(backlog.oldest_due.as_secs_f64());
        self.store_ready.set(i64::from(backlog.ready));
        self.pages_rebuilt.set(gauge(backlog.pages_rebuilt));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

/// A call that is out.
#[must_use = "the call counts as in flight only while this lives"]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Source {
    fn of(source: &SourceName) -> Self {
        Self { source: source.to_string() }
    }
}

impl Route {
    fn of(route: &RouteName) -> Self {
        Self { route: route.to_string() }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The cause as a label: one of a fixed list, HTTP statuses by class. A downstream cannot make new label values.
fn bounded_cause(cause: &str) -> &'static str {
    const CAUSES: [&str; 20] = [
        "attempts_exhausted",
        "time_exhausted",
        "interrupted",
        "step_failed",
        "missing_field",
        "wrong_type",
        "not_one_of",
        "no_match",
        "missing_mapping",
        "template",
        "network",
        "timeout",
        "refused",
        "condition",
        "saved_missing",
        "revision",
        "missing_secret",
        "not_successful",
        "malformed",
        "bug",
    ];
    if let Some(known) = CAUSES.iter().find(|known| **known == cause) {
        return known;
    }
    match cause.strip_prefix("status_").and_then(|code| code.as_bytes().first()) {
        Some(b'1') => "status_1xx",
        Some(b'2') => "status_2xx",
        Some(b'3') => "status_3xx",
        Some(b'4') => "status_4xx",
        Some(b'5') => "status_5xx",
        Some(_) | None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_bounded() {
        fn check(cause: &str, expected: &str) {
            assert_eq!(bounded_cause(cause), expected);
        }
        check("missing_field", "missing_field");
        check("status_422", "status_4xx");
        check("status_503", "status_5xx");
        check("status_", "other");
        check("anything \"a sender\" says", "other");
    }

    #[test]
    fn every_metric_is_written_under_its_name() {
        let metrics = Metrics::new();
        let (source, route, step) = ("shop".into(), "orders".into(), "ship".into());
        metrics.received(&source);
        metrics.received(&source);
        metrics.duplicate(&source);
        metrics.empty_batch(&source);
        metrics.rejected(None, "unknown_path");
        metrics.failed(&route, "status_422");
        metrics.retry(&route, &step);
        metrics.attempt(&route, &step, AttemptEnd::SentNoAnswer);
        metrics.ack_latency(Duration::from_millis(3));
        let in_flight = metrics.call_in_flight();
        let backlog = Backlog {
            queued: 2,
            oldest_due: Duration::from_millis(1500),
            ready: true,
            ..Backlog::default()
        };
        let text = metrics.encode(backlog);
        drop(in_flight);
        for line in [
            r#"router_events_received_total{source="shop"} 2"#,
            r#"router_events_duplicate_total{source="shop"} 1"#,
            r#"router_requests_empty_batches_total{source="shop"} 1"#,
            r#"router_requests_rejected_total{source="",reason="unknown_path"} 1"#,
            r#"router_deliveries_failed_total{route="orders",cause="status_4xx"} 1"#,
            r#"router_step_retries_total{route="orders",step="ship"} 1"#,
            r#"router_step_attempts_total{route="orders",step="ship",outcome="sent_no_answer"} 1"#,
            r#"router_deliveries{status="queued"} 2"#,
            "router_backlog_age_seconds 1.5",
            "router_calls_in_flight 1",
            "router_store_ready 1",
            r#"router_ack_latency_seconds_bucket{le="0.0025"} 0"#,
            r#"router_ack_latency_seconds_bucket{le="0.005"} 1"#,
            "router_ack_latency_seconds_count 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in:\n{text}");
        }
        assert_eq!(metrics.calls_in_flight(), 0);
    }
}
