//! What every scheme takes and refuses.
