//! The checked configuration. A [`Route`] exists only if it passed `check`; `serve`, `try`, `send` and `demo` take it
//! from the same loader.

pub mod check;
pub mod preset;
pub mod reference;
pub mod resolve;
pub mod schema;
pub mod shape;
pub mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use url::Url;

use crate::delivery::decide::PlannedStep;
use crate::delivery::policy::Retry;
use crate::diag::Span;
use crate::envelope::OnConflict;
use crate::extract::Extraction;
use crate::extract::jsonpath::JsonPath;
use crate::name::{Lane, RevisionHash, RouteName, SourceName, StepName};
use crate::secret::{SecretRef, SecretValue, Vault};
use crate::template::body::BodyTemplate;
use crate::template::url::UrlTemplate;
use crate::template::{Condition, Template};
use crate::verify::handshake::Handshake;
use crate::verify::scheme::{Scheme, Strength};

/// Everything that one load made, immutable.
#[derive(Debug)]
pub struct RouteSet {
    pub server: Server,
    /// By name.
    pub sources: BTreeMap<SourceName, Arc<Source>>,
    pub routes: BTreeMap<RouteName, Arc<Route>>,
    pub destinations: BTreeMap<Lane, Arc<Destination>>,
    /// Every secret and variable that the configuration names, with the first place that does.
    pub references: References,
}

/// What [`resolve::resolve`] has to find.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// The configuration folder, which relative paths start from.
    pub root: PathBuf,
    pub secrets: BTreeMap<SecretRef, Span>,
    /// Variables of `env`, without those that all have a default.
    pub variables: BTreeMap<String, Span>,
    /// Variables of `env` whose every use has a default.
    pub optional_variables: BTreeSet<String>,
}

impl RouteSet {
    /// The routes on one source, by name.
    pub fn routes_on<'a>(&'a self, source: &'a SourceName) -> impl Iterator<Item = &'a Arc<Route>> {
        self.routes.values().filter(move |route| route.source == *source)
    }
}

/// `router.yaml`.
#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    pub public_url: Option<Url>,
    pub admin: Admin,
    /// Absolute, or relative to the current folder.
    pub store: PathBuf,
    /// Calls in flight at once.
    pub workers: usize,
    pub limits: Limits,
    pub egress_allow: Vec<EgressRule>,
    /// How long what operators did is kept.
    pub audit_retain: Duration,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: SocketAddr,
    pub tokens: Vec<AdminToken>,
}

#[derive(Clone, Debug)]
pub struct AdminToken {
    pub name: String,
    pub role: Role,
    pub token: SecretRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Unfinished deliveries; more answers 503.
    pub backlog: u64,
    /// Events of one POST under `event.split`; more answer 413.
    pub split: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub min_free_disk_bytes: u64,
}

/// One entry of `egress.allow`: `10.0.0.0/8`, `127.0.0.1`, `127.0.0.1:9000`, `localhost:9000`, `internal.example:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    pub host: EgressHost,
    /// `None`: any port.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressHost {
    Net(ipnet::IpNet),
    /// Lower case; matches the name as the URL writes it.
    Name(String),
}

/// A named downstream API.
#[derive(Clone, Debug)]
pub struct Destination {
    pub lane: Lane,
    pub url: DestinationUrl,
    pub auth: Option<Auth>,
    pub idempotency: Idempotency,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub enum DestinationUrl {
    Plain(Url),
    /// The whole URL is a secret and is shown nowhere.
    Secret(SecretRef),
}

#[derive(Clone, Debug)]
pub enum Auth {
    Bearer(SecretRef),
    Basic { user: String, password: SecretRef },
    Header { name: http::HeaderName, value: SecretRef },
}

/// How a destination takes the idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotency {
    Header(http::HeaderName),
    /// The call's own templates place `{{ idempotency_key }}` in the body.
    Body,
    /// It takes none.
    None,
    /// Not declared: sent as the header `Idempotency-Key`; `check` warns.
    Unknown,
}

