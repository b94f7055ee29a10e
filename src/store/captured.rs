//! Secrets that came in the handshakes of providers. They are part of the state, like all that the journal says, and are
//! read beside it: whoever verifies a request asks for them on each, and must not wait for the writer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::fact::Position;
use crate::name::{SourceName, Uid};
use crate::secret::SecretValue;

/// Of one source: a provider that asks again and again must not fill the memory.
pub const CAPTURED_MAX: usize = 100;

/// A secret as it came, and where from.
#[derive(Clone)]
pub struct CapturedSecret {
    pub id: Uid,
    pub source: SourceName,
    /// The parts of the path that the handshake came to.
    pub path: Vec<(String, String)>,
    pub value: SecretValue,
    pub captured_at: Timestamp,
    /// The operator who armed the source.
    pub armed_by: String,
}

impl CapturedSecret {
    /// Says which secret it is, to somebody who knows it, and nothing to anybody else.
    pub fn fingerprint(&self) -> String {
        let digest = hex::encode(Sha256::digest(self.value.expose()));
        digest.get(..8).unwrap_or_default().to_owned()
    }

    fn is_of(&self, path: &[(String, String)]) -> bool {
        self.path == path
    }
}

impl fmt::Debug for CapturedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, path, value: _, captured_at, armed_by } = self;
        write!(f, "{id} of {source} {path:?}, {captured_at}, armed by {armed_by} [redacted]")
    }
}

impl PartialEq for CapturedSecret {
    fn eq(&self, other: &Self) -> bool {
        let Self { id, source, path, value, captured_at, armed_by } = self;
        (id, source, path, captured_at, armed_by)
            == (&other.id, &other.source, &other.path, &other.captured_at, &other.armed_by)
            && value.expose() == other.value.expose()
    }
}

/// What became of an offered secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// It is durable, by this id. The same secret for the same place is kept once.
    Kept(Uid),
    /// The source has [`CAPTURED_MAX`] already.
    TooMany,
}

/// Who took a secret away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedSecret {
    pub id: Uid,
    pub at: Timestamp,
    pub actor: String,
}

#[derive(Clone, Debug)]
struct Kept {
    secret: Arc<CapturedSecret>,
    /// Where it stands in the journal.
    at: Position,
}

/// All of them. Written by the one that applies facts, read by anybody; each hold of the lock is for a moment.
#[derive(Debug, Default)]
pub(crate) struct CapturedSecrets {
    /// Newest first.
    of: RwLock<BTreeMap<SourceName, Vec<Kept>>>,
}

impl CapturedSecrets {
    fn read<T>(&self, look: impl FnOnce(&BTreeMap<SourceName, Vec<Kept>>) -> T) -> T {
        look(&self.of.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut BTreeMap<SourceName, Vec<Kept>>)) {
        change(&mut self.of.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// One that is known already stands in a newer place from now on.
    pub(super) fn put(&self, secret: &Arc<CapturedSecret>, at: Position) {
        self.write(|of| {
            let kept = of.entry(secret.source.clone()).or_default();
            kept.retain(|known| known.secret.id != secret.id);
            let age = |kept: &Kept| (kept.secret.captured_at, kept.secret.id);
            let new = Kept { secret: secret.clone(), at };
            let place = kept.partition_point(|known| age(known) > age(&new));
            kept.insert(place, new);
        });
    }

    pub(super) fn drop_one(&self, id: Uid) {
        self.write(|of| {
            of.retain(|_, kept| {
                kept.retain(|known| known.secret.id != id);
                !kept.is_empty()
            });
        });
    }

    /// What stands in segments up to this one is gone: whatever was still needed of it stands elsewhere.
    pub(super) fn drop_through(&self, segment: u64) {
        self.write(|of| {
            of.retain(|_, kept| {
                kept.retain(|known| known.at.segment > segment);
                !kept.is_empty()
            });
        });
    }

    pub(super) fn positions(&self) -> Vec<Position> {
        self.read(|of| of.values().flatten().map(|kept| kept.at).collect())
    }

    /// Those that stand in a segment.
    pub(super) fn standing_in(&self, segment: u64) -> Vec<Arc<CapturedSecret>> {
        self.read(|of| {
            let kept = of.values().flatten().filter(|kept| kept.at.segment == segment);
            kept.map(|kept| kept.secret.clone()).collect()
        })
    }

    pub(super) fn has(&self, secret: &CapturedSecret) -> bool {
        self.read(|of| {
            let kept = of.get(&secret.source);
            kept.is_some_and(|kept| kept.iter().any(|known| known.secret.id == secret.id))
        })
    }

    pub(super) fn has_id(&self, source: &SourceName, id: Uid) -> bool {
        self.read(|of| {
            of.get(source).is_some_and(|kept| kept.iter().any(|known| known.secret.id == id))
        })
    }

    /// The id under which this very secret is known for its place, and how many the source has.
    pub(super) fn known(&self, secret: &CapturedSecret) -> (Option<Uid>, usize) {
        self.read(|of| {
            let kept = of.get(&secret.source).map_or(&[][..], Vec::as_slice);
            let same = kept.iter().find(|known| {
                known.secret.is_of(&secret.path)
                    && known.secret.value.expose() == secret.value.expose()
            });
            (same.map(|known| known.secret.id), kept.len())
        })
    }

    /// The secrets of one place, newest first.
    pub(super) fn values(
        &self,
        source: &SourceName,
        path: &[(String, String)],
    ) -> Vec<SecretValue> {
        self.read(|of| {
            let kept = of.get(source).into_iter().flatten();
            kept.filter(|known| known.secret.is_of(path))
                .map(|known| known.secret.value.clone())
                .collect()
        })
    }

    /// All of them, by source, newest first.
    pub(super) fn all(&self) -> Vec<Arc<CapturedSecret>> {
        self.read(|of| of.values().flatten().map(|kept| kept.secret.clone()).collect())
    }
}
