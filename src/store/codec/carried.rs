//! The stored shapes of what is written again before its segment goes.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::delivery::{StoredDelivery, StoredEntry, json_object, json_text};
use super::{Blob, StoredEnvelope, Time, moment, time};
use crate::envelope::Identity;
use crate::name::Uid;
use crate::store::fact::{
    Audited, CarriedConflict, CarriedDelivery, Remembered, RememberedKey, Snapshot,
};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredSnapshot<'a> {
    #[serde(borrow)]
    envelope: StoredEnvelope<'a>,
    identities: Vec<Identity>,
    body_digest: [u8; 32],
    duplicates: u64,
    conflict_count: u64,
    conflicts: Vec<(Time, [u8; 32], Blob<'a>)>,
    deliveries: Vec<(StoredDelivery<'a>, Vec<StoredEntry<'a>>)>,
    terms: Vec<u64>,
}

impl<'a> StoredSnapshot<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let conflict = |conflict: &'a CarriedConflict| {
            (time(conflict.received_at), conflict.digest, Blob(&conflict.body))
        };
        let delivery = |carried: &'a CarriedDelivery| {
            let entries = carried.entries.iter().map(StoredEntry::of).collect();
            (StoredDelivery::of(&carried.state), entries)
        };
        Self {
            envelope: StoredEnvelope::of(&snapshot.envelope),
            identities: snapshot.identities.clone(),
            body_digest: snapshot.body_digest,
            duplicates: snapshot.duplicates,
            conflict_count: snapshot.conflict_count,
            conflicts: snapshot.conflicts.iter().map(conflict).collect(),
            deliveries: snapshot.deliveries.iter().map(delivery).collect(),
            terms: snapshot.terms.clone(),
        }
    }

    pub(super) fn back(self) -> Option<Snapshot> {
        let conflict = |(at, digest, body): (Time, _, Blob)| {
            let body = Bytes::copy_from_slice(body.0);
            Some(CarriedConflict { received_at: moment(at)?, digest, body })
        };
        let delivery = |(state, entries): (StoredDelivery, Vec<StoredEntry>)| {
            let entries = entries.into_iter().map(StoredEntry::back).collect::<Option<_>>()?;
            Some(CarriedDelivery { state: state.back()?, entries })
        };
        Some(Snapshot {
            envelope: Arc::new(self.envelope.back()?),
            identities: self.identities,
            body_digest: self.body_digest,
            duplicates: self.duplicates,
            conflict_count: self.conflict_count,
            conflicts: self.conflicts.into_iter().map(conflict).collect::<Option<_>>()?,
            deliveries: self.deliveries.into_iter().map(delivery).collect::<Option<_>>()?,
            terms: self.terms,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredRemembered<'a> {
    uid: Uid,
    event_id: &'a str,
    source: &'a str,
    since: Time,
    identities: Vec<[u8; 16]>,
    body_digest: [u8; 32],
    /// Wide hash, route, and what was saved as JSON.
    keys: Vec<([u8; 16], &'a str, String)>,
}

impl<'a> StoredRemembered<'a> {
    pub(super) fn of(remembered: &'a Remembered) -> Self {
        let key =
            |known: &'a RememberedKey| (known.key, known.route.as_str(), json_text(&known.saved));
        Self {
            uid: remembered.uid,
            event_id: remembered.event_id.as_str(),
            source: remembered.source.as_str(),
            since: time(remembered.since),
            identities: remembered.identities.clone(),
            body_digest: remembered.body_digest,
            keys: remembered.keys.iter().map(key).collect(),
        }
    }

    pub(super) fn back(self) -> Option<Remembered> {
        let key = |(key, route, saved): (_, &str, String)| {
            Some(RememberedKey { key, route: route.into(), saved: json_object(&saved)? })
        };
        Some(Remembered {
            uid: self.uid,
            event_id: self.event_id.into(),
            source: self.source.into(),
            since: moment(self.since)?,
            identities: self.identities,
            body_digest: self.body_digest,
            keys: self.keys.into_iter().map(key).collect::<Option<_>>()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredAudited<'a> {
    uid: Uid,
    event_id: &'a str,
    route: &'a str,
    #[serde(borrow)]
    entry: StoredEntry<'a>,
}

impl<'a> StoredAudited<'a> {
    pub(super) fn of(audited: &'a Audited) -> Self {
        Self {
            uid: audited.uid,
            event_id: audited.event_id.as_str(),
            route: audited.route.as_str(),
            entry: StoredEntry::of(&audited.entry),
        }
    }

    pub(super) fn back(self) -> Option<Audited> {
        Some(Audited {
            uid: self.uid,
            event_id: self.event_id.into(),
            route: self.route.into(),
            entry: self.entry.back()?,
        })
    }
}
