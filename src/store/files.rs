//! The files of a store, as a backup takes them. The index is not among them: it is derived anew.

use serde::{Deserialize, Serialize};

/// All files of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFiles {
    /// Names the journal: two that have the same name have the same key.
    pub journal: String,
    pub files: Vec<StoreFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFile {
    /// `key`, or the name of a segment without its folder.
    pub name: String,
    /// What is durable of it; more may follow.
    pub bytes: u64,
    /// Of a full segment, by all of its batches: as long as size and mark stay the same, so does the content.
    pub mark: Option<String>,
}

/// The most that is read in one piece.
pub const PIECE_BYTES_MAX: u64 = 4 << 20;
