//! Workers: claim → steps → record.
