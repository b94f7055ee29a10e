//! Events and changes for the tests of the stores.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::captured::CapturedSecret;
use super::index::{Group, Index, IndexError, MemoryIndex, PageId};
use super::{Change, NewDelivery, NewEvent, OnConflict, Operation};
use crate::body::BodyKind;
use crate::delivery::outcome::OutcomeClass;
use crate::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, KeyClaim, Reason, Status,
    StepState, StepStatus, Transition, What,
};
use crate::envelope::{Envelope, Identity};
use crate::name::{DeliveryId, Uid};
use crate::secret::SecretValue;
use crate::world::World;
use crate::world::clock::ManualClock;
use crate::world::random::SeededRandom;
use crate::world::spawn::TokioSpawn;

pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn world(seed: u64) -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(start()));
    let random = Arc::new(SeededRandom::from_seed(seed));
    (World { clock: clock.clone(), random, spawn: Arc::new(TokioSpawn) }, clock)
}

/// An index in which nothing stands yet.
pub(crate) fn no_index() -> Arc<MemoryIndex> {
    Arc::default()
}

/// An index that fails, forgets, damages and mixes up pages, by chance.
pub(crate) struct UnreliableIndex {
    kept: MemoryIndex,
    random: Mutex<StdRng>,
}

impl UnreliableIndex {
    pub(crate) fn new(seed: u64) -> Self {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Self { kept: MemoryIndex::default(), random }
    }

    fn fails(&self) -> Result<(), IndexError> {
        match self.random.lock().unwrap().random_bool(0.1) {
            true => Err(IndexError("broken on purpose".into())),
            false => Ok(()),
        }
    }
}

impl Index for UnreliableIndex {
    fn put(&self, group: Group, pages: &[Bytes]) -> Result<(), IndexError> {
        self.fails()?;
        self.kept.put(group, pages)
    }

    fn get(&self, id: PageId) -> Result<Option<Bytes>, IndexError> {
        self.fails()?;
        let mut random = self.random.lock().unwrap();
        let wrong = match random.random_range(0..8) {
            0 => return Ok(None),
            1 => PageId { group: Group { segment: id.group.segment + 1, ..id.group }, ..id },
            2 => PageId { sequence: id.sequence + 1, ..id },
            _ => id,
        };
        let page = self.kept.get(wrong)?;
        Ok(page.map(|page| match random.random_range(0..8) {
            0 => page.slice(..page.len() / 2),
            1 => {
                let mut page = page.to_vec();
                let at = random.random_range(0..page.len());
                page[at] ^= 1 << random.random_range(0..8);
                page.into()
            }
            _ => page,
        }))
    }

    fn groups(&self) -> Result<Vec<Group>, IndexError> {
        self.fails()?;
        self.kept.groups()
    }

    fn remove(&self, group: Group) -> Result<(), IndexError> {
        self.fails()?;
        self.kept.remove(group)
    }

    fn reset(&self) -> Result<(), IndexError> {
        self.fails()?;
        self.kept.reset()
    }
}

/// The `number`-th arrival. Its uid is made of the number.
pub(crate) fn event(number: u128, id: &str, body: &str, routes: &[&str]) -> NewEvent {
    let delivery = |route: &&str| NewDelivery {
        route: (*route).into(),
        revision: "r1".into(),
        key_base: format!("base-{id}"),
        key_base_with_body: format!("base-{id}-{body}"),
    };
    NewEvent {
        envelope: Envelope {
            uid: Uid(Uuid::from_u128(number)),
            event_id: id.into(),
            event_type: "orders/paid".into(),
            source: "shop".into(),
            occurred_at: None,
            received_at: start(),
            correlation_id: format!("correlation-{number}").into(),
            method: "POST".into(),
            path: vec![("tenant".into(), "a".into())],
            query: Vec::new(),
            headers: vec![("content-type".into(), "application/json".into())],
            body_kind: BodyKind::Json,
            body: Bytes::copy_from_slice(body.as_bytes()),
            malformed: None,
        },
        identities: vec![Identity::Id { id: id.into(), body: None }],
        body_digest: Sha256::digest(body).into(),
        on_conflict: OnConflict::Review,
        deliveries: routes.iter().map(delivery).collect(),
    }
}

