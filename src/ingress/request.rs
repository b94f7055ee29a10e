//! One request → one answer. Every refusal is counted and logged with its reason; the sender learns the status alone.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::sync::Semaphore;
use url::Url;

use super::Ingress;
use super::body::{self, Fault};
use super::event::{Refused, new_events};
use super::head::Head;
use super::paths::Table;
use crate::config::{Limits, Live, Source};
use crate::envelope::Envelope;
use crate::name::{RouteName, SourceName, Uid};
use crate::store::captured::{CAPTURED_MAX, Capture, CapturedSecret};
use crate::store::{Acceptance, StoreError};
use crate::telemetry::log;
use crate::verify::fetched::Fetched;
use crate::verify::handshake::{self, Asked, Handshake};
use crate::verify::scheme::Rejection;
use crate::verify::text::Selector;
use crate::verify::{About, Keys, Received, verify, wants};
use crate::world::clock::Clock;

type Answer = Response<Full<Bytes>>;

/// How long a sender is asked to stay away, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("10");

/// What all connections share.
pub(super) struct Front {
    deps: Ingress,
    /// Of the newest configuration that a request has seen.
    table: RwLock<Arc<Table>>,
    memory: Arc<Semaphore>,
}

/// A request that goes no further.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    /// For the log. Never a secret, never an expected value.
    detail: String,
    /// The body, or a part of it, was not read: it stands between this request and the next, so the connection ends.
    unread: bool,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, detail: String::new(), unread: false }
    }

    fn unread(status: StatusCode, reason: &'static str) -> Self {
        Self { unread: true, ..Self::new(status, reason) }
    }

    fn because(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }
}

/// What a request was that went through.
enum Outcome {
    /// It, or the one that it repeats, is durable.
    Event,
    /// Nothing is to be stored.
    Challenge(handshake::Answer),
}

impl Front {
    pub(super) fn new(deps: Ingress, body_bytes_in_flight_max: usize) -> Self {
        let table = Arc::new(Table::new(deps.live.borrow().clone()));
        let memory = Arc::new(Semaphore::new(body_bytes_in_flight_max));
        Self { deps, table: RwLock::new(table), memory }
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.deps.world.clock
    }

    pub(super) fn limits(&self) -> Limits {
        self.deps.live.borrow().set.server.limits.clone()
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.deps.world.spawn.spawn("ingress", task);
    }

