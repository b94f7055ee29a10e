//! What events are known by, in memory: a keyed hash and the event that has it, 16 bytes each. A hash only says where to look.

use super::rows::EventKey;

/// Sorted runs by the first bits of the hash: each is short enough to be moved aside for one entry more, and none ever grows
/// in one long step as one large table would.
pub(crate) struct Identities {
    shards: Vec<Vec<Entry>>,
}

type Entry = (u64, EventKey);

const SHARD_BITS: u32 = 12;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;

fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

impl Identities {
    pub(crate) fn new() -> Self {
        Self { shards: vec![Vec::new(); SHARDS] }
    }

    pub(crate) fn insert(&mut self, hash: u64, key: EventKey) {
        let shard = &mut self.shards[shard_of(hash)];
        if let Err(place) = shard.binary_search(&(hash, key)) {
            if shard.len() == shard.capacity() {
                // By an eighth: doubling would leave a quarter of all this memory unused.
                shard.reserve_exact(shard.len() / 8 + 4);
            }
            shard.insert(place, (hash, key));
        }
    }

    /// Takes in many at once; to be ended with [`Self::settle`].
    pub(crate) fn push(&mut self, hash: u64, key: EventKey) {
        self.shards[shard_of(hash)].push((hash, key));
    }

    pub(crate) fn settle(&mut self) {
        for shard in &mut self.shards {
            shard.sort_unstable();
            shard.dedup();
            shard.shrink_to_fit();
        }
    }

    /// Those that may have it.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = EventKey> + '_ {
        let shard = &self.shards[shard_of(hash)];
        let from = shard.partition_point(|entry| entry.0 < hash);
        shard[from..].iter().take_while(move |entry| entry.0 == hash).map(|entry| entry.1)
    }

    /// Forgets, in one of [`SHARDS`] parts, what belongs to a segment that is gone.
    pub(crate) fn forget(&mut self, shard: usize, segment: u32) {
        let shard = &mut self.shards[shard];
        let before = shard.len();
        shard.retain(|(_, key)| key.segment != segment);
        if shard.len() < before {
            shard.shrink_to(shard.len() + shard.len() / 8);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_and_forgotten_by_segment() {
        let key = |segment, index| EventKey { segment, index };
        let mut identities = Identities::new();
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 0..20_000u64 {
            identities.insert(hash(number / 2), key((number % 3) as u32, number as u32));
        }
        identities.insert(hash(5), key(1, 10));
        let found = |identities: &Identities, number| -> Vec<EventKey> {
            identities.candidates(hash(number)).collect()
        };
        assert_eq!(found(&identities, 5), [key(1, 10), key(2, 11)]);
        assert!(found(&identities, 10_000).is_empty());
        for shard in 0..SHARDS {
            identities.forget(shard, 1);
        }
        assert_eq!(found(&identities, 5), [key(2, 11)]);
        assert_eq!(identities.len(), 20_000 - 6667);
        // Many at once come to the same.
        let mut pushed = Identities::new();
        for number in (0..20_000u64).rev().chain([7, 7]) {
            pushed.push(hash(number / 2), key((number % 3) as u32, number as u32));
        }
        pushed.settle();
        assert_eq!(pushed.len(), 20_000);
        assert_eq!(found(&pushed, 6), [key(0, 12), key(1, 13)]);
    }
}
