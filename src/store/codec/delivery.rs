//! The stored shapes of a delivery: its timeline's entries, its steps, and its state.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Time, maybe_moment, moment, time};
use crate::delivery::outcome::OutcomeClass;
use crate::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, KeyClaim, Reason, Status,
    StepState, StepStatus, What,
};
use crate::name::{DeliveryId, Uid};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredEntry<'a> {
    at: Time,
    #[serde(borrow)]
    what: StoredWhat<'a>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum StoredWhat<'a> {
    Intended {
        step: &'a str,
        attempt: u32,
        key: Option<IdempotencyKey>,
        digest: &'a str,
    },
    Attempted {
        step: &'a str,
        attempt: StoredAttempt<'a>,
    },
    StepDecided {
        step: &'a str,
        status: StepStatus,
        why: &'a str,
    },
    Decided {
        why: &'a str,
    },
    Operated {
        actor: &'a str,
        action: &'a str,
        note: Option<&'a str>,
    },
    /// From version 2 on.
    Requested {
        step: &'a str,
        attempt: u32,
        key: Option<IdempotencyKey>,
        request: &'a str,
        digest: &'a str,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredAttempt<'a> {
    number: u32,
    started_at: Time,
    duration_ms: u64,
    outcome: OutcomeClass,
    status: Option<u16>,
    detail: &'a str,
    result: AttemptResult,
    next: Option<Time>,
}

impl<'a> StoredEntry<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let what = match &entry.what {
            What::Intended { step, attempt, key, request: Some(request), digest } => {
                StoredWhat::Requested {
                    step: step.as_str(),
                    attempt: *attempt,
                    key: key.clone(),
                    request,
                    digest,
                }
            }
            What::Intended { step, attempt, key, request: None, digest } => StoredWhat::Intended {
                step: step.as_str(),
                attempt: *attempt,
                key: key.clone(),
                digest,
            },
            What::Attempted { step, attempt } => StoredWhat::Attempted {
                step: step.as_str(),
                attempt: StoredAttempt {
                    number: attempt.number,
                    started_at: time(attempt.started_at),
                    duration_ms: attempt.duration_ms,
                    outcome: attempt.outcome,
                    status: attempt.status,
                    detail: &attempt.detail,
                    result: attempt.result,
                    next: attempt.next.map(time),
                },
            },
            What::StepDecided { step, status, why } => {
                StoredWhat::StepDecided { step: step.as_str(), status: *status, why }
            }
            What::Decided { why } => StoredWhat::Decided { why },
            What::Operated { actor, action, note } => {
                StoredWhat::Operated { actor, action, note: note.as_deref() }
            }
        };
        Self { at: time(entry.at), what }
    }

    pub(super) fn back(self) -> Option<Entry> {
        let what = match self.what {
            StoredWhat::Intended { step, attempt, key, digest } => What::Intended {
                step: step.into(),
                attempt,
                key,
                request: None,
                digest: digest.to_owned(),
            },
            StoredWhat::Requested { step, attempt, key, request, digest } => What::Intended {
                step: step.into(),
                attempt,
                key,
                request: Some(request.to_owned()),
                digest: digest.to_owned(),
            },
            StoredWhat::Attempted { step, attempt } => What::Attempted {
                step: step.into(),
                attempt: Attempt {
                    number: attempt.number,
                    started_at: moment(attempt.started_at)?,
                    duration_ms: attempt.duration_ms,
                    outcome: attempt.outcome,
                    status: attempt.status,
                    detail: attempt.detail.to_owned(),
                    result: attempt.result,
                    next: maybe_moment(attempt.next)?,
                },
            },
            StoredWhat::StepDecided { step, status, why } => {
                What::StepDecided { step: step.into(), status, why: why.to_owned() }
            }
            StoredWhat::Decided { why } => What::Decided { why: why.to_owned() },
            StoredWhat::Operated { actor, action, note } => What::Operated {
                actor: actor.to_owned(),
                action: action.to_owned(),
                note: note.map(str::to_owned),
            },
        };
        Some(Entry { at: moment(self.at)?, what })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredStep<'a> {
    step: &'a str,
    element: Option<u32>,
    generation: u32,
    status: StepStatus,
    key: Option<IdempotencyKey>,
    lane: Option<&'a str>,
    attempts: u32,
    attempts_since_replay: u32,
    first_attempt_at: Option<Time>,
    last_outcome: Option<OutcomeClass>,
    interruptions: u32,
    due_at: Option<Time>,
    waits_for: Option<KeyClaim>,
    /// A JSON object; empty text is the empty one.
    saved: String,
    reason: Option<&'a str>,
}