/// One ingress path with its verification.
#[derive(Debug)]
pub struct Source {
    pub name: SourceName,
    /// `/hooks/{shop}`; matchit's syntax.
    pub path: String,
    pub methods: Vec<Method>,
    pub verify: Verification,
    pub event: EventRules,
    /// `None`: by Content-Type. JSON under `event.split`.
    pub body: Option<crate::body::BodyRule>,
    pub max_body_bytes: usize,
    pub respond: Respond,
    /// Challenges that are answered and are no events; the first that fits.
    pub handshakes: Vec<Handshake>,
    pub on_malformed: OnMalformed,
    /// How long finished events are kept.
    pub retain: Duration,
    /// How long ids are remembered; at least `retain`.
    pub dedupe: Duration,
    pub public_url: Option<Url>,
}

impl Source {
    /// The methods of events, and after them those of handshakes alone.
    pub fn all_methods(&self) -> impl Iterator<Item = &Method> {
        let of_handshakes =
            self.handshakes.iter().filter_map(|handshake| handshake.when.method.as_ref());
        let others = of_handshakes.filter(|method| !self.methods.contains(method));
        self.methods.iter().chain(others)
    }

    /// One of its handshakes brings a secret.
    pub fn captures(&self) -> bool {
        self.handshakes.iter().any(|handshake| handshake.capture.is_some())
    }

    pub fn takes(&self, method: &Method) -> bool {
        self.all_methods().any(|taken| taken == method)
    }
}

#[derive(Debug)]
pub struct Verification {
    pub scheme: Scheme,
    pub strength: Strength,
    /// Name of the preset, where one was used.
    pub provider: Option<String>,
}

