//! One step of a claimed delivery: rendered, its intent recorded, its call out, its outcome recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tokio::sync::OwnedSemaphorePermit;

use super::Deps;
use super::judge::{detail, judge};
use super::work::{Halt, Landed, Owner, Work, reason};
use crate::config::{Live, Route, Step};
use crate::delivery::decide::{self, Ended, PlannedStep};
use crate::delivery::outcome::{Outcome, OutcomeClass};
use crate::delivery::state::{
    Attempt, AttemptResult, Entry, IdempotencyKey, KeyClaim, StepState, StepStatus, What,
};
use crate::render::key::{derived_key, explicit_key};
use crate::render::{self, OutgoingRequest};
use crate::store::{self, Change, Durability, KeyHolder, Recorded};
use crate::telemetry::AttemptEnd;
use crate::template::RenderError;
use crate::template::context::Context;

impl Owner<'_> {
    /// Steps whose intent has no outcome: the process ended between the two.
    pub(super) async fn note_interruptions(
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

    /// Renders a step's call, records its intent and lets it leave. `None`: it was decided without a call.
    pub(super) async fn begin<'b>(
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
        let request = match rendered {
            Ok(request) => request,
            Err(error) => {
                self.fail(work, step, before, "template", "its `call`", &error).await?;
                return Ok(None);
            }
        };
        let now = self.now();
        let after = decide::begin(before.clone(), key.clone(), request.lane.clone(), now);
        let what = What::Intended {
            step: step.name.clone(),
            attempt: after.attempts,
            key: key.clone(),
            request: Some(request.shown.line()),
            digest: request.digest.clone(),
        };
        let transition = decide::settle(plan, &self.state, vec![after], None, now);
        // Losing the intent of a derived key costs nothing but a repeat with the same key.
        let durability = match &key {
            Some(key) if key.explicit => Durability::Synced,
            Some(_) | None => Durability::Ordered,
        };
        let terms = self.terms.clone();
        let change = Change { entry: Entry { at: now, what }, transition, terms };
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
                self.terms.clear();
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
        if let Some(key) = explicit_key(step, context)? {
            return Ok(Some(key));
        }
        if step.call.method == Method::GET {
            return Ok(None);
        }
        let base = &self.state.key_base;
        let text = derived_key(base, &route.name, &step.name, state.element, state.generation);
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
    pub(super) async fn conclude(
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

    fn count_attempt(&self, step: &Step, attempt: &Attempt) {
        let end = match (attempt.result, attempt.outcome) {
            (AttemptResult::Succeeded, _) => AttemptEnd::Succeeded,
            (_, OutcomeClass::NotSent) => AttemptEnd::NotSent,
            (_, OutcomeClass::SentNoAnswer) => AttemptEnd::SentNoAnswer,
            (_, OutcomeClass::Answered) => AttemptEnd::Refused,
        };
        let (metrics, route) = (&self.shared.deps.metrics, &self.state.id.route);
        metrics.attempt(route, &step.name, end);
        if attempt.next.is_some() {
            metrics.retry(route, &step.name);
        }
    }
}

async fn call(
    deps: Deps,
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
