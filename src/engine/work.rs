//! One claimed delivery, carried as far as it goes now. Its owner records its changes one after another while its calls
//! run side by side; nothing that depends on a change starts before the change stands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use serde_json::Value as Json;
use tokio::sync::OwnedSemaphorePermit;

use super::terms::terms_of;
use super::{REFUSED_PAUSE, Shared, Stop};
use crate::config::{Live, Route};
use crate::delivery::decide::{self, PlannedStep};
use crate::delivery::outcome::{Outcome, OutcomeClass};
use crate::delivery::state::{
    DeliveryState, Entry, Reason, Status, StepState, StepStatus, Transition, What,
};
use crate::envelope::Envelope;
use crate::extract::{Input, map_fields};
use crate::name::DeliveryId;
use crate::render::context::event_context;
use crate::store::{Change, Claim, Durability, Fence, Recorded, StoreError, Term};
use crate::telemetry::log;
use crate::template::context::Context;

/// Why the work on a delivery ends before its time.
pub(super) enum Halt {
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
    let mut owner = Owner::new(shared, live, claim.envelope, claim.fence, claim.state);
    owner.log("claimed");
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
    let mut owner = Owner::new(shared, live, view.envelope, fence, state);
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
pub(super) struct Owner<'a> {
    pub(super) shared: &'a Shared,
    /// The configuration at the claim; a reload meanwhile does not mix in.
    pub(super) live: Arc<Live>,
    pub(super) envelope: Arc<Envelope>,
    pub(super) fence: Fence,
    pub(super) state: DeliveryState,
    /// What the event may be searched by, until the next recorded change takes it along.
    pub(super) terms: Vec<Term>,
}

/// What stays the same while a claim lasts.
pub(super) struct Work {
    pub(super) route: Arc<Route>,
    pub(super) plan: Vec<PlannedStep>,
    /// Everything that templates may read, but the steps and the call's own key.
    pub(super) context: Context,
}

/// Something that a delivery waited for.
pub(super) enum Landed {
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

impl<'a> Owner<'a> {
    fn new(
        shared: &'a Shared,
        live: Arc<Live>,
        envelope: Arc<Envelope>,
        fence: Fence,
        state: DeliveryState,
    ) -> Self {
        Self { shared, live, envelope, fence, state, terms: Vec::new() }
    }
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

    /// `when` and `fields`. `None`: the delivery has ended by them.
    async fn map(&mut self, route: &Route) -> Result<Option<Context>, Halt> {
        let payload = match self.envelope.body_kind.payload(&self.envelope.body) {
            Ok(payload) => payload,
            Err(why) => {
                self.review(reason("malformed", None, why), Vec::new()).await?;
                return Ok(None);
            }
        };
        let mut context = event_context(
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
        let form = self.envelope.body_kind.fields(&self.envelope.body, &payload);
        let input = Input {
            payload: &payload,
            envelope_headers: &self.envelope.headers,
            query: &self.envelope.query,
            path: &self.envelope.path,
            form: form.as_deref(),
            context: &context,
        };
        match map_fields(&route.fields, &input) {
            Ok(mapped) => {
                if self.is_fresh() {
                    self.terms = terms_of(&mapped.fields);
                }
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

    /// Nothing that is still to be done was attempted since the start or the last replay. With the first attempt the store
    /// was given what the event may be searched by; a replay may have brought other fields.
    fn is_fresh(&self) -> bool {
        let mut open = self.state.steps.iter().filter(|step| !step.status.satisfies_needs());
        open.all(|step| step.attempts_since_replay == 0)
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

    pub(super) fn now(&self) -> Timestamp {
        self.shared.deps.world.clock.now()
    }

    /// Records a change of some steps and what it makes of the delivery.
    pub(super) async fn change(
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
        let terms = self.terms.clone();
        let change = Change { entry: Entry { at: self.now(), what }, transition, terms };
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
        self.terms.clear();
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
        let result = match self.state.status {
            Status::Succeeded => "succeeded",
            Status::Queued | Status::Processing | Status::Failed | Status::Ignored => cause,
        };
        self.log(result);
    }

    fn log(&self, result: &str) {
        log::status(log::StatusLine {
            event_id: &self.state.event_id,
            event_type: &self.envelope.event_type,
            route: &self.state.id.route,
            status: self.state.status.as_str(),
            attempt: self.state.attempts(),
            result,
            correlation_id: &self.envelope.correlation_id,
        });
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

pub(super) fn reason(cause: &str, subject: Option<&str>, message: impl Into<String>) -> Reason {
    Reason { cause: cause.to_owned(), subject: subject.map(str::to_owned), message: message.into() }
}
