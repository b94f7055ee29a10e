//! What comes next: which steps may start, what an attempt makes of its step, what the steps make of their delivery. States
//! and times enter, new states leave; nothing here knows HTTP, routes or the store.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::outcome::OutcomeClass;
use super::policy::{Next, Retry, counted_from};
use super::state::{
    AttemptResult, DeliveryState, IdempotencyKey, KeyClaim, Reason, Status, StepState, StepStatus,
    Transition,
};
use crate::name::{Lane, RevisionHash, StepName};

/// So many interrupted attempts since the last replay, and a person looks at it: perhaps it is this call that ends the
/// process.
pub const INTERRUPTIONS_MAX: u32 = 3;

/// A route's steps as far as the order of work is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    pub name: StepName,
    pub was: Option<StepName>,
    /// Indices of the steps that it needs.
    pub needs: BTreeSet<usize>,
}

/// The state of `step`, under its own name or the one it had before.
pub fn state_of<'a>(state: &'a DeliveryState, step: &PlannedStep) -> Option<&'a StepState> {
    state.step(&step.name).or_else(|| state.step(step.was.as_ref()?))
}

/// The steps whose needs are satisfied and which are due, in order. A step that waits for a held key is among them: the
/// store alone knows when its holder has settled.
pub fn startable(plan: &[PlannedStep], state: &DeliveryState, now: Timestamp) -> Vec<usize> {
    let statuses = statuses(plan, state);
    (0..plan.len())
        .filter(|&index| may_wait(plan, &statuses, index))
        .filter(|&index| {
            state_of(state, &plan[index])
                .and_then(|step| step.due_at)
                .is_none_or(|due_at| due_at <= now)
        })
        .collect()
}

/// Waiting, with all needs satisfied: its next move is its own.
fn may_wait(plan: &[PlannedStep], statuses: &[Standing], index: usize) -> bool {
    statuses[index] == Standing::Waiting
        && plan[index].needs.iter().all(|&need| statuses[need] == Standing::Satisfied)
}

/// A step as its neighbours see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Running,
    /// What needs it may start.
    Satisfied,
    /// What needs it does not run; the delivery goes to review.
    InTheWay,
}

fn standing(step: Option<&StepState>) -> Standing {
    let Some(step) = step else { return Standing::Waiting };
    match step.status {
        StepStatus::Waiting => Standing::Waiting,
        StepStatus::Running => Standing::Running,
        // A step that succeeded has a reason only where its answer lacked something required.
        StepStatus::Succeeded if step.reason.is_some() => Standing::InTheWay,
        StepStatus::Succeeded | StepStatus::Skipped | StepStatus::AlreadyDone => {
            Standing::Satisfied
        }
        StepStatus::NotRun | StepStatus::Unknown | StepStatus::Failed => Standing::InTheWay,
    }
}

fn statuses(plan: &[PlannedStep], state: &DeliveryState) -> Vec<Standing> {
    plan.iter().map(|step| standing(state_of(state, step))).collect()
}

/// What the delivery becomes when `changed` is written down: its steps after it, those that can no longer run, and the
/// new head. `why` is the reason that `changed` gives: of a failure, or of waiting. A delivery fails once, when nothing
/// more of it can move, with the reason of its first failure.
pub fn settle(
    plan: &[PlannedStep],
    state: &DeliveryState,
    changed: Vec<StepState>,
    why: Option<Reason>,
    now: Timestamp,
) -> Transition {
    let mut after = state.clone();
    let mut steps = changed;
    for step in &steps {
        put(&mut after, step.clone());
    }
    for step in give_up_dependents(plan, &after) {
        put(&mut after, step.clone());
        steps.push(step);
    }

    let statuses = statuses(plan, &after);
    let has = |wanted: Standing| statuses.contains(&wanted);
    let first_failure = state.reason.clone().filter(|reason| names_failure(plan, state, reason));
    let reason = first_failure.or(why);

    if has(Standing::Running) || startable_now(plan, &after, &statuses, now) {
        return Transition {
            status: Status::Processing,
            due_at: None,
            reason,
            steps,
            revision: None,
        };
    }
    if has(Standing::Waiting) {
        let due_at = (0..plan.len())
            .filter(|&index| may_wait(plan, &statuses, index))
            .filter_map(|index| state_of(&after, &plan[index])?.due_at)
            .min();
        let reason = reason.or_else(|| waits(plan, &after));
        return Transition { status: Status::Queued, due_at, reason, steps, revision: None };
    }
    if has(Standing::InTheWay) {
        let reason = reason.or_else(|| Some(any_failure(plan, &after)));
        return Transition { status: Status::Failed, due_at: None, reason, steps, revision: None };
    }
    Transition { status: Status::Succeeded, due_at: None, reason: None, steps, revision: None }
}

