//! The states of a delivery and of its steps.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::outcome::OutcomeClass;
use crate::name::{DeliveryId, EventId, Lane, RevisionHash, RouteName, StepName};

/// Status of a delivery, in the words of the API, the logs and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for a worker, for a retry, or for another delivery: `due_at` and `reason` say until when and for what.
    Queued,
    /// A worker holds it. Never durable: after a restart such a delivery is `Queued`.
    Processing,
    Succeeded,
    /// In the review queue.
    Failed,
    /// `when` was false.
    Ignored,
}

impl Status {
    pub fn is_finished(self) -> bool {
        match self {
            Status::Succeeded | Status::Failed | Status::Ignored => true,
            Status::Queued | Status::Processing => false,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Processing => "processing",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status of a step instance; readable in templates as `steps.X.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not yet tried, or waits for its next attempt or for the holder of its explicit key.
    Waiting,
    /// An attempt's intent is recorded and its outcome is not.
    Running,
    Succeeded,
    /// Its `when` was false.
    Skipped,
    /// Another delivery's step with the same explicit key had succeeded; `saved` is what that one saved.
    AlreadyDone,
    /// A step that it needs failed for good.
    NotRun,
    /// Given up while the last attempt's outcome is unknown: the work may have been done.
    Unknown,
    /// Given up.
    Failed,
}

impl StepStatus {
    /// The step will make no further call in this life of the delivery.
    pub fn is_settled(self) -> bool {
        match self {
            StepStatus::Waiting | StepStatus::Running => false,
            StepStatus::Succeeded
            | StepStatus::Skipped
            | StepStatus::AlreadyDone
            | StepStatus::NotRun
            | StepStatus::Unknown
            | StepStatus::Failed => true,
        }
    }

    /// Steps that need this one may start.
    pub fn satisfies_needs(self) -> bool {
        matches!(self, StepStatus::Succeeded | StepStatus::Skipped | StepStatus::AlreadyDone)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Waiting => "waiting",
            StepStatus::Running => "running",
            StepStatus::Succeeded => "succeeded",
            StepStatus::Skipped => "skipped",
            StepStatus::AlreadyDone => "already_done",
            StepStatus::NotRun => "not_run",
            StepStatus::Unknown => "unknown",
            StepStatus::Failed => "failed",
        }
    }
}

/// The key that a step instance carries, frozen at its first attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// As it is sent, generation suffix included.
    pub text: String,
    /// Written by the route's author: then (route, step, text) is the router's own memory.
    pub explicit: bool,
}

/// A claim on an explicit key: who may make its call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyClaim {
    pub route: RouteName,
    pub step: StepName,
    pub key: String,
}

/// One step of one delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    pub step: StepName,
    /// Position in the list of `for_each`; `None` for a plain step.
    pub element: Option<u32>,
    /// 1 at first; a `redo` makes the next.
    pub generation: u32,
    pub status: StepStatus,
    pub key: Option<IdempotencyKey>,
    pub lane: Option<Lane>,
    /// Attempts over the step's whole life.
    pub attempts: u32,
    /// Attempts since the last replay: what `retry.attempts` counts.
    pub attempts_since_replay: u32,
    /// First attempt since the last replay: what `retry.for` counts from.
    pub first_attempt_at: Option<Timestamp>,
    /// How the last attempt ended.
    pub last_outcome: Option<OutcomeClass>,
    /// Times the process ended between an intent and its outcome, since the last replay.
    pub interruptions: u32,
    /// The next attempt is not made before this.
    pub due_at: Option<Timestamp>,
    /// The held key that this step waits for; the store makes the delivery due when its holder settles.
    pub waits_for: Option<KeyClaim>,
    pub saved: Map<String, Json>,
    /// Why it is in this status, for a person.
    pub reason: Option<String>,
}

impl StepState {
    pub fn new(step: StepName) -> Self {
        Self {
            step,
            element: None,
            generation: 1,
            status: StepStatus::Waiting,
            key: None,
            lane: None,
            attempts: 0,
            attempts_since_replay: 0,
            first_attempt_at: None,
            last_outcome: None,
            interruptions: 0,
            due_at: None,
            waits_for: None,
            saved: Map::new(),
            reason: None,
        }
    }
}

/// Why a delivery is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A short stable word that groups causes: `missing_field`, `status_422`, `attempts_exhausted`, `when_false`, …
    pub cause: String,
    /// The step or field that it is about.
    pub subject: Option<String>,
    /// The whole sentence for a person.
    pub message: String,
}

/// One event being carried out by one route.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryState {
    pub id: DeliveryId,
    /// Kept here because logs and keys need it without the envelope.
    pub event_id: EventId,
    /// What derived keys start with: source, path parts and event id (and a body hash under `new_event`), hashed.
    pub key_base: String,
    pub revision: RevisionHash,
    pub status: Status,
    /// Counts the recorded changes; a change applies only on the version that it was decided on.
    pub version: u64,
    /// Earliest time for the next claim, while `Queued`. `None` while it waits for another delivery alone.
    pub due_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    /// One entry per step that was ever touched.
    pub steps: Vec<StepState>,
}

impl DeliveryState {
    pub fn step(&self, name: &StepName) -> Option<&StepState> {
        self.steps.iter().find(|state| state.step == *name)
    }

    /// Attempts of all steps.
    pub fn attempts(&self) -> u32 {
        self.steps.iter().map(|step| step.attempts).sum()
    }
}

/// What a recorded change makes of a delivery: the new head, and the steps that changed (whole, by name and element).
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub status: Status,
    pub due_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    pub steps: Vec<StepState>,
    /// A replay moves the delivery to this revision; otherwise it keeps its own.
    pub revision: Option<RevisionHash>,
}

/// One line of a delivery's journal: what happened, when, to which step. What a person and the API see.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An attempt is about to leave. `request` is its method and URL with secrets replaced by their names, cut to a
    /// line (`None` where an earlier version of the journal did not keep it); `digest` is SHA-256 (hex) over the whole request, likewise without secrets.
    Intended {
        step: StepName,
        attempt: u32,
        key: Option<IdempotencyKey>,
        request: Option<String>,
        digest: String,
    },
    /// An attempt ended.
    Attempted { step: StepName, attempt: Attempt },
    /// A step was settled or put off without a call: skipped, not run, already done, waiting for a key, a failed template.
    StepDecided { step: StepName, status: StepStatus, why: String },
    /// The delivery was decided as a whole: ignored, or its fields could not be read.
    Decided { why: String },
    /// An operator acted.
    Operated { actor: String, action: String, note: Option<String> },
}

/// One finished try of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub number: u32,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub outcome: OutcomeClass,
    /// HTTP status, where answered.
    pub status: Option<u16>,
    /// What the other side said or why nothing came back, redacted and at most 16 KiB.
    pub detail: String,
    pub result: AttemptResult,
    /// When the next attempt is due, where there is one.
    pub next: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    Succeeded,
    /// Worth another try.
    Transient,
    /// Another try cannot help.
    Permanent,
}