#[derive(Debug)]
pub struct EventRules {
    /// The first that yields wins.
    pub id: Vec<IdRule>,
    pub missing_id: MissingId,
    pub same_as: Vec<Extraction>,
    pub volatile: Vec<JsonPath>,
    pub on_conflict: OnConflict,
    /// Each hit is an event of its own, and its payload.
    pub split: Option<JsonPath>,
    pub type_: Option<Extraction>,
    /// Of type `timestamp`.
    pub occurred_at: Option<Extraction>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few, and made once at load")]
pub enum IdRule {
    Extract(Extraction),
    /// `{ hash: body }`: of the canonical body less `volatile`.
    HashBody,
    /// `{ hash: [...] }`: of the values that the extractions yield; none if all are absent.
    Hash(Vec<Extraction>),
    /// `{ arrival: true }`: every arrival is an event of its own.
    Arrival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingId {
    Derive,
    Review,
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMalformed {
    Review,
    Reject,
}

/// The answer on acceptance and on a duplicate.
#[derive(Clone, Debug)]
pub struct Respond {
    pub status: http::StatusCode,
    pub headers: http::HeaderMap,
    pub body: bytes::Bytes,
    /// Of a sender that did not prove itself.
    pub unverified: http::StatusCode,
}

/// One YAML file, checked and compiled.
#[derive(Debug)]
pub struct Route {
    pub name: RouteName,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub docs: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub source: SourceName,
    pub on: EventFilter,
    pub when: Option<Condition>,
    pub fields: Vec<(String, Extraction)>,
    /// Name in templates → where it is.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Name in templates → variable and default.
    pub env: BTreeMap<String, EnvVar>,
    pub steps: Vec<Step>,
    /// Hash of `revision_text`.
    pub revision: RevisionHash,
    /// All texts that made this route, enough to compile it again with [`check::compile_revision`].
    pub revision_text: Arc<str>,
}

impl Route {
    pub fn step(&self, name: &StepName) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// The steps as `delivery` decides on them.
    pub fn plan(&self) -> Vec<PlannedStep> {
        let planned = |step: &Step| PlannedStep {
            name: step.name.clone(),
            was: step.was.clone(),
            needs: step.needs.clone(),
        };
        self.steps.iter().map(planned).collect()
    }
}

#[derive(Clone, Debug)]
pub struct EnvVar {
    pub variable: String,
    pub default: Option<String>,
}

/// `on`: globs in which `*` is any run of characters; a leading `!` excludes.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// `on` was left out: every type matches, a missing one too.
    pub all: bool,
}

impl EventFilter {
    /// Whether an event of this type (`""`: it has none) is wanted.
    pub fn matches(&self, event_type: &str) -> bool {
        if self.all {
            return true;
        }
        !event_type.is_empty()
            && (self.include.is_empty()
                || self.include.iter().any(|glob| glob_matches(glob, event_type)))
            && !self.exclude.iter().any(|glob| glob_matches(glob, event_type))
    }
}

/// `*` is any run of characters, also `.` and `/`; everything else stands for itself. Linear in practice: after a `*`
/// the shortest run that lets the rest match is found, and only the last `*` is ever reconsidered.
fn glob_matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// One templated downstream call with its guards.
#[derive(Debug)]
pub struct Step {
    pub name: StepName,
    pub was: Option<StepName>,
    pub call: Call,
    pub when: Option<Condition>,
    /// Indices into the route's steps; all lower or higher alike, never a cycle.
    pub needs: BTreeSet<usize>,
    /// `None`: derived.
    pub idempotency_key: Option<Template>,
    pub success: Success,
    pub retry: Retry,
    pub retry_on: Vec<RetryOn>,
    pub timeout: Duration,
    pub save: Vec<(String, Extraction)>,
    /// `repeat: ok`
    pub repeat_ok: bool,
}

#[derive(Debug)]
pub struct Call {
    pub method: Method,
    /// A destination of `router.yaml`; `None`: `url` is whole.
    pub to: Option<Arc<Destination>>,
    pub url: UrlTemplate,
    pub headers: Vec<(http::HeaderName, Template)>,
    pub query: Vec<(String, Template)>,
    pub body: BodyTemplate,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few, and made once at load")]
pub enum Success {
    Statuses(Vec<StatusMatch>),
    Condition(Condition),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMatch {
    Code(u16),
    /// `2` is 200 to 299.
    Class(u8),
}

impl StatusMatch {
    pub fn matches(self, status: u16) -> bool {
        match self {
            StatusMatch::Code(code) => code == status,
            StatusMatch::Class(class) => status / 100 == u16::from(class),
        }
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few, and made once at load")]
pub enum RetryOn {
    Network,
    Timeout,
    Status(StatusMatch),
    Condition(Condition),
}

/// What the environment gave to a [`RouteSet`]: read once, before a port is bound.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    pub vault: Vault,
    /// Variable → value, for the `env` of all routes (defaults filled in per route by [`EnvVar`]).
    pub env: BTreeMap<String, String>,
}

impl Resolved {
    pub fn secret(&self, reference: &SecretRef) -> Option<&SecretValue> {
        self.vault.get(reference)
    }
}

/// A configuration that runs: swapped as a whole.
#[derive(Debug)]
pub struct Live {
    pub set: RouteSet,
    pub resolved: Resolved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        fn check(filter: &[&str], event_type: &str, expected: bool) {
            let (exclude, include): (Vec<&str>, Vec<&str>) =
                filter.iter().partition(|glob| glob.starts_with('!'));
            let filter = EventFilter {
                include: include.into_iter().map(String::from).collect(),
                exclude: exclude.into_iter().map(|glob| glob.replacen('!', "", 1)).collect(),
                all: filter.is_empty(),
            };
            assert_eq!(filter.matches(event_type), expected, "{filter:?} on {event_type:?}");
        }
        check(&[], "", true);
        check(&[], "a", true);
        check(&["*"], "", false);
        check(&["orders/paid"], "orders/paid", true);
        check(&["orders/paid"], "orders/paid2", false);
        check(&["orders/paid"], "Orders/paid", false);
        check(&["orders/*"], "orders/a/b", true);
        check(&["invoice.*"], "invoice.", true);
        check(&["*.paid"], "invoice.item.paid", true);
        check(&["a*b*c"], "a-b-b-c", true);
        check(&["a*b*c"], "a-c-b", false);
        check(&["ab*ba"], "aba", false);
        check(&["*ab*ab"], "ab", false);
        check(&["*", "!*.test"], "x.test", false);
        check(&["!*.test"], "x.live", true);
        check(&["!*.test"], "", false);
    }
}