/// A step that can start at once, so the worker keeps the delivery. One that waits for a key cannot: the store says when.
fn startable_now(
    plan: &[PlannedStep],
    after: &DeliveryState,
    statuses: &[Standing],
    now: Timestamp,
) -> bool {
    (0..plan.len()).filter(|&index| may_wait(plan, statuses, index)).any(|index| {
        state_of(after, &plan[index]).is_none_or(|step| {
            step.waits_for.is_none() && step.due_at.is_none_or(|due_at| due_at <= now)
        })
    })
}

/// The steps that need, directly or through others, one that stands in the way.
fn give_up_dependents(plan: &[PlannedStep], state: &DeliveryState) -> Vec<StepState> {
    let mut statuses = statuses(plan, state);
    let mut given_up = Vec::new();
    // Each round settles at least one step or is the last, so there are at most as many rounds as steps.
    loop {
        let next = (0..plan.len()).find_map(|index| {
            if statuses[index] != Standing::Waiting {
                return None;
            }
            let blocker =
                plan[index].needs.iter().find(|&&need| statuses[need] == Standing::InTheWay)?;
            Some((index, *blocker))
        });
        let Some((index, blocker)) = next else { return given_up };
        statuses[index] = Standing::InTheWay;
        let mut step = current(state, &plan[index]);
        step.status = StepStatus::NotRun;
        step.due_at = None;
        step.waits_for = None;
        step.reason = Some(format!("it needs `{}`, which did not succeed", plan[blocker].name));
        given_up.push(step);
    }
}

/// The step's state to change: as it is, or a fresh one. Under a new name it keeps its key and generation.
pub fn current(state: &DeliveryState, step: &PlannedStep) -> StepState {
    if let Some(found) = state.step(&step.name) {
        return found.clone();
    }
    let mut fresh = StepState::new(step.name.clone());
    if let Some(old) = step.was.as_ref().and_then(|was| state.step(was)) {
        fresh.key.clone_from(&old.key);
        fresh.generation = old.generation;
        fresh.lane.clone_from(&old.lane);
    }
    fresh
}

fn put(state: &mut DeliveryState, step: StepState) {
    let place =
        state.steps.iter_mut().find(|old| old.step == step.step && old.element == step.element);
    match place {
        Some(old) => *old = step,
        None => state.steps.push(step),
    }
}

fn names_failure(plan: &[PlannedStep], state: &DeliveryState, reason: &Reason) -> bool {
    plan.iter().any(|step| {
        reason.subject.as_deref() == Some(step.name.as_str())
            && standing(state_of(state, step)) == Standing::InTheWay
    })
}

/// A reason made from the first step that stands in the way, where none was carried along.
fn any_failure(plan: &[PlannedStep], state: &DeliveryState) -> Reason {
    let failed = plan.iter().filter_map(|step| state_of(state, step)).find(|step| {
        step.status != StepStatus::NotRun && standing(Some(step)) == Standing::InTheWay
    });
    Reason {
        cause: "step_failed".to_owned(),
        subject: failed.map(|step| step.step.to_string()),
        message: failed
            .and_then(|step| step.reason.clone())
            .unwrap_or_else(|| "a step did not succeed".to_owned()),
    }
}

