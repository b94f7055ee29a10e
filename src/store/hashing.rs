//! Keyed hashes: they keep senders from choosing ids whose hashes collide, and tell one journal's pages from another's.
//! A hash proves nothing by itself: what it stands for is compared.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::envelope::Identity;
use crate::name::SourceName;

/// The part of the store's key that hashing uses.
#[derive(Clone, Copy)]
pub(crate) struct Hashing([u8; 16]);

impl Hashing {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    pub(crate) fn identity(
        &self,
        source: &SourceName,
        path: &[(String, String)],
        identity: &Identity,
    ) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        (source, path, identity).hash(&mut hasher);
        hasher.finish()
    }

    /// Written to pages: it stays what it is as long as their format.
    pub(crate) fn text(&self, text: &str) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(text.as_bytes())
    }

    /// Names the journal that has this key.
    pub(crate) fn journal(&self) -> u64 {
        self.text("the journal of this key")
    }
}
