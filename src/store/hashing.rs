//! Keyed hashes: they keep senders from choosing ids whose hashes collide, keep what is searched out of sight, and tell one
//! journal's pages from another's. They are written to pages and facts, so they stay what they are as long as those. A hash
//! of 64 bits proves nothing by itself: what it stands for is compared. One of 128 bits stands for itself.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::delivery::state::KeyClaim;
use crate::envelope::Identity;
use crate::name::{EventId, RouteName, SourceName, Uid};

/// The part of the store's key that hashing uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashing([u8; 16]);

/// The short hash of what has this wide one.
pub(crate) fn short_of(wide: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *wide;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What is hashed: parts that cannot run into each other, in a domain of their own.
struct Subject(Vec<u8>);

impl Subject {
    fn new(domain: u8) -> Self {
        Self(vec![domain])
    }

    fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.extend((part.len() as u32).to_le_bytes());
        self.0.extend(part);
        self
    }

    fn identity(source: &SourceName, path: &[(String, String)], identity: &Identity) -> Self {
        let mut subject = Self::new(1).part(source.as_str());
        subject.0.extend((path.len() as u32).to_le_bytes());
        for (name, value) in path {
            subject = subject.part(name).part(value);
        }
        match identity {
            Identity::Id { id, body: None } => subject.part("id").part(id),
            Identity::Id { id, body: Some(body) } => {
                subject.part("id and body").part(id).part(body)
            }
            Identity::SameAs(value) => subject.part("same_as").part(value),
        }
    }

    fn key(claim: &KeyClaim) -> Self {
        Self::new(2).part(claim.route.as_str()).part(claim.step.as_str()).part(&claim.key)
    }
}

impl Hashing {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// What it hashes with. Only an export takes it along: hashes that outlive their texts are of use with it alone.
    pub(crate) fn secret(&self) -> [u8; 16] {
        self.0
    }

    fn short(&self, subject: &Subject) -> u64 {
        short_of(&self.wide(subject))
    }

    fn wide(&self, subject: &Subject) -> [u8; 16] {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(&subject.0);
        hasher.finish128().as_bytes()
    }

    pub(crate) fn identity(
        &self,
        source: &SourceName,
        path: &[(String, String)],
        identity: &Identity,
    ) -> u64 {
        self.short(&Subject::identity(source, path, identity))
    }

    pub(crate) fn wide_identity(
        &self,
        source: &SourceName,
        path: &[(String, String)],
        identity: &Identity,
    ) -> [u8; 16] {
        self.wide(&Subject::identity(source, path, identity))
    }

    pub(crate) fn key(&self, claim: &KeyClaim) -> u64 {
        self.short(&Subject::key(claim))
    }

    pub(crate) fn wide_key(&self, claim: &KeyClaim) -> [u8; 16] {
        self.wide(&Subject::key(claim))
    }

    pub(crate) fn uid(&self, uid: Uid) -> u64 {
        self.short(&Subject::new(4).part(uid.0.as_bytes()))
    }

    /// Search terms.
    pub(crate) fn event_id(&self, id: &EventId) -> u64 {
        self.short(&Subject::new(5).part(id.as_str()))
    }

    pub(crate) fn correlation_id(&self, id: &str) -> u64 {
        self.short(&Subject::new(6).part(id))
    }

    pub(crate) fn field(&self, route: &RouteName, field: &str, value: &str) -> u64 {
        self.short(&Subject::new(7).part(route.as_str()).part(field).part(value))
    }

    /// What the checksums of its segments begin with.
    pub(crate) fn salt(&self) -> u32 {
        self.short(&Subject::new(9)) as u32
    }

    /// Names the journal that has this key.
    pub(crate) fn journal(&self) -> u64 {
        self.short(&Subject::new(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They stand on disk.
    #[test]
    fn the_hashes_are_what_they_were_and_parts_do_not_run_into_each_other() {
        let hashing = Hashing::new([7; 16]);
        let id = |id: &str, body: Option<&str>| Identity::Id {
            id: id.into(),
            body: body.map(str::to_owned),
        };
        let path = [("tenant".to_owned(), "a".to_owned())];
        let identity = |identity: &Identity| hashing.identity(&"shop".into(), &path, identity);
        let all = [
            identity(&id("e1", None)),
            identity(&id("e1", Some("b"))),
            identity(&id("e1b", None)),
            identity(&Identity::SameAs("e1".into())),
            hashing.identity(&"shop".into(), &[], &id("e1", None)),
            hashing.identity(&"shoptenant".into(), &[], &id("e1", None)),
            hashing.event_id(&"e1".into()),
            hashing.correlation_id("e1"),
            hashing.field(&"ship".into(), "order", "7"),
            hashing.field(&"ship".into(), "order7", ""),
            hashing.journal(),
            hashing.uid(Uid(uuid::Uuid::from_u128(1))),
            hashing.salt().into(),
        ];
        let mut apart = all.to_vec();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), all.len());
        let texts: Vec<String> = all.iter().map(|hash| format!("{hash:016x}")).collect();
        insta::assert_snapshot!(texts.join(" "));
        let wide = hashing.wide_identity(&"shop".into(), &path, &id("e1", None));
        insta::assert_snapshot!(hex::encode(wide));
    }
}