/// What a queued delivery waits for, where the last change did not say it.
fn waits(plan: &[PlannedStep], state: &DeliveryState) -> Option<Reason> {
    let waiting = plan
        .iter()
        .filter_map(|step| state_of(state, step))
        .filter(|step| step.status == StepStatus::Waiting && step.reason.is_some())
        .min_by_key(|step| (step.due_at.is_none(), step.due_at))?;
    let cause = if waiting.waits_for.is_some() { "key_held" } else { "retry" };
    Some(Reason {
        cause: cause.to_owned(),
        subject: Some(waiting.step.to_string()),
        message: waiting.reason.clone()?,
    })
}

/// The step as its intent is recorded: running, one attempt more, its key frozen.
pub fn begin(
    mut step: StepState,
    key: Option<IdempotencyKey>,
    lane: Lane,
    now: Timestamp,
) -> StepState {
    step.first_attempt_at = Some(counted_from(step.first_attempt_at, step.due_at, now));
    step.status = StepStatus::Running;
    step.key = step.key.or(key);
    step.lane = Some(lane);
    step.attempts = step.attempts.saturating_add(1);
    step.attempts_since_replay = step.attempts_since_replay.saturating_add(1);
    step.due_at = None;
    step.waits_for = None;
    step.reason = None;
    step
}

/// What an attempt's outcome means, by the step's `success`, `retry.on` and `save`.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// `missing`: what `save` requires and the answer lacks.
    Success { saved: Map<String, Json>, missing: Option<Reason> },
    /// Worth another try.
    Transient { why: Reason, retry_after: Option<Duration> },
    /// Another try cannot help.
    Permanent { why: Reason },
}

impl Verdict {
    pub fn result(&self) -> AttemptResult {
        match self {
            Verdict::Success { .. } => AttemptResult::Succeeded,
            Verdict::Transient { .. } => AttemptResult::Transient,
            Verdict::Permanent { .. } => AttemptResult::Permanent,
        }
    }
}

/// One attempt that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub outcome: OutcomeClass,
    pub started_at: Timestamp,
    /// By the monotonic clock: a jump of the wall clock during the call does not count.
    pub took: Duration,
    pub now: Timestamp,
}

/// What an ended attempt makes of its step, and the reason that it gives the delivery.
pub fn after_attempt(
    mut step: StepState,
    retry: &Retry,
    verdict: Verdict,
    ended: Ended,
    unit: f64,
) -> (StepState, Option<Reason>) {
    step.last_outcome = Some(ended.outcome);
    step.due_at = None;
    let (why, retry_after) = match verdict {
        Verdict::Success { saved, missing } => {
            step.status = StepStatus::Succeeded;
            step.saved = saved;
            step.reason = missing.as_ref().map(|reason| reason.message.clone());
            return (step, missing);
        }
        Verdict::Permanent { why } => return give_up(step, why),
        Verdict::Transient { why, retry_after } => (why, retry_after),
    };
    let first = step.first_attempt_at.unwrap_or(ended.started_at);
    let before = Duration::try_from(ended.started_at.duration_since(first)).unwrap_or_default();
    let elapsed = before.saturating_add(ended.took);
    match retry.next(step.attempts_since_replay, elapsed, unit, retry_after) {
        Next::After(delay) => {
            step.status = StepStatus::Waiting;
            step.due_at = Some(ended.now.checked_add(delay).unwrap_or(Timestamp::MAX));
            step.reason = Some(why.message.clone());
            (step, Some(why))
        }
        Next::AttemptsExhausted => {
            let message =
                format!("given up after {} attempts: {}", step.attempts_since_replay, why.message);
            give_up(step, Reason { cause: "attempts_exhausted".to_owned(), message, ..why })
        }
        Next::TimeExhausted => {
            let message = format!(
                "given up after {} attempts, as `retry.for` leaves no time for another: {}",
                step.attempts_since_replay, why.message
            );
            give_up(step, Reason { cause: "time_exhausted".to_owned(), message, ..why })
        }
    }
}

