//! One claimed delivery, carried as far as it goes now. Its owner records its changes one after another while its calls
//! run side by side; nothing that depends on a change starts before the change stands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tokio::sync::OwnedSemaphorePermit;

use super::judge::{detail, judge};
use super::{REFUSED_PAUSE, Shared, Stop};
use crate::config::{Live, Route, Step};
use crate::delivery::decide::{self, Ended, PlannedStep, Verdict};
use crate::delivery::outcome::{Outcome, OutcomeClass};
use crate::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, KeyClaim, Reason, Status,
    StepState, StepStatus, Transition, What,
};
use crate::envelope::Envelope;
use crate::extract::{Input, map_fields};
use crate::name::DeliveryId;
use crate::render::{self, OutgoingRequest};
use crate::store::{self, Change, Claim, Durability, Fence, KeyHolder, Recorded, StoreError};
use crate::telemetry::{AttemptEnd, log};
use crate::template::RenderError;
use crate::template::context::Context;

const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

/// Why the work on a delivery ends before its time.
enum Halt {
    /// An operator or another worker took it over: what this one knows is stale.
    Fenced,
    Store(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Halt::Store(error)
    }
}

/// Carries a claimed delivery as far as it goes now. An error is the store's: the engine must stop.
pub(super) async fn carry_out(shared: &Shared, claim: Claim) -> Result<(), StoreError> {
    let live = Arc::clone(&shared.deps.live.borrow());
    let mut owner =
        Owner { shared, live, envelope: claim.envelope, fence: claim.fence, state: claim.state };
    owner.trust_claim();
    match owner.run().await {
        Ok(()) | Err(Halt::Fenced) => Ok(()),
        Err(Halt::Store(error)) => Err(error),
    }
}

/// After a bug: the delivery goes to review, so that it neither is lost nor ends the next worker.
pub(super) async fn review_after_panic(
    shared: &Shared,
    id: &DeliveryId,
    fence: Fence,
) -> Result<(), StoreError> {
    let Some(view) = shared.deps.store.event(id.uid).await? else { return Ok(()) };
    let found = view.deliveries.into_iter().find(|delivery| delivery.state.id == *id);
    let Some(state) = found.map(|delivery| delivery.state) else { return Ok(()) };
    let live = Arc::clone(&shared.deps.live.borrow());
    let mut owner = Owner { shared, live, envelope: view.envelope, fence, state };
    let why = Reason {
        cause: "bug".to_owned(),
        subject: None,
        message: "a bug in the router ended the work; the log has the place. Replay it once that is mended".to_owned(),
    };
    // A call that was out may have been carried out.
    let out = owner.state.steps.iter().filter(|step| step.status == StepStatus::Running).cloned();
    let steps = out
        .map(|mut step| {
            step.last_outcome = Some(OutcomeClass::SentNoAnswer);
            decide::give_up(step, why.clone()).0
        })
        .collect();
    match owner.review(why, steps).await {
        Ok(()) | Err(Halt::Fenced) => Ok(()),
        Err(Halt::Store(error)) => Err(error),
    }
}

/// The one task that may change the delivery.
struct Owner<'a> {
    shared: &'a Shared,
    /// The configuration at the claim; a reload meanwhile does not mix in.
    live: Arc<Live>,
    envelope: Arc<Envelope>,
    fence: Fence,
    state: DeliveryState,
}

/// What stays the same while a claim lasts.
struct Work {
    route: Arc<Route>,
    plan: Vec<PlannedStep>,
    /// Everything that templates may read, but the steps and the call's own key.
    context: Context,
}

/// Something that a delivery waited for.
enum Landed {
    /// A call may leave.
    Admitted { index: usize, permit: OwnedSemaphorePermit },
    Answered {
        index: usize,
        context: Context,
        outcome: Outcome,
        started_at: Timestamp,
        took: Duration,
    },
}

