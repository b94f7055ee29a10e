//! What both measurements of the store stand on: opening it, events as ingress makes them, the changes that a worker
//! records, and what the kernel says about this process and its folders.
#![allow(dead_code, reason = "each bench uses its own part")]

pub(crate) mod disk;
pub(crate) mod figures;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use router::body::BodyKind;
use router::delivery::outcome::OutcomeClass;
use router::delivery::state::{
    Attempt, AttemptResult, DeliveryState, Entry, IdempotencyKey, Reason, Status, StepState,
    StepStatus, Transition, What,
};
use router::envelope::{Envelope, Identity, OnConflict};
use router::name::{EventId, Uid};
use router::store::index::Index;
use router::store::journal::{JournalOptions, JournalStore, OpenError};
use router::store::sled::{SledIndex, SledLimits};
use router::store::{Change, NewDelivery, NewEvent, Operation, Store, StoreError};
use router::world::World;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use disk::CountingDisk;

pub(crate) const ROUTE: &str = "orders";
/// The revision of new deliveries, and the one that a replay moves them to.
pub(crate) const REVISION: &str = "r1";
pub(crate) const REPLAYED: &str = "r2";
/// Where the index lives, beside `journal`.
pub(crate) const INDEX_FOLDER: &str = "sled";

/// Opens the store of `folder`. The one place that knows how.
pub(crate) fn open(
    disk: CountingDisk,
    folder: &Path,
    segment_bytes: u64,
    world: World,
) -> Result<JournalStore, OpenError> {
    let compact_every = std::time::Duration::from_millis(200);
    let options = JournalOptions { segment_bytes, compact_every, ..JournalOptions::default() };
    JournalStore::open(Arc::new(disk), index(folder), options, world)
}

fn index(folder: &Path) -> Arc<dyn Index> {
    Arc::new(SledIndex::at(folder.join(INDEX_FOLDER), SledLimits::default()))
}

/// What a router does before it takes the first event.
pub(crate) async fn put_revisions(store: &JournalStore) -> Result<(), StoreError> {
    for revision in [REVISION, REPLAYED] {
        store
            .revision_put(revision.into(), format!("route: {ROUTE}\n# {revision}\n").into())
            .await?;
    }
    Ok(())
}

/// A stream of numbered events. The number and the seed make id and body; the uid is drawn anew for each offer, as
/// ingress does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events {
    pub(crate) seed: u64,
    pub(crate) payload_bytes: usize,
}

impl Events {
    pub(crate) fn id(self, number: u64) -> String {
        format!("evt_{:08x}_{number}", self.seed as u32)
    }

    pub(crate) fn number(id: &EventId) -> Option<u64> {
        id.as_str().rsplit('_').next()?.parse().ok()
    }

    pub(crate) fn event(self, number: u64, world: &World) -> NewEvent {
        let now = world.clock.now();
        let uid = Uid(world.random.uuid_v7(now));
        let id = self.id(number);
        let body = self.body(number, &id);
        let digest: [u8; 32] = Sha256::digest(&body).into();
        NewEvent {
            envelope: Envelope {
                uid,
                event_id: id.clone().into(),
                event_type: "order.paid".into(),
                source: "shop".into(),
                occurred_at: Some(now),
                received_at: now,
                correlation_id: uid.to_string().into(),
                method: "POST".into(),
                path: Vec::new(),
                query: Vec::new(),
                headers: headers(body.len()),
                body_kind: BodyKind::Json,
                body,
                malformed: None,
            },
            identities: vec![Identity::Id { id: id.clone(), body: None }],
            body_digest: digest,
            on_conflict: OnConflict::Review,
            deliveries: vec![NewDelivery {
                route: ROUTE.into(),
                revision: REVISION.into(),
                key_base: hex::encode(Sha256::digest(&id)),
                key_base_with_body: hex::encode(Sha256::digest(digest)),
            }],
        }
    }

    /// JSON of exactly `payload_bytes`, unless the frame alone is longer. The pad is noise: nothing can be saved on it.
    fn body(self, number: u64, id: &str) -> Bytes {
        let mut body = format!(
            r#"{{"id":"{id}","type":"order.paid","created":1800000000,"data":{{"total":"19.90"}},"pad":""#
        );
        let mut noise = mix(self.seed ^ mix(number));
        while body.len() + 2 < self.payload_bytes {
            noise = mix(noise);
            let left = self.payload_bytes - 2 - body.len();
            body.extend(format!("{noise:016x}").chars().take(left));
        }
        body.push_str("\"}");
        body.into()
    }
}

/// Headers of an event.
pub(crate) const HEADERS: usize = 6;