/// An attempt whose end nobody saw: the process ended between its intent and its outcome.
pub fn after_interruption(
    mut step: StepState,
    retry: &Retry,
    verdict: Verdict,
    now: Timestamp,
    unit: f64,
) -> (StepState, Option<Reason>) {
    step.interruptions = step.interruptions.saturating_add(1);
    if step.interruptions >= INTERRUPTIONS_MAX {
        step.last_outcome = Some(OutcomeClass::SentNoAnswer);
        let why = Reason {
            cause: "interrupted".to_owned(),
            subject: Some(step.step.to_string()),
            message: format!(
                "the router ended {} times while this call was out; look downstream whether it was done, then replay",
                step.interruptions
            ),
        };
        return give_up(step, why);
    }
    // How long the call was out is unknown; it counts as nothing, and the number of attempts bounds it.
    let started_at = step.first_attempt_at.unwrap_or(now);
    let ended =
        Ended { outcome: OutcomeClass::SentNoAnswer, started_at, took: Duration::ZERO, now };
    after_attempt(step, retry, verdict, ended, unit)
}

/// The step ends for good, in the honest one of two ways: if the last attempt may have been carried out, it is unknown.
pub fn give_up(mut step: StepState, why: Reason) -> (StepState, Option<Reason>) {
    step.status = match step.last_outcome {
        Some(OutcomeClass::SentNoAnswer) => StepStatus::Unknown,
        Some(OutcomeClass::NotSent | OutcomeClass::Answered) | None => StepStatus::Failed,
    };
    step.due_at = None;
    step.waits_for = None;
    step.reason = Some(why.message.clone());
    (step, Some(why))
}

/// Its `when` is false.
pub fn skip(mut step: StepState) -> StepState {
    step.status = StepStatus::Skipped;
    step.due_at = None;
    step.reason = None;
    step
}

/// Another delivery did it: its results are this one's.
pub fn already_done(
    mut step: StepState,
    key: IdempotencyKey,
    saved: Map<String, Json>,
) -> StepState {
    step.status = StepStatus::AlreadyDone;
    step.key = Some(key);
    step.saved = saved;
    step.due_at = None;
    step.waits_for = None;
    step.reason = None;
    step
}

/// Another delivery holds its key and is not done.
pub fn wait_for_key(mut step: StepState, claim: KeyClaim, message: String) -> StepState {
    step.status = StepStatus::Waiting;
    step.due_at = None;
    step.waits_for = Some(claim);
    step.reason = Some(message);
    step
}

/// Why a replay is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefused {
    #[error("the delivery is {0}; only a failed one is replayed")]
    NotFailed(Status),
    #[error("the step `{step}` is {status}, and the route no longer has it; say `was: {step}` at the step that takes its place", status = .status.as_str())]
    StepGone { step: StepName, status: StepStatus },
}

/// A failed delivery goes back to the queue under `revision`: what is finished stays finished, what was given up is tried
/// anew with the same keys, with all its attempts and all its time.
pub fn replay(
    state: &DeliveryState,
    plan: &[PlannedStep],
    revision: RevisionHash,
    now: Timestamp,
) -> Result<Transition, ReplayRefused> {
    if state.status != Status::Failed {
        return Err(ReplayRefused::NotFailed(state.status));
    }
    for old in &state.steps {
        let kept =
            plan.iter().any(|new| new.name == old.step || new.was.as_ref() == Some(&old.step));
        // Of one whose call is or was out, nobody knows whether it is finished.
        let must_stay = matches!(
            old.status,
            StepStatus::Succeeded
                | StepStatus::Unknown
                | StepStatus::AlreadyDone
                | StepStatus::Running
        );
        if must_stay && !kept {
            return Err(ReplayRefused::StepGone { step: old.step.clone(), status: old.status });
        }
    }
    let steps = plan
        .iter()
        .filter(|step| {
            state_of(state, step).is_some_and(|state| standing(Some(state)) != Standing::Satisfied)
        })
        .map(|step| reopen(current(state, step)))
        .collect();
    Ok(Transition {
        status: Status::Queued,
        due_at: Some(now),
        reason: None,
        steps,
        revision: Some(revision),
    })
}