impl Owner<'_> {
    async fn run(&mut self) -> Result<(), Halt> {
        let store = &*self.shared.deps.store;
        let found = self.shared.revisions.find(store, &self.live, &self.state).await?;
        let route = match found {
            Ok(route) => route,
            Err(why) => return self.review(why, Vec::new()).await,
        };
        let plan = route.plan();
        self.note_interruptions(&route, &plan).await?;
        if self.state.status != Status::Processing {
            return Ok(());
        }
        let Some(context) = self.map(&route).await? else { return Ok(()) };
        self.run_steps(&Work { route, plan, context }).await
    }

    /// The store says when a delivery is due, by a clock that does not jump; so what made it due is due, whatever the
    /// wall clock shows by now.
    fn trust_claim(&mut self) {
        let now = self.now();
        let Some(due_at) = self.state.due_at.filter(|due_at| *due_at > now) else { return };
        for step in &mut self.state.steps {
            step.due_at = step.due_at.filter(|step_due_at| *step_due_at > due_at);
        }
    }

    /// Steps whose intent has no outcome: the process ended between the two.
    async fn note_interruptions(
        &mut self,
        route: &Route,
        plan: &[PlannedStep],
    ) -> Result<(), Halt> {
        for (step, planned) in route.steps.iter().zip(plan) {
            let Some(before) = decide::state_of(&self.state, planned).cloned() else { continue };
            if before.status != StepStatus::Running {
                continue;
            }
            let now = self.now();
            // `retry.on` alone decides here: there is no answer to look at.
            let nothing = Context::new(now, "");
            let verdict = judge(step, &Outcome::Interrupted, &nothing, now);
            let unit = self.shared.deps.world.random.unit();
            let number = before.attempts;
            let (after, why) = decide::after_interruption(before, &step.retry, verdict, now, unit);
            let attempt = Attempt {
                number,
                started_at: now,
                duration_ms: 0,
                outcome: OutcomeClass::SentNoAnswer,
                status: None,
                detail: detail(&Outcome::Interrupted, &self.live.resolved.vault),
                result: match after.status {
                    StepStatus::Waiting => AttemptResult::Transient,
                    _ => AttemptResult::Permanent,
                },
                next: after.due_at,
            };
            self.count_attempt(step, &attempt);
            let what = What::Attempted { step: step.name.clone(), attempt };
            self.change(plan, what, vec![after], why).await?;
        }
        Ok(())
    }

    /// `when` and `fields`. `None`: the delivery has ended by them.
    async fn map(&mut self, route: &Route) -> Result<Option<Context>, Halt> {
        let payload = match self.envelope.body_kind.payload(&self.envelope.body) {
            Ok(payload) => payload,
            Err(why) => {
                self.review(reason("malformed", None, why), Vec::new()).await?;
                return Ok(None);
            }
        };
        let mut context = render::event_context(
            &self.envelope,
            &payload,
            route,
            &self.live.resolved,
            &self.state.id.to_string(),
            self.state.attempts().saturating_add(1),
            // One moment per delivery, so that a retry renders what the first attempt rendered.
            self.envelope.received_at,
        );
        if let Some(when) = &route.when
            && self.state.steps.is_empty()
        {
            match when.holds(&context) {
                Ok(true) => {}
                Ok(false) => {
                    let why = "the route's `when` is false for this event";
                    self.decide(Status::Ignored, reason("when_false", None, why), vec![]).await?;
                    return Ok(None);
                }
                Err(error) => {
                    let why = reason("condition", None, format!("the route's `when`: {error}"));
                    self.review(why, Vec::new()).await?;
                    return Ok(None);
                }
            }
        }
        let input = Input {
            payload: &payload,
            envelope_headers: &self.envelope.headers,
            query: &self.envelope.query,
            path: &self.envelope.path,
            form: Some(&payload),
            context: &context,
        };
        match map_fields(&route.fields, &input) {
            Ok(mapped) => {
                context.set("fields", &Json::Object(mapped.fields));
                Ok(Some(context))
            }
            Err(fault) => {
                let why = reason(fault.fault.cause, Some(&fault.field), fault.to_string());
                self.review(why, Vec::new()).await?;
                Ok(None)
            }
        }
    }

    /// Starts what may start, records what ends, until nothing is out and nothing can start.
    async fn run_steps(&mut self, work: &Work) -> Result<(), Halt> {
        let shared = self.shared;
        let mut flights: FuturesUnordered<BoxFuture<'_, Landed>> = FuturesUnordered::new();
        let mut busy = BTreeSet::new();
        // Steps whose key another delivery holds are asked about once per claim.
        let mut held = BTreeSet::new();
        loop {
            if shared.stop() == Stop::Not {
                for index in decide::startable(&work.plan, &self.state, self.now()) {
                    if !held.contains(&index) && busy.insert(index) {
                        flights.push(Box::pin(admit(shared, index)));
                    }
                }
            }
            let landed = tokio::select! {
                biased;
                () = shared.stopped(Stop::Abandon) => return Ok(()),
                landed = flights.next() => landed,
            };
            match landed {
                None => break,
                Some(Landed::Admitted { index, permit }) => {
                    if shared.stop() == Stop::Not
                        && let Some(flight) = self.begin(work, index, permit, &mut held).await?
                    {
                        flights.push(flight);
                    } else {
                        busy.remove(&index);
                    }
                }
                Some(Landed::Answered { index, context, outcome, started_at, took }) => {
                    self.conclude(work, index, &context, &outcome, started_at, took).await?;
                    busy.remove(&index);
                }
            }
        }
        if self.state.status != Status::Processing {
            return Ok(());
        }
        // The claim is given back: the router stops, or there was nothing to do yet.
        let mut transition = decide::settle(&work.plan, &self.state, vec![], None, self.now());
        if transition.status == Status::Processing {
            transition.status = Status::Queued;
            transition.due_at = Some(self.now());
        }
        let why = match shared.stop() {
            Stop::Not => "nothing can start yet",
            Stop::Finish | Stop::Abandon => "the router stops; the next start goes on",
        };
        self.record(What::Decided { why: why.to_owned() }, transition).await
    }

    /// Renders a step's call, records its intent and lets it leave. `None`: it was decided without a call.
    async fn begin<'b>(
        &mut self,
        work: &Work,
        index: usize,
        permit: OwnedSemaphorePermit,
        held: &mut BTreeSet<usize>,
    ) -> Result<Option<BoxFuture<'b, Landed>>, Halt>
    where
        Self: 'b,
    {
        let (step, plan) = (&work.route.steps[index], &work.plan);
        let before = decide::current(&self.state, &plan[index]);
        let seed = format!("{}/{}/{}", self.state.id, step.name, before.generation);
        let mut context = work.context.with_uuid_seed(&seed);
        context.set("steps", &self.steps_for_templates(work));

        if before.attempts == 0
            && let Some(when) = &step.when
        {
            match when.holds(&context) {
                Ok(true) => {}
                Ok(false) => {
                    let why = "its `when` is false".to_owned();
                    let what = decided(step, StepStatus::Skipped, why);
                    self.change(plan, what, vec![decide::skip(before)], None).await?;
                    return Ok(None);
                }
                Err(error) => {
                    self.fail(work, step, before, "condition", "its `when`", &error).await?;
                    return Ok(None);
                }
            }
        }
        let key = match self.key(step, &work.route, &before, &context) {
            Ok(key) => key,
            Err(error) => {
                self.fail(work, step, before, "template", "its `idempotency_key`", &error).await?;
                return Ok(None);
            }
        };
        if let Some(key) = &key {
            context.set("idempotency_key", &Json::String(key.text.clone()));
        }
        let body = &self.envelope.body;
        let resolved = &self.live.resolved;
        let rendered =
            render::render_call(step, &work.route, &context, key.as_ref(), body, resolved);
        let mut request = match rendered {
            Ok(request) => request,
            Err(error) => {
                self.fail(work, step, before, "template", "its `call`", &error).await?;
                return Ok(None);
            }
        };
        // A correlation id is a sane token; one that is not stays at home.
        if let Ok(value) = HeaderValue::try_from(self.envelope.correlation_id.as_str()) {
            request.headers.entry(CORRELATION_HEADER).or_insert(value);
        }

        let now = self.now();
        let after = decide::begin(before.clone(), key.clone(), request.lane.clone(), now);
        let what = What::Intended {
            step: step.name.clone(),
            attempt: after.attempts,
            key: key.clone(),
            digest: request.digest.clone(),
        };
        let transition = decide::settle(plan, &self.state, vec![after], None, now);
        // Losing the intent of a derived key costs nothing but a repeat with the same key.
        let durability = match &key {
            Some(key) if key.explicit => Durability::Synced,
            Some(_) | None => Durability::Ordered,
        };
        let change = Change { entry: Entry { at: now, what }, transition };
        let intended = store::intend(
            &*self.shared.deps.store,
            &self.state.id,
            self.fence,
            self.state.version,
            change,
            durability,
            request,
        );
        match intended.await? {
            (Recorded::Recorded(state) | Recorded::Already(state), Some(intended)) => {
                self.state = state;
                let call = call(self.shared.deps.clone(), Arc::clone(&self.live), intended);
                Ok(Some(Box::pin(async move {
                    let (outcome, started_at, took) = call.await;
                    drop(permit);
                    Landed::Answered { index, context, outcome, started_at, took }
                })))
            }
            (Recorded::KeyHeld(holder), _) => {
                let key = key.ok_or(Halt::Fenced)?;
                held.insert(index);
                self.key_held(work, step, before, key, holder).await?;
                Ok(None)
            }
            (Recorded::Recorded(_) | Recorded::Already(_) | Recorded::Fenced, _) => {
                Err(Halt::Fenced)
            }
        }
    }

    /// The frozen key, or the one of the first attempt. A GET that names none carries none.
    fn key(
        &self,
        step: &Step,
        route: &Route,
        state: &StepState,
        context: &Context,
    ) -> Result<Option<IdempotencyKey>, RenderError> {
        if let Some(key) = &state.key {
            return Ok(Some(key.clone()));
        }
        if let Some(key) = render::explicit_key(step, context)? {
            return Ok(Some(key));
        }
        if step.call.method == Method::GET {
            return Ok(None);
        }
        let base = &self.state.key_base;
        let text =
            render::derived_key(base, &route.name, &step.name, state.element, state.generation);
        Ok(Some(IdempotencyKey { text, explicit: false }))
    }

    /// Another delivery has the key: its success is this one's, anything else is waited for.
    async fn key_held(
        &mut self,
        work: &Work,
        step: &Step,
        before: StepState,
        key: IdempotencyKey,
        holder: KeyHolder,
    ) -> Result<(), Halt> {
        let KeyHolder { delivery, event_id, status, saved } = holder;
        let (after, status, why) = match status {
            StepStatus::Succeeded | StepStatus::AlreadyDone => {
                let why = format!(
                    "done for event {event_id} (delivery {delivery}) with key `{}`",
                    key.text
                );
                (decide::already_done(before, key, saved), StepStatus::AlreadyDone, why)
            }
            StepStatus::Waiting
            | StepStatus::Running
            | StepStatus::Skipped
            | StepStatus::NotRun
            | StepStatus::Unknown
            | StepStatus::Failed => {
                let why = format!(
                    "waits for event {event_id} (delivery {delivery}), which holds the key `{}` and is {}",
                    key.text,
                    status.as_str()
                );
                let claim = KeyClaim {
                    route: self.state.id.route.clone(),
                    step: step.name.clone(),
                    key: key.text,
                };
                (decide::wait_for_key(before, claim, why.clone()), StepStatus::Waiting, why)
            }
        };
        self.change(&work.plan, decided(step, status, why), vec![after], None).await
    }

    /// A template that cannot be rendered now cannot be rendered later.
    async fn fail(
        &mut self,
        work: &Work,
        step: &Step,
        before: StepState,
        cause: &str,
        place: &str,
        error: &RenderError,
    ) -> Result<(), Halt> {
        let why = reason(cause, Some(step.name.as_str()), format!("{place}: {error}"));
        let message = why.message.clone();
        let (after, why) = decide::give_up(before, why);
        self.change(&work.plan, decided(step, after.status, message), vec![after], why).await
    }

    /// Records what came back.
    async fn conclude(
        &mut self,
        work: &Work,
        index: usize,
        context: &Context,
        outcome: &Outcome,
        started_at: Timestamp,
        took: Duration,
    ) -> Result<(), Halt> {
        let step = &work.route.steps[index];
        let now = self.now();
        let verdict = judge(step, outcome, context, now);
        let before = decide::current(&self.state, &work.plan[index]);
        let ended = Ended { outcome: outcome.class(), started_at, took, now };
        let number = before.attempts;
        let result = verdict.result();
        if let Verdict::Transient { .. } = verdict {
            self.shared.deps.metrics.retry(&work.route.name, &step.name);
        }
        let unit = self.shared.deps.world.random.unit();
        let (after, why) = decide::after_attempt(before, &step.retry, verdict, ended, unit);
        let attempt = Attempt {
            number,
            started_at,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome: outcome.class(),
            status: match outcome {
                Outcome::Answered(response) => Some(response.status),
                Outcome::NotSent { .. } | Outcome::SentNoAnswer { .. } | Outcome::Interrupted => {
                    None
                }
            },
            detail: detail(outcome, &self.live.resolved.vault),
            result,
            next: after.due_at,
        };
        self.count_attempt(step, &attempt);
        let what = What::Attempted { step: step.name.clone(), attempt };
        self.change(&work.plan, what, vec![after], why).await
    }

    /// `steps.X.name` and `steps.X.status`; what a step that was skipped would have saved is `none`.
    fn steps_for_templates(&self, work: &Work) -> Json {
        let steps = work.route.steps.iter().zip(&work.plan).map(|(step, planned)| {
            let state = decide::state_of(&self.state, planned);
            let names = step.save.iter().map(|(name, _)| (name.clone(), Json::Null));
            let mut shown: Map<String, Json> = names.collect();
            let status = state.map_or(StepStatus::Waiting, |state| state.status);
            shown.extend(state.map(|state| state.saved.clone()).unwrap_or_default());
            shown.insert("status".to_owned(), Json::from(status.as_str()));
            (step.name.to_string(), Json::Object(shown))
        });
        Json::Object(steps.collect())
    }

    fn now(&self) -> Timestamp {
        self.shared.deps.world.clock.now()
    }

    /// Records a change of some steps and what it makes of the delivery.
    async fn change(
        &mut self,
        plan: &[PlannedStep],
        what: What,
        steps: Vec<StepState>,
        why: Option<Reason>,
    ) -> Result<(), Halt> {
        let transition = decide::settle(plan, &self.state, steps, why, self.now());
        self.record(what, transition).await
    }

    async fn review(&mut self, why: Reason, steps: Vec<StepState>) -> Result<(), Halt> {
        self.decide(Status::Failed, why, steps).await
    }

    /// Ends the delivery as a whole.
    async fn decide(
        &mut self,
        status: Status,
        why: Reason,
        steps: Vec<StepState>,
    ) -> Result<(), Halt> {
        let what = What::Decided { why: why.message.clone() };
        let transition =
            Transition { status, due_at: None, reason: Some(why), steps, revision: None };
        self.record(what, transition).await
    }

    /// Writes a change down, durable on return. A store that refuses for now is asked again: the change must not be lost.
    async fn record(&mut self, what: What, transition: Transition) -> Result<(), Halt> {
        let change = Change { entry: Entry { at: self.now(), what }, transition };
        let Shared { deps, .. } = self.shared;
        loop {
            let recorded = deps.store.record(
                &self.state.id,
                self.fence,
                self.state.version,
                change.clone(),
                Durability::Synced,
            );
            match recorded.await {
                Ok(Recorded::Recorded(state) | Recorded::Already(state)) => {
                    self.moved_to(state);
                    return Ok(());
                }
                // Only an intent can meet a held key.
                Ok(Recorded::Fenced | Recorded::KeyHeld(_)) => return Err(Halt::Fenced),
                Err(StoreError::Refusing(why)) => {
                    tracing::warn!(error = %why, "the store takes no outcome for now");
                    tokio::select! {
                        biased;
                        () = self.shared.stopped(Stop::Abandon) => return Err(Halt::Fenced),
                        () = deps.world.clock.sleep(REFUSED_PAUSE) => {}
                    }
                }
                Err(error @ (StoreError::Dead(_) | StoreError::Corrupt(_))) => {
                    return Err(error.into());
                }
            }
        }
    }

    /// Takes the recorded state over; says so where its status is another one.
    fn moved_to(&mut self, state: DeliveryState) {
        let changed = state.status != self.state.status;
        self.state = state;
        if !changed {
            return;
        }
        let metrics = &self.shared.deps.metrics;
        let route = &self.state.id.route;
        let cause = self.state.reason.as_ref().map_or("", |reason| &reason.cause);
        match self.state.status {
            Status::Succeeded => metrics.succeeded(route),
            Status::Failed => metrics.failed(route, cause),
            Status::Ignored => metrics.ignored(route),
            Status::Queued | Status::Processing => {}
        }
        log::status(log::StatusLine {
            event_id: &self.state.event_id,
            event_type: &self.envelope.event_type,
            route,
            status: self.state.status.as_str(),
            attempt: self.state.attempts(),
            result: cause,
            correlation_id: &self.envelope.correlation_id,
        });
    }

    fn count_attempt(&self, step: &Step, attempt: &Attempt) {
        let end = match (attempt.result, attempt.outcome) {
            (AttemptResult::Succeeded, _) => AttemptEnd::Succeeded,
            (_, OutcomeClass::NotSent) => AttemptEnd::NotSent,
            (_, OutcomeClass::SentNoAnswer) => AttemptEnd::SentNoAnswer,
            (_, OutcomeClass::Answered) => AttemptEnd::Refused,
        };
        self.shared.deps.metrics.attempt(&self.state.id.route, &step.name, end);
    }
}

/// Waits until one more call may be in flight.
async fn admit(shared: &Shared, index: usize) -> Landed {
    match Arc::clone(&shared.calls).acquire_owned().await {
        Ok(permit) => Landed::Admitted { index, permit },
        // The semaphore is never closed.
        Err(_) => std::future::pending().await,
    }
}

async fn call(
    deps: super::Deps,
    live: Arc<Live>,
    intended: store::Intended<OutgoingRequest>,
) -> (Outcome, Timestamp, Duration) {
    let clock = &deps.world.clock;
    let (started_at, start) = (clock.now(), clock.monotonic());
    let in_flight = deps.metrics.call_in_flight();
    let outcome = deps.caller.send_step(intended, &live.resolved.vault).await;
    drop(in_flight);
    (outcome, started_at, clock.monotonic().saturating_sub(start))
}

fn decided(step: &Step, status: StepStatus, why: String) -> What {
    What::StepDecided { step: step.name.clone(), status, why }
}

fn reason(cause: &str, subject: Option<&str>, message: impl Into<String>) -> Reason {
    Reason { cause: cause.to_owned(), subject: subject.map(str::to_owned), message: message.into() }
}
