//! The portable shapes of an event, and of what outlives one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::delivery::{DeliveryShape, EntryShape};
use super::text::{self, Hex};
use crate::body::BodyKind;
use crate::envelope::{Envelope, Identity};
use crate::name::{CorrelationId, EventId, RouteName, SourceName, Uid};
use crate::store::fact::{
    Audited, CarriedConflict, CarriedDelivery, Remembered, RememberedKey, Snapshot,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EventShape {
    uid: Uid,
    event_id: EventId,
    event_type: String,
    source: SourceName,
    #[serde(default, with = "text::maybe_time", skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Timestamp>,
    #[serde(with = "text::time")]
    received_at: Timestamp,
    correlation_id: CorrelationId,
    method: String,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body_kind: BodyKind,
    #[serde(with = "text::base64_bytes")]
    body: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
    identities: Vec<IdentityShape>,
    #[serde(with = "text::hex")]
    body_digest: [u8; 32],
    duplicates: u64,
    /// All that there were; `conflicts` are those kept.
    conflict_count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<ConflictShape>,
    deliveries: Vec<DeliveryShape>,
    /// Hashes by which it may be searched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    terms: Vec<Hex<8>>,
}

/// An id (with the digest of its body, where it is that of a second one), or a further identity.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IdentityShape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConflictShape {
    #[serde(with = "text::time")]
    received_at: Timestamp,
    #[serde(with = "text::hex")]
    body_digest: [u8; 32],
    #[serde(with = "text::base64_bytes")]
    body: Bytes,
}

impl IdentityShape {
    fn of(identity: &Identity) -> Self {
        match identity.clone() {
            Identity::Id { id, body } => Self { id: Some(id), body, same_as: None },
            Identity::SameAs(value) => Self { id: None, body: None, same_as: Some(value) },
        }
    }

    fn back(self) -> Result<Identity, String> {
        match self {
            Self { id: Some(id), body, same_as: None } => Ok(Identity::Id { id, body }),
            Self { id: None, body: None, same_as: Some(value) } => Ok(Identity::SameAs(value)),
            _ => Err("an identity is an `id` (with `body`, perhaps) or a `sameAs`".to_owned()),
        }
    }
}

impl EventShape {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let envelope = &snapshot.envelope;
        let conflict = |conflict: &CarriedConflict| ConflictShape {
            received_at: conflict.received_at,
            body_digest: conflict.digest,
            body: conflict.body.clone(),
        };
        let delivery = |carried: &CarriedDelivery| DeliveryShape::of(envelope, carried);
        Self {
            uid: envelope.uid,
            event_id: envelope.event_id.clone(),
            event_type: envelope.event_type.clone(),
            source: envelope.source.clone(),
            occurred_at: envelope.occurred_at,
            received_at: envelope.received_at,
            correlation_id: envelope.correlation_id.clone(),
            method: envelope.method.clone(),
            path: envelope.path.clone(),
            query: envelope.query.clone(),
            headers: envelope.headers.clone(),
            body_kind: envelope.body_kind.clone(),
            body: envelope.body.clone(),
            malformed: envelope.malformed.clone(),
            identities: snapshot.identities.iter().map(IdentityShape::of).collect(),
            body_digest: snapshot.body_digest,
            duplicates: snapshot.duplicates,
            conflict_count: snapshot.conflict_count,
            conflicts: snapshot.conflicts.iter().map(conflict).collect(),
            deliveries: snapshot.deliveries.iter().map(delivery).collect(),
            terms: snapshot.terms.iter().map(|term| Hex(term.to_be_bytes())).collect(),
        }
    }

    pub(super) fn back(self) -> Result<Snapshot, String> {
        let envelope = Arc::new(Envelope {
            uid: self.uid,
            event_id: self.event_id,
            event_type: self.event_type,
            source: self.source,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            correlation_id: self.correlation_id,
            method: self.method,
            path: self.path,
            query: self.query,
            headers: self.headers,
            body_kind: self.body_kind,
            body: self.body,
            malformed: self.malformed,
        });
        let mut routes: BTreeSet<&RouteName> = BTreeSet::new();
        if let Some(twice) = self.deliveries.iter().find(|delivery| !routes.insert(&delivery.route))
        {
            return Err(format!("two deliveries by the route `{}`", twice.route));
        }
        let conflict = |conflict: ConflictShape| CarriedConflict {
            received_at: conflict.received_at,
            digest: conflict.body_digest,
            body: conflict.body,
        };
        let identities = self.identities.into_iter().map(IdentityShape::back);
        let deliveries = self.deliveries.into_iter().map(|delivery| delivery.back(&envelope));
        Ok(Snapshot {
            identities: identities.collect::<Result<_, _>>()?,
            body_digest: self.body_digest,
            duplicates: self.duplicates,
            conflict_count: self.conflict_count,
            conflicts: self.conflicts.into_iter().map(conflict).collect(),
            deliveries: deliveries.collect::<Result<_, _>>()?,
            terms: self.terms.into_iter().map(|term| u64::from_be_bytes(term.0)).collect(),
            envelope,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RememberedShape {
    uid: Uid,
    event_id: EventId,
    source: SourceName,
    /// When it was finished.
    #[serde(with = "text::time")]
    since: Timestamp,
    identities: Vec<Hex<16>>,
    #[serde(with = "text::hex")]
    body_digest: [u8; 32],
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyShape>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyShape {
    #[serde(with = "text::hex")]
    key: [u8; 16],
    route: RouteName,
    saved: Map<String, Json>,
}

impl RememberedShape {
    pub(super) fn of(remembered: &Remembered) -> Self {
        let key = |known: &RememberedKey| KeyShape {
            key: known.key,
            route: known.route.clone(),
            saved: known.saved.clone(),
        };
        Self {
            uid: remembered.uid,
            event_id: remembered.event_id.clone(),
            source: remembered.source.clone(),
            since: remembered.since,
            identities: remembered.identities.iter().map(|wide| Hex(*wide)).collect(),
            body_digest: remembered.body_digest,
            keys: remembered.keys.iter().map(key).collect(),
        }
    }

    pub(super) fn back(self) -> Remembered {
        let key = |known: KeyShape| RememberedKey {
            key: known.key,
            route: known.route,
            saved: known.saved,
        };
        Remembered {
            uid: self.uid,
            event_id: self.event_id,
            source: self.source,
            since: self.since,
            identities: self.identities.into_iter().map(|wide| wide.0).collect(),
            body_digest: self.body_digest,
            keys: self.keys.into_iter().map(key).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuditedShape {
    uid: Uid,
    event_id: EventId,
    route: RouteName,
    entry: EntryShape,
}

impl AuditedShape {
    pub(super) fn of(audited: &Audited) -> Self {
        Self {
            uid: audited.uid,
            event_id: audited.event_id.clone(),
            route: audited.route.clone(),
            entry: EntryShape::of(&audited.entry),
        }
    }

    pub(super) fn back(self) -> Audited {
        Audited {
            uid: self.uid,
            event_id: self.event_id,
            route: self.route,
            entry: self.entry.back(),
        }
    }
}