fn reopen(mut step: StepState) -> StepState {
    // A success that lacks a value is not sent again: the replay accepts that the value is missing.
    if step.status != StepStatus::Succeeded {
        step.status = StepStatus::Waiting;
    }
    step.attempts_since_replay = 0;
    step.interruptions = 0;
    step.first_attempt_at = None;
    step.due_at = None;
    step.waits_for = None;
    step.reason = None;
    step
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::name::{DeliveryId, RouteName, Uid};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn plan(steps: &[(&str, &[usize])]) -> Vec<PlannedStep> {
        steps
            .iter()
            .map(|(name, needs)| PlannedStep {
                name: (*name).into(),
                was: None,
                needs: needs.iter().copied().collect(),
            })
            .collect()
    }

    fn step(name: &str, status: StepStatus) -> StepState {
        StepState { status, ..StepState::new(name.into()) }
    }

    fn delivery(steps: Vec<StepState>) -> DeliveryState {
        DeliveryState {
            id: DeliveryId { uid: Uid(Uuid::nil()), route: RouteName::from("orders") },
            event_id: "evt_1".into(),
            key_base: "base".to_owned(),
            revision: "r1".into(),
            status: Status::Processing,
            version: 1,
            due_at: None,
            reason: None,
            steps,
        }
    }

    fn why(step: &str) -> Reason {
        Reason {
            cause: "status_503".to_owned(),
            subject: Some(step.to_owned()),
            message: "it answered 503".to_owned(),
        }
    }

    fn retry() -> Retry {
        Retry { attempts: 3, jitter: super::super::policy::Jitter::None, ..Retry::default() }
    }

    fn ended(outcome: OutcomeClass) -> Ended {
        Ended { outcome, started_at: at(0), took: Duration::from_secs(1), now: at(1) }
    }

    /// The names of the steps that may start.
    fn check_startable(plan: &[PlannedStep], steps: Vec<StepState>, expected: &[&str]) {
        let names: Vec<_> = startable(plan, &delivery(steps), at(0))
            .into_iter()
            .map(|index| plan[index].name.to_string())
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_step_starts_when_what_it_needs_is_satisfied_and_it_is_due() {
        use StepStatus::{
            AlreadyDone, Failed, NotRun, Running, Skipped, Succeeded, Unknown, Waiting,
        };
        let chain = plan(&[("a", &[]), ("b", &[0]), ("c", &[])]);
        check_startable(&chain, vec![], &["a", "c"]);
        check_startable(&chain, vec![step("a", Running)], &["c"]);
        for done in [Succeeded, Skipped, AlreadyDone] {
            check_startable(&chain, vec![step("a", done)], &["b", "c"]);
        }
        for blocked in [Failed, Unknown, NotRun] {
            check_startable(&chain, vec![step("a", blocked)], &["c"]);
        }
        let later = StepState { due_at: Some(at(5)), ..step("a", Waiting) };
        check_startable(&chain, vec![later], &["c"]);
        let lacking = StepState { reason: Some("no id".to_owned()), ..step("a", Succeeded) };
        check_startable(&chain, vec![lacking], &["c"]);
    }

    #[test]
    fn what_the_steps_make_of_their_delivery() {
        use StepStatus::{Failed, Running, Skipped, Succeeded, Waiting};
        let steps = plan(&[("a", &[]), ("b", &[0]), ("c", &[])]);
        let check = |states: Vec<StepState>, status: Status, due_at: Option<i64>| {
            let transition = settle(&steps, &delivery(states.clone()), states, None, at(0));
            assert_eq!((transition.status, transition.due_at), (status, due_at.map(at)));
            transition
        };
        let waiting = |name, due| StepState { due_at: Some(at(due)), ..step(name, Waiting) };

        check(vec![step("a", Running)], Status::Processing, None);
        check(vec![step("a", Succeeded), step("c", Skipped)], Status::Processing, None);
        check(vec![waiting("a", 9), waiting("c", 4)], Status::Queued, Some(4));
        check(vec![waiting("a", 9), step("c", Succeeded)], Status::Queued, Some(9));
        check(vec![waiting("a", 9), step("c", Running)], Status::Processing, None);
        check(vec![waiting("a", 9), step("c", Failed)], Status::Queued, Some(9));
        let done = vec![step("a", Succeeded), step("b", Succeeded), step("c", Skipped)];
        check(done, Status::Succeeded, None);

        let failed = check(vec![step("a", Failed), step("c", Succeeded)], Status::Failed, None);
        assert_eq!(failed.steps.last().unwrap().step, "b".into());
        assert_eq!(failed.steps.last().unwrap().status, StepStatus::NotRun);
        assert_eq!(failed.reason.unwrap().subject.as_deref(), Some("a"));

        let claim = KeyClaim { route: "orders".into(), step: "a".into(), key: "k".to_owned() };
        let held = wait_for_key(step("a", Waiting), claim, "waits for evt_0".to_owned());
        let queued = check(vec![held, step("c", Succeeded)], Status::Queued, None);
        assert_eq!(queued.reason.unwrap().cause, "key_held");
    }

    #[test]
    fn a_delivery_keeps_the_reason_of_its_first_failure() {
        let steps = plan(&[("a", &[]), ("b", &[])]);
        let mut state = delivery(vec![step("b", StepStatus::Running)]);
        let first =
            settle(&steps, &state, vec![step("a", StepStatus::Failed)], Some(why("a")), at(0));
        assert_eq!(first.status, Status::Processing);
        state.reason = first.reason;
        state.steps = vec![step("a", StepStatus::Failed), step("b", StepStatus::Running)];
        let last =
            settle(&steps, &state, vec![step("b", StepStatus::Failed)], Some(why("b")), at(0));
        assert_eq!((last.status, last.reason), (Status::Failed, Some(why("a"))));
    }

    #[test]
    fn what_an_attempt_makes_of_its_step() {
        let check = |made, outcome, verdict, status, due_at: Option<i64>, cause: Option<&str>| {
            let before = StepState {
                attempts_since_replay: made,
                first_attempt_at: Some(at(0)),
                ..step("a", StepStatus::Running)
            };
            let (after, reason) = after_attempt(before, &retry(), verdict, ended(outcome), 0.5);
            assert_eq!((after.status, after.due_at), (status, due_at.map(at)));
            assert_eq!(reason.map(|reason| reason.cause).as_deref(), cause);
        };
        use OutcomeClass::{Answered, NotSent, SentNoAnswer};
        let ok = || Verdict::Success { saved: Map::new(), missing: None };
        let again = || Verdict::Transient { why: why("a"), retry_after: None };
        let never = || Verdict::Permanent { why: why("a") };
        let later =
            || Verdict::Transient { why: why("a"), retry_after: Some(Duration::from_secs(60)) };
        let too_late =
            || Verdict::Transient { why: why("a"), retry_after: Some(Duration::from_secs(90_000)) };
        check(1, Answered, ok(), StepStatus::Succeeded, None, None);
        check(1, Answered, again(), StepStatus::Waiting, Some(2), Some("status_503"));
        check(2, SentNoAnswer, again(), StepStatus::Waiting, Some(3), Some("status_503"));
        check(1, Answered, later(), StepStatus::Waiting, Some(61), Some("status_503"));
        check(1, Answered, too_late(), StepStatus::Failed, None, Some("time_exhausted"));
        check(3, Answered, again(), StepStatus::Failed, None, Some("attempts_exhausted"));
        check(3, NotSent, again(), StepStatus::Failed, None, Some("attempts_exhausted"));
        check(3, SentNoAnswer, again(), StepStatus::Unknown, None, Some("attempts_exhausted"));
        check(1, Answered, never(), StepStatus::Failed, None, Some("status_503"));
        check(1, SentNoAnswer, never(), StepStatus::Unknown, None, Some("status_503"));
    }

    #[test]
    fn the_third_interruption_is_for_a_person() {
        let again = || Verdict::Transient { why: why("a"), retry_after: None };
        let retry = Retry { attempts: 100, ..retry() };
        let mut state = StepState::new("a".into());
        for expected in [StepStatus::Waiting, StepStatus::Waiting, StepStatus::Unknown] {
            state = begin(state, None, "lane".into(), at(0));
            (state, _) = after_interruption(state, &retry, again(), at(0), 0.5);
            assert_eq!(state.status, expected);
        }
        assert_eq!((state.attempts, state.interruptions), (3, 3));
    }

    #[test]
    fn a_replay_reopens_what_is_not_finished_and_nothing_else() {
        let steps = plan(&[("a", &[]), ("b", &[0]), ("c", &[1])]);
        let mut state = delivery(vec![
            step("a", StepStatus::Succeeded),
            StepState { attempts: 7, attempts_since_replay: 7, ..step("b", StepStatus::Failed) },
            step("c", StepStatus::NotRun),
        ]);
        assert_eq!(
            replay(&state, &steps, "r2".into(), at(0)),
            Err(ReplayRefused::NotFailed(Status::Processing))
        );
        state.status = Status::Failed;
        let transition = replay(&state, &steps, "r2".into(), at(0)).unwrap();
        let names: Vec<_> = transition.steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(
            (transition.steps[0].attempts, transition.steps[0].attempts_since_replay),
            (7, 0)
        );
        assert_eq!(transition.revision, Some("r2".into()));

        let without = plan(&[("b", &[])]);
        assert!(matches!(
            replay(&state, &without, "r2".into(), at(0)),
            Err(ReplayRefused::StepGone { .. })
        ));
        let mut renamed = steps.clone();
        renamed[0].name = "z".into();
        renamed[0].was = Some("a".into());
        assert!(replay(&state, &renamed, "r2".into(), at(0)).is_ok());
        assert_eq!(startable(&renamed, &state, at(0)), Vec::<usize>::new());
    }

    proptest! {
        /// A random plan under random outcomes comes to an end within the bounds, and a settled step stays as it is.
        #[test]
        fn every_delivery_ends(
            needs in proptest::collection::vec(proptest::collection::btree_set(0usize..6, 0..3), 1..6),
            draws in proptest::collection::vec((0u8..6, 0.0f64..1.0), 1..60),
        ) {
            let steps: Vec<PlannedStep> = needs
                .iter()
                .enumerate()
                .map(|(index, needs)| PlannedStep {
                    name: format!("s{index}").into(),
                    was: None,
                    needs: needs.iter().copied().filter(|&need| need < index).collect(),
                })
                .collect();
            let mut state = delivery(vec![]);
            let mut now = at(0);
            let mut last_due = now;
            let mut draws = draws.into_iter().cycle();
            // At most three attempts a step, and one claim for each.
            for _ in 0..steps.len() * 6 + 1 {
                if state.status.is_finished() {
                    break;
                }
                let start = startable(&steps, &state, now);
                let Some(&index) = start.first() else {
                    prop_assert_eq!(state.status, Status::Queued);
                    now = state.due_at.expect("no step waits for a key");
                    prop_assert!(now >= last_due);
                    last_due = now;
                    state.status = Status::Processing;
                    prop_assert!(!startable(&steps, &state, now).is_empty());
                    continue;
                };
                let settled: Vec<StepState> =
                    state.steps.iter().filter(|step| step.status.is_settled()).cloned().collect();
                let (draw, unit) = draws.next().unwrap();
                let begun = begin(current(&state, &steps[index]), None, "lane".into(), now);
                let why = why(steps[index].name.as_str());
                let ended = |outcome| Ended { outcome, started_at: now, took: Duration::ZERO, now };
                let again = Verdict::Transient { why: why.clone(), retry_after: None };
                let (changed, why) = match draw {
                    0 => after_attempt(begun, &retry(), Verdict::Success { saved: Map::new(), missing: None }, ended(OutcomeClass::Answered), unit),
                    1 => after_attempt(begun, &retry(), Verdict::Permanent { why }, ended(OutcomeClass::Answered), unit),
                    2 => (skip(begun), None),
                    3 => after_interruption(begun, &retry(), again, now, unit),
                    _ => after_attempt(begun, &retry(), again, ended(OutcomeClass::SentNoAnswer), unit),
                };
                let transition = settle(&steps, &state, vec![changed], why, now);
                for step in transition.steps {
                    put(&mut state, step);
                }
                state.status = transition.status;
                state.due_at = transition.due_at;
                state.reason = transition.reason;
                for step in settled {
                    prop_assert!(state.steps.contains(&step));
                }
                for step in &state.steps {
                    prop_assert!(step.attempts <= 3);
                }
            }
            prop_assert!(state.status.is_finished());
        }
    }
}