impl<'a> StoredStep<'a> {
    pub(super) fn of(step: &'a StepState) -> Self {
        Self {
            step: step.step.as_str(),
            element: step.element,
            generation: step.generation,
            status: step.status,
            key: step.key.clone(),
            lane: step.lane.as_ref().map(|lane| lane.as_str()),
            attempts: step.attempts,
            attempts_since_replay: step.attempts_since_replay,
            first_attempt_at: step.first_attempt_at.map(time),
            last_outcome: step.last_outcome,
            interruptions: step.interruptions,
            due_at: step.due_at.map(time),
            waits_for: step.waits_for.clone(),
            saved: json_text(&step.saved),
            reason: step.reason.as_deref(),
        }
    }

    pub(super) fn back(self) -> Option<StepState> {
        Some(StepState {
            step: self.step.into(),
            element: self.element,
            generation: self.generation,
            status: self.status,
            key: self.key,
            lane: self.lane.map(Into::into),
            attempts: self.attempts,
            attempts_since_replay: self.attempts_since_replay,
            first_attempt_at: maybe_moment(self.first_attempt_at)?,
            last_outcome: self.last_outcome,
            interruptions: self.interruptions,
            due_at: maybe_moment(self.due_at)?,
            waits_for: self.waits_for,
            saved: json_object(&self.saved)?,
            reason: self.reason.map(str::to_owned),
        })
    }
}

pub(super) fn json_text(object: &Map<String, Json>) -> String {
    match object.is_empty() {
        true => String::new(),
        false => serde_json::to_string(object).expect("JSON values are always text"),
    }
}

pub(super) fn json_object(text: &str) -> Option<Map<String, Json>> {
    if text.is_empty() {
        return Some(Map::new());
    }
    serde_json::from_str(text).ok()
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredDelivery<'a> {
    uid: Uid,
    route: &'a str,
    event_id: &'a str,
    key_base: &'a str,
    revision: &'a str,
    status: Status,
    version: u64,
    due_at: Option<Time>,
    reason: Option<Reason>,
    #[serde(borrow)]
    steps: Vec<StoredStep<'a>>,
}

impl<'a> StoredDelivery<'a> {
    pub(super) fn of(state: &'a DeliveryState) -> Self {
        Self {
            uid: state.id.uid,
            route: state.id.route.as_str(),
            event_id: state.event_id.as_str(),
            key_base: &state.key_base,
            revision: state.revision.as_str(),
            status: state.status,
            version: state.version,
            due_at: state.due_at.map(time),
            reason: state.reason.clone(),
            steps: state.steps.iter().map(StoredStep::of).collect(),
        }
    }

    pub(super) fn back(self) -> Option<DeliveryState> {
        Some(DeliveryState {
            id: DeliveryId { uid: self.uid, route: self.route.into() },
            event_id: self.event_id.into(),
            key_base: self.key_base.to_owned(),
            revision: self.revision.into(),
            status: self.status,
            version: self.version,
            due_at: maybe_moment(self.due_at)?,
            reason: self.reason,
            steps: self.steps.into_iter().map(StoredStep::back).collect::<Option<_>>()?,
        })
    }
}