    /// Never fails: a panic on the way is a 500 for this request alone.
    pub(super) async fn answer(&self, request: Request<Incoming>, head: &Head) -> Answer {
        let gives_a_length = head.gives_a_length();
        let chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let mut answer = if chunked && gives_a_length {
            self.refuse(None, Refusal::new(StatusCode::BAD_REQUEST, "two_body_lengths"))
        } else {
            let answered = AssertUnwindSafe(self.route(request)).catch_unwind().await;
            answered.unwrap_or_else(|_| {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                self.refuse(None, Refusal::new(status, "internal_error"))
            })
        };
        // What comes after a chunked body is read by nobody else's idea of where it ended.
        if chunked {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        head.expect_next();
        answer
    }

    /// Finds the source, and answers for it.
    async fn route(&self, request: Request<Incoming>) -> Answer {
        let table = self.table();
        let has_body = !request.body().is_end_stream();
        let Some((source, parts)) = table.find(request.uri().path()) else {
            let mut refusal = Refusal::new(StatusCode::NOT_FOUND, "unknown_path");
            refusal.unread = has_body;
            return self.refuse(None, refusal);
        };
        if !source.takes(request.method()) {
            let mut refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
            refusal.unread = has_body;
            let mut answer = self.refuse(Some(&source.name), refusal);
            allow(source, &mut answer);
            return answer;
        }
        self.deps.metrics.received(&source.name);
        match self.receive(&table, source, parts, request).await {
            Ok(Outcome::Event) => respond(source),
            Ok(Outcome::Challenge(answer)) => {
                self.deps.metrics.handshake(&source.name);
                log::handshake(&source.name);
                let mut response = Answer::new(Full::new(answer.body));
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                response
            }
            Err(refusal) => {
                let is_method = refusal.status == StatusCode::METHOD_NOT_ALLOWED;
                let mut answer = self.refuse(Some(&source.name), refusal);
                if is_method {
                    allow(source, &mut answer);
                }
                answer
            }
        }
    }

    /// Body → verified → event → durable. `Ok` is the promise that the event, or the one it repeats, is on the medium.
    async fn receive(
        &self,
        table: &Table,
        source: &Source,
        path: Vec<(String, String)>,
        request: Request<Incoming>,
    ) -> Result<Outcome, Refusal> {
        let started = self.clock().monotonic();
        let server = &table.live.set.server;
        let (parts, body) = request.into_parts();
        let body = body::read(
            body,
            source.max_body_bytes,
            server.limits.body_timeout,
            &self.memory,
            &**self.clock(),
        )
        .await
        .map_err(no_body)?;

        let now = self.clock().now();
        let query = parts.uri.query().unwrap_or_default();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let public_url = public_url(source, &table.live, parts.uri.path());
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let received = Received {
            method: parts.method,
            target,
            path,
            query,
            headers: parts.headers,
            body: body.bytes.clone(),
            received_at: now,
        };
        let captured = match source.captures() {
            true => self.deps.store.captured(&source.name, &received.path),
            false => Vec::new(),
        };
        let vault = &table.live.resolved.vault;
        let keys = Keys { captured: &captured, ..Keys::of(vault) };
        let scheme = &source.verify.scheme;
        let about = About { public_url: public_url.as_ref(), body: source.body.as_ref() };
        let wants = wants(scheme, &received, keys, about, now);
        let fetched = match wants.is_empty() {
            true => Fetched::default(),
            false => self.deps.keys.get(&wants).await,
        };
        let keys = Keys { fetched: &fetched, ..keys };
        let asked = Asked { received: &received, scheme, keys, about, now };
        if let Some(handshake) = handshake::find(&source.handshakes, asked) {
            return self.challenge(source, handshake, asked).await;
        }
        if !source.methods.contains(&received.method) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
        }
        let verified = verify(scheme, received, keys, about, now)
            .map_err(|rejection| unproved(source, rejection))?;

        let (routes, split_max) = (table.routes(&source.name), server.limits.split);
        let uid = || Uid(self.deps.world.random.uuid_v7(now));
        let events = new_events(source, routes, &verified, split_max, uid)
            .map_err(|refused| refused_events(refused, split_max))?;
        let metrics = &self.deps.metrics;
        if events.is_empty() {
            metrics.empty_batch(&source.name);
            log::empty_batch(&source.name);
            return Ok(Outcome::Event);
        }
        let offered: Vec<(Envelope, Vec<RouteName>)> = events
            .iter()
            .map(|event| {
                let routes = event.deliveries.iter().map(|delivery| delivery.route.clone());
                (event.envelope.clone(), routes.collect())
            })
            .collect();
        let accepted = self.deps.store.accept(events).await.map_err(not_stored)?;
        if accepted.len() != offered.len() {
            let (status, reason) = (StatusCode::SERVICE_UNAVAILABLE, "store_dead");
            let detail = format!("{} answers for {} events", accepted.len(), offered.len());
            return Err(Refusal::new(status, reason).because(detail));
        }
        for (acceptance, (envelope, routes)) in accepted.iter().zip(&offered) {
            match acceptance {
                Acceptance::Accepted { .. } => {
                    metrics.accepted(&source.name);
                    log::accepted(envelope, routes);
                }
                Acceptance::Duplicate { .. } => {
                    metrics.duplicate(&source.name);
                    log::duplicate(envelope);
                }
                Acceptance::Conflict { .. } => {
                    metrics.conflict(&source.name);
                    log::conflict(envelope);
                }
            }
        }
        metrics.ack_latency(self.clock().monotonic().saturating_sub(started));
        Ok(Outcome::Event)
    }

    /// A request that is a challenge: it is answered, once its sender proved itself where that is asked for, and is no event.
    async fn challenge(
        &self,
        source: &Source,
        handshake: &Handshake,
        asked: Asked<'_>,
    ) -> Result<Outcome, Refusal> {
        if let Some(at) = &handshake.capture {
            return self.capture(source, handshake, at, asked).await;
        }
        if handshake.verify {
            let Asked { received, scheme, keys, about, now } = asked;
            verify(scheme, received.clone(), keys, about, now)
                .map_err(|rejection| unproved(source, rejection))?;
        }
        let answer = handshake.answer(asked).map_err(malformed_handshake)?;
        if let Some(confirm) = &handshake.confirm {
            let url = confirm.place(asked).ok_or_else(|| {
                let why = "the URL to confirm by is not the provider's";
                Refusal::new(StatusCode::BAD_REQUEST, "malformed_handshake").because(why.to_owned())
            })?;
            self.deps.keys.confirm(&url).await.map_err(|why| {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_confirmed").because(why)
            })?;
        }
        Ok(Outcome::Challenge(answer))
    }

