//! The portable shapes of a delivery: its head, its steps, and its timeline.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::text;
use crate::delivery::outcome::OutcomeClass;
use crate::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, KeyClaim, Reason, Status,
    StepState, StepStatus, What,
};
use crate::envelope::Envelope;
use crate::name::{DeliveryId, Lane, RevisionHash, RouteName, StepName};
use crate::store::fact::CarriedDelivery;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeliveryShape {
    pub(super) route: RouteName,
    revision: RevisionHash,
    key_base: String,
    status: Status,
    version: u64,
    #[serde(default, with = "text::maybe_time", skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    steps: Vec<StepShape>,
    /// The timeline, oldest first.
    entries: Vec<EntryShape>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StepShape {
    step: StepName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    element: Option<u32>,
    generation: u32,
    status: StepStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<IdempotencyKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lane: Option<Lane>,
    attempts: u32,
    attempts_since_replay: u32,
    #[serde(default, with = "text::maybe_time", skip_serializing_if = "Option::is_none")]
    first_attempt_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_outcome: Option<OutcomeClass>,
    #[serde(default)]
    interruptions: u32,
    #[serde(default, with = "text::maybe_time", skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waits_for: Option<KeyClaim>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    saved: Map<String, Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EntryShape {
    #[serde(with = "text::time")]
    at: Timestamp,
    what: WhatShape,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum WhatShape {
    Intended {
        step: StepName,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<IdempotencyKey>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<String>,
        digest: String,
    },
    Attempted {
        step: StepName,
        number: u32,
        #[serde(with = "text::time")]
        started_at: Timestamp,
        duration_ms: u64,
        outcome: OutcomeClass,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        detail: String,
        result: AttemptResult,
        #[serde(default, with = "text::maybe_time", skip_serializing_if = "Option::is_none")]
        next: Option<Timestamp>,
    },
    StepDecided {
        step: StepName,
        status: StepStatus,
        why: String,
    },
    Decided {
        why: String,
    },
    Operated {
        actor: String,
        action: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

impl DeliveryShape {
    pub(super) fn of(envelope: &Envelope, carried: &CarriedDelivery) -> Self {
        let entries = &carried.entries;
        let state = let_go(carried.state.clone(), entries, envelope);
        Self {
            route: state.id.route,
            revision: state.revision,
            key_base: state.key_base,
            status: state.status,
            version: state.version,
            due_at: state.due_at,
            reason: state.reason,
            steps: state.steps.into_iter().map(StepShape::of).collect(),
            entries: entries.iter().map(EntryShape::of).collect(),
        }
    }

    pub(super) fn back(self, envelope: &Envelope) -> Result<CarriedDelivery, String> {
        let route = &self.route;
        // A row has no more room for it.
        if self.version > u64::from(u32::MAX) {
            return Err(format!("delivery by `{route}`: `version` is out of its range"));
        }
        let entries: Vec<Entry> = self.entries.into_iter().map(EntryShape::back).collect();
        let state = DeliveryState {
            id: DeliveryId { uid: envelope.uid, route: self.route },
            event_id: envelope.event_id.clone(),
            key_base: self.key_base,
            revision: self.revision,
            status: self.status,
            version: self.version,
            due_at: self.due_at,
            reason: self.reason,
            steps: self.steps.into_iter().map(StepShape::back).collect(),
        };
        Ok(CarriedDelivery { state: let_go(state, &entries, envelope), entries })
    }
}

/// What a worker holds is queued elsewhere: a claim goes no further than its store.
fn let_go(mut state: DeliveryState, entries: &[Entry], envelope: &Envelope) -> DeliveryState {
    if state.status == Status::Processing {
        state.status = Status::Queued;
        state.due_at = Some(entries.last().map_or(envelope.received_at, |entry| entry.at));
    }
    state
}

impl StepShape {
    fn of(step: StepState) -> Self {
        let StepState {
            step,
            element,
            generation,
            status,
            key,
            lane,
            attempts,
            attempts_since_replay,
            first_attempt_at,
            last_outcome,
            interruptions,
            due_at,
            waits_for,
            saved,
            reason,
        } = step;
        Self {
            step,
            element,
            generation,
            status,
            key,
            lane,
            attempts,
            attempts_since_replay,
            first_attempt_at,
            last_outcome,
            interruptions,
            due_at,
            waits_for,
            saved,
            reason,
        }
    }

    fn back(self) -> StepState {
        StepState {
            step: self.step,
            element: self.element,
            generation: self.generation,
            status: self.status,
            key: self.key,
            lane: self.lane,
            attempts: self.attempts,
            attempts_since_replay: self.attempts_since_replay,
            first_attempt_at: self.first_attempt_at,
            last_outcome: self.last_outcome,
            interruptions: self.interruptions,
            due_at: self.due_at,
            waits_for: self.waits_for,
            saved: self.saved,
            reason: self.reason,
        }
    }
}

impl EntryShape {
    pub(super) fn of(entry: &Entry) -> Self {
        let what = match entry.what.clone() {
            What::Intended { step, attempt, key, request, digest } => {
                WhatShape::Intended { step, attempt, key, request, digest }
            }
            What::Attempted { step, attempt } => WhatShape::Attempted {
                step,
                number: attempt.number,
                started_at: attempt.started_at,
                duration_ms: attempt.duration_ms,
                outcome: attempt.outcome,
                status: attempt.status,
                detail: attempt.detail,
                result: attempt.result,
                next: attempt.next,
            },
            What::StepDecided { step, status, why } => WhatShape::StepDecided { step, status, why },
            What::Decided { why } => WhatShape::Decided { why },
            What::Operated { actor, action, note } => WhatShape::Operated { actor, action, note },
        };
        Self { at: entry.at, what }
    }

    pub(super) fn back(self) -> Entry {
        let what = match self.what {
            WhatShape::Intended { step, attempt, key, request, digest } => {
                What::Intended { step, attempt, key, request, digest }
            }
            WhatShape::Attempted {
                step,
                number,
                started_at,
                duration_ms,
                outcome,
                status,
                detail,
                result,
                next,
            } => What::Attempted {
                step,
                attempt: Attempt {
                    number,
                    started_at,
                    duration_ms,
                    outcome,
                    status,
                    detail,
                    result,
                    next,
                },
            },
            WhatShape::StepDecided { step, status, why } => What::StepDecided { step, status, why },
            WhatShape::Decided { why } => What::Decided { why },
            WhatShape::Operated { actor, action, note } => What::Operated { actor, action, note },
        };
        Entry { at: self.at, what }
    }
}
