//! The store on disk: a journal of facts.
