//! The stored shapes of secrets that handshakes brought. The secret stands in the clear, as the bodies of events do: what
//! guards the journal guards both.

use serde::{Deserialize, Serialize};

use super::{Pairs, Time, moment, owned, pairs, time};
use crate::name::Uid;
use crate::secret::SecretValue;
use crate::store::captured::{CapturedSecret, DroppedSecret};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredCaptured<'a> {
    id: Uid,
    source: &'a str,
    #[serde(borrow)]
    path: Pairs<'a>,
    value: &'a str,
    captured_at: Time,
    armed_by: &'a str,
}

impl<'a> StoredCaptured<'a> {
    pub(super) fn of(secret: &'a CapturedSecret) -> Self {
        Self {
            id: secret.id,
            source: secret.source.as_str(),
            path: pairs(&secret.path),
            value: secret.value.expose(),
            captured_at: time(secret.captured_at),
            armed_by: &secret.armed_by,
        }
    }

    pub(super) fn back(self) -> Option<CapturedSecret> {
        Some(CapturedSecret {
            id: self.id,
            source: self.source.into(),
            path: owned(self.path),
            value: SecretValue::new(self.value),
            captured_at: moment(self.captured_at)?,
            armed_by: self.armed_by.to_owned(),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredDropped<'a> {
    id: Uid,
    at: Time,
    actor: &'a str,
}

impl<'a> StoredDropped<'a> {
    pub(super) fn of(dropped: &'a DroppedSecret) -> Self {
        Self { id: dropped.id, at: time(dropped.at), actor: &dropped.actor }
    }

    pub(super) fn back(self) -> Option<DroppedSecret> {
        Some(DroppedSecret { id: self.id, at: moment(self.at)?, actor: self.actor.to_owned() })
    }
}
