//! The store in memory: what the contract means, without a disk.