    /// A handshake that brings a secret. It is durable before the answer leaves, for the provider sends it only once.
    async fn capture(
        &self,
        source: &Source,
        handshake: &Handshake,
        at: &Selector,
        asked: Asked<'_>,
    ) -> Result<Outcome, Refusal> {
        let not_armed = || {
            let why = "a secret came that nobody waits for; `router sources arm` does";
            Refusal::new(StatusCode::UNAUTHORIZED, "not_armed").because(why.to_owned())
        };
        let arming = &self.deps.arming;
        // A stranger learns nothing but this, whatever he sends.
        if !arming.waits_for(&source.name, &asked.received.path) {
            return Err(not_armed());
        }
        let malformed =
            |why| Refusal { status: StatusCode::UNAUTHORIZED, ..malformed_handshake(why) };
        let value = Handshake::secret(asked, at).map_err(malformed)?;
        let answer = handshake.answer(asked).map_err(malformed)?;
        let received = asked.received;
        let taken = arming.take(&source.name, &received.path).ok_or_else(not_armed)?;
        let secret = CapturedSecret {
            id: Uid(self.deps.world.random.uuid_v7(received.received_at)),
            source: source.name.clone(),
            path: received.path.clone(),
            value,
            captured_at: received.received_at,
            armed_by: taken.by().to_owned(),
        };
        let fingerprint = secret.fingerprint();
        // A sender that goes away meanwhile leaves the source disarmed: whether its secret is kept, a list says.
        match self.deps.store.capture(secret).await {
            Ok(Capture::Kept(id)) => {
                self.deps.metrics.secret_captured(&source.name);
                log::secret_captured(&source.name, id, &fingerprint, taken.by());
                Ok(Outcome::Challenge(answer))
            }
            Ok(Capture::TooMany) => {
                arming.put_back(&taken);
                let detail = format!(
                    "the source has {CAPTURED_MAX} captured secrets already; drop some with `router sources drop`"
                );
                Err(Refusal::new(StatusCode::UNAUTHORIZED, "too_many_secrets").because(detail))
            }
            Err(error) => {
                arming.put_back(&taken);
                Err(not_stored(error))
            }
        }
    }

    /// The table of the configuration that runs now. Two requests that see a new one first may both compile it.
    fn table(&self) -> Arc<Table> {
        let live = self.deps.live.borrow().clone();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        if Arc::ptr_eq(&table.live, &live) {
            return table;
        }
        let table = Arc::new(Table::new(live));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table.clone();
        table
    }

    fn refuse(&self, source: Option<&SourceName>, refusal: Refusal) -> Answer {
        self.deps.metrics.rejected(source, refusal.reason);
        log::rejected(source, refusal.reason, &refusal.detail);
        let mut answer = Answer::default();
        *answer.status_mut() = refusal.status;
        if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
        }
        if refusal.unread {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

fn respond(source: &Source) -> Answer {
    let mut answer = Answer::new(Full::new(source.respond.body.clone()));
    *answer.status_mut() = source.respond.status;
    *answer.headers_mut() = source.respond.headers.clone();
    answer
}

fn allow(source: &Source, answer: &mut Answer) {
    let names: Vec<&str> = source.all_methods().map(http::Method::as_str).collect();
    if let Ok(allowed) = HeaderValue::from_str(&names.join(", ")) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
}

fn malformed_handshake(why: handshake::Unanswerable) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "malformed_handshake").because(format!("{why:?}"))
}

fn unproved(source: &Source, rejection: Rejection) -> Refusal {
    if matches!(rejection, Rejection::KeyUnavailable | Rejection::UnusableSecret) {
        // Nothing is known against the sender, and the fault is ours or the key's keeper's: let it come again.
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, rejection.as_str());
    }
    Refusal::new(source.respond.unverified, rejection.as_str())
}

fn refused_events(refused: Refused, split_max: usize) -> Refusal {
    match refused {
        Refused::Malformed(detail) => {
            Refusal::new(StatusCode::BAD_REQUEST, "malformed").because(detail)
        }
        Refused::MissingId => Refusal::new(StatusCode::BAD_REQUEST, "missing_id"),
        Refused::TooMany(count) => {
            let detail = format!("{count} events in one POST, and `limits.split` is {split_max}");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events").because(detail)
        }
    }
}

fn no_body(fault: Fault) -> Refusal {
    match fault {
        Fault::TooLarge => Refusal::unread(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Fault::TooSlow => Refusal::unread(StatusCode::REQUEST_TIMEOUT, "slow_body"),
        Fault::NoRoom => Refusal::unread(StatusCode::SERVICE_UNAVAILABLE, "no_memory"),
        Fault::Broken => Refusal::unread(StatusCode::BAD_REQUEST, "broken_body"),
    }
}

fn not_stored(error: StoreError) -> Refusal {
    let reason = match error {
        StoreError::Refusing(_) => "store_refusing",
        StoreError::Dead(_) => "store_dead",
        StoreError::Corrupt(_) => "store_corrupt",
    };
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).because(error.to_string())
}

/// The URL that the sender was given: the source's own, or the server's and the path as it came.
fn public_url(source: &Source, live: &Live, path: &str) -> Option<Url> {
    if let Some(url) = &source.public_url {
        return Some(url.clone());
    }
    let mut url = live.set.server.public_url.clone()?;
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}{path}"));
    Some(url)
}