/// What a provider sends; the signature is blotted out as ingress does.
fn headers(body_bytes: usize) -> Vec<(String, String)> {
    let pairs = [
        ("host", "hooks.example.com"),
        ("user-agent", "Shop/1.0 (+https://shop.example/docs/webhooks)"),
        ("accept", "*/*"),
        ("content-type", "application/json; charset=utf-8"),
        ("x-shop-signature", "[redacted]"),
    ];
    let mut headers: Vec<(String, String)> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    headers.push(("content-length".to_owned(), body_bytes.to_string()));
    assert_eq!(headers.len(), HEADERS);
    headers
}

/// A step of splitmix64: one number from another, evenly spread.
pub(crate) fn mix(number: u64) -> u64 {
    let mut number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn step_of(state: &DeliveryState, step: &str) -> StepState {
    state.step(&step.into()).cloned().unwrap_or_else(|| StepState::new(step.into()))
}

/// The next attempt of `step` is about to leave.
pub(crate) fn intended(state: &DeliveryState, step: &str, now: Timestamp) -> Change {
    let before = step_of(state, step);
    let key = before.key.clone().unwrap_or_else(|| IdempotencyKey {
        text: hex::encode(Sha256::digest(format!("{}/{ROUTE}/{step}/1", state.key_base))),
        explicit: false,
    });
    let what = What::Intended {
        step: step.into(),
        attempt: before.attempts + 1,
        key: Some(key.clone()),
        request: Some("POST https://api.shop.example/v1/shipments".into()),
        digest: key.text.clone(),
    };
    let after = StepState {
        status: StepStatus::Running,
        key: Some(key),
        lane: Some("shop".into()),
        attempts: before.attempts + 1,
        attempts_since_replay: before.attempts_since_replay + 1,
        first_attempt_at: before.first_attempt_at.or(Some(now)),
        due_at: None,
        ..before
    };
    change(now, what, Status::Processing, None, None, vec![after])
}

/// How an attempt ended, and what that makes of its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The delivery goes on with its next step.
    StepDone,
    Succeeded,
    /// Another try at this time.
    Retry(Timestamp),
    Failed,
}

pub(crate) fn attempted(state: &DeliveryState, step: &str, end: End, now: Timestamp) -> Change {
    let before = step_of(state, step);
    let (step_status, status, result) = match end {
        End::StepDone => (StepStatus::Succeeded, Status::Processing, AttemptResult::Succeeded),
        End::Succeeded => (StepStatus::Succeeded, Status::Succeeded, AttemptResult::Succeeded),
        End::Retry(_) => (StepStatus::Waiting, Status::Queued, AttemptResult::Transient),
        End::Failed => (StepStatus::Failed, Status::Failed, AttemptResult::Permanent),
    };
    let next = match end {
        End::Retry(at) => Some(at),
        End::StepDone | End::Succeeded | End::Failed => None,
    };
    let (http, detail) = match end {
        End::StepDone | End::Succeeded => (201, r#"{"id":"shp_4711","status":"created"}"#),
        End::Retry(_) => (503, "busy"),
        End::Failed => (422, r#"{"error":"no such address"}"#),
    };
    let attempt = Attempt {
        number: before.attempts,
        started_at: now,
        duration_ms: 12,
        outcome: OutcomeClass::Answered,
        status: Some(http),
        detail: detail.into(),
        result,
        next,
    };
    let saved = match step_status {
        StepStatus::Succeeded => Map::from_iter([("id".to_owned(), json!("shp_4711"))]),
        _ => Map::new(),
    };
    let reason = match end {
        End::Failed => Some(Reason {
            cause: "status_422".into(),
            subject: Some(step.into()),
            message: format!("step {step}: the answer was 422"),
        }),
        End::StepDone | End::Succeeded | End::Retry(_) => None,
    };
    let after = StepState {
        status: step_status,
        last_outcome: Some(OutcomeClass::Answered),
        due_at: next,
        saved,
        ..before
    };
    let what = What::Attempted { step: step.into(), attempt };
    change(now, what, status, next, reason, vec![after])
}

/// An operator lets a failed delivery go on: what failed is tried again, what succeeded is not.
pub(crate) fn replay(state: &DeliveryState, now: Timestamp) -> Operation {
    let what = What::Operated {
        actor: "soak".into(),
        action: "replay".into(),
        note: Some("fixed".into()),
    };
    let failed = state.steps.iter().filter(|step| step.status == StepStatus::Failed);
    let again = failed.map(|step| StepState {
        status: StepStatus::Waiting,
        attempts_since_replay: 0,
        first_attempt_at: None,
        ..step.clone()
    });
    let mut change = change(now, what, Status::Queued, Some(now), None, again.collect());
    change.transition.revision = Some(REPLAYED.into());
    Operation { delivery: state.id.clone(), version: state.version, change }
}

fn change(
    at: Timestamp,
    what: What,
    status: Status,
    due_at: Option<Timestamp>,
    reason: Option<Reason>,
    steps: Vec<StepState>,
) -> Change {
    Change {
        entry: Entry { at, what },
        transition: Transition { status, due_at, reason, steps, revision: None },
        terms: Vec::new(),
    }
}
