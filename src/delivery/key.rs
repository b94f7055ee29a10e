//! What derived keys start with: the identity of an event, hashed. The same for the first routing and every later one.

use sha2::{Digest, Sha256};

use crate::name::{EventId, SourceName};

/// SHA-256 (hex) of source, path parts, event id and, for a second body under a known id, that body's digest.
pub fn key_base(
    source: &SourceName,
    path: &[(String, String)],
    event_id: &EventId,
    body_digest: Option<&[u8; 32]>,
) -> String {
    let mut hash = Sha256::new();
    // Lengths first, so that no two lists of parts run together into the same bytes.
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(source.as_str().as_bytes());
    add(&(path.len() as u64).to_be_bytes());
    for (name, value) in path {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    add(event_id.as_str().as_bytes());
    if let Some(digest) = body_digest {
        add(digest);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_identities_have_different_bases() {
        let part = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let bases = [
            key_base(&"s".into(), &[], &"e".into(), None),
            key_base(&"s".into(), &[], &"e".into(), Some(&[0; 32])),
            key_base(&"se".into(), &[], &"".into(), None),
            key_base(&"s".into(), &[part("a", "b")], &"e".into(), None),
            key_base(&"s".into(), &[part("ab", "")], &"e".into(), None),
        ];
        for (at, base) in bases.iter().enumerate() {
            assert!(!bases[..at].contains(base), "{at}");
        }
    }

    #[test]
    fn the_base_never_changes() {
        // Keys that were sent must be sent again, over all versions of the router.
        let path = [("shop".to_owned(), "north".to_owned())];
        let base = key_base(&"storefront".into(), &path, &"evt_1".into(), None);
        insta::assert_snapshot!(base, @"b8f8a01988685f352f8f645634d4e95c3987df78ebb2de622287d051b09c8b40");
    }
}
