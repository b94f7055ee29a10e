//! The memory of explicit idempotency keys: which delivery made, or may make, the call of (route, step, key), and who
//! waits for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::{Change, KeyHolder};
use crate::delivery::state::{DeliveryState, KeyClaim, StepState, StepStatus, What};
use crate::name::{DeliveryId, EventId, RouteName};

#[derive(Default)]
pub(crate) struct Keys {
    held: BTreeMap<KeyClaim, Held>,
    waiting: BTreeMap<KeyClaim, BTreeSet<DeliveryId>>,
}

struct Held {
    by: DeliveryId,
    event_id: EventId,
    status: StepStatus,
    saved: Map<String, Json>,
}

impl Keys {
    /// Who holds a key and is not finished, or was given up.
    pub(crate) fn holder(&self, claim: &KeyClaim) -> Option<KeyHolder> {
        self.held.get(claim).map(|held| KeyHolder {
            delivery: held.by.clone(),
            event_id: held.event_id.clone(),
            status: held.status,
            saved: held.saved.clone(),
        })
    }

    /// Of a delivery that is finished: the keys whose calls were made leave this memory, and are answered; those of calls
    /// that were given up stay, and the second answer is true if there are any.
    pub(crate) fn finish(&mut self, state: &DeliveryState) -> (Vec<KeyClaim>, bool) {
        let (mut done, mut holds_on) = (Vec::new(), false);
        for step in state.steps.iter().filter(|step| holds(step)) {
            let Some(claim) = claim_of(&state.id.route, step) else { continue };
            if self.held.get(&claim).is_some_and(|held| held.by != state.id) {
                continue;
            }
            match is_done(step.status) {
                true => {
                    self.held.remove(&claim);
                    done.push(claim);
                }
                false => holds_on |= self.held.contains_key(&claim),
            }
        }
        (done, holds_on)
    }

    /// Forgets what `state` waited for.
    pub(crate) fn leave(&mut self, state: &DeliveryState) {
        for claim in state.steps.iter().filter_map(|step| step.waits_for.as_ref()) {
            if let Some(waiting) = self.waiting.get_mut(claim) {
                waiting.remove(&state.id);
                if waiting.is_empty() {
                    self.waiting.remove(claim);
                }
            }
        }
    }

    /// Takes in the state after `change`. Answers who need not wait any longer.
    pub(crate) fn enter(&mut self, state: &DeliveryState, change: &Change) -> Vec<DeliveryId> {
        if let Some(claim) = wanted(&state.id.route, change) {
            self.held.entry(claim).or_insert_with(|| Held {
                by: state.id.clone(),
                event_id: state.event_id.clone(),
                status: StepStatus::Running,
                saved: Map::new(),
            });
        }
        let woken = self.settle(state, &change.transition.steps);
        self.wait(state);
        woken
    }

    /// Takes in a state as a whole, without the changes that made it: the keys that its calls used, and what it waits
    /// for. Answers who need not wait any longer.
    pub(crate) fn restore(&mut self, state: &DeliveryState) -> Vec<DeliveryId> {
        for step in state.steps.iter().filter(|step| holds(step)) {
            if let Some(claim) = claim_of(&state.id.route, step) {
                self.held.entry(claim).or_insert_with(|| Held {
                    by: state.id.clone(),
                    event_id: state.event_id.clone(),
                    status: step.status,
                    saved: Map::new(),
                });
            }
        }
        let woken = self.settle(state, &state.steps);
        self.wait(state);
        woken
    }

    /// Notes how far the steps are that hold a key. Answers who waited for them and need not any longer.
    fn settle(&mut self, state: &DeliveryState, steps: &[StepState]) -> Vec<DeliveryId> {
        let mut woken = Vec::new();
        for step in steps {
            let Some(claim) = claim_of(&state.id.route, step) else { continue };
            let Some(held) = self.held.get_mut(&claim) else { continue };
            if held.by == state.id {
                held.status = step.status;
                held.saved = step.saved.clone();
                if is_done(step.status) {
                    woken.extend(self.waiting.remove(&claim).unwrap_or_default());
                }
            }
        }
        woken
    }

    pub(crate) fn wait(&mut self, state: &DeliveryState) {
        if !state.status.is_finished() {
            for claim in state.steps.iter().filter_map(|step| step.waits_for.as_ref()) {
                if !self.is_free(claim) {
                    self.waiting.entry(claim.clone()).or_default().insert(state.id.clone());
                }
            }
        }
    }

    /// One of the steps waits for a key whose holder is done, or that nobody holds.
    pub(crate) fn may_go_on(&self, state: &DeliveryState) -> bool {
        state
            .steps
            .iter()
            .filter_map(|step| step.waits_for.as_ref())
            .any(|claim| self.is_free(claim))
    }

    fn is_free(&self, claim: &KeyClaim) -> bool {
        self.held.get(claim).is_none_or(|held| is_done(held.status))
    }
}

/// A holder whose call was given up, or whose outcome is unknown, keeps the key: a person decides.
fn is_done(status: StepStatus) -> bool {
    match status {
        StepStatus::Succeeded | StepStatus::AlreadyDone => true,
        StepStatus::Waiting
        | StepStatus::Running
        | StepStatus::Skipped
        | StepStatus::NotRun
        | StepStatus::Unknown
        | StepStatus::Failed => false,
    }
}

fn claim_of(route: &RouteName, step: &StepState) -> Option<KeyClaim> {
    let key = step.key.as_ref().filter(|key| key.explicit)?;
    Some(KeyClaim { route: route.clone(), step: step.step.clone(), key: key.text.clone() })
}

/// The step made a call under its key, or may have. `AlreadyDone` is the one whose call another made.
fn holds(step: &StepState) -> bool {
    step.attempts > 0 && step.status != StepStatus::AlreadyDone
}

/// Who made the call of the key, as a delivery that is finished says itself.
pub(crate) fn holder_in(state: &DeliveryState, claim: &KeyClaim) -> Option<KeyHolder> {
    let holding = state.steps.iter().filter(|step| holds(step));
    let step = holding
        .filter(|step| is_done(step.status))
        .find(|step| claim_of(&state.id.route, step).as_ref() == Some(claim))?;
    Some(KeyHolder {
        delivery: state.id.clone(),
        event_id: state.event_id.clone(),
        status: step.status,
        saved: step.saved.clone(),
    })
}

/// Keys of calls that were made, with what each saved.
pub(crate) fn done_keys(
    state: &DeliveryState,
) -> impl Iterator<Item = (KeyClaim, &Map<String, Json>)> + '_ {
    let done = state.steps.iter().filter(|step| holds(step) && is_done(step.status));
    done.filter_map(|step| Some((claim_of(&state.id.route, step)?, &step.saved)))
}

/// Keys that these steps of a route used, for calls that were made.
pub(crate) fn done_among<'a>(
    route: &'a RouteName,
    steps: &'a [StepState],
) -> impl Iterator<Item = KeyClaim> + 'a {
    let done = steps.iter().filter(|step| holds(step) && is_done(step.status));
    done.filter_map(|step| claim_of(route, step))
}

/// The explicit key that an intent uses.
pub(crate) fn wanted(route: &RouteName, change: &Change) -> Option<KeyClaim> {
    match &change.entry.what {
        What::Intended { step, key: Some(key), .. } if key.explicit => {
            Some(KeyClaim { route: route.clone(), step: step.clone(), key: key.text.clone() })
        }
        What::Intended { .. }
        | What::Attempted { .. }
        | What::StepDecided { .. }
        | What::Decided { .. }
        | What::Operated { .. } => None,
    }
}