pub(crate) fn delivery(number: u128, route: &str) -> DeliveryId {
    DeliveryId { uid: Uid(Uuid::from_u128(number)), route: route.into() }
}

fn step(status: StepStatus) -> StepState {
    StepState { status, ..StepState::new("ship".into()) }
}

fn change(what: What, status: Status, step: Option<StepState>) -> Change {
    let reason = (status == Status::Failed).then(|| Reason {
        cause: "status_422".into(),
        subject: Some("ship".into()),
        message: "the answer was 422".into(),
    });
    Change {
        entry: Entry { at: start(), what },
        transition: Transition {
            status,
            due_at: None,
            reason,
            steps: step.into_iter().collect(),
            revision: None,
        },
        terms: Vec::new(),
    }
}

/// The worker goes on holding it.
pub(crate) fn intended(key: Option<&str>) -> Change {
    let key = key.map(|text| IdempotencyKey { text: text.into(), explicit: true });
    let what = What::Intended {
        step: "ship".into(),
        attempt: 1,
        key: key.clone(),
        request: None,
        digest: "d1".into(),
    };
    let step = StepState { key, attempts: 1, ..step(StepStatus::Running) };
    change(what, Status::Processing, Some(step))
}

/// The end of the attempt. `saved`: a number with more digits than a float holds.
pub(crate) fn attempted(key: Option<&str>, ended: StepStatus) -> Change {
    let (status, result) = match ended {
        StepStatus::Succeeded => (Status::Succeeded, AttemptResult::Succeeded),
        StepStatus::Waiting => (Status::Queued, AttemptResult::Transient),
        _ => (Status::Failed, AttemptResult::Permanent),
    };
    let attempt = Attempt {
        number: 1,
        started_at: start(),
        duration_ms: 12,
        outcome: OutcomeClass::Answered,
        status: Some(200),
        detail: "{\"label\":\"L1\"}".into(),
        result,
        next: None,
    };
    let mut saved = Map::new();
    if ended == StepStatus::Succeeded {
        saved =
            serde_json::from_str("{\"label\":\"L1\",\"price\":1.10000000000000000001}").unwrap();
        assert_ne!(saved["price"], json!(1.1));
    }
    let key = key.map(|text| IdempotencyKey { text: text.into(), explicit: true });
    let step = StepState { key, attempts: 1, saved, ..step(ended) };
    change(What::Attempted { step: "ship".into(), attempt }, status, Some(step))
}

/// Another try at `at`.
pub(crate) fn put_off(at: Timestamp) -> Change {
    let mut change = attempted(None, StepStatus::Waiting);
    change.transition.due_at = Some(at);
    change
}

pub(crate) fn waits_for(route: &str, key: &str) -> Change {
    let claim = KeyClaim { route: route.into(), step: "ship".into(), key: key.into() };
    let step = StepState { waits_for: Some(claim), ..step(StepStatus::Waiting) };
    let what =
        What::StepDecided { step: "ship".into(), status: StepStatus::Waiting, why: "held".into() };
    change(what, Status::Queued, Some(step))
}

pub(crate) fn ignored() -> Change {
    change(What::Decided { why: "`when` is false".into() }, Status::Ignored, None)
}

pub(crate) fn operated() -> Entry {
    let what =
        What::Operated { actor: "ann".into(), action: "replay".into(), note: Some("fixed".into()) };
    Entry { at: start(), what }
}

/// An operator's replay.
pub(crate) fn replay(state: &DeliveryState) -> Operation {
    let mut change = change(operated().what, Status::Queued, None);
    change.transition.due_at = Some(start());
    change.transition.revision = Some("r2".into());
    Operation { delivery: state.id.clone(), version: state.version, change }
}

/// A secret that a handshake brought; `number` is its id and, in seconds, when it came.
pub(crate) fn captured(
    number: u128,
    source: &str,
    path: &[(&str, &str)],
    value: &str,
) -> CapturedSecret {
    let path = path.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    CapturedSecret {
        id: Uid(Uuid::from_u128(number)),
        source: source.into(),
        path: path.collect(),
        value: SecretValue::new(value),
        captured_at: start() + Duration::from_secs(number as u64),
        armed_by: "ann".to_owned(),
    }
}
